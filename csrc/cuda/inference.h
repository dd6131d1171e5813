// SPDX-License-Identifier: MIT
//
// What only inference needs besides the products: codes and scores. Every sum over a row or its samples is a fixed tree of
// that row alone, so a row's result does not depend on the rows beside it.
#pragma once
#include "context.h"
#include "jobs.h"

namespace fusedvae::cuda {

// out (rows, columns) dense = in[r * ld + first + c * step]
void take_columns(const float* in, int64_t ld, int first, int step, int64_t rows, int columns, float* out,
                  cudaStream_t stream);

// Normals 0 .. Z - 1 of rows 0 .. count - 1 of a stream: out (count, Z).
void draw_normals(const Stream& noise, int64_t count, int Z, float* out, cudaStream_t stream);

// The posterior of rows from their head (rows, ld) pairs: mu, sigma (rows, Z), the sum of logvar and the KL of each.
struct Posterior {
    float *mu, *sigma;        // (rows, Z)
    double *sum_logvar, *kl;  // (rows)
};
void read_posterior(const float* head, int64_t ld, int64_t rows, int Z, const Posterior& out, cudaStream_t stream);

// Codes of pairs [first, first + count), pair p is row p / samples and sample p % samples: z (count, ld_z) as products
// read it, floats or bfloat16; log_ratio (count): log p(z) - log q(z|x).
void draw_codes(const Posterior& posterior, const float* noise, int64_t samples, int Z, int64_t first, int64_t count,
                float* z, uint16_t* z_half, int64_t ld_z, double* log_ratio, cudaStream_t stream);

// From nll parts (count, parts) of pairs: nll, or with importance log_ratio - nll. values (count).
void weigh_pairs(const float* nll, int parts, const double* log_ratio, int64_t count, bool importance, double* values,
                 cudaStream_t stream);
// values (rows, samples) -> result (rows): the ELBO, or the importance-weighted log-likelihood.
void score_rows(const double* values, int64_t rows, int64_t samples, const double* kl, double jacobian, bool importance,
                double* result, cudaStream_t stream);

}  // namespace fusedvae::cuda
