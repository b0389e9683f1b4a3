// The forward pass of inference on CPUs as one call: tokens of many sequences in, logits out. Prompts and answers may stand in one batch.
//
// Compiled at run time for the very processor (see native.py), called through ctypes. Sums are fp32 or integer; keys and values are stored as
// bf16 or fp32 in pages of 64 positions, packed as tiles.h wants them. A token's numbers depend on its own sequence alone: not on the batch,
// not on how the prompt was cut, not on the number of threads. Work inside a phase is taken by whichever thread is free.
//
// Legend: M tokens of the batch, D width, H query heads, K key/value heads, E head width, F inner width, V vocabulary.
#include "team.h"
#include "tiles.h"
#include <vector>

static const i64 PAGE = 64, CHUNK = 48, QUERIES = 48;

struct Matrix { i64 kind, rows, columns; const void *weight, *scale; const float* bias; };
struct Layer { const float *norm1, *norm1_bias, *norm2, *norm2_bias, *q_norm, *k_norm; Matrix qkv, out, gate, up, down; };
struct Model {
    i64 layers, width, heads, kv_heads, d_head, inner, layer_norm, window, kv_bf16, table_bf16;
    double eps;
    const void *embedding, *positions;
    const float *norm, *norm_bias, *cos, *sin;
    const Layer* layer;
    Matrix head;
};
struct Update { const float *down, *up; i64 rank; };  // an adapter's share of one matrix: (rank, columns) and (rank, rows), scaled
struct Part { i64 first, count, position; const int32_t* pages; const Update* adapter; };  // adapter: five updates a layer, or null
struct Batch {
    i64 tokens, parts, outputs, threads, head_positions;  // head_positions: positions that each head's store holds
    const i64 *ids, *output;
    const Part* part;
    void* const* store;  // one (2K, head_positions, E) for each layer, keys before values
    float* logits;
};

// Rows of activations in a matrix's number format.
struct Act {
    std::vector<uint32_t> units;
    std::vector<float> scale, low;
    std::vector<int32_t> sum;
    i64 stride = 0, groups = 0;
};
static i64 up_to(i64 n, i64 step) { return (n + step - 1) / step; }
static int group_of(i64 kind) { return kind == I4 ? 32 : 64; }
static i64 units_of(const Matrix& w) { return w.kind == F32 ? w.columns : w.kind == BF16 ? up_to(w.columns, 2) : up_to(w.columns, group_of(w.kind)) * group_of(w.kind) / 4; }

static void prepare(const Matrix& w, const float* x, Act& a, i64 m) {
    uint32_t* to = a.units.data() + m * a.stride;
    if (w.kind == F32) { memcpy(to, x, 4 * w.columns); return; }
    if (w.kind == BF16) {
        bf16* y = (bf16*)to;
        for (i64 k = 0; k < w.columns; k++) y[k] = put<bf16>(x[k]);
        if (w.columns % 2) y[w.columns] = 0;
        return;
    }
    int size = group_of(w.kind);
    for (i64 g = 0; g * size < w.columns; g++)
        a.scale[m * a.groups + g] = round_group(x + g * size, w.columns - g * size, size, (int8_t*)to + g * size, &a.sum[m * a.groups + g]);
}
static void fit(Act& a, const Matrix& w, i64 tokens) {
    a.stride = units_of(w);
    a.groups = w.kind >= I8 ? up_to(w.columns, group_of(w.kind)) : 0;
    if (i64(a.units.size()) < tokens * a.stride) a.units.resize(tokens * a.stride);
    if (i64(a.scale.size()) < tokens * a.groups) { a.scale.resize(tokens * a.groups); a.sum.resize(tokens * a.groups); }
}

static void tile(const Matrix& w, const Act& a, i64 first, int m, i64 panel, float* c) {
    Rows rows;
    for (int i = 0; i < m; i++) {
        rows.unit[i] = a.units.data() + (first + i) * a.stride;
        rows.scale[i] = a.scale.data() + (first + i) * a.groups;
        rows.sum[i] = a.sum.data() + (first + i) * a.groups;
    }
    const i64 units = a.stride;
    switch (w.kind) {
        case F32: return float_tile<float, 4>(m, rows, (const uint32_t*)w.weight + panel * units * COLS, units, COLS, c);
        case BF16: return float_tile<bf16, 4>(m, rows, (const uint32_t*)w.weight + panel * units * COLS, units, COLS, c);
        case I8: return integer_tile<false>(m, rows, (const uint8_t*)w.weight + panel * units * 256, a.groups, 16, (const float*)w.scale + panel * COLS, c);
        default: return integer_tile<true>(m, rows, (const uint8_t*)w.weight + panel * units * 128, a.groups, 8, (const bf16*)w.scale + panel * a.groups * COLS, c);
    }
}

struct Forward {
    const Model& model;
    const Batch& batch;
    i64 M, D, H, K, E, F;
    std::vector<float> x, qkv, mixed, inner;
    std::vector<uint32_t> q;  // queries in the store's format
    std::vector<const Part*> part_of;
    struct Tile { const Part* part; i64 begin, end; };
    std::vector<Tile> tiles;
    Act a, b;
    std::vector<std::atomic<i64>> counters;

    Forward(const Model& model_, const Batch& batch_)
        : model(model_), batch(batch_), M(batch.tokens), D(model.width), H(model.heads), K(model.kv_heads), E(model.d_head), F(model.inner),
          x(M * D), qkv(M * (H + 2 * K) * E), mixed(M * H * E), inner(M * F), q(M * H * E), part_of(M), counters(16 * model.layers + 8) {
        for (auto& counter : counters) counter.store(0);
        i64 most = QUERIES / (H / K) > 0 ? QUERIES / (H / K) : 1;
        for (i64 p = 0; p < batch.parts; p++) {
            const Part& part = batch.part[p];
            for (i64 t = 0; t < part.count; t += most) tiles.push_back({&part, t, t + most < part.count ? t + most : part.count});
            for (i64 t = 0; t < part.count; t++) part_of[part.first + t] = &part;
        }
    }

    template <class Do> void share(i64 phase, i64 n, i64 step, Do act) {  // every piece of 0 .. n is done by one thread
        for (i64 at; (at = counters[phase].fetch_add(step, std::memory_order_relaxed)) < n;)
            for (i64 i = at; i < n && i < at + step; i++) act(i);
        team().barrier();
    }
    i64 token_step() const { return M >= 64 ? 8 : 1; }

    const Update* update(i64 m, i64 layer, int which) const {
        const Update* all = part_of[m]->adapter;
        return all && all[layer * 5 + which].rank ? all + layer * 5 + which : nullptr;
    }
    // What an adapter makes of a row, before its second factor.
    void lower(i64 m, i64 layer, int which, const float* row, i64 width, std::vector<float>& low) const {
        const Update* u = update(m, layer, which);
        low.assign(u ? u->rank : 0, 0.0f);
        for (i64 r = 0; u && r < u->rank; r++) {
            float part[16] = {}, total = 0;
            const float* d = u->down + r * width;
            i64 k = 0;
            for (; k + 16 <= width; k += 16) for (int l = 0; l < 16; l++) part[l] += row[k + l] * d[k + l];
            for (; k < width; k++) total += row[k] * d[k];
            for (int l = 0; l < 16; l++) total += part[l];
            low[r] = total;
        }
    }
    std::vector<std::vector<float>> low, low2;

    // c (rows of 64) of one panel, with bias and adapter.
    void columns(const Matrix& w, const Act& act, i64 first, int m, i64 panel, i64 layer, int which, const std::vector<std::vector<float>>& lows, float* c) const {
        tile(w, act, first, m, panel, c);
        i64 begin = panel * COLS, n = w.rows - begin < COLS ? w.rows - begin : COLS;
        for (int i = 0; i < m; i++) {
            float* row = c + i * COLS;
            if (w.bias) for (i64 j = 0; j < n; j++) row[j] += w.bias[begin + j];
            if (which < 0) continue;
            if (const Update* u = update(first + i, layer, which))
                for (i64 r = 0; r < u->rank; r++) for (i64 j = 0; j < n; j++) row[j] += lows[first + i][r] * u->up[r * w.rows + begin + j];
        }
    }
    // act(first row, rows, first column, columns, panel) for all tiles of a product
    template <class Do> void multiply(i64 phase, const Matrix& w, i64 tokens, Do act) {
        i64 panels = up_to(w.rows, COLS), chunks = up_to(tokens, CHUNK);
        share(phase, panels * chunks, 1, [&](i64 piece) {
            i64 panel = piece / chunks, begin = piece % chunks * CHUNK, end = begin + CHUNK < tokens ? begin + CHUNK : tokens;
            i64 count = up_to(end - begin, ROWS);
            for (i64 t = 0; t < count; t++) {
                i64 from = begin + (end - begin) * t / count, to = begin + (end - begin) * (t + 1) / count;
                act(from, int(to - from), panel * COLS, w.rows - panel * COLS < COLS ? w.rows - panel * COLS : COLS, panel);
            }
        });
    }
    void add(i64 phase, const Matrix& w, const Act& act, i64 layer, int which) {
        multiply(phase, w, M, [&](i64 first, int m, i64 begin, i64 n, i64 panel) {
            float c[ROWS * COLS];
            columns(w, act, first, m, panel, layer, which, low, c);
            for (int i = 0; i < m; i++) for (i64 j = 0; j < n; j++) x[(first + i) * D + begin + j] += c[i * COLS + j];
        });
    }

    void norm(const float* v, const float* weight, const float* bias, i64 width, float* y) const {
        float part[16] = {}, mean = 0, total = 0;
        if (model.layer_norm) {
            for (i64 k = 0; k < width; k++) part[k % 16] += v[k];
            for (int l = 0; l < 16; l++) { mean += part[l]; part[l] = 0; }
            mean /= width;
        }
        i64 k = 0;
        for (; k + 16 <= width; k += 16) for (int l = 0; l < 16; l++) { float d = v[k + l] - mean; part[l] += d * d; }
        for (; k < width; k++) { float d = v[k] - mean; total += d * d; }
        for (int l = 0; l < 16; l++) total += part[l];
        float by = 1.0f / __builtin_sqrtf(total / width + float(model.eps));
        for (k = 0; k < width; k++) y[k] = (v[k] - mean) * by * weight[k];
        if (bias) for (k = 0; k < width; k++) y[k] += bias[k];
    }

    void embed(i64 m) {
        auto row = [&](const void* table, i64 at, bool first) {
            for (i64 k = 0; k < D; k++) {
                float v = model.table_bf16 ? get(((const bf16*)table)[at * D + k]) : ((const float*)table)[at * D + k];
                x[m * D + k] = first ? v : x[m * D + k] + v;
            }
        };
        row(model.embedding, batch.ids[m], true);
        if (model.positions) row(model.positions, part_of[m]->position + m - part_of[m]->first, false);
    }

    void turn(float* v, const float* norm_weight, i64 position) const {
        if (norm_weight) norm(v, norm_weight, nullptr, E, v);
        if (!model.cos) return;
        const i64 half = E / 2;
        const float *cos = model.cos + position * half, *sin = model.sin + position * half;
        for (i64 k = 0; k < half; k++) {
            float l = v[k], r = v[k + half];
            v[k] = l * cos[k] - r * sin[k];
            v[k + half] = r * cos[k] + l * sin[k];
        }
    }
    template <class S> void store(i64 m, const Layer& w, S* kv) {
        const Part& part = *part_of[m];
        const i64 position = part.position + m - part.first, slot = position % PAGE, two = sizeof(S) == 2 ? 2 : 1;
        const i64 page = part.pages[position / PAGE] * PAGE * E;
        float* row = qkv.data() + m * (H + 2 * K) * E;
        const float by = 1.0f / __builtin_sqrtf(float(E));
        S* to = (S*)q.data() + m * H * E;
        for (i64 h = 0; h < H; h++) {
            turn(row + h * E, w.q_norm, position);
            for (i64 k = 0; k < E; k++) to[h * E + k] = put<S>(row[h * E + k] * by);
        }
        for (i64 h = 0; h < K; h++) {
            float *key = row + (H + h) * E, *value = row + (H + K + h) * E;
            turn(key, w.k_norm, position);
            S *keys = kv + h * batch.head_positions * E + page, *values = kv + (K + h) * batch.head_positions * E + page;
            for (i64 k = 0; k < E; k++) keys[(k / two * PAGE + slot) * two + k % two] = put<S>(key[k]);
            for (i64 k = 0; k < E; k++) values[(slot / two * E + k) * two + slot % two] = put<S>(value[k]);
        }
    }

    template <class S> void attend(const Tile& t, i64 head, const S* kv) {
        const Part& part = *t.part;
        const i64 group = H / K, rows = (t.end - t.begin) * group, per_unit = 4 / sizeof(S);
        static thread_local std::vector<float> score, out, stats;
        static thread_local std::vector<S> weight;
        score.resize(rows * PAGE); weight.resize(rows * PAGE); out.assign(rows * E, 0.0f); stats.assign(2 * rows, 0.0f);
        float *most = stats.data(), *total = most + rows;
        for (i64 r = 0; r < rows; r++) most[r] = -__builtin_inff();
        const i64 last = part.position + t.end - 1, window = model.window ? model.window : last + 1;
        i64 oldest = part.position + t.begin - window + 1;
        for (i64 page = oldest > 0 ? oldest / PAGE : 0; page <= last / PAGE; page++) {
            const i64 at = part.pages[page] * PAGE * E;
            const uint32_t *keys = (const uint32_t*)(kv + head * batch.head_positions * E + at), *values = (const uint32_t*)(kv + (K + head) * batch.head_positions * E + at);
            for (i64 r = 0; r < rows; r += ROWS) {
                int m = int(rows - r < ROWS ? rows - r : ROWS);
                Rows in, p;
                for (int i = 0; i < m; i++) {
                    i64 token = part.first + t.begin + (r + i) / group;
                    in.unit[i] = (const uint32_t*)((const S*)q.data() + (token * H + head * group + (r + i) % group) * E);
                    p.unit[i] = (const uint32_t*)(weight.data() + (r + i) * PAGE);
                }
                float* s = score.data() + r * PAGE;
                float_tile<S, 4>(m, in, keys, E / per_unit, PAGE, s);
                float shrink[ROWS];
                for (int i = 0; i < m; i++, s += PAGE) {
                    i64 position = part.position + t.begin + (r + i) / group, to = position - page * PAGE;
                    float top = most[r + i];
                    float sum = soften(s, to - window + 1, to, top, weight.data() + (r + i) * PAGE);
                    // Where nothing was seen yet there is nothing to shrink.
                    shrink[i] = most[r + i] == top ? 1.0f : most[r + i] == -__builtin_inff() ? 0.0f : exp_(most[r + i] - top);
                    most[r + i] = top;
                    total[r + i] = total[r + i] * shrink[i] + sum;
                }
                for (i64 e = 0; e < E; e += COLS) {
                    float c[ROWS * COLS];
                    i64 n = E - e < COLS ? E - e : COLS;
                    narrow_tile<S>(m, n, p, values + e, PAGE / per_unit, E, c);
                    for (int i = 0; i < m; i++) for (i64 j = 0; j < n; j++) { float& o = out[(r + i) * E + e + j]; o = o * shrink[i] + c[i * COLS + j]; }
                }
            }
        }
        for (i64 r = 0; r < rows; r++) {
            float* to = mixed.data() + ((part.first + t.begin + r / group) * H + head * group + r % group) * E;
            for (i64 k = 0; k < E; k++) to[k] = out[r * E + k] / total[r];
        }
    }

    void normed(i64 m, const float* weight, const float* bias, const Matrix& w, const Matrix* other, i64 layer, int which) {
        static thread_local std::vector<float> y;
        y.resize(D);
        norm(x.data() + m * D, weight, bias, D, y.data());
        prepare(w, y.data(), a, m);
        lower(m, layer, which, y.data(), D, low[m]);
        if (other) lower(m, layer, which + 1, y.data(), D, low2[m]);
    }
    void run() {
        low.resize(M); low2.resize(M);
        const std::function<void(int)> job = [this](int id) { thread(id); };
        team().run(int(batch.threads), job);
    }
    void ready(int id, Act& act, const Matrix& w, i64 tokens) {  // buffers are sized by one thread; all see it after the barrier
        if (id == 0) fit(act, w, tokens);
        team().barrier();
    }
    void thread(int id) {
        i64 phase = 0;
        share(phase++, M, token_step(), [&](i64 m) { embed(m); });
        for (i64 l = 0; l < model.layers; l++) {
            const Layer& w = model.layer[l];
            void* kv = batch.store[l];
            ready(id, a, w.qkv, M);
            share(phase++, M, token_step(), [&](i64 m) { normed(m, w.norm1, w.norm1_bias, w.qkv, nullptr, l, 0); });
            multiply(phase++, w.qkv, M, [&](i64 first, int m, i64 begin, i64 n, i64 panel) {
                float c[ROWS * COLS];
                columns(w.qkv, a, first, m, panel, l, 0, low, c);
                for (int i = 0; i < m; i++) memcpy(qkv.data() + (first + i) * w.qkv.rows + begin, c + i * COLS, 4 * n);
            });
            share(phase++, M, token_step(), [&](i64 m) { model.kv_bf16 ? store(m, w, (bf16*)kv) : store(m, w, (float*)kv); });
            if (id == 0) fit(b, w.out, M);
            share(phase++, i64(tiles.size()) * K, 1, [&](i64 i) {
                model.kv_bf16 ? attend(tiles[i / K], i % K, (const bf16*)kv) : attend(tiles[i / K], i % K, (const float*)kv);
            });
            share(phase++, M, token_step(), [&](i64 m) {
                prepare(w.out, mixed.data() + m * H * E, b, m);
                lower(m, l, 1, mixed.data() + m * H * E, H * E, low[m]);
            });
            add(phase++, w.out, b, l, 1);
            ready(id, a, w.up, M);
            share(phase++, M, token_step(), [&](i64 m) { normed(m, w.norm2, w.norm2_bias, w.up, w.gate.rows ? &w.gate : nullptr, l, w.gate.rows ? 2 : 3); });
            if (id == 0) fit(b, w.down, M);
            multiply(phase++, w.up, M, [&](i64 first, int m, i64 begin, i64 n, i64 panel) {
                float c[ROWS * COLS], g[ROWS * COLS];
                columns(w.up, a, first, m, panel, l, 3, w.gate.rows ? low2 : low, c);
                if (w.gate.rows) columns(w.gate, a, first, m, panel, l, 2, low, g);
                for (int i = 0; i < m; i++) {
                    float *y = inner.data() + (first + i) * F + begin, *u = c + i * COLS, *v = g + i * COLS;
                    if (w.gate.rows) for (i64 j = 0; j < n; j++) y[j] = v[j] / (1.0f + exp_(-v[j])) * u[j];
                    else for (i64 j = 0; j < n; j++) {  // gelu by tanh(z) = 1 - 2 / (e^2z + 1)
                        float z = 0.7978845608028654f * (u[j] + 0.044715f * u[j] * u[j] * u[j]);
                        y[j] = 0.5f * u[j] * (2.0f - 2.0f / (exp_(2.0f * z) + 1.0f));
                    }
                }
            });
            share(phase++, M, token_step(), [&](i64 m) {
                prepare(w.down, inner.data() + m * F, b, m);
                lower(m, l, 4, inner.data() + m * F, F, low[m]);
            });
            add(phase++, w.down, b, l, 4);
        }
        if (!batch.outputs) return;
        ready(id, a, model.head, batch.outputs);
        share(phase++, batch.outputs, 1, [&](i64 o) {
            std::vector<float> y(D);
            norm(x.data() + batch.output[o] * D, model.norm, model.norm_bias, D, y.data());
            prepare(model.head, y.data(), a, o);
        });
        multiply(phase++, model.head, batch.outputs, [&](i64 first, int m, i64 begin, i64 n, i64 panel) {
            float c[ROWS * COLS];
            tile(model.head, a, first, m, panel, c);
            for (int i = 0; i < m; i++) memcpy(batch.logits + (first + i) * model.head.rows + begin, c + i * COLS, 4 * n);
        });
    }
};

#if defined(_WIN32)
#define GW_EXPORT extern "C" __declspec(dllexport)
#else
#define GW_EXPORT extern "C" __attribute__((visibility("default")))
#endif

GW_EXPORT void forward(const Model* model, const Batch* batch) { Forward(*model, *batch).run(); }

// Instructions it was built for: 0 plain C++, 1 AVX512-VNNI, 2 with AVX512-BF16.
GW_EXPORT i64 instructions() {
#if defined(GW_WIDE) && defined(__AVX512BF16__)
    return 2;
#elif defined(GW_WIDE)
    return 1;
#else
    return 0;
#endif
}
