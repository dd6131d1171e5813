// SPDX-License-Identifier: MIT
//
// What needs the whole batch before anything is updated: the losses, free bits, and the gradient's norm. Every sum is a
// fixed tree, in double from the rows on.
#pragma once
#include "context.h"
#include "jobs.h"

namespace fusedvae::cuda {

constexpr int kRowsPerPart = 1024;  // rows of one block's sum
constexpr int kNormChunk = 16384;   // gradients of one block's sum
inline int64_t loss_parts(int64_t B) { return 2 * ((B + kRowsPerPart - 1) / kRowsPerPart); }
inline int64_t norm_parts(int64_t floats) { return (floats + kNormChunk - 1) / kNormChunk; }

struct LossJob {
    Clock clock;
    const float* nll;  // (B, nll_segments)
    const float* kl;   // (B, kl_segments)
    int nll_segments, kl_segments, B;
    double jacobian;       // taken off the reconstruction
    double free_bits;      // 0: none
    const double* dim_kl;  // (Z) batch means, where there are free bits
    int Z;
    double* parts;   // (loss_parts)
    Losses* losses;  // an element for each of the clock's
};
// Writes the step's losses; where they are not finite, and none were before, marks the step as failed.
void reduce_losses(const LossJob& job, cudaStream_t stream);

// dim_kl (Z): each latent dimension's KL averaged over the batch's head (B, ld) pairs; dim_weight (Z): 1 where it exceeds
// the free bits, else 0.
void weigh_dimensions(const float* head, int64_t ld, int B, int Z, double free_bits, double* dim_kl, float* dim_weight,
                      cudaStream_t stream);

// Adds the splits of a gradient into the first one, and its squares into parts.
void gather_gradient(const Flat& flat, int splits, double* parts, cudaStream_t stream);
// torch.nn.utils.clip_grad_norm_'s factor; a norm that is not finite marks the step as failed.
void clip(const Clock& clock, const double* parts, int64_t floats, double clip_norm, float* factor,
          cudaStream_t stream);
// The optimiser on stored gradients: value, moments and bfloat16 copy of everything. factor NULL: 1.
void apply(const Clock& clock, const Flat& flat, int splits, Epilogue epilogue, const float* factor,
           cudaStream_t stream);
// The next graph begins `steps` further on.
void advance(const Clock& clock, int steps, cudaStream_t stream);

}  // namespace fusedvae::cuda
