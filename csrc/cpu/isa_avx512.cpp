// SPDX-License-Identifier: MIT
//
// AVX-512: 32 registers. 48 columns take 8 x 3 accumulators + 3 + 1; taller tiles gain nothing (8 x 32 has 98 % of peak).
#include "simd/avx512.h"

namespace fusedvae {
namespace {
constexpr int kWidest = 3;                           // panels of up to this many kGroup columns
constexpr int kTallest[kWidest + 1] = {0, 8, 8, 8};  // rows of a tile, by the panel's groups
}  // namespace
}  // namespace fusedvae

#include "float32.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kAvx512, "avx512")
