// SPDX-License-Identifier: MIT
//
// The functions of list.inc over arrays: a table for each instruction set, defined in the file of its name.
#pragma once

namespace accuracy {

struct Table {
    const char* backend;
#define FORMULA(name, ...) void (*name)(float* out, const float* in, int n); /* n: a multiple of 16 */
#include "list.inc"
#undef FORMULA
};
extern const Table kScalar, kAvx2, kAvx512, kNeon;

}  // namespace accuracy
