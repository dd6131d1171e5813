// SPDX-License-Identifier: MIT
//
// Tiles of Advanced SIMD.
#include "cpu/simd/neon.h"

#define TABLE kNeon
#define BACKEND "neon"
#define MULTIPLY_ADD fma
#define REGISTERS 32
#define FLOATS 4
#include "compile.h"
