// SPDX-License-Identifier: MIT
//
// The micro-kernel (csrc/cpu/microkernel.h) at every tile that an instruction set's registers hold, beyond the few that
// the backends use: a table for each, defined in the file of its name.
#pragma once
#include <stddef.h>

namespace fusedvae::tiles {

constexpr int kMostRows = 14, kMostGroups = 4;

// tile (rows, columns) = A (rows, depth) . B (depth, columns); see microkernel.h
using Product = void (*)(float* tile, const float* const* rows, int first, const float* b, ptrdiff_t ldb, int depth,
                         bool resume, const float* const* ahead);

struct Table {
    const char* backend;
    // [rows][groups of columns]; NULL where the sums and their factors do not fit into the registers
    Product along[kMostRows + 1][kMostGroups + 1];   // A's rows run along the inner dimension: forward, dgrad
    Product across[kMostRows + 1][kMostGroups + 1];  // or across it: wgrad
};
extern const Table kScalar, kAvx2, kAvx512, kAvx512Bf16, kNeon;

}  // namespace fusedvae::tiles
