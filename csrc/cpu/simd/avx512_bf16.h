// SPDX-License-Identifier: MIT
//
// AVX512-BF16 on top of avx512.h: words of two bfloat16. Conversions round to nearest even and flush subnormals to zero.
#pragma once
#include "avx512.h"

namespace fusedvae {
namespace {

// sum + low halves' products + high halves' products, in that order, each a fused multiply-add
FUSEDVAE_FN V dot2(V a, V b, V sum) { return {_mm512_dpbf16_ps(sum.v, (__m512bh)a.v, (__m512bh)b.v)}; }

FUSEDVAE_FN __m256i to_bf16(V a) { return (__m256i)_mm512_cvtneps_pbh(a.v); }

// kLanes values as words: neighbours share one. The other form stores the first eight only.
FUSEDVAE_FN void store_neighbours(float* words, V a) { _mm256_storeu_si256((__m256i*)words, to_bf16(a)); }
FUSEDVAE_FN void store_eight_neighbours(float* words, V a) {
    _mm_storeu_si128((__m128i*)words, _mm256_castsi256_si128(to_bf16(a)));
}
// The first eight lanes.
FUSEDVAE_FN void store_eight(float* p, V a) { _mm256_storeu_ps(p, _mm512_castps512_ps256(a.v)); }
// Word i holds low[i] and high[i].
FUSEDVAE_FN V join(V low, V high) {
    const __m512i l = _mm512_cvtepu16_epi32(to_bf16(low)), h = _mm512_cvtepu16_epi32(to_bf16(high));
    return {_mm512_castsi512_ps(_mm512_or_si512(l, _mm512_slli_epi32(h, 16)))};
}
// Both rows' neighbours, and their join.
FUSEDVAE_FN void store_pair(float* first, float* second, float* joined, V low, V high) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v);
    const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    // 0, 16, 1, 17, ..
    const __m512i at = _mm512_or_si512(step, _mm512_slli_epi32(_mm512_add_epi32(step, _mm512_set1_epi32(16)), 16));
    _mm256_storeu_si256((__m256i*)first, _mm512_castsi512_si256(both));
    _mm256_storeu_si256((__m256i*)second, _mm512_extracti64x4_epi64(both, 1));
    _mm512_storeu_si512(joined, _mm512_permutexvar_epi16(at, both));
}
// kLanes values from words of neighbours.
FUSEDVAE_FN V load_neighbours(const float* words) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)words));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
}

}  // namespace
}  // namespace fusedvae
