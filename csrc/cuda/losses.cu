// SPDX-License-Identifier: MIT
#include "losses.h"

#include "cuda/launch.h"
#include "reductions.h"

namespace fusedvae::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) sum_losses_kernel(const SumLosses job) {
    sum_losses<kThreads>(job, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
}

__global__ void __launch_bounds__(kThreads) finish_losses_kernel(const SumLosses job) {
    const auto sum = [&](int which) {
        return block_sum<kThreads>([&](int i) {
            double own = 0.0;
            for (int64_t p = i; p < parts_of(job.B, kRowsPerPart); p += kLeaves) own += job.parts[2 * p + which];
            return own;
        });
    };
    const double nll = sum(0), kl = sum(1);
    finish_losses<kThreads>(job, nll, kl);
}

__global__ void __launch_bounds__(kThreads) weigh_dimensions_kernel(const Dimensions job) {
    weigh_dimension<kThreads>(job, static_cast<int>(blockIdx.x));
}
__global__ void __launch_bounds__(kThreads) gather_gradient_kernel(const Gather job) {
    gather_chunk<kThreads>(job, blockIdx.x);
}
__global__ void __launch_bounds__(kThreads) clip_kernel(const Clip job) { clip<kThreads>(job); }
__global__ void __launch_bounds__(kThreads) apply_kernel(const Apply job) { apply_units<kThreads>(job, blockIdx.x); }
__global__ void advance_kernel(Progress* progress, int steps) { progress->position += steps; }

template <class Job>
void launch_tree(const char* name, void (*kernel)(Job), const Job& job, int64_t blocks, cudaStream_t stream) {
    launch(name, kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), kTreeBytes, stream, job);
}

}  // namespace

void sum_losses(const SumLosses& job, cudaStream_t stream) {
    launch_tree("sum_losses", sum_losses_kernel, job, tiles_of(job), stream);
    if (tiles_of(job) > 1) launch_tree("sum_losses", finish_losses_kernel, job, 1, stream);
}
void weigh_dimensions(const Dimensions& job, cudaStream_t stream) {
    launch_tree("weigh_dimensions", weigh_dimensions_kernel, job, tiles_of(job), stream);
}
void gather_gradient(const Gather& job, cudaStream_t stream) {
    launch_tree("gather_gradient", gather_gradient_kernel, job, tiles_of(job), stream);
}
void clip(const Clip& job, cudaStream_t stream) { launch_tree("clip", clip_kernel, job, tiles_of(job), stream); }
void apply(const Apply& job, cudaStream_t stream) {
    launch("apply", apply_kernel, dim3(static_cast<unsigned>(tiles_of(job))), dim3(kThreads), 0, stream, job);
}
void advance(const Clock& clock, int steps, cudaStream_t stream) {
    launch("advance", advance_kernel, dim3(1), dim3(1), 0, stream, clock.progress, steps);
}

}  // namespace fusedvae::cuda
