// SPDX-License-Identifier: MIT
#include "losses.h"

#include "cuda/launch.h"
#include "epilogue_backward.h"

namespace fusedvae::cuda {

namespace {

constexpr int kThreads = 256;

// The sum over the block, valid in thread 0.
__device__ double block_sum(double x) {
    double* const shared = shared_memory<double>();
    const int t = static_cast<int>(threadIdx.x);
    __syncthreads();  // the last sum has been read
    shared[t] = x;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (t < half) shared[t] += shared[t + half];
        __syncthreads();
    }
    return shared[0];
}

__device__ bool is_finite(double x) { return x - x == 0.0; }

__device__ void finish_losses(const LossJob& job, double nll, double kl) {
    double optimised = kl / job.B;
    if (job.free_bits > 0.0) {
        double sum = 0.0;
        for (int j = static_cast<int>(threadIdx.x); j < job.Z; j += kThreads)
            sum += job.dim_kl[j] > job.free_bits ? job.dim_kl[j] : job.free_bits;
        sum = block_sum(sum);
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

__device__ double row_sum(const float* parts, int64_t row, int count) {
    double sum = 0.0;
    for (int p = 0; p < count; ++p) sum += static_cast<double>(parts[row * count + p]);
    return sum;
}

__global__ void __launch_bounds__(kThreads) sum_rows_kernel(const LossJob job) {
    const int first = static_cast<int>(blockIdx.x) * kRowsPerPart;
    const int last = job.B - first < kRowsPerPart ? job.B : first + kRowsPerPart;
    double nll = 0.0, kl = 0.0;
    for (int b = first + static_cast<int>(threadIdx.x); b < last; b += kThreads) {
        nll += row_sum(job.nll, b, job.nll_segments);
        kl += row_sum(job.kl, b, job.kl_segments);
    }
    nll = block_sum(nll);
    kl = block_sum(kl);
    if (gridDim.x == 1) return finish_losses(job, nll, kl);
    if (threadIdx.x == 0) job.parts[2 * blockIdx.x] = nll, job.parts[2 * blockIdx.x + 1] = kl;
}

__global__ void __launch_bounds__(kThreads) finish_losses_kernel(const LossJob job) {
    const int parts = (job.B + kRowsPerPart - 1) / kRowsPerPart;
    double nll = 0.0, kl = 0.0;
    for (int p = static_cast<int>(threadIdx.x); p < parts; p += kThreads)
        nll += job.parts[2 * p], kl += job.parts[2 * p + 1];
    nll = block_sum(nll);
    kl = block_sum(kl);
    finish_losses(job, nll, kl);
}

__global__ void __launch_bounds__(kThreads)
    weigh_dimensions_kernel(const float* head, int64_t ld, int B, double free_bits, double* dim_kl, float* dim_weight) {
    const int j = static_cast<int>(blockIdx.x);
    double sum = 0.0;
    for (int b = static_cast<int>(threadIdx.x); b < B; b += kThreads) {
        const V mu = set1(head[b * ld + 2 * j]), logvar = set1(head[b * ld + 2 * j + 1]);
        const V sigma = exp(set1(0.5f) * logvar);
        sum += static_cast<double>(kl_term(mu, logvar, sigma * sigma).v);
    }
    sum = block_sum(sum) / B;
    if (threadIdx.x != 0) return;
    dim_kl[j] = sum;
    dim_weight[j] = sum > free_bits ? 1.0f : 0.0f;
}

__device__ __forceinline__ Four sum_splits(const Flat& flat, int splits, int64_t i) {
    Four g = load_four(flat.gradient + i);
    for (int s = 1; s < splits; ++s) {
        const Four next = load_four(flat.gradient + s * flat.floats + i);
#pragma unroll
        for (int t = 0; t < 4; ++t) g.v[t] = __fadd_rn(g.v[t], next.v[t]);
    }
    return g;
}

__global__ void __launch_bounds__(kThreads) gather_gradient_kernel(const Flat flat, int splits, double* parts) {
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kNormChunk;
    const int64_t last = flat.floats - first < kNormChunk ? flat.floats : first + kNormChunk;
    double sum = 0.0;
    for (int64_t i = first + 4 * static_cast<int>(threadIdx.x); i < last; i += 4 * kThreads) {
        const Four g = sum_splits(flat, splits, i);
        store_four(flat.gradient + i, g);
        for (int t = 0; t < 4; ++t) sum += static_cast<double>(g.v[t]) * static_cast<double>(g.v[t]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    clip_kernel(const Clock clock, const double* parts, int64_t count, double clip_norm, float* factor) {
    double sum = 0.0;
    for (int64_t p = threadIdx.x; p < count; p += kThreads) sum += parts[p];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    const double norm = ::sqrt(sum), scale = clip_norm / (norm + 1e-6);
    *factor = static_cast<float>(scale < 1.0 ? scale : 1.0);
    if (!is_finite(norm) && clock.progress->failed == 0)
        clock.progress->failed = clock.progress->position + clock.at + 1;
}

__global__ void __launch_bounds__(kThreads)
    apply_kernel(const Clock clock, const Flat flat, int splits, Epilogue epilogue, const float* factor) {
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
    if (clock.progress->failed || i >= flat.floats) return;
    Update u = clock.scalars[clock.progress->position + clock.at].update;
    if (factor) u.gradient_scale = *factor;
    finish_four(flat, epilogue, u, i, sum_splits(flat, splits, i));
}

__global__ void advance_kernel(Progress* progress, int steps) { progress->position += steps; }

constexpr size_t kShared = kThreads * sizeof(double);

}  // namespace

void reduce_losses(const LossJob& job, cudaStream_t stream) {
    const auto blocks = static_cast<unsigned>(loss_parts(job.B) / 2);
    launch("reduce_losses", sum_rows_kernel, dim3(blocks), dim3(kThreads), kShared, stream, job);
    if (blocks > 1) launch("reduce_losses", finish_losses_kernel, dim3(1), dim3(kThreads), kShared, stream, job);
}

void weigh_dimensions(const float* head, int64_t ld, int B, int Z, double free_bits, double* dim_kl, float* dim_weight,
                      cudaStream_t stream) {
    launch("weigh_dimensions", weigh_dimensions_kernel, dim3(static_cast<unsigned>(Z)), dim3(kThreads), kShared, stream,
           head, ld, B, free_bits, dim_kl, dim_weight);
}

void gather_gradient(const Flat& flat, int splits, double* parts, cudaStream_t stream) {
    launch("gather_gradient", gather_gradient_kernel, dim3(static_cast<unsigned>(norm_parts(flat.floats))),
           dim3(kThreads), kShared, stream, flat, splits, parts);
}

void clip(const Clock& clock, const double* parts, int64_t floats, double clip_norm, float* factor,
          cudaStream_t stream) {
    launch("clip", clip_kernel, dim3(1), dim3(kThreads), kShared, stream, clock, parts, norm_parts(floats), clip_norm,
           factor);
}

void apply(const Clock& clock, const Flat& flat, int splits, Epilogue epilogue, const float* factor,
           cudaStream_t stream) {
    const int64_t units = (flat.floats + 3) / 4;
    launch("apply", apply_kernel, dim3(static_cast<unsigned>((units + kThreads - 1) / kThreads)), dim3(kThreads), 0,
           stream, clock, flat, splits, epilogue, factor);
}

void advance(const Clock& clock, int steps, cudaStream_t stream) {
    launch("advance", advance_kernel, dim3(1), dim3(1), 0, stream, clock.progress, steps);
}

}  // namespace fusedvae::cuda
