// SPDX-License-Identifier: MIT
//
// The formulas under test: AVX2.
#include "cpu/simd/avx2.h"

#define TABLE kAvx2
#define BACKEND "avx2"
#include "arrays.h"
