// SPDX-License-Identifier: MIT
//
// The formulas under test: one float at a time.
#include "cpu/simd/scalar.h"

#define TABLE kScalar
#define BACKEND "scalar"
#include "arrays.h"
