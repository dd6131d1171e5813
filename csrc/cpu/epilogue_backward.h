// SPDX-License-Identifier: MIT
//
// Epilogues of the backward pass: dgrad's (act_grad, reparameterize_grad) and wgrad's (store, sgd, adam).
#pragma once
#include "../layer/gemm.h"
#include "epilogue_forward.h"
#include "inline.h"

namespace fusedvae {
namespace {

// ---- act_grad: dx = (dY W^T) act' ----------------------------------------------------------------------------------------

template <Activation A>
FUSEDVAE_FN void finish_act_grad(const Dgrad& g, const Tile& t) {
    for (int r = 0; r < t.m; ++r) {
        float *values = t.values + r * t.w, *out = place(g.dx, (t.b0 + r) * g.ld + t.c0, values);
        for (int c = 0; c < t.w; c += kLanes)
            store(out + c, load(values + c) * slope_of<A>(load_saved(g, t.b0 + r, t.c0 + c)));
    }
    store_words(g.dx_words, t.values, t.w, t.b0, t.m, t.c0, t.w);
}
void act_grad(const Dgrad& g, const Tile& t) {
    with_activation(g.activation, [&](auto a) { finish_act_grad<a.value>(g, t); });
}

// ---- reparameterize_grad: dz to the head's pairs ---------------------------------------------------------------------------

void reparameterize_grad(const Dgrad& g, const Tile& t) {
    const int rest = g.K - t.c0, n = rest < t.w ? rest : t.w;
    const int stored = g.ld / 2 - t.c0 < t.w ? (int)(g.ld / 2 - t.c0) : t.w;  // the head's own padding is narrower
    constexpr int kWidth = kMaxWidth > kLanes ? kMaxWidth : kLanes;
    float eps[kMaxRows * kWidth] = {}, pairs[kBfloat16 ? kMaxRows * 2 * kWidth : 1];
    tile_noise(eps, kWidth, g.noise, t.b0, t.m, t.c0, n);
    const V half = set1(0.5f);
    for (int r = 0; r < t.m; ++r) {
        const float* head = g.head + (t.b0 + r) * g.ld + 2 * t.c0;
        float* dx = place(g.dx, (t.b0 + r) * g.ld + 2 * t.c0, pairs + r * 2 * kWidth);
        for (int j = 0; j < t.w && j < stored; j += kLanes) {
            const int lower = valid_lanes(2 * n, 2 * j), upper = valid_lanes(2 * n, 2 * j + kLanes);
            V mu, logvar, weight = set1(g.kl_weight);
            unzip(load_part(head + 2 * j, lower), load_part(head + 2 * j + kLanes, upper), &mu, &logvar);
            if (g.dim_weight) weight = weight * load_part(g.dim_weight + t.c0 + j, valid_lanes(n, j));
            // A padded column's dz is zero, its pair too, and so are both gradients.
            const V dz = load(t.values + r * t.w + j), sigma = exp(half * logvar);
            const V from_z = dz * load(eps + r * kWidth + j) * sigma, from_kl = weight * fma(sigma, sigma, set1(-1.0f));
            V first, second;
            zip(fma(weight, mu, dz), half * (from_z + from_kl), &first, &second);
            store_lanes(dx + 2 * j, first, valid_lanes(2 * stored, 2 * j));
            store_lanes(dx + 2 * j + kLanes, second, valid_lanes(2 * stored, 2 * j + kLanes));
        }
    }
    store_words(g.dx_words, pairs, 2 * kWidth, t.b0, t.m, 2 * t.c0, 2 * stored);
}

// ---- store, sgd, adam ------------------------------------------------------------------------------------------------------

FUSEDVAE_FN Slot at(const Slot& s, ptrdiff_t offset) {
    return {s.value + offset, s.m ? s.m + offset : nullptr, s.v ? s.v + offset : nullptr,
            s.gradient ? s.gradient + offset : nullptr};
}

// n (a multiple of kGroup) neighbouring parameters and their gradient. Definitions are PyTorch's: weight decay joins
// the gradient (or, decoupled, shrinks the weight first), momentum starts at zero, Adam corrects both biases.
FUSEDVAE_FN void finish_adam(const Update& u, const Slot& s, const float* gradient, int n) {
    const V decay = set1(u.weight_decay), factor = set1(u.decay_factor), scale = set1(u.gradient_scale);
    const V beta2 = set1(u.beta2), rest1 = set1(u.one_minus_beta1), rest2 = set1(u.one_minus_beta2);
    const V step = set1(u.step_size), inv_bias2 = set1(u.inv_bias2), epsilon = set1(u.epsilon);
    for (int i = 0; i < n; i += kLanes) {
        const V w = load(s.value + i), g = fma(decay, w, load(gradient + i) * scale);
        V m = load(s.m + i), v = load(s.v + i);
        m = flush_tiny(fma(rest1, g - m, m));
        v = flush_tiny(fma(rest2 * g, g, beta2 * v));
        store(s.m + i, m);
        store(s.v + i, v);
        store(s.value + i, fnma(step, adam_direction(m, v, inv_bias2, epsilon), w * factor));
    }
}
FUSEDVAE_FN void finish_sgd(const Update& u, const Slot& s, const float* gradient, int n) {
    const V decay = set1(u.weight_decay), scale = set1(u.gradient_scale), lr = set1(u.lr), momentum = set1(u.momentum);
    for (int i = 0; i < n; i += kLanes) {
        const V w = load(s.value + i), g = fma(decay, w, load(gradient + i) * scale);
        V direction = g;
        if (s.m) {
            const V m = flush_tiny(fma(momentum, load(s.m + i), g));
            store(s.m + i, m);
            direction = u.nesterov ? fma(momentum, m, g) : m;
        }
        store(s.value + i, fnma(lr, direction, w));
    }
}
FUSEDVAE_FN void finish_slot(const Wgrad& g, const Slot& s, const float* gradient, int n) {
    if (g.epilogue == Epilogue::adam) return finish_adam(g.update, s, gradient, n);
    if (g.epilogue == Epilogue::sgd) return finish_sgd(g.update, s, gradient, n);
    for (int i = 0; i < n; i += kLanes) store(s.gradient + i, load(gradient + i));
}

// The gradients that belong to the columns themselves: the bias, and a variance per feature.
void finish_columns(const Wgrad& g, int c0, int w) {
    float bias[kMaxWidth], log_variance[kMaxWidth];
    for (int c = 0; c < w; c += kLanes) {
        if (g.from_gradient) {
            store(bias + c, load(g.bias.gradient + c0 + c));
            if (g.log_variance.value) store(log_variance + c, load(g.log_variance.gradient + c0 + c));
            continue;
        }
        V total, squares;
        column_sums(g, c0 + c, &total, &squares);
        store(bias + c, total);
        if (g.log_variance.value) {
            // dy = scale (m - x) / var, so scale sum (m - x)^2 / var = var / scale * sum dy^2
            V e;
            const V variance = learned_variance(load(g.log_variance.value + c0 + c), set1(g.min_variance), &e);
            const V rows = set1((float)g.B * g.scale);
            const V gradient = set1(0.5f) * fnma(variance * set1(1.0f / g.scale), squares, rows) * (e / variance);
            store(log_variance + c, keep_first(gradient, valid_lanes(g.N, c0 + c)));
        }
    }
    finish_slot(g, at(g.bias, c0), bias, w);
    if (g.log_variance.value) finish_slot(g, at(g.log_variance, c0), log_variance, w);
}

}  // namespace
}  // namespace fusedvae
