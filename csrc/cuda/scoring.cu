// SPDX-License-Identifier: MIT
#include "inference.h"

#include <algorithm>

#include "cuda/launch.h"
#include "tile.h"

namespace fusedvae::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kLanesPerPair = 8;  // latent widths are tens

unsigned blocks_for(int64_t threads) {
    return static_cast<unsigned>(std::clamp<int64_t>((threads + kThreads - 1) / kThreads, 1, int64_t{1} << 22));
}
__device__ int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
__device__ int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * kThreads; }

__device__ __forceinline__ double sum_of_pair(double x) {
#pragma unroll
    for (int distance = kLanesPerPair / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
    return x;
}

__global__ void __launch_bounds__(kThreads)
    take_columns_kernel(const float* in, int64_t ld, int first, int step, int64_t rows, int columns, float* out) {
    for (int64_t i = thread_index(); i < rows * columns; i += thread_count())
        out[i] = in[i / columns * ld + first + i % columns * step];
}

__global__ void __launch_bounds__(kThreads) draw_normals_kernel(const Stream stream, int64_t count, int Z, float* out) {
    const int groups = (Z + 3) / 4;
    const Noise noise{nullptr, 0, stream, 0};
    for (int64_t i = thread_index(); i < count * groups; i += thread_count()) {
        const int64_t row = i / groups;
        const int j = static_cast<int>(i % groups) * 4;
        const Four n = draw_four(noise, stream, static_cast<int>(row), j, Z);
        for (int t = 0; t < 4; ++t)
            if (j + t < Z) out[row * Z + j + t] = n.v[t];
    }
}

// Eight lanes for each row; whole warps go round together.
__global__ void __launch_bounds__(kThreads)
    read_posterior_kernel(const float* head, int64_t ld, int64_t rows, int Z, const Posterior out) {
    const int lane = static_cast<int>(threadIdx.x) % kLanesPerPair;
    const int64_t lanes = (rows * kLanesPerPair + 31) / 32 * 32;
    for (int64_t i = thread_index(); i < lanes; i += thread_count()) {
        const int64_t row = i / kLanesPerPair;
        double total = 0.0, kl = 0.0;
        for (int j = lane; row < rows && j < Z; j += kLanesPerPair) {
            const V mu = set1(head[row * ld + 2 * j]), logvar = set1(head[row * ld + 2 * j + 1]);
            const V sigma = exp(set1(0.5f) * logvar);
            out.mu[row * Z + j] = mu.v;
            out.sigma[row * Z + j] = sigma.v;
            total += static_cast<double>(logvar.v);
            kl += static_cast<double>(kl_term(mu, logvar, sigma * sigma).v);
        }
        total = sum_of_pair(total);
        kl = sum_of_pair(kl);
        if (row < rows && lane == 0) out.sum_logvar[row] = total, out.kl[row] = kl;
    }
}

// With z = mu + sigma eps, log p(z) - log q(z|x) = sum_j (eps^2 + logvar - z^2) / 2.
template <class T>
__global__ void __launch_bounds__(kThreads)
    draw_codes_kernel(const Posterior posterior, const float* noise, int64_t samples, int Z, int64_t first,
                      int64_t count, T* z, int64_t ld_z, double* log_ratio) {
    const int lane = static_cast<int>(threadIdx.x) % kLanesPerPair;
    const int64_t lanes = (count * kLanesPerPair + 31) / 32 * 32;
    for (int64_t i = thread_index(); i < lanes; i += thread_count()) {
        const int64_t pair = i / kLanesPerPair, row = (first + pair) / samples, sample = (first + pair) % samples;
        double total = 0.0;
        if (pair < count)
            for (int j = 4 * lane; j < ld_z; j += 4 * kLanesPerPair) {
                Four code{};
#pragma unroll
                for (int t = 0; t < 4; ++t) {
                    if (j + t >= Z) continue;
                    const V eps = set1(noise[sample * Z + j + t]);
                    const V x = fma(set1(posterior.sigma[row * Z + j + t]), eps, set1(posterior.mu[row * Z + j + t]));
                    code.v[t] = x.v;
                    total += static_cast<double>(((eps - x) * (eps + x)).v);
                }
                store_four(z + pair * ld_z + j, code);
            }
        total = sum_of_pair(total);
        if (pair < count && lane == 0) log_ratio[pair] = 0.5 * (total + posterior.sum_logvar[row]);
    }
}

__global__ void __launch_bounds__(kThreads) weigh_pairs_kernel(const float* nll, int parts, const double* log_ratio,
                                                               int64_t count, bool importance, double* values) {
    for (int64_t pair = thread_index(); pair < count; pair += thread_count()) {
        double sum = 0.0;
        for (int p = 0; p < parts; ++p) sum += static_cast<double>(nll[pair * parts + p]);
        values[pair] = importance ? log_ratio[pair] - sum : sum;
    }
}

template <class Combine>
__device__ double over_block(double x, Combine combine) {
    double* const shared = shared_memory<double>();
    const int t = static_cast<int>(threadIdx.x);
    __syncthreads();  // the last result has been read
    shared[t] = x;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (t < half) shared[t] = combine(shared[t], shared[t + half]);
        __syncthreads();
    }
    return shared[0];
}

// A block for each row. The largest weight is taken out, so that none overflows (Burda et al. 2015, eq. 8).
__global__ void __launch_bounds__(kThreads) score_rows_kernel(const double* values, int64_t samples, const double* kl,
                                                              double jacobian, bool importance, double* result) {
    const double* own = values + static_cast<int64_t>(blockIdx.x) * samples;
    const auto add = [](double a, double b) { return a + b; };
    double largest = 0.0;
    if (importance) {
        largest = -INFINITY;
        for (int64_t s = threadIdx.x; s < samples; s += kThreads) largest = own[s] > largest ? own[s] : largest;
        largest = over_block(largest, [](double a, double b) { return a > b ? a : b; });
    }
    double sum = 0.0;
    for (int64_t s = threadIdx.x; s < samples; s += kThreads) sum += importance ? ::exp(own[s] - largest) : own[s];
    sum = over_block(sum, add);
    if (threadIdx.x != 0) return;
    const double mean = sum / static_cast<double>(samples);
    if (!importance)
        result[blockIdx.x] = jacobian - mean - kl[blockIdx.x];
    else
        result[blockIdx.x] = largest - largest == 0.0 ? jacobian + largest + ::log(mean) : largest + 0.0 * sum;
}

}  // namespace

void take_columns(const float* in, int64_t ld, int first, int step, int64_t rows, int columns, float* out,
                  cudaStream_t stream) {
    launch("take_columns", take_columns_kernel, dim3(blocks_for(rows * columns)), dim3(kThreads), 0, stream, in, ld,
           first, step, rows, columns, out);
}

void draw_normals(const Stream& noise, int64_t count, int Z, float* out, cudaStream_t stream) {
    launch("draw_normals", draw_normals_kernel, dim3(blocks_for(count * ((Z + 3) / 4))), dim3(kThreads), 0, stream,
           noise, count, Z, out);
}

void read_posterior(const float* head, int64_t ld, int64_t rows, int Z, const Posterior& out, cudaStream_t stream) {
    launch("read_posterior", read_posterior_kernel, dim3(blocks_for(rows * kLanesPerPair)), dim3(kThreads), 0, stream,
           head, ld, rows, Z, out);
}

void draw_codes(const Posterior& posterior, const float* noise, int64_t samples, int Z, int64_t first, int64_t count,
                float* z, uint16_t* z_half, int64_t ld_z, double* log_ratio, cudaStream_t stream) {
    const dim3 blocks(blocks_for(count * kLanesPerPair));
    if (z_half)
        launch("draw_codes", draw_codes_kernel<uint16_t>, blocks, dim3(kThreads), 0, stream, posterior, noise, samples,
               Z, first, count, z_half, ld_z, log_ratio);
    else
        launch("draw_codes", draw_codes_kernel<float>, blocks, dim3(kThreads), 0, stream, posterior, noise, samples, Z,
               first, count, z, ld_z, log_ratio);
}

void weigh_pairs(const float* nll, int parts, const double* log_ratio, int64_t count, bool importance, double* values,
                 cudaStream_t stream) {
    launch("weigh_pairs", weigh_pairs_kernel, dim3(blocks_for(count)), dim3(kThreads), 0, stream, nll, parts, log_ratio,
           count, importance, values);
}

void score_rows(const double* values, int64_t rows, int64_t samples, const double* kl, double jacobian, bool importance,
                double* result, cudaStream_t stream) {
    launch("score_rows", score_rows_kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads),
           kThreads * sizeof(double), stream, values, samples, kl, jacobian, importance, result);
}

}  // namespace fusedvae::cuda
