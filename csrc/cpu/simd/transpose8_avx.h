// SPDX-License-Identifier: MIT
//
// 8 x 8 floats transposed in registers, for the two x86 backends: (8, source_ld) -> (8, out_ld).
#pragma once
#include <immintrin.h>
#include <stddef.h>

#include "../inline.h"

namespace fusedvae {
namespace {

FUSEDVAE_FN void transpose8(float* out, ptrdiff_t out_ld, const float* source, ptrdiff_t source_ld) {
    // 4 x 4 blocks: each register takes rows r and r + 4, so that no shuffle crosses the 128-bit halves afterwards.
    __m256 a[8];
    for (int r = 0; r < 4; ++r) {
        const float *upper = source + r * source_ld, *lower = source + (r + 4) * source_ld;
        a[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(upper)), _mm_loadu_ps(lower), 1);
        a[r + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(upper + 4)), _mm_loadu_ps(lower + 4), 1);
    }
    for (int half = 0; half < 2; ++half) {
        const __m256 *q = a + 4 * half, low01 = _mm256_unpacklo_ps(q[0], q[1]), high01 = _mm256_unpackhi_ps(q[0], q[1]),
                     low23 = _mm256_unpacklo_ps(q[2], q[3]), high23 = _mm256_unpackhi_ps(q[2], q[3]);
        float* o = out + 4 * half * out_ld;
        _mm256_storeu_ps(o, _mm256_shuffle_ps(low01, low23, 0x44));
        _mm256_storeu_ps(o + out_ld, _mm256_shuffle_ps(low01, low23, 0xEE));
        _mm256_storeu_ps(o + 2 * out_ld, _mm256_shuffle_ps(high01, high23, 0x44));
        _mm256_storeu_ps(o + 3 * out_ld, _mm256_shuffle_ps(high01, high23, 0xEE));
    }
}

}  // namespace
}  // namespace fusedvae
