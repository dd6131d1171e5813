// SPDX-License-Identifier: MIT
//
// What needs the whole batch before anything is updated: the losses, free bits, and the gradient's norm.
#pragma once
#include "context.h"
#include "stages.h"

namespace fusedvae::cuda {

void sum_losses(const SumLosses& job, cudaStream_t stream);
void weigh_dimensions(const Dimensions& job, cudaStream_t stream);
void gather_gradient(const Gather& job, cudaStream_t stream);
void clip(const Clip& job, cudaStream_t stream);
void apply(const Apply& job, cudaStream_t stream);
// The next graph begins `steps` further on.
void advance(const Clock& clock, int steps, cudaStream_t stream);

}  // namespace fusedvae::cuda
