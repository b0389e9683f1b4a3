// Elementwise kernels of training on CPUs: everything between the matrix products, one pass over memory each.
//
// Compiled at run time for the very processor (see kernels.py), called through ctypes on contiguous arrays. Arithmetic is fp32
// whatever the storage; loops are plain C++ that the compiler vectorises. Sums over rows are split by thread in a fixed way,
// so that the same number of threads gives the same bits.
//
// Legend: N rows (tokens), D width, B batch, T time, H query heads, K key/value heads, E head width, F inner width, V vocabulary.
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads() { return 1; }
static int omp_get_thread_num() { return 0; }
#endif

typedef uint16_t bf16;
typedef int64_t i64;

static inline float get(float x) { return x; }
static inline float get(bf16 x) { uint32_t u = uint32_t(x) << 16; float f; memcpy(&f, &u, 4); return f; }
template <class S> static inline S put(float x);
template <> inline float put<float>(float x) { return x; }
template <> inline bf16 put<bf16>(float x) {  // round to nearest even; a NaN stays a NaN
    uint32_t u; memcpy(&u, &x, 4);
    uint32_t r = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return bf16((u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : r);
}

// exp by 2^n * p(r), relative error about 2e-7; written out so that every compiler can vectorise it.
static inline float expf_(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float z = x * 1.44269504088896341f;
    float n = __builtin_nearbyintf(z);
    float r = x - n * 0.693145751953125f;
    r = r - n * 1.42860682030941723e-6f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (int32_t(n) + 127) << 23;
    float scale; memcpy(&scale, &bits, 4);
    return p * scale;
}

// Row in fp32, and its largest number; a NaN is the largest. Compared as integers of the same order: compilers do not vectorise a
// maximum of floats, since they must think of NaN.
template <class S> static inline float widen(const S* row, float* v, i64 n) {
    int32_t top = INT32_MIN;
    for (i64 j = 0; j < n; j++) {
        v[j] = get(row[j]);
        int32_t bits; memcpy(&bits, v + j, 4);
        bits ^= (bits >> 31) & 0x7fffffff;
        top = bits > top ? bits : top;
    }
    top ^= (top >> 31) & 0x7fffffff;
    float x; memcpy(&x, &top, 4);
    return x;
}

struct Range { i64 begin, end; };
static inline Range mine(i64 n) {  // this thread's contiguous share of n
#ifdef _OPENMP
    i64 threads = omp_get_num_threads(), id = omp_get_thread_num();
#else
    i64 threads = 1, id = 0;
#endif
    return {n * id / threads, n * (id + 1) / threads};
}
static void sum_parts(const std::vector<float>& parts, i64 width, float* out) {
    for (i64 p = 0; p < i64(parts.size()) / width; p++)
        for (i64 j = 0; j < width; j++) out[j] += parts[p * width + j];
}

// x_out = x + delta (delta may be null: then x_out is not written); y = x_out / rms(x_out) * w
template <class S>
static void norm_fwd(const S* x, const S* delta, const S* w, S* x_out, S* y, float* rstd, i64 N, i64 D, float eps) {
    #pragma omp parallel
    {
        Range r = mine(N);
        std::vector<float> row(D);
        float* v = row.data();
        for (i64 n = r.begin; n < r.end; n++) {
            const S* a = x + n * D;
            if (delta) {
                const S* b = delta + n * D;
                S* o = x_out + n * D;
                for (i64 j = 0; j < D; j++) { o[j] = put<S>(get(a[j]) + get(b[j])); v[j] = get(o[j]); }
            } else {
                for (i64 j = 0; j < D; j++) v[j] = get(a[j]);
            }
            float s = 0;
            for (i64 j = 0; j < D; j++) s += v[j] * v[j];
            s = 1.0f / __builtin_sqrtf(s / D + eps);
            rstd[n] = s;
            S* o = y + n * D;
            for (i64 j = 0; j < D; j++) o[j] = put<S>(v[j] * s * get(w[j]));
        }
    }
}

// dx = gx (may be null) + backward of the norm; dw (fp32, D) is overwritten
template <class S>
static void norm_bwd(const S* gx, const S* gy, const S* x, const S* w, const float* rstd, S* dx, float* dw, i64 N, i64 D) {
    std::vector<float> parts(D * omp_get_max_threads(), 0.0f);
    #pragma omp parallel
    {
        Range r = mine(N);
        float* acc = parts.data() + D * omp_get_thread_num();
        std::vector<float> buffer(2 * D);
        float *h = buffer.data(), *g = h + D;
        for (i64 n = r.begin; n < r.end; n++) {
            const S *a = x + n * D, *b = gy + n * D;
            float s = rstd[n], dot = 0;
            for (i64 j = 0; j < D; j++) {
                float hat = get(a[j]) * s, grad = get(b[j]);
                acc[j] += grad * hat;
                h[j] = hat;
                g[j] = grad * get(w[j]);
            }
            for (i64 j = 0; j < D; j++) dot += h[j] * g[j];
            dot /= D;
            S* o = dx + n * D;
            if (gx) {
                const S* c = gx + n * D;
                for (i64 j = 0; j < D; j++) o[j] = put<S>(get(c[j]) + s * (g[j] - h[j] * dot));
            } else {
                for (i64 j = 0; j < D; j++) o[j] = put<S>(s * (g[j] - h[j] * dot));
            }
        }
    }
    memset(dw, 0, D * sizeof(float));
    sum_parts(parts, D, dw);
}

// One head vector: optional norm, optional rotation, scale.
template <class S>
static inline void head_fwd(const S* x, const S* w, const float* cs, S* out, i64 E, float eps, float scale, float* v) {
    for (i64 j = 0; j < E; j++) v[j] = get(x[j]);
    if (w) {
        float s = 0;
        for (i64 j = 0; j < E; j++) s += v[j] * v[j];
        s = scale / __builtin_sqrtf(s / E + eps);
        for (i64 j = 0; j < E; j++) v[j] *= s * get(w[j]);
    } else {
        for (i64 j = 0; j < E; j++) v[j] *= scale;
    }
    if (cs) {
        i64 half = E / 2;
        for (i64 j = 0; j < half; j++) {
            float a = v[j], b = v[j + half], c = cs[j], s = cs[j + half];
            out[j] = put<S>(a * c - b * s);
            out[j + half] = put<S>(b * c + a * s);
        }
    } else {
        for (i64 j = 0; j < E; j++) out[j] = put<S>(v[j]);
    }
}

template <class S>
static inline void head_bwd(float* g, const S* x, const S* w, const float* cs, S* dx, float* dw, i64 E, float eps, float scale) {
    if (cs) {
        i64 half = E / 2;
        for (i64 j = 0; j < half; j++) {
            float a = g[j], b = g[j + half], c = cs[j], s = cs[j + half];
            g[j] = a * c + b * s;
            g[j + half] = b * c - a * s;
        }
    }
    for (i64 j = 0; j < E; j++) g[j] *= scale;
    if (w) {
        float s = 0, dot = 0;
        for (i64 j = 0; j < E; j++) s += get(x[j]) * get(x[j]);
        s = 1.0f / __builtin_sqrtf(s / E + eps);
        for (i64 j = 0; j < E; j++) {
            float hat = get(x[j]) * s;
            dw[j] += g[j] * hat;
            g[j] *= get(w[j]);
            dot += g[j] * hat;
        }
        dot *= s * s / E;
        for (i64 j = 0; j < E; j++) dx[j] = put<S>(s * g[j] - get(x[j]) * dot);
    } else {
        for (i64 j = 0; j < E; j++) dx[j] = put<S>(g[j]);
    }
}

// qkv (B,T,(H+2K)E) -> q, k, v each (B,H,T,E); keys and values repeated over their group. cs (T,E): cosines, then sines.
template <class S>
static void heads_fwd(const S* qkv, const S* wq, const S* wk, const float* cs, S* q, S* k, S* v, i64 B, i64 T, i64 H, i64 K, i64 E, float eps, float scale) {
    i64 group = H / K, width = (H + 2 * K) * E;
    #pragma omp parallel
    {
        Range r = mine(B * T);
        std::vector<float> buffer(E);
        for (i64 n = r.begin; n < r.end; n++) {
            i64 b = n / T, t = n % T;
            const S* row = qkv + n * width;
            const float* angle = cs ? cs + t * E : nullptr;
            for (i64 h = 0; h < H; h++) head_fwd(row + h * E, wq, angle, q + ((b * H + h) * T + t) * E, E, eps, scale, buffer.data());
            for (i64 h = 0; h < K; h++) {
                S* first = k + ((b * H + h * group) * T + t) * E;
                head_fwd(row + (H + h) * E, wk, angle, first, E, eps, 1.0f, buffer.data());
                for (i64 i = 1; i < group; i++) memcpy(first + i * T * E, first, E * sizeof(S));
                for (i64 i = 0; i < group; i++)
                    memcpy(v + ((b * H + h * group + i) * T + t) * E, row + (H + K + h) * E, E * sizeof(S));
            }
        }
    }
}

// The way back: dq, dk, dv (B,H,T,E) -> dqkv; dwq, dwk (fp32, E) overwritten
template <class S>
static void heads_bwd(const S* dq, const S* dk, const S* dv, const S* qkv, const S* wq, const S* wk, const float* cs, S* dqkv, float* dwq, float* dwk, i64 B, i64 T, i64 H, i64 K, i64 E, float eps, float scale) {
    i64 group = H / K, width = (H + 2 * K) * E;
    std::vector<float> parts(2 * E * omp_get_max_threads(), 0.0f);
    #pragma omp parallel
    {
        Range r = mine(B * T);
        float* acc = parts.data() + 2 * E * omp_get_thread_num();
        std::vector<float> buffer(E);
        float* g = buffer.data();
        for (i64 n = r.begin; n < r.end; n++) {
            i64 b = n / T, t = n % T;
            const S* row = qkv + n * width;
            S* out = dqkv + n * width;
            const float* angle = cs ? cs + t * E : nullptr;
            for (i64 h = 0; h < H; h++) {
                const S* from = dq + ((b * H + h) * T + t) * E;
                for (i64 j = 0; j < E; j++) g[j] = get(from[j]);
                head_bwd(g, row + h * E, wq, angle, out + h * E, acc, E, eps, scale);
            }
            for (i64 h = 0; h < K; h++) {
                const S* from = dk + ((b * H + h * group) * T + t) * E;
                for (i64 j = 0; j < E; j++) g[j] = get(from[j]);
                for (i64 i = 1; i < group; i++)
                    for (i64 j = 0; j < E; j++) g[j] += get(from[i * T * E + j]);
                head_bwd(g, row + (H + h) * E, wk, angle, out + (H + h) * E, acc + E, E, eps, 1.0f);
                from = dv + ((b * H + h * group) * T + t) * E;
                for (i64 j = 0; j < E; j++) g[j] = get(from[j]);
                for (i64 i = 1; i < group; i++)
                    for (i64 j = 0; j < E; j++) g[j] += get(from[i * T * E + j]);
                for (i64 j = 0; j < E; j++) out[(H + K + h) * E + j] = put<S>(g[j]);
            }
        }
    }
    std::vector<float> both(2 * E, 0.0f);
    sum_parts(parts, 2 * E, both.data());
    memcpy(dwq, both.data(), E * sizeof(float));
    memcpy(dwk, both.data() + E, E * sizeof(float));
}

// (B,H,T,E) <-> (B,T,H,E)
template <class S>
static void swap_heads(const S* from, S* to, i64 B, i64 T, i64 H, i64 E, bool to_heads) {
    #pragma omp parallel
    {
        Range r = mine(B * T);
        for (i64 n = r.begin; n < r.end; n++)
            for (i64 h = 0; h < H; h++) {
                i64 flat = (n * H + h) * E, head = ((n / T * H + h) * T + n % T) * E;
                memcpy(to + (to_heads ? head : flat), from + (to_heads ? flat : head), E * sizeof(S));
            }
    }
}

// Scores (Z,R,C) -> probabilities in place; row i sees columns 0 .. first + i
template <class S>
static void softmax_fwd(S* s, i64 Z, i64 R, i64 C, i64 first) {
    #pragma omp parallel
    {
        std::vector<float> buffer(C);
        float* v = buffer.data();
        #pragma omp for schedule(static)
        for (i64 z = 0; z < Z; z++)
            for (i64 i = 0; i < R; i++) {
                S* row = s + (z * R + i) * C;
                i64 seen = first + i + 1 < C ? first + i + 1 : C;
                float top = widen(row, v, seen), sum = 0;
                for (i64 j = 0; j < seen; j++) { v[j] = expf_(v[j] - top); sum += v[j]; }
                sum = 1.0f / sum;
                for (i64 j = 0; j < seen; j++) row[j] = put<S>(v[j] * sum);
                for (i64 j = seen; j < C; j++) row[j] = 0;
            }
    }
}

// g: gradient of the probabilities (Z,R,C), becomes that of the scores
template <class S>
static void softmax_bwd(const S* p, S* g, i64 Z, i64 R, i64 C, i64 first) {
    #pragma omp parallel for schedule(static)
    for (i64 z = 0; z < Z; z++)
        for (i64 i = 0; i < R; i++) {
            const S* a = p + (z * R + i) * C;
            S* b = g + (z * R + i) * C;
            i64 seen = first + i + 1 < C ? first + i + 1 : C;
            float dot = 0;
            for (i64 j = 0; j < seen; j++) dot += get(a[j]) * get(b[j]);
            for (i64 j = 0; j < seen; j++) b[j] = put<S>(get(a[j]) * (get(b[j]) - dot));
            for (i64 j = seen; j < C; j++) b[j] = 0;
        }
}

// up (N,2F), gate first -> out (N,F) = silu(gate) * up
template <class S>
static void swiglu_fwd(const S* up, S* out, i64 N, i64 F) {
    #pragma omp parallel for schedule(static)
    for (i64 n = 0; n < N; n++) {
        const S *g = up + n * 2 * F, *u = g + F;
        S* o = out + n * F;
        for (i64 j = 0; j < F; j++) {
            float x = get(g[j]);
            o[j] = put<S>(x / (1.0f + expf_(-x)) * get(u[j]));
        }
    }
}

template <class S>
static void swiglu_bwd(const S* grad, const S* up, S* dup, i64 N, i64 F) {
    #pragma omp parallel for schedule(static)
    for (i64 n = 0; n < N; n++) {
        const S *g = up + n * 2 * F, *u = g + F, *d = grad + n * F;
        S *dg = dup + n * 2 * F, *du = dg + F;
        for (i64 j = 0; j < F; j++) {
            float x = get(g[j]), s = 1.0f / (1.0f + expf_(-x)), e = get(d[j]);
            dg[j] = put<S>(e * get(u[j]) * s * (1.0f + x * (1.0f - s)));
            du[j] = put<S>(e * x * s);
        }
    }
}

// logits (N,V) become their gradient; returns the sum of the losses (not scaled) through *loss, rows in order
template <class S>
static void xent(S* logits, const i64* target, double* loss, i64 N, i64 V, float scale) {
    std::vector<double> losses(N);
    #pragma omp parallel
    {
        std::vector<float> buffer(V);
        float* v = buffer.data();
        #pragma omp for schedule(static)
        for (i64 n = 0; n < N; n++) {
            S* row = logits + n * V;
            float top = widen(row, v, V), sum = 0;
            float picked = v[target[n]] - top;
            for (i64 j = 0; j < V; j++) { v[j] = expf_(v[j] - top); sum += v[j]; }
            losses[n] = double(__builtin_logf(sum)) - picked;
            float factor = scale / sum;
            v[target[n]] -= sum;
            for (i64 j = 0; j < V; j++) row[j] = put<S>(v[j] * factor);
        }
    }
    double total = 0;
    for (i64 n = 0; n < N; n++) total += losses[n];
    *loss = total;
}

// sums (fp32) += add
template <class S>
static void accumulate(float* sums, const S* add, i64 n) {
    #pragma omp parallel for schedule(static)
    for (i64 j = 0; j < n; j++) sums[j] += get(add[j]);
}

#if defined(_WIN32)
#define API extern "C" __declspec(dllexport)
#else
#define API extern "C" __attribute__((visibility("default")))
#endif
#define BOTH(S, x) \
API void norm_fwd_##x(const S* a, const S* b, const S* c, S* d, S* e, float* f, i64 N, i64 D, float eps) { norm_fwd<S>(a, b, c, d, e, f, N, D, eps); } \
API void norm_bwd_##x(const S* a, const S* b, const S* c, const S* d, const float* e, S* f, float* g, i64 N, i64 D) { norm_bwd<S>(a, b, c, d, e, f, g, N, D); } \
API void heads_fwd_##x(const S* a, const S* b, const S* c, const float* d, S* e, S* f, S* g, i64 B, i64 T, i64 H, i64 K, i64 E, float eps, float scale) { heads_fwd<S>(a, b, c, d, e, f, g, B, T, H, K, E, eps, scale); } \
API void heads_bwd_##x(const S* a, const S* b, const S* c, const S* d, const S* e, const S* f, const float* g, S* h, float* i, float* j, i64 B, i64 T, i64 H, i64 K, i64 E, float eps, float scale) { heads_bwd<S>(a, b, c, d, e, f, g, h, i, j, B, T, H, K, E, eps, scale); } \
API void swap_heads_##x(const S* a, S* b, i64 B, i64 T, i64 H, i64 E, i64 to_heads) { swap_heads<S>(a, b, B, T, H, E, to_heads != 0); } \
API void softmax_fwd_##x(S* a, i64 Z, i64 R, i64 C, i64 first) { softmax_fwd<S>(a, Z, R, C, first); } \
API void softmax_bwd_##x(const S* a, S* b, i64 Z, i64 R, i64 C, i64 first) { softmax_bwd<S>(a, b, Z, R, C, first); } \
API void swiglu_fwd_##x(const S* a, S* b, i64 N, i64 F) { swiglu_fwd<S>(a, b, N, F); } \
API void swiglu_bwd_##x(const S* a, const S* b, S* c, i64 N, i64 F) { swiglu_bwd<S>(a, b, c, N, F); } \
API void xent_##x(S* a, const i64* b, double* c, i64 N, i64 V, float scale) { xent<S>(a, b, c, N, V, scale); } \
API void accumulate_##x(float* a, const S* b, i64 n) { accumulate<S>(a, b, n); }
BOTH(float, f32)
BOTH(bf16, bf16)
