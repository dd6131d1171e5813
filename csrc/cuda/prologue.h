// SPDX-License-Identifier: MIT
//
// Prologues. Float rows of 16-byte alignment are read where they lie, gathered through the epoch's order; others pass
// through here once per batch, into a matrix of our own in float32, in bfloat16, or both.
#pragma once
#include "context.h"
#include "jobs.h"

namespace fusedvae::cuda {

struct Source {  // rows on the device
    const void* data;
    RowType type;
    int64_t stride;  // bytes from row to row
    int step;        // values from column to column; 2 reads every other one, the means of pairs
    float factor;
    const uint32_t* index;  // NULL: dense; else row i is index[first_row + i], first_row the clock's
    Clock clock;
    bool padded;  // a matrix of our own: zeros up to a multiple of eight columns
};
// Rows [0, rows) of the source, zeros past the last column: floats (rows, ld_floats) and half (rows, ld_half), either NULL.
void read_rows(const Source& source, int64_t rows, int columns, float* floats, int64_t ld_floats, uint16_t* half,
               int64_t ld_half, cudaStream_t stream);

// All of a flat buffer as bfloat16.
void make_half(const float* values, uint16_t* half, int64_t count, cudaStream_t stream);

}  // namespace fusedvae::cuda
