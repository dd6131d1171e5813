// SPDX-License-Identifier: MIT
//
// AVX-512, float32.
#include "simd/avx512.h"
#include "simd/avx512_tiles.h"

#include "float32.h"
#include "passes.h"

FUSEDVAE_DEFINE_BACKEND(kAvx512, "avx512")
