// SPDX-License-Identifier: MIT
//
// AVX2: 16 registers. 16 columns take 6 x 2 accumulators + 2 + 1, 32 columns 3 x 4 + 3 + 1.
#include "simd/avx2.h"

namespace fusedvae {
namespace {
constexpr int kWidest = 2;                        // panels of up to this many kGroup columns
constexpr int kTallest[kWidest + 1] = {0, 6, 3};  // rows of a tile, by the panel's groups
// The mask of a word's high half takes a register: at 6 and 3 rows GCC keeps sums in memory, and takes twice as long.
constexpr int kTallestWidening[kWidest + 1] = {0, 5, 2};
}  // namespace
}  // namespace fusedvae

#include "float32.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kAvx2, "avx2")
