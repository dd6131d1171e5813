// SPDX-License-Identifier: MIT
//
// The three passes over tiles: product, then epilogue while the tile is in L1. An isa_*.cpp file includes its simd
// header, says its tile sizes (kWidest, kTallest), includes its precision's header and this file, and defines its table.
#pragma once
#include "../backend/backend.h"
#include "../layer/formulas.h"
#include "epilogue_backward.h"
#include "epilogue_forward.h"
#include "fetch.h"
#include "microkernel.h"
#include "noise.h"
#include "prologue.h"
#include "serving.h"

namespace fusedvae {
namespace {

// Rows that stay in the second-level cache while the panels pass by; where they are too long for that, a panel stays while
// more of them pass. `big`'s rows of 3072 are multiplied at 93 % of one core's peak so, at 89 % in blocks of 128. Blocks of
// 512 gain nothing on two cores, which share the next cache.
constexpr int kRowBlock = 128, kLongRow = 1024, kLongRowBlock = 256;
// A panel of this depth is 786 kB, too large for that cache beside the rows: each tile would read it from the next one.
// It passes in pieces, which stay in the first-level cache meanwhile, and the tiles' sums go on where they were: `genes`
// takes 9.4 instead of 10.7 ms so. Pieces of 256 or 1024: 9.8; a panel of 3072, of `big`, is better whole.
constexpr int kDeep = 4096, kDeepPiece = 512;

// Of `left` rows that `tiles` tiles share evenly: the next one's.
FUSEDVAE_FN int share_of(int left, int tiles) {
    return tiles > 1 ? (left + kRowGrain - 1) / kRowGrain / tiles * kRowGrain : left;
}

// sums (b1 - b0, w), tile after tile: rows [b0, b1) times a panel.
void multiply_deep(float* sums, const float* const* rows, const float* panel, int w, int depth, int b0, int b1) {
    const int groups = w / kGroup, tallest = kTallest[groups];
    for (int k0 = 0; k0 < depth; k0 += kDeepPiece) {
        const int piece = depth - k0 < kDeepPiece ? depth - k0 : kDeepPiece;
        int tiles = (b1 - b0 + tallest - 1) / tallest;
        for (int b = b0, m; b < b1; b += m, --tiles) {
            m = share_of(b1 - b, tiles);
            const float* pieces[kMaxRows];
            for (int i = 0; i < m; ++i) pieces[i] = rows[b + i] + k0;
            product_for<Walk::resuming>(groups, m)(sums + (b - b0) * w, pieces, 0, panel + (ptrdiff_t)k0 * w, w, piece,
                                                   k0 > 0, nullptr);
        }
    }
}

// Calls fetch(b, m, c0, w), then finish(tile, p), for every register tile of rows [b0, b1) and panels [p0, p1). Rows are
// shared evenly among the tiles of a block, so that 20 rows make 6 + 7 + 7 and not 8 + 8 + 4.
template <class Fetch, class Finish>
FUSEDVAE_FN void for_each_tile(const float* const* rows, const float* packed, bool widens, Panels panels, int depth,
                               int b0, int b1, int p0, int p1, Fetch fetch, Finish finish) {
    const ptrdiff_t packed_depth = widens ? words_of(depth) : depth;
    alignas(64) float values[kRowBlock * kMaxWidth];
    const int row_block = depth > kLongRow && depth < kDeep ? kLongRowBlock : kRowBlock;
    for (int block = b0; block < b1; block += row_block) {
        const int end = block + row_block < b1 ? block + row_block : b1;
        for (int p = p0; p < p1; ++p) {
            const int c0 = panels.start[p], w = panels.start[p + 1] - c0, groups = w / kGroup;
            const int tallest = (widens ? kTallestWidening : kTallest)[groups];
            const float* const panel = packed + c0 * packed_depth;
            int tiles = (end - block + tallest - 1) / tallest;
            const bool deep =
                depth >= kDeep && tiles > 1 && share_of(end - block, tiles) >= lowest_resuming(tallest) && !widens;
            if (deep) multiply_deep(values, rows, panel, w, depth, block, end);
            for (int b = block, m; b < end; b += m, --tiles) {
                m = share_of(end - b, tiles);
                float* const sums = values + (deep ? (b - block) * w : 0);
                if (!deep) {
                    fetch(b, m, c0, w);
                    forward_product(widens, groups, m)(sums, rows, b, panel, w, depth, false, nullptr);
                }
                finish(Tile{sums, b, m, c0, w}, p);
            }
        }
    }
}

void forward(const Forward& f, int b0, int b1, int p0, int p1) {
    const bool trains = f.dy || f.dy_words.along;
    const bool gradient = trains && f.epilogue != Epilogue::linear_act && f.epilogue != Epilogue::reparameterize_kl;
    const int outputs = f.epilogue == Epilogue::gaussian_element_nll ? 2 : 1;  // of a feature
    const ptrdiff_t results = (ptrdiff_t)(b1 - b0) * f.N;
    const bool far_targets = gradient && results / outputs > kFarTargets;
    const bool far_results = gradient && results > kFarResults;
    const auto fetch = [&](int b, int m, int c0, int w) __attribute__((always_inline)) {
        for (int r = b; far_targets && r < b + m; ++r) fetch_row<0>(f.target[r] + c0 / outputs, w / outputs);
        if (far_results) fetch_results(f.dy, f.ld, f.dy_words, b, m, c0, w);
    };
    const auto run = [&](auto epilogue) __attribute__((always_inline)) {
        for_each_tile(f.rows, f.weight, f.widens, f.panels, f.K, b0, b1, p0, p1, fetch, epilogue);
    };
    switch (f.epilogue) {
        case Epilogue::linear_act:
            return run([&](const Tile& t, int) { linear_act(f, t); });
        case Epilogue::reparameterize_kl:
            return run([&](const Tile& t, int p) { reparameterize_kl(f, t, p); });
        case Epilogue::bernoulli_nll:
            return run([&](const Tile& t, int p) { bernoulli_nll(f, t, p); });
        case Epilogue::gaussian_nll:
            return run([&](const Tile& t, int p) { gaussian_nll(f, t, p); });
        case Epilogue::gaussian_element_nll:
            return run([&](const Tile& t, int p) { gaussian_element_nll(f, t, p); });
        default:
            return;  // the other entries of the list belong to the other passes
    }
}

void dgrad(const Dgrad& g, int b0, int b1, int p0, int p1) {
    const bool act = g.epilogue == Epilogue::act_grad, far = act && (ptrdiff_t)(b1 - b0) * g.K > kFarResults;
    const auto fetch = [&](int b, int m, int c0, int w) __attribute__((always_inline)) {
        if (!far) return;
        fetch_saved(g, b, m, c0, w);
        fetch_results(g.dx, g.ld, g.dx_words, b, m, c0, w);
    };
    for_each_tile(g.rows, g.weight_t, false, g.panels, g.N, b0, b1, p0, p1, fetch, [&](const Tile& t, int) {
        if (act) return act_grad(g, t);
        reparameterize_grad(g, t);
    });
}

constexpr int kLinesAhead = 256;

// What an optimiser is about to read and write, n values of each kind, is fetched while the product before it runs: where
// that has steps enough, a line at each step, since many misses at once hold up its own loads (`genes` takes 8 % longer
// so). Returns the lines for the `depth` steps, a part of `lines`, or NULL where there are too few steps: then all are
// fetched at once, or none, which makes `iwae` 3 % faster on Zen 4.
FUSEDVAE_FN const float* const* fetch_slot(const Slot& s, int n, int depth, bool fetches, const float** lines) {
    const auto for_each_line = [&](auto take) __attribute__((always_inline)) {
        for (int i = 0; i < n; i += kLine) {
            take(s.value + i);
            if (s.m) take(s.m + i);
            if (s.v) take(s.v + i);
        }
    };
    const int count = (1 + !!s.m + !!s.v) * (n / kLine);
    if (count > kLinesAhead || count > 2 * depth) {
        if (fetches)
            for_each_line([](const float* line) __attribute__((always_inline)) { __builtin_prefetch(line, 1); });
        return nullptr;
    }
    int put = 0, now = 0;
    for_each_line([&](const float* line) __attribute__((always_inline)) { lines[put++] = line; });
    for (; put - now > depth; ++now) __builtin_prefetch(lines[now], 1);
    for (; put < depth; ++put) lines[put] = s.value;
    return lines + now;
}

// One panel of dW, in blocks of rows that the panel's tallest tile divides, and eight too (the transposed copy moves 8 x 8
// floats at a time). Large batches are cut into pieces whose part of dY stays in the first-level cache while a group of
// blocks passes by; each block's sums wait in `values` meanwhile and go on where they were. Groups are as long as a small
// stack allows: each reads all of dY's panel and walks through all rows. With groups of 32 a batch of 16384 images takes
// 7 % longer and `big` 1.
constexpr int block_rows(int tallest) { return tallest % 3 == 0 ? 24 : 8; }
constexpr int group_rows(int tallest) { return tallest % 3 == 0 ? 240 : 256; }
constexpr int kMostGroupRows = 256, kBatchPiece = 128;

void wgrad(const Wgrad& g, int p, int k0, int k1) {
    alignas(64) float values[kMostGroupRows * kMaxWidth];
    const int c0 = g.panels.start[p], w = g.panels.start[p + 1] - c0, groups = w / kGroup;
    const int tallest = kTallest[groups], group_step = group_rows(tallest), block_step = block_rows(tallest);
    const int pieces = g.splits ? 1 : (g.depth + kBatchPiece - 1) / kBatchPiece;
    for (int group = k0; group < k1; group += group_step) {
        const int end = group + group_step < k1 ? group + group_step : k1;
        for (int piece = 0; piece < pieces; ++piece) {
            const int b0 = piece * kBatchPiece, depth = g.depth - b0 < kBatchPiece ? g.depth - b0 : kBatchPiece;
            for (int k = group; k < end; k += block_step) {
                const int m = end - k < block_step ? end - k : block_step;
                float* sums = values + (k - group) * w;
                const bool last = piece + 1 == pieces;
                const Slot slot = at(g.weight, (ptrdiff_t)c0 * g.K + (ptrdiff_t)k * w);
                if (g.splits) {
                    sum_splits(sums, g, slot.stored, m * w);
                } else {
                    const float* lines[kLinesAhead];
                    const float* const* ahead = nullptr;
                    if (last && g.epilogue != Epilogue::store) ahead = fetch_slot(slot, m * w, depth, g.fetches, lines);
                    const int tiles = (m + tallest - 1) / tallest;
                    for (int t = 0, r = 0; t < tiles; ++t) {
                        const int height = (m - r) / (tiles - t);
                        product_for<Walk::across>(groups, height)(sums + r * w, g.rows + b0, k + r,
                                                                  g.dy + b0 * g.ld + c0, g.ld, depth, piece > 0,
                                                                  t == 0 ? ahead : nullptr);
                        r += height;
                    }
                }
                if (!last) continue;
                finish_slot(g, slot, sums, m * w);
                for (int r = 0; r < m; r += 8) copy_weights(g, slot.value + r * w, k + r, m - r < 8 ? m - r : 8, c0, w);
            }
        }
    }
    if (k0 == 0) finish_columns(g, c0, w);
}

// Eight running sums: an order that n alone decides.
double sum_squares(const float* values, int64_t n) {
    double sums[8] = {};
    for (int64_t i = 0; i < n; ++i) sums[i % 8] += (double)values[i] * (double)values[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// The arithmetic peak: independent chains enough to cover the latency of every multiply-add unit in use today.
double fma_loop(int64_t iterations, float* sink) {
    constexpr int kChains = kBfloat16 ? 24 : 12;
    V chain[kChains];
    for (int i = 0; i < kChains; ++i) chain[i] = set1((float)i);
    const V a = set1(0.5f), b = set1(0x1p-30f);  // sums that stay finite
    for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 32
        for (int j = 0; j < kChains; ++j) chain[j] = multiply_add(a, b, chain[j]);
    V total = chain[0];
    for (int j = 1; j < kChains; ++j) total = total + chain[j];
    *sink = sum(total);
    return (kBfloat16 ? 4.0 : 2.0) * kChains * kLanes * (double)iterations;
}

}  // namespace
}  // namespace fusedvae

#define FUSEDVAE_DEFINE_BACKEND(symbol, text)                                                                    \
    namespace fusedvae::cpu {                                                                                    \
    const Backend symbol = {text,  kWidest, kTallest, kBfloat16, forward,  forward_row, split_head,  draw_codes, \
                            dgrad, wgrad,   convert,  to_words,  find_bad, normals,     sum_squares, fma_loop};  \
    }
