// SPDX-License-Identifier: MIT
//
// AVX-512 with BF16: the tiles of isa_avx512.cpp over words of two bfloat16.
#include "simd/avx512_bf16.h"

namespace fusedvae {
namespace {
constexpr int kWidest = 3;                           // panels of up to this many kGroup columns
constexpr int kTallest[kWidest + 1] = {0, 8, 8, 8};  // rows of a tile, by the panel's groups
}  // namespace
}  // namespace fusedvae

#include "bfloat16.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kAvx512Bf16, "avx512_bf16")
