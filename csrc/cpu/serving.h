// SPDX-License-Identifier: MIT
//
// What only inference needs: one row through a layer without tiles, weights held in bfloat16, a head's mean and deviation,
// and the codes drawn from them. Each is a function of one row alone, with the bits that the passes over tiles give.
#pragma once
#include "../layer/formulas.h"
#include "epilogue_forward.h"
#include "microkernel.h"

namespace fusedvae {
namespace {

// Of rows along k. Where rows are words there is nothing to widen.
Product forward_product(bool widens, int groups, int height) {
    if constexpr (!kBfloat16)
        if (widens) return product_for<Walk::widening>(groups, height);
    return product_for<Walk::along>(groups, height);
}

// One row through two neighbouring panels of words, NV registers wide: sums (2, NV * kLanes) = x (depth) . b, where the
// second panel begins `panel` words after the first.
template <int NV, bool kFetches>
void widen_two(float* sums, const float* x, const float* b, ptrdiff_t panel, int depth) {
    V sum_of[2][NV];
    for (int p = 0; p < 2; ++p)
        for (int j = 0; j < NV; ++j) sum_of[p][j] = set1(0.0f);
    const auto step = [&](int k, auto widened) __attribute__((always_inline)) {
        const V left = set1(x[k]);
        for (int p = 0; p < 2; ++p)
            for (int j = 0; j < NV; ++j)
                sum_of[p][j] = fma(left, widened(load(b + p * panel + j * kLanes)), sum_of[p][j]);
    };
    const auto low = [](V words) __attribute__((always_inline)) { return low_half(words); };
    const auto high = [](V words) __attribute__((always_inline)) { return high_half(words); };
    for (int k = 0; k + 1 < depth; k += 2, b += NV * kLanes) {
        for (int p = 0; kFetches && p < 2; ++p) fetch_ahead<NV * kLanes>(b + p * panel);
        step(k, low);
        b = read_anew(b);
        step(k + 1, high);
    }
    for (int p = 0; p < 2; ++p)
        for (int j = 0; j < NV; ++j) store(sums + (p * NV + j) * kLanes, sum_of[p][j]);
    if (depth % 2)  // apart, as in the micro-kernel
        for (int p = 0; p < 2; ++p)
            for (int j = 0; j < NV; ++j) {
                float* const at = sums + (p * NV + j) * kLanes;
                store(at, fma(set1(x[depth - 1]), low(load(b + p * panel + j * kLanes)), load(at)));
            }
}

using WidenTwo = void (*)(float*, const float*, const float*, ptrdiff_t, int);
template <bool kFetches>
WidenTwo widen_two_for(int groups) {
    constexpr int kRegisters = kGroup / kLanes;
    if constexpr (kWidest >= 3)
        if (groups == 3) return widen_two<3 * kRegisters, kFetches>;
    if constexpr (kWidest >= 2)
        if (groups == 2) return widen_two<2 * kRegisters, kFetches>;
    return widen_two<kRegisters, kFetches>;
}

// Of one row. Plain C++ waits for its arithmetic, so there is nothing to fetch.
Product row_product(bool widens, bool fetches, int groups) {
    if (kLanes > 1 && fetches && !widens) return product_for<Walk::fetching>(groups, 1);
    return forward_product(widens, groups, 1);
}

// One row: all sums of the layer first, then its activation once. One panel after the other is enough for floats: what
// does not wait for memory overlaps anyway (two to four panels at once gained nothing, neither in L1 nor from L3; measured
// on Zen 5). A word feeds two multiply-adds of one chain, so that panels of words are taken in twos: 24.4 us against 28.9 on
// bench's `deep`, 27.5 against 42.3 in AVX2; in threes it is no faster. Plain C++ has too few registers for it.
void forward_row(const Forward& f, const float* x, float* sums, float* y) {
    const ptrdiff_t depth = f.widens ? words_of(f.K) : f.K;
    for (int p = 0; p < f.panels.count; ++p) {
        const int c0 = f.panels.start[p], w = f.panels.start[p + 1] - c0;
        const float* const panel = f.weight + c0 * depth;
        if (kLanes > 1 && f.widens && p + 1 < f.panels.count && f.panels.start[p + 2] - c0 == 2 * w) {
            const WidenTwo widen = f.fetches ? widen_two_for<true>(w / kGroup) : widen_two_for<false>(w / kGroup);
            widen(sums + c0, x, panel, w * depth, f.K);
            ++p;
        } else {
            row_product(f.widens, f.fetches, w / kGroup)(sums + c0, &x, 0, panel, w, f.K, false, nullptr);
        }
    }
    const float* bias = f.bias;
    with_activation(f.activation, [&](auto a) {
        store_row(
            y, f.stored, [&](int c) __attribute__((always_inline)) {
                V slope;  // which inference leaves alone
                return activate<a.value>(load(sums + c) + load(bias + c), &slope);
            });
    });
}

// One row's head apart. Returns its KL.
float split_head(const float* head, int Z, float* mu, float* sigma, float* sum_logvar) {
    V kl = set1(0.0f), total = set1(0.0f);
    for (int j = 0; j < Z; j += kLanes) {
        const int n = valid_lanes(Z, j);
        float mean[kLanes] = {}, logvar[kLanes] = {};  // a zero pair's KL is zero
        for (int i = 0; i < n; ++i) mean[i] = head[2 * (j + i)], logvar[i] = head[2 * (j + i) + 1];
        const V m = load(mean), lv = load(logvar), s = exp(set1(0.5f) * lv);
        kl = kl + kl_term(m, lv, s * s);
        total = total + lv;
        store_part(mu + j, m, n);
        store_part(sigma + j, s, n);
    }
    *sum_logvar = sum(total);
    return sum(kl);
}

// z = mu + sigma eps, and sum_j (eps^2 - z^2), for `count` draws of one row.
void draw_codes(float* z, const float* eps, const float* mu, const float* sigma, int count, int Z, float* ratio) {
    for (int i = 0; i < count; ++i, z += Z, eps += Z) {
        V total = set1(0.0f);
        for (int j = 0; j < Z; j += kLanes) {
            const int n = valid_lanes(Z, j);
            const V e = load_part(eps + j, n), code = fma(load_part(sigma + j, n), e, load_part(mu + j, n));
            total = fma(e - code, e + code, total);
            store_part(z + j, code, n);
        }
        ratio[i] = sum(total);
    }
}

}  // namespace
}  // namespace fusedvae
