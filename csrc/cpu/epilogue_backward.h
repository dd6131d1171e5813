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
    const float* values = t.values;
    const int w = t.w;
    const Saved saved = saved_of(g, t);
    store_results(
        g.dx, g.ld, g.dx_words, t, t.c0 + w, [&](int r, int c) __attribute__((always_inline)) {
            return load(values + r * w + c) * slope_of<A>(load_saved(saved, r, c));
        });
}
void act_grad(const Dgrad& g, const Tile& t) {
    with_activation(g.activation, [&](auto a) { finish_act_grad<a.value>(g, t); });
}

// ---- reparameterize_grad: dz to the head's pairs ---------------------------------------------------------------------------

void reparameterize_grad(const Dgrad& g, const Tile& t) {
    const int rest = g.K - t.c0, n = rest < t.w ? rest : t.w;
    const int stored = g.ld / 2 - t.c0 < t.w ? (int)(g.ld / 2 - t.c0) : t.w;  // the head's own padding is narrower
    constexpr int kWidth = kMaxWidth > kLanes ? kMaxWidth : kLanes;
    float pairs[kBfloat16 ? kMaxRows * 2 * kWidth : 1];
    const V half = set1(0.5f);
    const ptrdiff_t ld = g.ld, ld_eps = g.ld_eps, ld_dx = kBfloat16 ? 2 * kWidth : ld;
    for (int j = 0; j < t.w && j < stored; j += kLanes) {
        const int lanes = valid_lanes(n, j), lower = valid_lanes(2 * n, 2 * j),
                  upper = valid_lanes(2 * n, 2 * j + kLanes);
        const int first_lanes = valid_lanes(2 * stored, 2 * j), second_lanes = valid_lanes(2 * stored, 2 * j + kLanes);
        V weight = set1(g.kl_weight);
        if (g.dim_weight) weight = weight * load_part(g.dim_weight + t.c0 + j, lanes);
        const float *head = g.head + t.b0 * ld + 2 * (t.c0 + j), *eps = g.eps + t.b0 * ld_eps + t.c0 + j;
        const float* values = t.values + j;
        float* dx = place(g.dx, t.b0 * ld + 2 * t.c0, pairs) + 2 * j;
        for (int r = 0; r < t.m; ++r, head += ld, eps += ld_eps, values += t.w, dx += ld_dx) {
            V mu, logvar, first, second;
            unzip(load_part(head, lower), load_part(head + kLanes, upper), &mu, &logvar);
            // A padded column's dz is zero, its pair too, and so are both gradients.
            const V dz = load(values), sigma = exp(half * logvar);
            const V from_z = dz * load_part(eps, lanes) * sigma, from_kl = weight * fma(sigma, sigma, set1(-1.0f));
            zip(fma(weight, mu, dz), half * (from_z + from_kl), &first, &second);
            store_lanes(dx, first, first_lanes);
            store_lanes(dx + kLanes, second, second_lanes);
        }
    }
    store_words(g.dx_words, pairs, 2 * kWidth, t.b0, t.m, 2 * t.c0, 2 * stored);
}

// ---- store, sgd, adam ------------------------------------------------------------------------------------------------------

FUSEDVAE_FN Slot at(const Slot& s, ptrdiff_t offset) {
    return {s.value + offset, s.m ? s.m + offset : nullptr, s.v ? s.v + offset : nullptr,
            s.gradient ? s.gradient + offset : nullptr, s.stored ? s.stored + offset : nullptr};
}

// The sums of n of the splits' gradients.
FUSEDVAE_FN void sum_splits(float* sums, const Wgrad& g, const float* stored, int n) {
    for (int i = 0; i < n; i += kLanes) {
        V part[kMostSplits];
        for (int s = 0; s < g.splits; ++s) part[s] = load(stored + s * g.split_floats + i);
        for (int step = 1; step < g.splits; step *= 2)
            for (int s = 0; s < g.splits; s += 2 * step) part[s] = part[s] + part[s + step];
        store(sums + i, part[0]);
    }
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

// Sums over the batch of dY and of its squares. Each column's is one chain of additions; several columns pass at once,
// since a chain waits for itself.
template <bool kSquares, int kGroups>
FUSEDVAE_FN void column_sums(const Wgrad& g, int c, float* totals, float* squares) {
    constexpr int kVectors = kGroups * kGroup / kLanes;
    V total[kVectors], square[kVectors];
    for (int j = 0; j < kVectors; ++j) total[j] = square[j] = set1(0.0f);
    for (int b = 0; b < g.depth; ++b)
        for (int j = 0; j < kVectors; ++j)
            add_column<kSquares>(load(g.dy + b * g.ld + c + j * kLanes), &total[j], &square[j]);
    for (int j = 0; j < kVectors; ++j) {
        store(totals + j * kLanes, total[j]);
        if (kSquares) store(squares + j * kLanes, square[j]);
    }
}
template <bool kSquares>
FUSEDVAE_FN void column_sums(const Wgrad& g, int c0, int w, float* totals, float* squares) {
    if constexpr (kWidest >= 3)
        if (w == 3 * kGroup) return column_sums<kSquares, 3>(g, c0, totals, squares);
    if constexpr (kWidest >= 2)
        if (w == 2 * kGroup) return column_sums<kSquares, 2>(g, c0, totals, squares);
    column_sums<kSquares, 1>(g, c0, totals, squares);
}

// The gradients that belong to the columns themselves: the bias, and a variance per feature.
void finish_columns(const Wgrad& g, int c0, int w) {
    float bias[kMaxWidth], squares[kMaxWidth], log_variance[kMaxWidth];
    if (g.splits) {
        sum_splits(bias, g, g.bias.stored + c0, w);
        if (g.log_variance.value) sum_splits(log_variance, g, g.log_variance.stored + c0, w);
    } else if (g.log_variance.value) {
        column_sums<true>(g, c0, w, bias, squares);
        for (int c = 0; c < w; c += kLanes) {
            // dy = scale (m - x) / var, so scale sum (m - x)^2 / var = var / scale * sum dy^2
            V e;
            const V variance = learned_variance(load(g.log_variance.value + c0 + c), set1(g.min_variance), &e);
            const V rows = set1((float)g.B * g.scale), sum_of = load(squares + c);
            const V gradient = set1(0.5f) * fnma(variance * set1(1.0f / g.scale), sum_of, rows) * (e / variance);
            store(log_variance + c, keep_first(gradient, valid_lanes(g.N, c0 + c)));
        }
    } else {
        column_sums<false>(g, c0, w, bias, squares);
    }
    finish_slot(g, at(g.bias, c0), bias, w);
    if (g.log_variance.value) finish_slot(g, at(g.log_variance, c0), log_variance, w);
}

}  // namespace
}  // namespace fusedvae
