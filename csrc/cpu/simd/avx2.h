// SPDX-License-Identifier: MIT
//
// AVX2 with FMA and F16C: eight floats. What each function means is said in scalar.h.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "../inline.h"
#include "transpose8_avx.h"

namespace fusedvae {
namespace {

constexpr int kLanes = 8;
struct V {
    __m256 v;
};
struct U {
    __m256i v;
};
struct M {
    __m256 v;
};

FUSEDVAE_FN __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
FUSEDVAE_FN V set1(float x) { return {_mm256_set1_ps(x)}; }
FUSEDVAE_FN V load(const float* p) { return {_mm256_loadu_ps(p)}; }
FUSEDVAE_FN void store(float* p, V a) { _mm256_storeu_ps(p, a.v); }
FUSEDVAE_FN V load_part(const float* p, int n) { return {_mm256_maskload_ps(p, first(n))}; }
FUSEDVAE_FN void store_part(float* p, V a, int n) { _mm256_maskstore_ps(p, first(n), a.v); }
FUSEDVAE_FN V keep_first(V a, int n) { return {_mm256_and_ps(a.v, _mm256_castsi256_ps(first(n)))}; }

FUSEDVAE_FN V operator+(V a, V b) { return {_mm256_add_ps(a.v, b.v)}; }
FUSEDVAE_FN V operator-(V a, V b) { return {_mm256_sub_ps(a.v, b.v)}; }
FUSEDVAE_FN V operator*(V a, V b) { return {_mm256_mul_ps(a.v, b.v)}; }
FUSEDVAE_FN V operator/(V a, V b) { return {_mm256_div_ps(a.v, b.v)}; }
FUSEDVAE_FN V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FUSEDVAE_FN V fnma(V a, V b, V c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
FUSEDVAE_FN V min(V a, V b) { return {_mm256_min_ps(a.v, b.v)}; }
FUSEDVAE_FN V max(V a, V b) { return {_mm256_max_ps(a.v, b.v)}; }
FUSEDVAE_FN V sqrt(V a) { return {_mm256_sqrt_ps(a.v)}; }
FUSEDVAE_FN V abs(V a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
FUSEDVAE_FN V round(V a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
FUSEDVAE_FN M gt(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
FUSEDVAE_FN V select(M m, V a, V b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
FUSEDVAE_FN float sum(V a) {
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 e = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(e, _mm_movehdup_ps(e)));
}
FUSEDVAE_FN __m256 power2(__m256i e) {  // 2^e for e in [-126, 127]
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
}
FUSEDVAE_FN V scale2(V p, V n) {
    const __m256i e = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(e, 1);
    return {_mm256_mul_ps(_mm256_mul_ps(p.v, power2(half)), power2(_mm256_sub_epi32(e, half)))};
}
FUSEDVAE_FN V split_exponent(V x, V* e) {
    const __m256i bits = _mm256_castps_si256(x.v);
    e->v = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
    return {_mm256_castsi256_ps(
        _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi32(0x007fffff)), _mm256_set1_epi32(0x3f800000)))};
}
FUSEDVAE_FN __m256 outer_inner(__m256 x) {  // quarters 0, 2, 1, 3 of 64 bits
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}
FUSEDVAE_FN void unzip(V a, V b, V* even, V* odd) {
    even->v = outer_inner(_mm256_shuffle_ps(a.v, b.v, 0x88));
    odd->v = outer_inner(_mm256_shuffle_ps(a.v, b.v, 0xdd));
}
FUSEDVAE_FN void zip(V even, V odd, V* a, V* b) {
    const __m256 low = _mm256_unpacklo_ps(even.v, odd.v), high = _mm256_unpackhi_ps(even.v, odd.v);
    a->v = _mm256_permute2f128_ps(low, high, 0x20);
    b->v = _mm256_permute2f128_ps(low, high, 0x31);
}
FUSEDVAE_FN void store_quads(float* out, const V n[4]) {
    const __m256 ab = _mm256_unpacklo_ps(n[0].v, n[1].v), AB = _mm256_unpackhi_ps(n[0].v, n[1].v);
    const __m256 cd = _mm256_unpacklo_ps(n[2].v, n[3].v), CD = _mm256_unpackhi_ps(n[2].v, n[3].v);
    // lanes 4k, 4k + 1, 4k + 2, 4k + 3 of the four, in half k
    const __m256 q[4] = {_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee),
                         _mm256_shuffle_ps(AB, CD, 0x44), _mm256_shuffle_ps(AB, CD, 0xee)};
    for (int i = 0; i < 4; ++i) {
        _mm_storeu_ps(out + 4 * i, _mm256_castps256_ps128(q[i]));
        _mm_storeu_ps(out + 16 + 4 * i, _mm256_extractf128_ps(q[i], 1));
    }
}

FUSEDVAE_FN U uset1(uint32_t x) { return {_mm256_set1_epi32((int)x)}; }
FUSEDVAE_FN U uload(const uint32_t* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
FUSEDVAE_FN U operator+(U a, U b) { return {_mm256_add_epi32(a.v, b.v)}; }
FUSEDVAE_FN U operator^(U a, U b) { return {_mm256_xor_si256(a.v, b.v)}; }
template <int n>
FUSEDVAE_FN U shr(U a) {
    return {_mm256_srli_epi32(a.v, n)};
}
template <int n>
FUSEDVAE_FN U shl(U a) {
    return {_mm256_slli_epi32(a.v, n)};
}
FUSEDVAE_FN void mul_wide(U a, uint32_t b, U* high, U* low) {
    const __m256i bb = _mm256_set1_epi32((int)b);
    const __m256i even = _mm256_mul_epu32(a.v, bb), odd = _mm256_mul_epu32(_mm256_srli_epi64(a.v, 32), bb);
    *high = {_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA)};
    *low = {_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA)};
}
FUSEDVAE_FN V to_float(U a) { return {_mm256_cvtepi32_ps(a.v)}; }
FUSEDVAE_FN M bit_set(U a, uint32_t bit) {
    const __m256i b = _mm256_set1_epi32((int)bit);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(a.v, b), b))};
}

FUSEDVAE_FN V low_half(V words) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(words.v), 16))}; }
FUSEDVAE_FN V high_half(V words) {
    return {_mm256_and_ps(words.v, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xFFFF0000u)))};
}

FUSEDVAE_FN V load_half(const uint16_t* p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))}; }
FUSEDVAE_FN V load_u8(const uint8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)))};
}
FUSEDVAE_FN V load_double(const double* p) {
    const __m128 low = _mm256_cvtpd_ps(_mm256_loadu_pd(p)), high = _mm256_cvtpd_ps(_mm256_loadu_pd(p + 4));
    return {_mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1)};
}

}  // namespace
}  // namespace fusedvae
