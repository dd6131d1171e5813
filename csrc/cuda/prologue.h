// SPDX-License-Identifier: MIT
//
// Prologues. Rows that products can read where they lie, gathered through the epoch's order, need none; others pass
// through here once per batch, into a matrix of our own in float32, in bfloat16, or both.
#pragma once
#include "context.h"
#include "stages.h"

namespace fusedvae::cuda {

void read_rows(const ReadRows& job, cudaStream_t stream);

// All of a flat buffer as bfloat16.
void make_half(const float* values, uint16_t* half, int64_t count, cudaStream_t stream);

}  // namespace fusedvae::cuda
