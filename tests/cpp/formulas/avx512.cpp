// SPDX-License-Identifier: MIT
//
// The formulas under test: AVX-512.
#include "cpu/simd/avx512.h"

#define TABLE kAvx512
#define BACKEND "avx512"
#include "arrays.h"
