// SPDX-License-Identifier: MIT
//
// AVX-512 (F, BW, DQ, VL): sixteen floats. What each function means is said in scalar.h.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "../inline.h"
#include "transpose8_avx.h"

namespace fusedvae {
namespace {

constexpr int kLanes = 16;
struct V {
    __m512 v;
};
struct U {
    __m512i v;
};
struct M {
    __mmask16 v;
};

FUSEDVAE_FN __mmask16 first(int n) { return (__mmask16)((1u << n) - 1u); }
FUSEDVAE_FN V set1(float x) { return {_mm512_set1_ps(x)}; }
FUSEDVAE_FN V load(const float* p) { return {_mm512_loadu_ps(p)}; }
FUSEDVAE_FN void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
FUSEDVAE_FN V load_part(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
FUSEDVAE_FN void store_part(float* p, V a, int n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
FUSEDVAE_FN V keep_first(V a, int n) { return {_mm512_maskz_mov_ps(first(n), a.v)}; }

FUSEDVAE_FN V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
FUSEDVAE_FN V operator-(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
FUSEDVAE_FN V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
FUSEDVAE_FN V operator/(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
FUSEDVAE_FN V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
FUSEDVAE_FN V fnma(V a, V b, V c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
FUSEDVAE_FN V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
FUSEDVAE_FN V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
FUSEDVAE_FN V sqrt(V a) { return {_mm512_sqrt_ps(a.v)}; }
FUSEDVAE_FN V abs(V a) { return {_mm512_abs_ps(a.v)}; }
FUSEDVAE_FN V round(V a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
FUSEDVAE_FN M gt(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
FUSEDVAE_FN V select(M m, V a, V b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
FUSEDVAE_FN float sum(V a) {  // halves, quarters, ...: a fixed tree
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 e = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(e, _mm_movehdup_ps(e)));
}
FUSEDVAE_FN V scale2(V p, V n) { return {_mm512_scalef_ps(p.v, n.v)}; }
FUSEDVAE_FN V split_exponent(V x, V* e) {
    e->v = _mm512_getexp_ps(x.v);
    return {_mm512_getmant_ps(x.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src)};
}
FUSEDVAE_FN void unzip(V a, V b, V* even, V* odd) {
    const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even->v = _mm512_permutex2var_ps(a.v, at, b.v);
    odd->v = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(at, _mm512_set1_epi32(1)), b.v);
}
FUSEDVAE_FN void zip(V even, V odd, V* a, V* b) {
    const __m512i at = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    a->v = _mm512_permutex2var_ps(even.v, at, odd.v);
    b->v = _mm512_permutex2var_ps(even.v, _mm512_add_epi32(at, _mm512_set1_epi32(8)), odd.v);
}
FUSEDVAE_FN void store_quads(float* out, const V n[4]) {
    const __m512 ab = _mm512_unpacklo_ps(n[0].v, n[1].v), AB = _mm512_unpackhi_ps(n[0].v, n[1].v);
    const __m512 cd = _mm512_unpacklo_ps(n[2].v, n[3].v), CD = _mm512_unpackhi_ps(n[2].v, n[3].v);
    // lanes 4k, 4k + 1, 4k + 2, 4k + 3 of the four, in quarter k
    const __m512 q[4] = {_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee),
                         _mm512_shuffle_ps(AB, CD, 0x44), _mm512_shuffle_ps(AB, CD, 0xee)};
    for (int i = 0; i < 4; ++i) {
        _mm_storeu_ps(out + 4 * i, _mm512_castps512_ps128(q[i]));
        _mm_storeu_ps(out + 16 + 4 * i, _mm512_extractf32x4_ps(q[i], 1));
        _mm_storeu_ps(out + 32 + 4 * i, _mm512_extractf32x4_ps(q[i], 2));
        _mm_storeu_ps(out + 48 + 4 * i, _mm512_extractf32x4_ps(q[i], 3));
    }
}

FUSEDVAE_FN U uset1(uint32_t x) { return {_mm512_set1_epi32((int)x)}; }
FUSEDVAE_FN U uload(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
FUSEDVAE_FN U operator+(U a, U b) { return {_mm512_add_epi32(a.v, b.v)}; }
FUSEDVAE_FN U operator^(U a, U b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int n>
FUSEDVAE_FN U shr(U a) {
    return {_mm512_srli_epi32(a.v, n)};
}
template <int n>
FUSEDVAE_FN U shl(U a) {
    return {_mm512_slli_epi32(a.v, n)};
}
FUSEDVAE_FN void mul_wide(U a, uint32_t b, U* high, U* low) {
    const __m512i bb = _mm512_set1_epi32((int)b);
    const __m512i even = _mm512_mul_epu32(a.v, bb), odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), bb);
    *high = {_mm512_mask_blend_epi32((__mmask16)0xAAAA, _mm512_srli_epi64(even, 32), odd)};
    *low = {_mm512_mask_blend_epi32((__mmask16)0xAAAA, even, _mm512_slli_epi64(odd, 32))};
}
FUSEDVAE_FN V to_float(U a) { return {_mm512_cvtepi32_ps(a.v)}; }
FUSEDVAE_FN M bit_set(U a, uint32_t bit) { return {_mm512_test_epi32_mask(a.v, _mm512_set1_epi32((int)bit))}; }

FUSEDVAE_FN V low_half(V words) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(words.v), 16))}; }
FUSEDVAE_FN V high_half(V words) {
    const __m512i high = _mm512_set1_epi32((int)0xFFFF0000u);
    return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(words.v), high))};
}

FUSEDVAE_FN V load_half(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
FUSEDVAE_FN V load_u8(const uint8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}
FUSEDVAE_FN V load_double(const double* p) {
    const __m256 low = _mm512_cvtpd_ps(_mm512_loadu_pd(p)), high = _mm512_cvtpd_ps(_mm512_loadu_pd(p + 8));
    return {_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1)};
}

}  // namespace
}  // namespace fusedvae
