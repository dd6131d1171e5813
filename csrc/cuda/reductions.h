// SPDX-License-Identifier: MIT
//
// What a block does of the stages that are no products (stages.h). Every sum is a fixed tree, whatever the block's size.
#pragma once
#include "cuda/ptx.h"
#include "epilogue_backward.h"
#include "stages.h"

namespace fusedvae::cuda {
namespace {

constexpr int kLeaves = 256;                             // of the tree over a block
constexpr size_t kTreeBytes = kLeaves * sizeof(double);  // of shared memory

// The sum of leaf(i) for i < kLeaves, in every thread.
template <int kThreads, class Leaf>
__device__ __forceinline__ double block_sum(Leaf leaf) {
    double* const shared = shared_memory<double>();
    const int thread = static_cast<int>(threadIdx.x);
    __syncthreads();  // the last sum has been read
    for (int i = thread; i < kLeaves; i += kThreads) shared[i] = leaf(i);
    __syncthreads();
    for (int half = kLeaves / 2; half > 0; half /= 2) {
        for (int i = thread; i < half; i += kThreads) shared[i] += shared[i + half];
        __syncthreads();
    }
    return shared[0];
}

__device__ __forceinline__ bool is_finite(double x) { return x - x == 0.0; }

// ---- losses --------------------------------------------------------------------------------------------------------------

template <int kThreads>
__device__ __forceinline__ void finish_losses(const SumLosses& job, double nll, double kl) {
    double optimised = kl / job.B;
    if (job.free_bits > 0.0) {
        const double sum = block_sum<kThreads>([&](int i) {
            double own = 0.0;
            for (int j = i; j < job.Z; j += kLeaves)
                own += job.dim_kl[j] > job.free_bits ? job.dim_kl[j] : job.free_bits;
            return own;
        });
        if (kl == kl) optimised = sum;
    }
    if (threadIdx.x != 0) return;
    const int64_t at = job.clock.progress->position + job.clock.at;
    Losses result;
    result.reconstruction = nll / job.B - job.jacobian;
    result.kl = kl / job.B;
    result.loss = result.reconstruction + job.clock.scalars[at].beta * optimised;
    job.losses[at] = result;
    if (!is_finite(result.loss) && job.clock.progress->failed == 0) job.clock.progress->failed = at + 1;
}

// A part of the batch; the only one finishes.
template <int kThreads>
__device__ __forceinline__ void sum_losses(const SumLosses& job, int part, int parts) {
    const int first = part * kRowsPerPart, last = job.B - first < kRowsPerPart ? job.B : first + kRowsPerPart;
    const auto sum_rows = [&](const float* values, int segments_of_row) {
        return block_sum<kThreads>([&](int i) {
            double own = 0.0;
            for (int64_t b = first + i; b < last; b += kLeaves) {
                double row = 0.0;
                for (int p = 0; p < segments_of_row; ++p) row += static_cast<double>(values[b * segments_of_row + p]);
                own += row;
            }
            return own;
        });
    };
    const double nll = sum_rows(job.nll, job.nll_segments), kl = sum_rows(job.kl, job.kl_segments);
    if (parts == 1) return finish_losses<kThreads>(job, nll, kl);
    if (threadIdx.x == 0) job.parts[2 * part] = nll, job.parts[2 * part + 1] = kl;
}

template <int kThreads>
__device__ __forceinline__ void weigh_dimension(const Dimensions& job, int j) {
    const double sum = block_sum<kThreads>([&](int i) {
        double own = 0.0;
        for (int b = i; b < job.B; b += kLeaves) {
            const V mu = set1(job.head[b * job.ld + 2 * j]), logvar = set1(job.head[b * job.ld + 2 * j + 1]);
            const V sigma = exp(set1(0.5f) * logvar);
            own += static_cast<double>(kl_term(mu, logvar, sigma * sigma).v);
        }
        return own;
    });
    if (threadIdx.x != 0) return;
    job.dim_kl[j] = sum / job.B;
    job.dim_weight[j] = sum / job.B > job.free_bits ? 1.0f : 0.0f;
}

// ---- stored gradients ----------------------------------------------------------------------------------------------------

__device__ __forceinline__ Four sum_splits(const Flat& flat, int splits, int64_t i) {
    Four g = load_four(flat.gradient + i);
    for (int s = 1; s < splits; ++s) {
        const Four next = load_four(flat.gradient + s * flat.floats + i);
#pragma unroll
        for (int t = 0; t < 4; ++t) g.v[t] = __fadd_rn(g.v[t], next.v[t]);
    }
    return g;
}

template <int kThreads>
__device__ __forceinline__ void gather_chunk(const Gather& job, int64_t chunk) {
    const int64_t first = chunk * kNormChunk, rest = job.flat.floats - first,
                  last = first + (rest < kNormChunk ? rest : kNormChunk);
    const double sum = block_sum<kThreads>([&](int leaf) {
        double own = 0.0;
        for (int64_t i = first + 4 * leaf; i < last; i += 4 * kLeaves) {
            const Four g = sum_splits(job.flat, job.splits, i);
            store_four(job.flat.gradient + i, g);
            for (int t = 0; t < 4; ++t) own += static_cast<double>(g.v[t]) * static_cast<double>(g.v[t]);
        }
        return own;
    });
    if (threadIdx.x == 0) job.parts[chunk] = sum;
}

template <int kThreads>
__device__ __forceinline__ void clip(const Clip& job) {
    const double sum = block_sum<kThreads>([&](int i) {
        double own = 0.0;
        for (int64_t p = i; p < norm_parts(job.floats); p += kLeaves) own += job.parts[p];
        return own;
    });
    if (threadIdx.x != 0) return;
    const double norm = ::sqrt(sum), scale = job.clip_norm / (norm + 1e-6);
    *job.factor = static_cast<float>(scale < 1.0 ? scale : 1.0);
    const Clock& clock = job.clock;
    if (!is_finite(norm) && clock.progress->failed == 0)
        clock.progress->failed = clock.progress->position + clock.at + 1;
}

template <int kThreads>
__device__ __forceinline__ void apply_units(const Apply& job, int64_t tile) {
    if (job.clock.progress->failed) return;
    Update u = now(job.clock).update;
    if (job.factor) u.gradient_scale = *job.factor;
    const int64_t first = tile * kUnitsPerTile;
    for (int64_t unit = first + static_cast<int>(threadIdx.x); unit < first + kUnitsPerTile; unit += kThreads)
        if (4 * unit < job.flat.floats)
            finish_four(job.flat, job.epilogue, u, 4 * unit, sum_splits(job.flat, job.splits, 4 * unit));
}

}  // namespace
}  // namespace fusedvae::cuda
