// SPDX-License-Identifier: MIT
//
// One value of a row from outside, whatever it holds, as a float.
#pragma once
#include "simd.h"

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
            return __uint_as_float(static_cast<uint32_t>(static_cast<const uint16_t*>(row)[i]) << 16);
        case RowType::uint8:
        case RowType::boolean:
            return static_cast<float>(static_cast<const uint8_t*>(row)[i]);
    }
    return 0.0f;
}

}  // namespace
}  // namespace fusedvae::cuda
