// SPDX-License-Identifier: MIT
//
// Rows from outside, whatever they hold, as floats and bfloat16.
#pragma once
#include "stages.h"
#include "tile.h"

namespace fusedvae::cuda {
namespace {

__device__ __forceinline__ float half_value(uint32_t h) {  // IEEE binary16
    const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 1023u;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | (fraction << 13));
    if (exponent == 0) {
        const float magnitude = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
        return sign ? -magnitude : magnitude;
    }
    return __uint_as_float(sign | ((exponent + 112) << 23) | (fraction << 13));
}

__device__ __forceinline__ float read_value(const void* row, RowType type, int64_t i) {
    switch (type) {
        case RowType::float32:
            return static_cast<const float*>(row)[i];
        case RowType::float64:
            return static_cast<float>(static_cast<const double*>(row)[i]);
        case RowType::float16:
            return half_value(static_cast<const uint16_t*>(row)[i]);
        case RowType::bfloat16:
            return to_float(static_cast<const uint16_t*>(row)[i]);
        case RowType::uint8:
        case RowType::boolean:
            return static_cast<float>(static_cast<const uint8_t*>(row)[i]);
    }
    return 0.0f;
}

// A block's units, of four columns of one row each.
template <int kThreads>
__device__ __forceinline__ void read_units(const ReadRows& job, int64_t tile) {
    const Source& s = job.source;
    const int64_t per_row = padded(job.columns) / 4, first = tile * kUnitsPerTile;
    const uint32_t* index = s.index;
    if (index) index += now(job.clock).first_row;
    for (int64_t u = first + static_cast<int>(threadIdx.x); u < first + kUnitsPerTile; u += kThreads) {
        if (u >= units_of(job)) return;
        const int64_t r = u / per_row;
        const int c = static_cast<int>(u % per_row) * 4;
        const unsigned char* row = static_cast<const unsigned char*>(s.data) + (index ? index[r] : r) * s.stride;
        Four x{};
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (c + i < job.columns) x.v[i] = __fmul_rn(read_value(row, s.type, int64_t{c + i} * s.step), s.factor);
        if (job.floats) store_four(job.floats + r * job.ld_floats + c, x);
        if (job.half) store_four(job.half + r * job.ld_half + c, x);
    }
}

}  // namespace
}  // namespace fusedvae::cuda
