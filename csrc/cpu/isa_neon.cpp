// SPDX-License-Identifier: MIT
//
// AArch64: 32 registers. 16 columns take 6 x 4 accumulators + 4 + 1.
#include "simd/neon.h"

namespace fusedvae {
namespace {
constexpr int kWidest = 1;                     // panels of up to this many kGroup columns
constexpr int kTallest[kWidest + 1] = {0, 6};  // rows of a tile, by the panel's groups
constexpr const int* kTallestWidening = kTallest;
}  // namespace
}  // namespace fusedvae

#include "float32.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kNeon, "neon")
