// SPDX-License-Identifier: MIT
//
// Epilogues of the forward pass (cpu/epilogue_forward.h has the same names). Each finishes a tile from row b0 and column c0 on:
// adds the bias, applies its formula, stores what the next layer and the backward pass read, zeros in padded columns. T is
// what products read: float, or uint16_t for bfloat16.
#pragma once
#include "tile.h"

namespace fusedvae::cuda {
namespace {

__device__ __forceinline__ Four plus_bias(const float* tile_row, const float* bias) {
    Four x = load_four(tile_row);
    const Four b = load_four(bias);
#pragma unroll
    for (int i = 0; i < 4; ++i) x.v[i] = __fadd_rn(x.v[i], b.v[i]);
    return x;
}

// ---- linear_act: y = act(x W + b) ----------------------------------------------------------------------------------------

template <Activation A>
constexpr bool kSavesSlope = saves_slope(A);  // a constant here, for device code calls no function of the host's

template <class S, class T, Activation A>
__device__ __forceinline__ void finish_linear_act(const Forward& f, const float* tile, Place at) {
    for_each_unit<S, 4>([&](int r, int column) {
        const int b = at.b0 + r, c = at.c0 + column;
        if (b >= f.B || c >= padded(f.N)) return;
        const Four x = plus_bias(tile + r * S::tile_ld + column, f.bias + c);
        Four y, slope;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            V d = set1(1.0f);
            y.v[i] = activate<A>(set1(x.v[i]), &d).v;
            slope.v[i] = d.v;
            if (c + i >= f.N) y.v[i] = slope.v[i] = 0.0f;
        }
        if (f.y) store_four(static_cast<T*>(f.y) + b * f.ld + c, y);
        if (kSavesSlope<A> && f.slope) store_four(static_cast<T*>(f.slope) + b * f.ld + c, slope);
        if (f.floats)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (c + i < f.N) f.floats[b * f.ld_floats + c + i] = y.v[i];
    });
}
template <class S, class T>
__device__ __forceinline__ void linear_act(const Forward& f, const float* tile, Place at) {
    with_activation(f.activation, [&](auto a) { finish_linear_act<S, T, decltype(a)::value>(f, tile, at); });
}

// ---- reparameterize_kl: z = mu + e^(logvar / 2) eps, KL per row ---------------------------------------------------------

// A unit is eight columns, four latent dimensions: as many normals as one counter gives.
template <class S, class T>
__device__ __forceinline__ void reparameterize_kl(const Forward& f, const float* tile, Place at) {
    const Stream stream = f.noise_of_clock ? now(f.clock).noise : f.noise.stream;
    const int Z = f.N / 2, parts = segments(f.N);
    for_each_unit<S, 8>([&](int r, int column) {
        const int b = at.b0 + r, c = at.c0 + column, j = c / 2;
        float kl = 0.0f;
        if (b < f.B && j < f.ld_z) {
            Four mu{}, logvar{}, z;
            if (c < padded(f.N)) {
                const Four first = plus_bias(tile + r * S::tile_ld + column, f.bias + c);
                const Four second = plus_bias(tile + r * S::tile_ld + column + 4, f.bias + c + 4);
                store_four(f.head + b * f.ld + c, first);
                store_four(f.head + b * f.ld + c + 4, second);
                mu = {{first.v[0], first.v[2], second.v[0], second.v[2]}};
                logvar = {{first.v[1], first.v[3], second.v[1], second.v[3]}};
            }
            const Four eps = draw_four(f.noise, stream, b, j, Z);
            V sum = set1(0.0f);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const V m = set1(mu.v[i]), lv = set1(logvar.v[i]), sigma = exp(set1(0.5f) * lv);
                z.v[i] = j + i < Z ? fma(sigma, set1(eps.v[i]), m).v : 0.0f;
                if (j + i < Z) sum = sum + kl_term(m, lv, sigma * sigma);
            }
            kl = sum.v;
            if (f.z) store_four(static_cast<T*>(f.z) + b * f.ld_z + j, z);
        }
        kl = sum_lanes<kSegment / 8>(kl);
        if (b < f.B && c < f.N && c % kSegment == 0) f.partial[static_cast<int64_t>(b) * parts + c / kSegment] = kl;
    });
}

// ---- likelihoods: nll per row, and its gradient --------------------------------------------------------------------------

// Four features, one output each: term(c, i, x, target, &gradient) gives a feature's nll, total(sum) what ends a unit.
template <class S, class T, class Term>
__device__ __forceinline__ void finish_features(const Forward& f, const uint32_t* target_index, const float* tile,
                                                Place at, Term term) {
    const int parts = segments(f.N);
    for_each_unit<S, 4>([&](int r, int column) {
        const int b = at.b0 + r, c = at.c0 + column;
        float nll = 0.0f;
        if (b < f.B && c < padded(f.N)) {
            const Four x = plus_bias(tile + r * S::tile_ld + column, f.bias + c);
            const float* target = row_of<float>(f.target, target_index, b) + c;
            Four t{}, dy{};
            if (c + 4 <= f.N)
                t = load_four(target);
            else
#pragma unroll
                for (int i = 0; i < 4; ++i) t.v[i] = c + i < f.N ? target[i] : 0.0f;
            nll = term(column, f.N - c < 4 ? f.N - c : 4, x, t, &dy);
            if (f.dy) {
#pragma unroll
                for (int i = 0; i < 4; ++i) dy.v[i] = c + i < f.N ? __fmul_rn(dy.v[i], f.scale) : 0.0f;
                store_four(static_cast<T*>(f.dy) + b * f.ld + c, dy);
            }
        }
        nll = sum_lanes<kSegment / 4>(nll);
        if (b < f.B && c < f.N && c % kSegment == 0) f.partial[static_cast<int64_t>(b) * parts + c / kSegment] = nll;
    });
}

template <class S, class T>
__device__ __forceinline__ void bernoulli_nll(const Forward& f, const uint32_t* index, const float* tile, Place at) {
    finish_features<S, T>(f, index, tile, at, [](int, int n, const Four& x, const Four& t, Four* dy) {
        V sum = set1(0.0f), product = set1(1.0f);  // at most 2^4: one logarithm for four features
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            V value, u, gradient;
            bernoulli_term(set1(x.v[i]), set1(t.v[i]), &value, &u, &gradient);
            dy->v[i] = gradient.v;
            if (i < n) sum = sum + value, product = fma(product, u, product);
        }
        return (sum + log(product)).v;
    });
}

template <class S, class T>
__device__ __forceinline__ void gaussian_nll(const Forward& f, const uint32_t* index, const float* tile, Place at,
                                             float* column_scratch) {
    // per column, shared by the tile's rows
    float *inverse = column_scratch, *log_of = column_scratch + S::N;
    for (int column = static_cast<int>(threadIdx.x); column < S::N; column += S::threads) {
        V e, variance = set1(f.fixed_variance);
        if (f.log_variance && at.c0 + column < f.N)
            variance = learned_variance(set1(f.log_variance[at.c0 + column]), set1(f.min_variance), &e);
        inverse[column] = (set1(1.0f) / variance).v;
        log_of[column] = log(variance).v;
    }
    __syncthreads();
    finish_features<S, T>(f, index, tile, at, [&](int column, int n, const Four& x, const Four& t, Four* dy) {
        const Four inverse_of = load_four(inverse + column), log_variance = load_four(log_of + column);
        V sum = set1(0.0f);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            V gradient;
            const V value =
                gaussian_term(set1(x.v[i]), set1(t.v[i]), set1(inverse_of.v[i]), set1(log_variance.v[i]), &gradient);
            dy->v[i] = gradient.v;
            if (i < n) sum = sum + value;
        }
        return sum.v;
    });
}

// Columns are pairs (mean, log-variance); the target has one value for each pair. A unit is eight columns.
template <class S, class T>
__device__ __forceinline__ void gaussian_element_nll(const Forward& f, const uint32_t* index, const float* tile,
                                                     Place at) {
    const int parts = segments(f.N);
    const V half = set1(0.5f), scale = set1(f.scale);
    for_each_unit<S, 8>([&](int r, int column) {
        const int b = at.b0 + r, c = at.c0 + column, j = c / 2;
        float nll = 0.0f;
        if (b < f.B && c < padded(f.N)) {
            const Four pairs[2] = {plus_bias(tile + r * S::tile_ld + column, f.bias + c),
                                   plus_bias(tile + r * S::tile_ld + column + 4, f.bias + c + 4)};
            const float* target = row_of<float>(f.target, index, b) + j;
            Four dy[2] = {};
            V sum = set1(0.0f);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (2 * (j + i) >= f.N) continue;
                const V mean = set1(pairs[i / 2].v[i % 2 * 2]), logvar = set1(pairs[i / 2].v[i % 2 * 2 + 1]);
                V e, dm;
                const V variance = learned_variance(logvar, set1(f.min_variance), &e), inverse = set1(1.0f) / variance;
                sum = sum + gaussian_term(mean, set1(target[i]), inverse, log(variance), &dm);
                // d nll / d logvar = (1 - (x - m)^2 / var) e^logvar / var / 2
                const V dlv = half * fnma(dm * dm, variance, set1(1.0f)) * (e * inverse);
                dy[i / 2].v[i % 2 * 2] = (dm * scale).v;
                dy[i / 2].v[i % 2 * 2 + 1] = (dlv * scale).v;
            }
            nll = sum.v;
            if (f.dy) {
                store_four(static_cast<T*>(f.dy) + b * f.ld + c, dy[0]);
                store_four(static_cast<T*>(f.dy) + b * f.ld + c + 4, dy[1]);
            }
        }
        nll = sum_lanes<kSegment / 8>(nll);
        if (b < f.B && c < f.N && c % kSegment == 0) f.partial[static_cast<int64_t>(b) * parts + c / kSegment] = nll;
    });
}

}  // namespace
}  // namespace fusedvae::cuda
