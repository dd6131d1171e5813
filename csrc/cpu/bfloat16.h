// SPDX-License-Identifier: MIT
//
// What the kernels' loops leave open, for bfloat16: one step along the inner dimension is a word of two neighbours, results
// become both copies that the next products read, two rows at a time (those of likelihoods wait in the scratch tile), and
// the optimiser's epilogue makes the words of the weights. float32.h answers the same for floats.
#pragma once
#include "../layer/gemm.h"
#include "fetch.h"
#include "inline.h"
#include "tile.h"

namespace fusedvae {
namespace {

constexpr bool kBfloat16 = true;
constexpr int kRowGrain = 2;  // rows that share the words across the batch

FUSEDVAE_FN V multiply_add(V a, V b, V sum) { return dot2(a, b, sum); }

FUSEDVAE_FN Saved saved_of(const Dgrad& g, const Tile& t) {
    return {g.saved_words.along + t.b0 * g.saved_words.ld_along + t.c0 / 2, g.saved_words.ld_along};
}
FUSEDVAE_FN V load_saved(const Saved& s, int r, int c) { return load_neighbours(s.first + r * s.ld + (unsigned)c / 2); }

// Rows b.. (even) + m, columns c.. + w, of what dgrad saved, and of where results go.
FUSEDVAE_FN void fetch_saved(const Dgrad& g, int b, int m, int c, int w) {
    for (int r = b; r < b + m; ++r) fetch_row<0>(g.saved_words.along + r * g.saved_words.ld_along + c / 2, w / 2);
}
FUSEDVAE_FN void fetch_results(const float*, ptrdiff_t, const Words& out, int b, int m, int c, int w) {
    for (int r = b; r < b + m; ++r) fetch_row<1>(out.along + r * out.ld_along + c / 2, w / 2);
    for (int r = b / 2; r < (b + m + 1) / 2; ++r) fetch_row<1>(out.across + r * out.ld_across + c, w);
}

// Where an epilogue leaves a row of results: in the scratch tile.
FUSEDVAE_FN float* place(float*, ptrdiff_t, float* in_tile) { return in_tile; }

// n (a multiple of eight) columns of m rows, from row b (even) and column c of the matrix on; load_row(r, j) gives
// kLanes values.
template <class LoadRow>
FUSEDVAE_FN void store_words_of(const Words& out, int b, int m, int c, int n, LoadRow load_row) {
    for (int r = 0; r < m; r += 2) {
        float *first = out.along + (b + r) * out.ld_along + c / 2, *second = first + out.ld_along;
        float* pair = out.across + (b + r) / 2 * out.ld_across + c;
        const bool two = r + 1 < m;
        int j = 0;  // whole stores: masked ones are slow, and loads that follow soon cannot be served from them
        for (; j + kLanes <= n; j += kLanes, first += kLanes / 2, second += kLanes / 2, pair += kLanes) {
            const V upper = load_row(r, j);
            if (two) {
                store_pair(first, second, pair, upper, load_row(r + 1, j));
            } else {
                store_neighbours(first, upper);
                store(pair, join(upper, set1(0.0f)));
            }
        }
        if (j < n) {
            const V upper = load_row(r, j), lower = two ? load_row(r + 1, j) : set1(0.0f);
            store_eight_neighbours(first, upper);
            if (two) store_eight_neighbours(second, lower);
            store_eight(pair, join(upper, lower));
        }
    }
}
// The same from a scratch tile (m, ld) that holds whole registers.
FUSEDVAE_FN void store_words(const Words& out, const float* tile, int ld, int b, int m, int c, int n) {
    store_words_of(out, b, m, c, n, [&](int r, int j) { return load(tile + r * ld + j); });
}
// A tile's results, value(r, c) for kLanes of row r from its column c on.
template <class Value>
FUSEDVAE_FN void store_results(float*, ptrdiff_t, const Words& out, const Tile& t, int, Value value) {
    store_words_of(out, t.b0, t.m, t.c0, t.w, value);
}
// Slopes are read by rows only.
FUSEDVAE_FN void store_slope(const Forward& f, int b, int c, V slope) {
    store_neighbours(f.slope_words.along + b * f.slope_words.ld_along + c / 2, slope);
}

void to_words(const Words& out, const float* const* rows, int b0, int b1, int n) {
    store_words_of(out, b0, b1 - b0, 0, (n + 7) / 8 * 8, [&](int r, int j) {
        const float* row = rows[b0 + r] + j;  // what lies past its end is not ours to read
        return n - j >= kLanes ? load(row) : load_part(row, n - j);
    });
}

// One step of the sums over the batch of dY and of its squares.
template <bool kSquares>
FUSEDVAE_FN void add_column(V words, V* total, V* squares) {
    const V even = low_half(words), odd = high_half(words);
    *total = *total + even + odd;
    if (kSquares) *squares = fma(odd, odd, fma(even, even, *squares));
}

// Rows k..k + m of the updated panel (width w, `block` its packed floats) into the words of both kinds.
FUSEDVAE_FN void copy_weights(const Wgrad& g, const float* block, int k, int m, int c0, int w) {
    if (!g.words) return;
    float* panel = g.words + (ptrdiff_t)c0 * words_of(g.K) + (ptrdiff_t)(k / 2) * w;
    for (int r = 0; r < m; r += 2, panel += w)
        for (int c = 0; c < w; c += kLanes)
            store(panel + c, join(load(block + r * w + c), r + 1 < m ? load(block + (r + 1) * w + c) : set1(0.0f)));
    if (!g.weight_t) return;

    // A row's neighbours are the transposed panels' words already; they only have to be turned.
    constexpr int kRows = 8;
    float turned[kRows * kMaxWidth / 2];
    for (int r = 0; r < m; ++r)
        for (int c = 0; c < w; c += kLanes) store_neighbours(turned + r * (w / 2) + c / 2, load(block + r * w + c));
    int p = 0;
    while (g.panels_t.start[p + 1] <= k) ++p;
    const int start = g.panels_t.start[p], width = g.panels_t.start[p + 1] - start;  // 8 | start: k..k + 8 lie in p
    float* out = g.weight_t + (ptrdiff_t)start * words_of(g.N) + (ptrdiff_t)(c0 / 2) * width + (k - start);
    const int words = words_of(g.N - c0 < w ? g.N - c0 : w);
    int i = 0;
    if (m == kRows)
        for (; i + 8 <= words; i += 8) transpose8(out + (ptrdiff_t)i * width, width, turned + i, w / 2);
    for (; i < words; ++i)
        for (int r = 0; r < m; ++r) out[(ptrdiff_t)i * width + r] = turned[r * (w / 2) + i];
}

}  // namespace
}  // namespace fusedvae
