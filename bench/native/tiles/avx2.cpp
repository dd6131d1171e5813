// SPDX-License-Identifier: MIT
//
// Tiles of AVX2.
#include "cpu/simd/avx2.h"

#define TABLE kAvx2
#define BACKEND "avx2"
#define MULTIPLY_ADD fma
#define REGISTERS 16
#define FLOATS 8
#include "compile.h"
