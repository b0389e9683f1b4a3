// The inner products of inference on CPUs: up to 6 rows of activations times 64 columns of weights, one packed form for all number formats.
//
// A panel holds 64 columns as [unit][64 columns][4 bytes]; a unit is what 4 bytes hold along the summed dimension: 1 float, 2 bf16, 4 int8.
// The activations' 4 bytes of a unit are broadcast against it. int4 panels hold half of it, two columns' nibbles in a byte. Every sum runs
// over its units in order, so a row's bits do not depend on how many rows stand beside it, nor on the number of threads.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__) && !defined(GW_PLAIN)
#include <immintrin.h>
#define GW_WIDE 1
#endif

typedef uint16_t bf16;
typedef int64_t i64;
enum Kind { F32 = 0, BF16 = 1, I8 = 2, I4 = 3 };
static const int ROWS = 6, COLS = 64;
// gcc gives up on large bodies by itself, and sums that are not in registers cost half the speed.
#define UNROLL _Pragma("GCC unroll 8")

static inline float as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline float get(float x) { return x; }
static inline float get(bf16 x) { return as_float(uint32_t(x) << 16); }
template <class S> static inline S put(float x);
template <> inline float put<float>(float x) { return x; }
template <> inline bf16 put<bf16>(float x) {  // round to nearest even; a NaN stays a NaN
    uint32_t u; memcpy(&u, &x, 4);
    uint32_t r = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return bf16((u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : r);
}

// exp by 2^n * p(r), relative error about 2e-7; written out so that every compiler vectorises it.
static inline float exp_(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = __builtin_nearbyintf(x * 1.44269504088896341f);
    float r = (x - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * as_float(uint32_t(int32_t(n) + 127) << 23);
}

// Rows of activations for one product. Integer kinds have a scale and a sum for each group of the summed dimension.
struct Rows {
    const uint32_t* unit[ROWS];  // each row's units
    const float* scale[ROWS];
    const int32_t* sum[ROWS];
};

// c[m][j] (row length 64) = sum over units of a[m][u] . w[u][j], for j < 16 N; `stride` units of 4 bytes from one unit of w to the next.
template <class S, int M, int N> static void products(const Rows& a, const uint32_t* w, i64 units, i64 stride, float* c) {
#ifdef GW_WIDE
    __m512 acc[M][N];
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int j = 0; j < N; j++) acc[m][j] = _mm512_setzero_ps();
    for (i64 u = 0; u < units; u++, w += stride) {
        __m512i b[N];
        UNROLL for (int j = 0; j < N; j++) b[j] = _mm512_loadu_si512(w + 16 * j);
        UNROLL for (int m = 0; m < M; m++) {
            __m512i x = _mm512_set1_epi32(int(a.unit[m][u]));
            UNROLL for (int j = 0; j < N; j++) {
                if (sizeof(S) == 4) acc[m][j] = _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(b[j]), acc[m][j]);
#ifdef __AVX512BF16__
                else acc[m][j] = _mm512_dpbf16_ps(acc[m][j], (__m512bh)x, (__m512bh)b[j]);
#else
                else {
                    __m512i high = _mm512_set1_epi32(int(0xffff0000u));
                    acc[m][j] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(b[j], 16)), acc[m][j]);
                    acc[m][j] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)), _mm512_castsi512_ps(_mm512_and_si512(b[j], high)), acc[m][j]);
                }
#endif
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int j = 0; j < N; j++) _mm512_storeu_ps(c + m * COLS + 16 * j, acc[m][j]);
#else
    for (int m = 0; m < M; m++) {
        float acc[16 * N] = {};
        const uint32_t* b = w;
        for (i64 u = 0; u < units; u++, b += stride) {
            uint32_t x = a.unit[m][u];
            if (sizeof(S) == 4) {
                float v = as_float(x);
                for (int j = 0; j < 16 * N; j++) { float y; memcpy(&y, b + j, 4); acc[j] += v * y; }
            } else {
                float low = as_float(x << 16), high = as_float(x & 0xffff0000u);
                for (int j = 0; j < 16 * N; j++) acc[j] += low * as_float(b[j] << 16) + high * as_float(b[j] & 0xffff0000u);
            }
        }
        memcpy(c + m * COLS, acc, sizeof acc);
    }
#endif
}

// The same for integers: weights are stored as unsigned, `zero` too high, so that group sums of the activations correct it. int8: one scale a
// column. int4: bf16 scales for each group and column.
template <bool NIBBLES, int M> static void integer_products(const Rows& a, const uint8_t* w, i64 groups, int group_units, const void* scales, float* c) {
    const int zero = NIBBLES ? 8 : 128;
    memset(c, 0, sizeof(float) * M * COLS);
    for (i64 g = 0; g < groups; g++) {
#ifdef GW_WIDE
        __m512i acc[M][4];
        UNROLL for (int m = 0; m < M; m++) {
            __m512i start = _mm512_set1_epi32(-zero * a.sum[m][g]);
            UNROLL for (int j = 0; j < 4; j++) acc[m][j] = start;
        }
        for (int u = 0; u < group_units; u++) {
            __m512i b[4];
            if (NIBBLES) {
                const __m512i low = _mm512_set1_epi8(15);
                __m512i p = _mm512_loadu_si512(w), q = _mm512_loadu_si512(w + 64);
                b[0] = _mm512_and_si512(p, low);
                b[1] = _mm512_and_si512(_mm512_srli_epi16(p, 4), low);
                b[2] = _mm512_and_si512(q, low);
                b[3] = _mm512_and_si512(_mm512_srli_epi16(q, 4), low);
                w += 128;
            } else {
                UNROLL for (int j = 0; j < 4; j++) b[j] = _mm512_loadu_si512(w + 64 * j);
                w += 256;
            }
            UNROLL for (int m = 0; m < M; m++) {
                __m512i x = _mm512_set1_epi32(int(a.unit[m][g * group_units + u]));
                UNROLL for (int j = 0; j < 4; j++) asm("vpdpbusd %2, %1, %0" : "+v"(acc[m][j]) : "v"(b[j]), "v"(x));  // gcc 12 spills half of them from the intrinsic
            }
        }
        UNROLL for (int j = 0; j < 4; j++) {
            __m512 s = _mm512_set1_ps(1.0f);
            if (NIBBLES) {
                const bf16* at = (const bf16*)scales + g * COLS + 16 * j;
                s = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16));
            }
            UNROLL for (int m = 0; m < M; m++) {
                __m512 by = _mm512_set1_ps(a.scale[m][g]);
                if (NIBBLES) by = _mm512_mul_ps(by, s);
                float* to = c + m * COLS + 16 * j;
                _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[m][j]), by, _mm512_loadu_ps(to)));
            }
        }
#else
        const i64 unit_bytes = NIBBLES ? 128 : 256;
        for (int m = 0; m < M; m++) {
            int32_t acc[COLS];
            for (int j = 0; j < COLS; j++) acc[j] = -zero * a.sum[m][g];
            for (int u = 0; u < group_units; u++) {
                const uint8_t* b = w + u * unit_bytes;
                int8_t x[4];
                memcpy(x, a.unit[m] + g * group_units + u, 4);
                for (int j = 0; j < COLS; j++) {
                    // column j of int4: byte (j % 16) of the half that holds its 16 columns, low nibbles before high ones
                    const uint8_t* at = NIBBLES ? b + 64 * (j / 32) + 4 * (j % 16) : b + 4 * j;
                    int shift = NIBBLES && (j / 16) % 2 ? 4 : 0, mask = NIBBLES ? 15 : 255;
                    for (int k = 0; k < 4; k++) acc[j] += ((at[k] >> shift) & mask) * x[k];
                }
            }
            for (int j = 0; j < COLS; j++) {
                float s = NIBBLES ? get(((const bf16*)scales)[g * COLS + j]) : 1.0f;
                c[m * COLS + j] += float(acc[j]) * (a.scale[m][g] * s);
            }
        }
        w += unit_bytes * group_units;
#endif
    }
    if (!NIBBLES) {
        const float* s = (const float*)scales;
        for (int m = 0; m < M; m++) for (int j = 0; j < COLS; j++) c[m * COLS + j] *= s[j];
    }
}

template <class S, int N> static void float_tile(int m, const Rows& a, const uint32_t* w, i64 units, i64 stride, float* c) {
    switch (m) {
        case 1: return products<S, 1, N>(a, w, units, stride, c);
        case 2: return products<S, 2, N>(a, w, units, stride, c);
        case 3: return products<S, 3, N>(a, w, units, stride, c);
        case 4: return products<S, 4, N>(a, w, units, stride, c);
        case 5: return products<S, 5, N>(a, w, units, stride, c);
        default: return products<S, 6, N>(a, w, units, stride, c);
    }
}
template <bool NIBBLES> static void integer_tile(int m, const Rows& a, const uint8_t* w, i64 groups, int units, const void* scales, float* c) {
    switch (m) {
        case 1: return integer_products<NIBBLES, 1>(a, w, groups, units, scales, c);
        case 2: return integer_products<NIBBLES, 2>(a, w, groups, units, scales, c);
        case 3: return integer_products<NIBBLES, 3>(a, w, groups, units, scales, c);
        case 4: return integer_products<NIBBLES, 4>(a, w, groups, units, scales, c);
        case 5: return integer_products<NIBBLES, 5>(a, w, groups, units, scales, c);
        default: return integer_products<NIBBLES, 6>(a, w, groups, units, scales, c);
    }
}
// `columns` (a multiple of 16, at most 64) instead of all 64
template <class S> static void narrow_tile(int m, i64 columns, const Rows& a, const uint32_t* w, i64 units, i64 stride, float* c) {
    switch (columns) {
        case 16: return float_tile<S, 1>(m, a, w, units, stride, c);
        case 32: return float_tile<S, 2>(m, a, w, units, stride, c);
        case 48: return float_tile<S, 3>(m, a, w, units, stride, c);
        default: return float_tile<S, 4>(m, a, w, units, stride, c);
    }
}

#ifdef GW_WIDE
static inline __m512 exp16(__m512 x) {  // exp_ on 16 lanes, the same operations
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(88.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860682030941723e-6f), _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145751953125f), x));
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}
#endif

// One row of 64 scores of which [from, to] are seen: weights exp(s - top) out, the new top; returns their sum. `top` may rise, never fall.
template <class S> static float soften(const float* s, i64 from, i64 to, float& top, S* w) {
#ifdef GW_WIDE
    if (to > 63) to = 63;
    if (from < 0) from = 0;
    uint64_t seen = from > 63 || to < from ? 0 : (~uint64_t(0) >> (63 - (to - from))) << from;
    __m512 v[4], best = _mm512_set1_ps(top), total = _mm512_setzero_ps();
    UNROLL for (int j = 0; j < 4; j++) {
        v[j] = _mm512_loadu_ps(s + 16 * j);
        best = _mm512_mask_max_ps(best, __mmask16(seen >> (16 * j)), best, v[j]);
    }
    top = _mm512_reduce_max_ps(best);
    UNROLL for (int j = 0; j < 4; j++) {
        __m512 e = _mm512_maskz_mov_ps(__mmask16(seen >> (16 * j)), exp16(_mm512_sub_ps(v[j], _mm512_set1_ps(top))));
        total = _mm512_add_ps(total, e);
        if (sizeof(S) == 4) { _mm512_storeu_ps(w + 16 * j, e); continue; }
        __m512i u = _mm512_castps_si512(e);  // rounded to nearest even; never NaN unless the model is damaged
        u = _mm512_add_epi32(u, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1))));
        _mm256_storeu_si256((__m256i*)(w + 16 * j), _mm512_cvtepi32_epi16(_mm512_srli_epi32(u, 16)));
    }
    return _mm512_reduce_add_ps(total);
#else
    float sum = 0;
    for (i64 j = 0; j < 64; j++) if (j >= from && j <= to && s[j] > top) top = s[j];
    for (i64 j = 0; j < 64; j++) {
        float e = j >= from && j <= to ? exp_(s[j] - top) : 0.0f;
        sum += e;
        w[j] = put<S>(e);
    }
    return sum;
#endif
}

// A group (32 or 64 values, of which n are there) rounded to int8 with its largest at 127. Returns its scale, NaN if a value is.
static inline float round_group(const float* x, i64 n, int size, int8_t* y, int32_t* sum) {
    float v[64] = {};
    if (n >= size) n = size;
    else { memcpy(v, x, 4 * n); x = v; }
#ifdef GW_WIDE
    __m512 most = _mm512_setzero_ps();
    __mmask16 bad = 0;
    for (int k = 0; k < size; k += 16) {
        __m512 f = _mm512_loadu_ps(x + k);
        most = _mm512_max_ps(most, _mm512_abs_ps(f));
        bad |= _mm512_cmp_ps_mask(f, f, _CMP_UNORD_Q);
    }
    float top = _mm512_reduce_max_ps(most);
    __m512 by = _mm512_set1_ps(top > 0 ? 127.0f / top : 0.0f);
    __m512i total = _mm512_setzero_si512();
    for (int k = 0; k < size; k += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), by));
        total = _mm512_add_epi32(total, q);
        _mm_storeu_si128((__m128i*)(y + k), _mm512_cvtsepi32_epi8(q));
    }
    *sum = _mm512_reduce_add_epi32(total);
#else
    float top = 0;
    bool bad = false;
    for (int k = 0; k < size; k++) { float b = x[k] < 0 ? -x[k] : x[k]; top = b > top ? b : top; bad |= x[k] != x[k]; }
    float by = top > 0 ? 127.0f / top : 0.0f;
    *sum = 0;
    for (int k = 0; k < size; k++) { int32_t q = int32_t(__builtin_nearbyintf(x[k] * by)); y[k] = int8_t(q); *sum += q; }
#endif
    return bad ? __builtin_nanf("") : top / 127.0f;  // damaged weights must not look like numbers
}
