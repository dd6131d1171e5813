// SPDX-License-Identifier: MIT
//
// What only inference needs: one row through a layer without tiles, a head's mean and deviation, and the codes drawn from
// them. Each is a function of one row alone, with the bits that the passes over tiles give.
#pragma once
#include "../layer/formulas.h"
#include "epilogue_forward.h"
#include "microkernel.h"

namespace fusedvae {
namespace {

// One row: all sums of the layer first, then its activation once. One panel after the other is enough: what does not wait
// for memory overlaps anyway (two to four panels at once gained nothing, neither in L1 nor from L3; measured on Zen 5).
void forward_row(const Forward& f, const float* x, float* sums, float* y) {
    for (int p = 0; p < f.panels.count; ++p) {
        const int c0 = f.panels.start[p], w = f.panels.start[p + 1] - c0;
        product_for<Walk::along>(w / kGroup, 1)(sums + c0, &x, 0, f.weight + (ptrdiff_t)c0 * f.K, w, f.K, false);
    }
    const int padded = f.panels.start[f.panels.count];
    with_activation(f.activation, [&](auto a) { finish_row<a.value>(sums, f.bias, padded, f.stored, y, nullptr); });
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
