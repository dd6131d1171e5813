// SPDX-License-Identifier: MIT
//
// One float per thread: the vocabulary of layer/formulas.h (see cpu/simd/scalar.h) on a GPU.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include "../layer/gemm.h"

#define FUSEDVAE_FN __device__ __forceinline__

namespace fusedvae {
namespace {

struct V {
    float v;
};
struct U {
    uint32_t v;
};
struct M {
    bool v;
};

FUSEDVAE_FN V set1(float x) { return {x}; }
FUSEDVAE_FN V operator+(V a, V b) { return {__fadd_rn(a.v, b.v)}; }
FUSEDVAE_FN V operator-(V a, V b) { return {__fsub_rn(a.v, b.v)}; }
FUSEDVAE_FN V operator*(V a, V b) { return {__fmul_rn(a.v, b.v)}; }
FUSEDVAE_FN V operator/(V a, V b) { return {__fdiv_rn(a.v, b.v)}; }
FUSEDVAE_FN V fma(V a, V b, V c) { return {__fmaf_rn(a.v, b.v, c.v)}; }
FUSEDVAE_FN V fnma(V a, V b, V c) { return {__fmaf_rn(-a.v, b.v, c.v)}; }
FUSEDVAE_FN V min(V a, V b) { return {a.v < b.v ? a.v : b.v}; }  // b where either is NaN
FUSEDVAE_FN V max(V a, V b) { return {a.v > b.v ? a.v : b.v}; }
FUSEDVAE_FN V sqrt(V a) { return {__fsqrt_rn(a.v)}; }
FUSEDVAE_FN V abs(V a) { return {fabsf(a.v)}; }
FUSEDVAE_FN V round(V a) { return {__fsub_rn(__fadd_rn(a.v, 12582912.0f), 12582912.0f)}; }  // |a| < 2^22
FUSEDVAE_FN M gt(V a, V b) { return {a.v > b.v}; }
FUSEDVAE_FN V select(M m, V a, V b) { return m.v ? a : b; }

// p * 2^n for integral n in [-252, 254]; in two steps, so that results may be subnormal or infinite.
FUSEDVAE_FN V scale2(V p, V n) {
    const int e = n.v == n.v ? static_cast<int>(n.v) : 0, half = e / 2;
    return {p.v * __uint_as_float(static_cast<uint32_t>(half + 127) << 23) *
            __uint_as_float(static_cast<uint32_t>(e - half + 127) << 23)};
}
// Positive normal x = m 2^e with m in [1, 2): returns m.
FUSEDVAE_FN V split_exponent(V x, V* e) {
    const uint32_t bits = __float_as_uint(x.v);
    e->v = static_cast<float>(static_cast<int>(bits >> 23) - 127);
    return {__uint_as_float((bits & 0x007fffffu) | 0x3f800000u)};
}

FUSEDVAE_FN U uset1(uint32_t x) { return {x}; }
FUSEDVAE_FN U operator+(U a, U b) { return {a.v + b.v}; }
FUSEDVAE_FN U operator^(U a, U b) { return {a.v ^ b.v}; }
template <int n>
FUSEDVAE_FN U shr(U a) {
    return {a.v >> n};
}
template <int n>
FUSEDVAE_FN U shl(U a) {
    return {a.v << n};
}
FUSEDVAE_FN void mul_wide(U a, uint32_t b, U* high, U* low) { *high = {__umulhi(a.v, b)}, *low = {a.v * b}; }
FUSEDVAE_FN V to_float(U a) { return {static_cast<float>(static_cast<int32_t>(a.v))}; }
FUSEDVAE_FN M bit_set(U a, uint32_t bit) { return {(a.v & bit) != 0}; }

}  // namespace
}  // namespace fusedvae
