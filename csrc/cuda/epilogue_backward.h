// SPDX-License-Identifier: MIT
//
// Epilogues of the backward pass: dgrad's (act_grad, reparameterize_grad) and wgrad's (store, sgd, adam).
#pragma once
#include "tile.h"

namespace fusedvae::cuda {
namespace {

// ---- act_grad: dx = (dY W) act' ------------------------------------------------------------------------------------------

template <class S, class T>
__device__ __forceinline__ void act_grad(const Dgrad& g, const float* tile, Place at) {
    with_activation(g.activation, [&](auto a) {
        for_each_unit<S, 4>([&](int r, int column) {
            const int b = at.b0 + r, c = at.c0 + column;
            if (b >= g.B || c >= g.ld) return;
            const Four sum = load_four(tile + r * S::tile_ld + column);
            const Four saved = load_four(static_cast<const T*>(g.saved) + b * g.ld + c);
            Four dx;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const V slope = slope_of<decltype(a)::value>(set1(saved.v[i]));
                dx.v[i] = c + i < g.K ? (set1(sum.v[i]) * slope).v : 0.0f;
            }
            store_four(static_cast<T*>(g.dx) + b * g.ld + c, dx);
        });
    });
}

// ---- reparameterize_grad: dz to the head's pairs ---------------------------------------------------------------------------

// The noise is drawn again: ten rounds of integer multiplications cost less than a trip to memory.
template <class S, class T>
__device__ __forceinline__ void reparameterize_grad(const Dgrad& g, const float* tile, Place at) {
    const Scalars& scalars = now(g.clock);
    const Stream stream = g.noise_of_clock ? scalars.noise : g.noise.stream;
    const float kl_weight = scalars.kl_weight;
    const V half = set1(0.5f);
    for_each_unit<S, 4>([&](int r, int column) {
        const int b = at.b0 + r, j = at.c0 + column;
        if (b >= g.B || 2 * j >= g.ld) return;
        const Four dz = load_four(tile + r * S::tile_ld + column);
        const float* head = g.head + b * g.ld + 2 * j;
        const Four pairs[2] = {load_four(head), load_four(head + 4)};
        const Four eps = draw_four(g.noise, stream, b, j, g.K);
        Four dx[2] = {};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (j + i >= g.K) continue;
            const V mu = set1(pairs[i / 2].v[i % 2 * 2]), logvar = set1(pairs[i / 2].v[i % 2 * 2 + 1]);
            const V weight = set1(g.dim_weight ? __fmul_rn(kl_weight, g.dim_weight[j + i]) : kl_weight);
            const V d = set1(dz.v[i]), sigma = exp(half * logvar);
            dx[i / 2].v[i % 2 * 2] = fma(weight, mu, d).v;
            const V from_z = d * set1(eps.v[i]) * sigma, from_kl = weight * fma(sigma, sigma, set1(-1.0f));
            dx[i / 2].v[i % 2 * 2 + 1] = (half * (from_z + from_kl)).v;
        }
        store_four(static_cast<T*>(g.dx) + b * g.ld + 2 * j, dx[0]);
        store_four(static_cast<T*>(g.dx) + b * g.ld + 2 * j + 4, dx[1]);
    });
}

// ---- store, sgd, adam ------------------------------------------------------------------------------------------------------

// Definitions are PyTorch's: weight decay joins the gradient (or, decoupled, shrinks the weight first), momentum starts at
// zero, Adam corrects both biases.
__device__ __forceinline__ void finish_adam(const Update& u, V gradient, float* value, float* m_of, float* v_of) {
    const V w = set1(*value), g = fma(set1(u.weight_decay), w, gradient * set1(u.gradient_scale));
    V m = set1(*m_of), v = set1(*v_of);
    m = flush_tiny(fma(set1(u.one_minus_beta1), g - m, m));
    v = flush_tiny(fma(set1(u.one_minus_beta2) * g, g, set1(u.beta2) * v));
    *m_of = m.v;
    *v_of = v.v;
    const V direction = adam_direction(m, v, set1(u.inv_bias2), set1(u.epsilon));
    *value = fnma(set1(u.step_size), direction, w * set1(u.decay_factor)).v;
}
__device__ __forceinline__ void finish_sgd(const Update& u, V gradient, float* value, float* m_of) {
    const V w = set1(*value), g = fma(set1(u.weight_decay), w, gradient * set1(u.gradient_scale));
    V direction = g;
    if (m_of) {
        const V m = flush_tiny(fma(set1(u.momentum), set1(*m_of), g));
        *m_of = m.v;
        direction = u.nesterov ? fma(set1(u.momentum), m, g) : m;
    }
    *value = fnma(set1(u.lr), direction, w).v;
}

// One parameter.
__device__ __forceinline__ void finish_one(const Flat& f, Epilogue epilogue, const Update& u, int64_t i,
                                           float gradient) {
    if (epilogue == Epilogue::adam)
        finish_adam(u, set1(gradient), f.value + i, f.m + i, f.v + i);
    else
        finish_sgd(u, set1(gradient), f.value + i, f.m ? f.m + i : nullptr);
}
// Four neighbours; i is a multiple of four.
__device__ __forceinline__ void finish_four(const Flat& f, Epilogue epilogue, const Update& u, int64_t i,
                                            const Four& gradient) {
    Four w = load_four(f.value + i), m{}, v{};
    if (f.m) m = load_four(f.m + i);
    if (epilogue == Epilogue::adam) {
        v = load_four(f.v + i);
#pragma unroll
        for (int t = 0; t < 4; ++t) finish_adam(u, set1(gradient.v[t]), &w.v[t], &m.v[t], &v.v[t]);
        store_four(f.v + i, v);
    } else {
#pragma unroll
        for (int t = 0; t < 4; ++t) finish_sgd(u, set1(gradient.v[t]), &w.v[t], f.m ? &m.v[t] : nullptr);
    }
    if (f.m) store_four(f.m + i, m);
    store_four(f.value + i, w);
    if (f.half) store_four(f.half + i, w);
}

// What the optimiser is about to read and write, fetched while the product before it runs. A wide layer's update is bound
// by it: 24 bytes of weight and moments for each parameter (26 with a bfloat16 copy), against 2 B operations.
template <class S>
__device__ __forceinline__ void prefetch_weights(const Flat& f, const Wgrad& g, int n0, int k0) {
    constexpr int line = 32, per_row = S::N / line;  // floats
    for (int i = static_cast<int>(threadIdx.x); i < S::M * per_row; i += S::threads) {
        const int n = n0 + i / per_row, k = k0 + i % per_row * line;
        if (n >= g.N || k >= g.ld_weight) continue;
        const int64_t at = g.weight + n * g.ld_weight + k;
        prefetch_line(f.value + at);
        if (f.m) prefetch_line(f.m + at);
        if (f.v) prefetch_line(f.v + at);
    }
}

// The tile (rows of W from n0, columns from k0) of dW. Padded columns have zero gradients, weights and moments, and stay
// zero through every optimiser.
template <class S>
__device__ __forceinline__ void finish_weights(const Group& group, const Wgrad& g, const Update& u, const float* tile,
                                               int n0, int k0, int split) {
    for_each_unit<S, 4>([&](int r, int column) {
        const int n = n0 + r, k = k0 + column;
        if (n >= g.N || k >= g.ld_weight) return;
        const int64_t i = g.weight + n * g.ld_weight + k;
        const Four gradient = load_four(tile + r * S::tile_ld + column);
        if (group.epilogue == Epilogue::store)
            store_four(group.flat.gradient + split * group.flat.floats + i, gradient);
        else
            finish_four(group.flat, group.epilogue, u, i, gradient);
    });
}

// The gradients that belong to the columns of dY themselves: the bias, and a variance per feature.
__device__ __forceinline__ void finish_column(const Group& group, const Wgrad& g, const Update& u, int n, int split,
                                              int rows, float sum, float squares) {
    const auto finish = [&](int64_t i, float gradient) {
        if (group.epilogue == Epilogue::store)
            group.flat.gradient[split * group.flat.floats + i] = gradient;
        else
            finish_one(group.flat, group.epilogue, u, i, gradient);
    };
    if (n >= g.N) return;
    finish(g.bias + n, sum);
    if (g.log_variance < 0) return;
    // dy = scale (m - x) / var, so scale sum (m - x)^2 / var = var / scale * sum dy^2
    V e;
    const V variance = learned_variance(set1(group.flat.value[g.log_variance + n]), set1(g.min_variance), &e);
    const V count = set1(static_cast<float>(rows) * group.scale);
    const V gradient = set1(0.5f) * fnma(variance * set1(1.0f / group.scale), set1(squares), count) * (e / variance);
    finish(g.log_variance + n, gradient.v);
}

}  // namespace
}  // namespace fusedvae::cuda
