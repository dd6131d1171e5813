// SPDX-License-Identifier: MIT
//
// The scratch tile that a product leaves in the first-level cache for its epilogue.
#pragma once
#include "../layer/gemm.h"
#include "inline.h"

namespace fusedvae {
namespace {

constexpr int kMaxWidth = kWidest * kGroup;

struct Tile {       // rows b0.. and columns c0.. of the matrix
    float* values;  // (m, w)
    int b0, m, c0, w;
};

struct Saved {  // what dgrad reads of a tile beside its product: act' or y, in the type that it was stored in
    const float* first;
    ptrdiff_t ld;
};

FUSEDVAE_FN int valid_lanes(int columns, int c) {
    const int rest = columns - c;
    return rest >= kLanes ? kLanes : rest > 0 ? rest : 0;
}
FUSEDVAE_FN void store_lanes(float* p, V a, int n) {  // whole where it can be: loads soon after are served from it
    if (n == kLanes) return store(p, a);
    if (n > 0) store_part(p, a, n);
}
// n columns of a row, value(c) for kLanes of them.
template <class Value>
FUSEDVAE_FN void store_row(float* row, int n, Value value) {
    int c = 0;
    for (; c + kLanes <= n; c += kLanes) store(row + c, value(c));
    if (c < n) store_part(row + c, value(c), n - c);
}

}  // namespace
}  // namespace fusedvae
