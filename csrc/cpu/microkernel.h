// SPDX-License-Identifier: MIT
//
// The micro-kernel: one register tile, tile (MR, NV * kLanes) = A (MR, depth) . B (depth, NV * kLanes).
//
//     a: row pointers               b: panel of packed weights, or rows of dY
//       rows[i] -> k ....             k=0  | b0 b1 b2 |  <- ldb floats to the next k
//                                     k=1  | b0 b1 b2 |
//
// forward and dgrad read a[i][k]; wgrad reads the same kind of rows transposed, a[k][i]. Each element is one chain of
// multiply-adds over k in order, whatever MR and NV are; `resume` goes on with the chains that the tile holds. The tile
// is left in L1 for the epilogue; where `ahead` (depth) is not NULL, step k of wgrad fetches a line that this will read.
// What one k is, a float or a word of two bfloat16, only multiply_add knows (float32.h, bfloat16.h). Walk::widening reads
// float rows as forward does, and a panel of words: a row of words holds two k.
#pragma once
#include "../layer/gemm.h"
#include "fetch.h"
#include "inline.h"

namespace fusedvae {
namespace {

// The same pointer, of which the compiler does not know that it is: else it mixes two steps, and has too few registers.
FUSEDVAE_FN const float* read_anew(const float* p) {
    __asm__("" : "+r"(p));
    return p;
}

// One row reads each weight once, as fast as memory gives it. Some processors' own prefetching stops at the end of each
// page; there lines are fetched some way ahead (2 or 3 KB do no better).
template <int kWidth>
FUSEDVAE_FN void fetch_ahead(const float* b) {
    constexpr int kAhead = 256;  // floats
    for (int j = 0; j < kWidth; j += kLine) __builtin_prefetch(b + kAhead + j);
}

// A's rows run along k, or across it; widening: along, B's words widened; resuming: along, and a part of k at a time;
// fetching: along, one row, and B's lines are fetched ahead.
enum class Walk { along, across, widening, resuming, fetching };

template <Walk kWalk, int MR, int NV>
void product(float* tile, const float* const* rows, int first, const float* b, ptrdiff_t ldb, int depth, bool resume,
             const float* const* ahead) {
    // Where it is known that nothing resumes, compilers keep the zeros in registers.
    resume = resume && (kWalk == Walk::across || kWalk == Walk::resuming);
    V sum_of[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) sum_of[i][j] = set1(0.0f);
    if (resume)
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
            for (int j = 0; j < NV; ++j) sum_of[i][j] = load(tile + (i * NV + j) * kLanes);
    const float* row[MR];
    if constexpr (kWalk != Walk::across)
        for (int i = 0; i < MR; ++i) row[i] = rows[first + i];

    // The shorter side stays in registers while the other passes by: MR * NV + min(MR, NV) + 1 must fit.
    const auto load_low = [](const float* p) __attribute__((always_inline)) { return low_half(load(p)); };
    const auto load_high = [](const float* p) __attribute__((always_inline)) { return high_half(load(p)); };
    if constexpr (kWalk == Walk::widening) {
        const auto step = [&](int k, auto load_right) __attribute__((always_inline)) {
            if constexpr (NV <= MR) {
                V right[NV];
                for (int j = 0; j < NV; ++j) right[j] = load_right(b + j * kLanes);
                for (int i = 0; i < MR; ++i) {
                    const V left = set1(row[i][k]);
                    for (int j = 0; j < NV; ++j) sum_of[i][j] = multiply_add(left, right[j], sum_of[i][j]);
                }
            } else {
                V left[MR];
                for (int i = 0; i < MR; ++i) left[i] = set1(row[i][k]);
                for (int j = 0; j < NV; ++j) {
                    const V right = load_right(b + j * kLanes);
                    for (int i = 0; i < MR; ++i) sum_of[i][j] = multiply_add(left[i], right, sum_of[i][j]);
                }
            }
        };
        for (int k = 0; k + 1 < depth; k += 2, b += ldb) {
            step(k, load_low);
            b = read_anew(b);
            step(k + 1, load_high);
        }
    } else {  // written out, since GCC 12 makes no vectors of plain C++ through a lambda
#pragma GCC unroll 2
        for (int k = 0; k < depth; ++k, b += ldb) {
            if constexpr (kWalk == Walk::across) {
                row[0] = rows[k] + first;
                // the next tile's columns: no prefetcher follows as many streams as rows
                __builtin_prefetch(row[0] + kLine);
                if (ahead) __builtin_prefetch(ahead[k], 1);
            }
            if constexpr (kWalk == Walk::fetching) fetch_ahead<NV * kLanes>(b);
            if constexpr (NV <= MR) {
                V right[NV];
                for (int j = 0; j < NV; ++j) right[j] = load(b + j * kLanes);
                for (int i = 0; i < MR; ++i) {
                    const V left = set1(kWalk != Walk::across ? row[i][k] : row[0][i]);
                    for (int j = 0; j < NV; ++j) sum_of[i][j] = multiply_add(left, right[j], sum_of[i][j]);
                }
            } else {
                V left[MR];
                for (int i = 0; i < MR; ++i) left[i] = set1(kWalk != Walk::across ? row[i][k] : row[0][i]);
                for (int j = 0; j < NV; ++j) {
                    const V right = load(b + j * kLanes);
                    for (int i = 0; i < MR; ++i) sum_of[i][j] = multiply_add(left[i], right, sum_of[i][j]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) store(tile + (i * NV + j) * kLanes, sum_of[i][j]);
    // An odd depth's last word, apart from the loop: in it GCC 12 keeps all sums twice.
    if (kWalk == Walk::widening && depth % 2)
        for (int i = 0; i < MR; ++i)
            for (int j = 0; j < NV; ++j) {
                float* const at = tile + (i * NV + j) * kLanes;
                store(at, multiply_add(set1(row[i][depth - 1]), load_low(b + j * kLanes), load(at)));
            }
}

using Product = void (*)(float*, const float* const*, int, const float*, ptrdiff_t, int, bool, const float* const*);

// Tile heights: up to the tallest tile whose accumulators fit the register file, for a panel of `groups` kGroup columns.
// Only rows enough for tall tiles are worth resuming for.
constexpr int lowest_resuming(int tallest) { return tallest - 2; }
template <Walk kWalk, int kGroups>
struct Heights {
    static constexpr int NV = kGroups * kGroup / kLanes, tallest = kTallest[kGroups];
    static constexpr int lowest = kWalk == Walk::resuming ? lowest_resuming(tallest) : 1;
    static constexpr int highest = kWalk == Walk::fetching ? 1 : tallest;
    template <int MR>
    static constexpr Product height() {
        if constexpr (MR >= lowest && MR <= highest)
            return product<kWalk, MR, NV>;
        else
            return nullptr;
    }
    static constexpr Product of[kMaxRows + 1] = {nullptr,     height<1>(), height<2>(), height<3>(), height<4>(),
                                                 height<5>(), height<6>(), height<7>(), height<8>()};
};

template <Walk kWalk>
Product product_for(int groups, int height) {
    if constexpr (kWidest >= 3)
        if (groups == 3) return Heights<kWalk, 3>::of[height];
    if constexpr (kWidest >= 2)
        if (groups == 2) return Heights<kWalk, 2>::of[height];
    return Heights<kWalk, 1>::of[height];
}

}  // namespace
}  // namespace fusedvae
