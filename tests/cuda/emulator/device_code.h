// SPDX-License-Identifier: MIT
//
// The language of device code as C++: qualifiers, a thread's indices, barriers, collective operations of a warp, and
// those of CUDA's intrinsics that the kernels use. What is not here does not compile: add it.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define threadIdx (::emulator::indices.thread)
#define blockIdx (::emulator::indices.block)
#define blockDim (::emulator::indices.block_size)
#define gridDim (::emulator::indices.grid_size)
constexpr int warpSize = emulator::kWarp;

// ---- barriers and collective operations ------------------------------------------------------------------------------

inline void __syncthreads(emulator::Where where = emulator::Where::here()) { emulator::block_barrier(where); }

namespace emulator {

// One lane's part of a collective operation: what it gives, what it gets.
template <class T>
struct Lane {
    T given, got;
    int argument;
};

inline void check_mask(unsigned mask, const char* name, Where where) {
    if (mask != 0xffffffffu) fault(std::string(name) + " without all lanes in its mask", where);
}

// source(lane, argument, width) is the lane which each lane reads from.
template <class T, int (*source)(int, int, int)>
T shuffle(const char* name, unsigned mask, T value, int argument, int width, Where where) {
    check_mask(mask, name, where);
    if (width != kWarp) fault(std::string(name) + " is emulated for whole warps only", where);
    Lane<T> lane{value, value, argument};
    collective(
        name, &lane,
        [](void* const all[kWarp]) {
            for (int i = 0; i < kWarp; ++i) {
                auto* mine = static_cast<Lane<T>*>(all[i]);
                mine->got = static_cast<Lane<T>*>(all[source(i, mine->argument, kWarp)])->given;
            }
        },
        where);
    return lane.got;
}

inline int from_lane(int, int argument, int width) { return argument & (width - 1); }
inline int from_xor(int lane, int argument, int width) { return (lane ^ argument) & (width - 1); }
inline int from_below(int lane, int argument, int) { return lane - argument < 0 ? lane : lane - argument; }
inline int from_above(int lane, int argument, int width) { return lane + argument < width ? lane + argument : lane; }

}  // namespace emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, emulator::Where where = emulator::Where::here()) {
    return emulator::shuffle<T, emulator::from_lane>("__shfl_sync()", mask, value, lane, width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, emulator::Where where = emulator::Where::here()) {
    return emulator::shuffle<T, emulator::from_xor>("__shfl_xor_sync()", mask, value, lanes, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int lanes, int width = 32, emulator::Where where = emulator::Where::here()) {
    return emulator::shuffle<T, emulator::from_below>("__shfl_up_sync()", mask, value, lanes, width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int lanes, int width = 32, emulator::Where where = emulator::Where::here()) {
    return emulator::shuffle<T, emulator::from_above>("__shfl_down_sync()", mask, value, lanes, width, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Where where = emulator::Where::here()) {
    using Lane = emulator::Lane<unsigned>;
    emulator::check_mask(mask, "__ballot_sync()", where);
    Lane lane{predicate != 0, 0, 0};
    emulator::collective(
        "__ballot_sync()", &lane,
        [](void* const all[emulator::kWarp]) {
            unsigned ballot = 0;
            for (int i = 0; i < emulator::kWarp; ++i) ballot |= static_cast<Lane*>(all[i])->given << i;
            for (int i = 0; i < emulator::kWarp; ++i) static_cast<Lane*>(all[i])->got = ballot;
        },
        where);
    return lane.got;
}
inline int __any_sync(unsigned mask, int predicate, emulator::Where where = emulator::Where::here()) {
    return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulator::Where where = emulator::Where::here()) {
    return __ballot_sync(mask, predicate, where) == 0xffffffffu;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, emulator::Where where = emulator::Where::here()) {
    emulator::check_mask(mask, "__syncwarp()", where);
    emulator::collective(
        "__syncwarp()", nullptr, [](void* const*) {}, where);
}

// ---- intrinsics ------------------------------------------------------------------------------------------------------

inline void __threadfence() {}
inline void __threadfence_block() {}

// Threads run one at a time: a plain read, change and write is atomic.
inline unsigned atomicAdd(unsigned* p, unsigned value) {
    const unsigned old = *p;
    *p += value;
    return old;
}
inline int atomicAdd(int* p, int value) {
    const int old = *p;
    *p += value;
    return old;
}
inline unsigned atomicOr(unsigned* p, unsigned value) {
    const unsigned old = *p;
    *p |= value;
    return old;
}
template <class T>
T atomicMin(T* p, T value) {
    const T old = *p;
    if (value < old) *p = value;
    return old;
}

template <class T>
T __ldg(const T* p) {
    return *p;
}
template <class T>
T __ldcs(const T* p) {
    return *p;
}
template <class T>
void __stcs(T* p, T value) {
    *p = value;
}

inline uint32_t __float_as_uint(float a) {
    uint32_t bits;
    std::memcpy(&bits, &a, 4);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float a;
    std::memcpy(&a, &bits, 4);
    return a;
}
inline int __float_as_int(float a) { return static_cast<int>(__float_as_uint(a)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<uint32_t>(bits)); }

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }
inline int __float2int_rz(float a) { return static_cast<int>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline int __popc(uint32_t a) { return __builtin_popcount(a); }
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<uint32_t>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }

// The functions that CUDA declares outside any namespace.
inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline long long min(long long a, long long b) { return b < a ? b : a; }
inline long long max(long long a, long long b) { return a < b ? b : a; }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
