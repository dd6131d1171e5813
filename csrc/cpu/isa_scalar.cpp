// SPDX-License-Identifier: MIT
//
// Portable C++, one float at a time, of which compilers make vectors: tiles of one row, because GCC 12 makes none of two
// rows that run along K (19 % of the peak against 85; a step of `mnist` 18.3 ms against 8.2).
#include "simd/scalar.h"

namespace fusedvae {
namespace {
constexpr int kWidest = 1;                     // panels of up to this many kGroup columns
constexpr int kTallest[kWidest + 1] = {0, 1};  // rows of a tile, by the panel's groups
constexpr const int* kTallestWidening = kTallest;
}  // namespace
}  // namespace fusedvae

#include "float32.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kScalar, "scalar")
