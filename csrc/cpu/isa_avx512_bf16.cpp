// SPDX-License-Identifier: MIT
//
// AVX-512 with BF16: words of two bfloat16.
#include "simd/avx512_bf16.h"
#include "simd/avx512_tiles.h"

#include "bfloat16.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kAvx512Bf16, "avx512_bf16")
