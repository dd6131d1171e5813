// SPDX-License-Identifier: MIT
//
// One float at a time: the portable backend, and the list of what an instruction set must provide.
// V: kLanes floats; U: as many uint32; M: a comparison's result.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../inline.h"

namespace fusedvae {
namespace {

constexpr int kLanes = 1;
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
FUSEDVAE_FN V load(const float* p) { return {*p}; }
FUSEDVAE_FN void store(float* p, V a) { *p = a.v; }
// The first n lanes (0 <= n <= kLanes); other lanes read as zero and are not written.
FUSEDVAE_FN V load_part(const float* p, int n) { return {n > 0 ? *p : 0.0f}; }
FUSEDVAE_FN void store_part(float* p, V a, int n) {
    if (n > 0) *p = a.v;
}
FUSEDVAE_FN V keep_first(V a, int n) { return {n > 0 ? a.v : 0.0f}; }  // lanes from n on become zero

FUSEDVAE_FN V operator+(V a, V b) { return {a.v + b.v}; }
FUSEDVAE_FN V operator-(V a, V b) { return {a.v - b.v}; }
FUSEDVAE_FN V operator*(V a, V b) { return {a.v * b.v}; }
FUSEDVAE_FN V operator/(V a, V b) { return {a.v / b.v}; }
FUSEDVAE_FN V fma(V a, V b, V c) { return {a.v * b.v + c.v}; }   // a b + c; rounded once where the hardware can
FUSEDVAE_FN V fnma(V a, V b, V c) { return {c.v - a.v * b.v}; }  // c - a b
FUSEDVAE_FN V min(V a, V b) { return {a.v < b.v ? a.v : b.v}; }  // b where either is NaN
FUSEDVAE_FN V max(V a, V b) { return {a.v > b.v ? a.v : b.v}; }
FUSEDVAE_FN V sqrt(V a) { return {__builtin_sqrtf(a.v)}; }
FUSEDVAE_FN V abs(V a) { return {__builtin_fabsf(a.v)}; }
FUSEDVAE_FN V round(V a) { return {(a.v + 12582912.0f) - 12582912.0f}; }  // to nearest even, for |a| < 2^22
FUSEDVAE_FN M gt(V a, V b) { return {a.v > b.v}; }
FUSEDVAE_FN V select(M m, V a, V b) { return m.v ? a : b; }
FUSEDVAE_FN float sum(V a) { return a.v; }

FUSEDVAE_FN float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
// p * 2^n for integral n in [-252, 254]; in two steps, so that results may be subnormal or infinite.
FUSEDVAE_FN V scale2(V p, V n) {
    const int e = n.v == n.v ? (int)n.v : 0, half = e / 2;  // NaN has no integer; p carries it on
    return {p.v * from_bits((uint32_t)(half + 127) << 23) * from_bits((uint32_t)(e - half + 127) << 23)};
}
// Positive normal x = m 2^e with m in [1, 2): returns m.
FUSEDVAE_FN V split_exponent(V x, V* e) {
    uint32_t bits;
    memcpy(&bits, &x.v, 4);
    e->v = (float)((int)(bits >> 23) - 127);
    return {from_bits((bits & 0x007fffffu) | 0x3f800000u)};
}
// Of the 2 kLanes neighbours in a and b those with even and with odd index, and back.
FUSEDVAE_FN void unzip(V a, V b, V* even, V* odd) { *even = a, *odd = b; }
FUSEDVAE_FN void zip(V even, V odd, V* a, V* b) { *a = even, *b = odd; }
// out[4 lane + i] = lane of n[i]
FUSEDVAE_FN void store_quads(float* out, const V n[4]) {
    for (int i = 0; i < 4; ++i) out[i] = n[i].v;
}

FUSEDVAE_FN U uset1(uint32_t x) { return {x}; }
FUSEDVAE_FN U uload(const uint32_t* p) { return {*p}; }
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
FUSEDVAE_FN void mul_wide(U a, uint32_t b, U* high, U* low) {
    const uint64_t p = (uint64_t)a.v * b;
    *high = {(uint32_t)(p >> 32)};
    *low = {(uint32_t)p};
}
FUSEDVAE_FN V to_float(U a) { return {(float)(int32_t)a.v}; }  // lanes as signed integers
FUSEDVAE_FN M bit_set(U a, uint32_t bit) { return {(a.v & bit) != 0}; }

FUSEDVAE_FN V load_half(const uint16_t* p) {  // IEEE binary16
    const uint32_t h = *p, sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 1023u;
    if (exponent == 31) return {from_bits(sign | 0x7f800000u | (fraction << 13))};
    if (exponent == 0) {
        const float magnitude = (float)fraction * 5.9604644775390625e-8f;  // 2^-24
        return {sign ? -magnitude : magnitude};
    }
    return {from_bits(sign | ((exponent + 112) << 23) | (fraction << 13))};
}
FUSEDVAE_FN V load_u8(const uint8_t* p) { return {(float)*p}; }
FUSEDVAE_FN V load_double(const double* p) { return {(float)*p}; }

// Words of two bfloat16: the first and the second one of each, as floats. Exact.
FUSEDVAE_FN V low_half(V words) {
    uint32_t bits;
    memcpy(&bits, &words.v, 4);
    return {from_bits(bits << 16)};
}
FUSEDVAE_FN V high_half(V words) {
    uint32_t bits;
    memcpy(&bits, &words.v, 4);
    return {from_bits(bits & 0xFFFF0000u)};
}

// 8 x 8 floats transposed: (8, source_ld) -> (8, out_ld).
FUSEDVAE_FN void transpose8(float* out, ptrdiff_t out_ld, const float* source, ptrdiff_t source_ld) {
    for (int c = 0; c < 8; ++c)
        for (int r = 0; r < 8; ++r) out[c * out_ld + r] = source[r * source_ld + c];
}

}  // namespace
}  // namespace fusedvae
