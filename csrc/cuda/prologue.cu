// SPDX-License-Identifier: MIT
#include "prologue.h"

#include <algorithm>

#include "cuda/launch.h"
#include "row_types.h"

namespace fusedvae::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 20;  // a grid-wide stride does the rest

__global__ void __launch_bounds__(kThreads) read_rows_kernel(const ReadRows job) {
    for (int64_t tile = blockIdx.x; tile < tiles_of(job); tile += gridDim.x) read_units<kThreads>(job, tile);
}

__global__ void __launch_bounds__(kThreads) make_half_kernel(const float* values, uint16_t* half, int64_t count) {
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
    if (i < count) store_four(half + i, load_four(values + i));
}

}  // namespace

void read_rows(const ReadRows& job, cudaStream_t stream) {
    const int64_t blocks = std::min(tiles_of(job), kMostBlocks);
    launch("read_rows", read_rows_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, job);
}

void make_half(const float* values, uint16_t* half, int64_t count, cudaStream_t stream) {
    const int64_t units = (count + 3) / 4;  // flat buffers have whole units
    launch("make_half", make_half_kernel, dim3(static_cast<unsigned>((units + kThreads - 1) / kThreads)),
           dim3(kThreads), 0, stream, values, half, count);
}

}  // namespace fusedvae::cuda
