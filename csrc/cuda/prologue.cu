// SPDX-License-Identifier: MIT
#include "prologue.h"

#include <algorithm>

#include "cuda/launch.h"
#include "row_types.h"
#include "tile.h"

namespace fusedvae::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 20;  // a grid-wide stride does the rest

// A unit is four columns of one row.
__global__ void __launch_bounds__(kThreads) read_rows_kernel(const Source s, int64_t rows, int columns, float* floats,
                                                             int64_t ld_floats, uint16_t* half, int64_t ld_half) {
    const int64_t per_row = padded(columns) / 4, units = rows * per_row;
    const uint32_t* index = s.index;
    if (index) index += s.clock.scalars[s.clock.progress->position + s.clock.at].first_row;
    for (int64_t u = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; u < units;
         u += static_cast<int64_t>(gridDim.x) * kThreads) {
        const int64_t r = u / per_row;
        const int c = static_cast<int>(u % per_row) * 4;
        const unsigned char* row = static_cast<const unsigned char*>(s.data) + (index ? index[r] : r) * s.stride;
        Four x{};
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (c + i < columns) x.v[i] = __fmul_rn(read_value(row, s.type, int64_t{c + i} * s.step), s.factor);
        if (floats) store_four(floats + r * ld_floats + c, x);
        if (half) store_four(half + r * ld_half + c, x);
    }
}

__global__ void __launch_bounds__(kThreads) make_half_kernel(const float* values, uint16_t* half, int64_t count) {
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
    if (i < count) store_four(half + i, load_four(values + i));
}

unsigned blocks_for(int64_t units) {
    return static_cast<unsigned>(std::clamp<int64_t>((units + kThreads - 1) / kThreads, 1, kMostBlocks));
}

}  // namespace

void read_rows(const Source& source, int64_t rows, int columns, float* floats, int64_t ld_floats, uint16_t* half,
               int64_t ld_half, cudaStream_t stream) {
    launch("read_rows", read_rows_kernel, dim3(blocks_for(rows * padded(columns) / 4)), dim3(kThreads), 0, stream,
           source, rows, columns, floats, ld_floats, half, ld_half);
}

void make_half(const float* values, uint16_t* half, int64_t count, cudaStream_t stream) {
    const int64_t units = (count + 3) / 4;  // flat buffers have whole units
    launch("make_half", make_half_kernel, dim3(static_cast<unsigned>((units + kThreads - 1) / kThreads)),
           dim3(kThreads), 0, stream, values, half, count);
}

}  // namespace fusedvae::cuda
