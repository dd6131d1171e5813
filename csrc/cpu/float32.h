// SPDX-License-Identifier: MIT
//
// What the kernels' loops leave open, for float32: one step along the inner dimension is one float, results go straight to
// where they belong, and dgrad's weights are a transposed copy. bfloat16.h answers the same for words.
#pragma once
#include "../layer/gemm.h"
#include "fetch.h"
#include "inline.h"
#include "tile.h"

namespace fusedvae {
namespace {

constexpr bool kBfloat16 = false;
constexpr int kRowGrain = 1;  // rows that may not be parted by tiles

FUSEDVAE_FN V multiply_add(V a, V b, V sum) { return fma(a, b, sum); }

FUSEDVAE_FN Saved saved_of(const Dgrad& g, const Tile& t) { return {g.saved + t.b0 * g.ld + t.c0, g.ld}; }
FUSEDVAE_FN V load_saved(const Saved& s, int r, int c) { return load(s.first + r * s.ld + c); }

// Rows b.. + m, columns c.. + w, of what dgrad saved, and of where results go.
FUSEDVAE_FN void fetch_saved(const Dgrad& g, int b, int m, int c, int w) {
    for (int r = b; r < b + m; ++r) fetch_row<0>(g.saved + r * g.ld + c, w);
}
FUSEDVAE_FN void fetch_results(const float* out, ptrdiff_t ld, const Words&, int b, int m, int c, int w) {
    for (int r = b; r < b + m; ++r) fetch_row<1>(out + r * ld + c, w);
}

// Where an epilogue leaves a row of results: at its offset in the matrix (NULL: nobody wants it), not in the scratch tile.
FUSEDVAE_FN float* place(float* matrix, ptrdiff_t offset, float*) { return matrix ? matrix + offset : nullptr; }
FUSEDVAE_FN void store_words(const Words&, const float*, int, int, int, int, int) {}

// A tile's results, value(r, c) for kLanes of row r from its column c on, into a matrix of `columns`.
template <class Value>
FUSEDVAE_FN void store_results(float* out, ptrdiff_t ld, const Words&, const Tile& tile, int columns, Value value) {
    const Tile t = tile;  // of its own, which no store through `out` can change, so that it stays in registers
    const int end = columns - t.c0 < t.w ? columns - t.c0 : t.w;
    float* row = out + t.b0 * ld + t.c0;
    for (int r = 0; r < t.m; ++r, row += ld)
        store_row(
            row, end, [&](int c) __attribute__((always_inline)) { return value(r, c); });
}
FUSEDVAE_FN void store_slope(const Forward& f, int b, int c, V slope) {
    store_lanes(f.slope + b * f.ld + c, slope, valid_lanes(f.stored, c));
}
void to_words(const Words&, const float* const*, int, int, int) {}

// One step of the sums over the batch of dY and of its squares.
template <bool kSquares>
FUSEDVAE_FN void add_column(V dy, V* total, V* squares) {
    *total = *total + dy;
    if (kSquares) *squares = fma(dy, dy, *squares);
}

// Rows k..k + m of the updated panel (width w, `block` its packed floats) into the transposed panels, (N, K).
FUSEDVAE_FN void copy_weights(const Wgrad& g, const float* block, int k, int m, int c0, int w) {
    if (!g.weight_t) return;
    int p = 0;
    while (g.panels_t.start[p + 1] <= k) ++p;
    const int start = g.panels_t.start[p], width = g.panels_t.start[p + 1] - start;  // 8 | start: k..k + 8 lie in p
    float* out = g.weight_t + (ptrdiff_t)start * g.N + (ptrdiff_t)c0 * width + (k - start);
    const int columns = g.N - c0 < w ? g.N - c0 : w;
    int c = 0;
    if (m == 8)
        for (; c + 8 <= columns; c += 8) transpose8(out + (ptrdiff_t)c * width, width, block + c, w);
    for (; c < columns; ++c)
        for (int r = 0; r < m; ++r) out[(ptrdiff_t)c * width + r] = block[r * w + c];
}

}  // namespace
}  // namespace fusedvae
