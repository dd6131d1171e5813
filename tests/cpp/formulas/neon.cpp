// SPDX-License-Identifier: MIT
//
// The formulas under test: Advanced SIMD.
#include "cpu/simd/neon.h"

#define TABLE kNeon
#define BACKEND "neon"
#include "arrays.h"
