// SPDX-License-Identifier: MIT
//
// Tiles of the compiler's own vectors, SSE2 or Advanced SIMD.
#include "cpu/simd/scalar.h"

#define TABLE kScalar
#define BACKEND "scalar"
#define MULTIPLY_ADD fma
#define REGISTERS 16
#define FLOATS 4
#include "compile.h"
