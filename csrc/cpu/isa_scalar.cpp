// SPDX-License-Identifier: MIT
//
// Portable C++, one float at a time; two rows keep the compiler's own vectors in registers.
#include "simd/scalar.h"

namespace fusedvae {
namespace {
constexpr int kWidest = 1;                     // panels of up to this many kGroup columns
constexpr int kTallest[kWidest + 1] = {0, 2};  // rows of a tile, by the panel's groups
}  // namespace
}  // namespace fusedvae

#include "float32.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kScalar, "scalar")
