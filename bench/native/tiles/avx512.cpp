// SPDX-License-Identifier: MIT
//
// Tiles of AVX-512.
#include "cpu/simd/avx512.h"

#define TABLE kAvx512
#define BACKEND "avx512"
#define MULTIPLY_ADD fma
#define REGISTERS 32
#define FLOATS 16
#include "compile.h"
