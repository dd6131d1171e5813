// SPDX-License-Identifier: MIT
//
// The scratch tile that a product leaves in shared memory, and how an epilogue's threads share it: in units of four
// neighbouring columns, so that every access is 16 bytes and a row's neighbours are a warp's. Eight lanes hold a segment
// of a row.
#pragma once
#include "cuda/ptx.h"
#include "simd.h"
#include "../layer/formulas.h"
#include "jobs.h"

namespace fusedvae::cuda {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ const Scalars& now(const Clock& clock) {
    return clock.scalars[clock.progress->position + clock.at];
}

// Four neighbours, as floats or as what products read.
struct Four {
    float v[4];
};
__device__ __forceinline__ Four load_four(const float* p) {
    const float4 x = *reinterpret_cast<const float4*>(p);
    return {{x.x, x.y, x.z, x.w}};
}
__device__ __forceinline__ Four load_four(const uint16_t* p) {
    const uint2 x = *reinterpret_cast<const uint2*>(p);
    return {{__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u), __uint_as_float(x.y << 16),
             __uint_as_float(x.y & 0xffff0000u)}};
}
__device__ __forceinline__ void store_four(float* p, const Four& x) {
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}
__device__ __forceinline__ void store_four(uint16_t* p, const Four& x) {
    *reinterpret_cast<uint2*>(p) = make_uint2(pack_bf16(x.v[0], x.v[1]), pack_bf16(x.v[2], x.v[3]));
}
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(uint16_t x) { return __uint_as_float(static_cast<uint32_t>(x) << 16); }

// The sum over 2^n neighbouring lanes, the same in each: a fixed tree.
template <int kLanesOfSum>
__device__ __forceinline__ float sum_lanes(float x) {
#pragma unroll
    for (int distance = kLanesOfSum / 2; distance > 0; distance /= 2)
        x = __fadd_rn(x, __shfl_xor_sync(kAllLanes, x, distance));
    return x;
}

// Calls unit(r, c) for each `kWidth` neighbouring columns of each row of a tile; all lanes of a warp call it together.
template <class S, int kWidth, class Unit>
__device__ __forceinline__ void for_each_unit(Unit unit) {
    constexpr int per_row = S::N / kWidth, units = S::M * per_row;
    static_assert(units % S::threads == 0 && 32 % per_row == 0, "every thread has as many, a warp has whole rows");
#pragma unroll 1
    for (int u = static_cast<int>(threadIdx.x); u < units; u += S::threads) unit(u / per_row, u % per_row * kWidth);
}

struct Place {  // of a tile within its matrix
    int b0, c0;
};

// Row i of a factor.
template <class T>
__device__ __forceinline__ const T* row_of(const Factor& f, const uint32_t* index, int i) {
    const int64_t at = index ? index[i] : f.repeat == 1 ? i : (f.offset + i) / f.repeat;
    return static_cast<const T*>(f.data) + at * f.ld;
}

// The noise of row b and latent dimensions j .. j + 3 (4 | j); zeros past Z.
__device__ __forceinline__ Four draw_four(const Noise& noise, const Stream& stream, int b, int j, int Z) {
    Four eps;
    if (noise.given) {
#pragma unroll
        for (int i = 0; i < 4; ++i) eps.v[i] = j + i < Z ? noise.given[b * noise.given_stride + j + i] : 0.0f;
        return eps;
    }
    U words[4];
    philox(uset1(static_cast<uint32_t>(j) / 4), uset1(noise.first_row + static_cast<uint32_t>(b)), uset1(stream.step),
           uset1(stream.step_purpose), stream, words);
    V n[4];
    normal_pair(words[0], words[1], &n[0], &n[1]);
    normal_pair(words[2], words[3], &n[2], &n[3]);
#pragma unroll
    for (int i = 0; i < 4; ++i) eps.v[i] = j + i < Z ? n[i].v : 0.0f;
    return eps;
}

}  // namespace
}  // namespace fusedvae::cuda
