// SPDX-License-Identifier: MIT
//
// Prologues. Products read float rows through pointers, so dense and gathered rows need no work at all; rows of another
// type pass through here once per batch, by the thread that owns them. Also the checks on values from outside.
#pragma once
#include "../layer/gemm.h"
#include "inline.h"

namespace fusedvae {
namespace {

// out[i] = in[i] * factor, `load_lanes` reading kLanes values and widening them.
template <class T, class Load>
FUSEDVAE_FN void convert_values(float* out, const T* in, int64_t n, float factor, Load load_lanes) {
    const V f = set1(factor);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + i, load_lanes(in + i) * f);
    if (i < n) {
        T rest[kLanes] = {};
        for (int64_t j = i; j < n; ++j) rest[j - i] = in[j];
        store_part(out + i, load_lanes(rest) * f, (int)(n - i));
    }
}

// Upper halves of floats.
FUSEDVAE_FN V load_bfloat16(const uint16_t* p) {
    uint32_t bits[kLanes];
    for (int i = 0; i < kLanes; ++i) bits[i] = (uint32_t)p[i] << 16;
    float values[kLanes];
    memcpy(values, bits, sizeof values);
    return load(values);
}

void convert(float* out, const void* in, RowType type, int64_t n, float factor) {
    switch (type) {
        case RowType::float32:
            return convert_values(out, (const float*)in, n, factor, [](const float* p) { return load(p); });
        case RowType::float64:
            return convert_values(out, (const double*)in, n, factor, [](const double* p) { return load_double(p); });
        case RowType::float16:
            return convert_values(out, (const uint16_t*)in, n, factor, [](const uint16_t* p) { return load_half(p); });
        case RowType::bfloat16:
            return convert_values(out, (const uint16_t*)in, n, factor,
                                  [](const uint16_t* p) { return load_bfloat16(p); });
        case RowType::uint8:
        case RowType::boolean:
            return convert_values(out, (const uint8_t*)in, n, factor, [](const uint8_t* p) { return load_u8(p); });
    }
}

int64_t find_bad(const float* values, int64_t n, float low, float high) {
    constexpr int64_t kBlock = 256;  // long enough to vectorise, short enough to search again
    for (int64_t start = 0; start < n; start += kBlock) {
        const int64_t end = start + kBlock < n ? start + kBlock : n;
        int bad = 0;
        for (int64_t i = start; i < end; ++i) bad |= !(values[i] >= low) | !(values[i] <= high);  // NaN is neither
        for (int64_t i = start; bad && i < end; ++i)
            if (!(values[i] >= low && values[i] <= high)) return i;
    }
    return n;
}

}  // namespace
}  // namespace fusedvae
