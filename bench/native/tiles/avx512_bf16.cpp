// SPDX-License-Identifier: MIT
//
// Tiles of AVX-512 with BF16: each float is a word of two bfloat16.
#include "cpu/simd/avx512_bf16.h"

#define TABLE kAvx512Bf16
#define BACKEND "avx512_bf16"
#define MULTIPLY_ADD dot2
#define REGISTERS 32
#define FLOATS 16
#include "compile.h"
