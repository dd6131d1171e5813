// SPDX-License-Identifier: MIT
//
// Epilogues of the forward pass. Each finishes a tile of m rows and w columns, rows b0.. of the batch and columns c0.. of
// the layer: adds the bias, applies its formula, stores what the next layer and the backward pass read. Heads that hold
// pairs have a mean in column 2j and its log-variance in column 2j + 1.
#pragma once
#include "../layer/gemm.h"
#include "inline.h"
#include "tile.h"

namespace fusedvae {
namespace {

constexpr int kMaxPairs = (kMaxWidth / 2 + kLanes - 1) / kLanes * kLanes;  // whole registers: 24 pairs take 32

// ---- linear_act: y = act(x W + b) ------------------------------------------------------------------------------------

template <Activation A>
FUSEDVAE_FN void finish_linear_act(const Forward& f, const Tile& t) {
    const float *values = t.values, *bias = f.bias + t.c0;
    const int w = t.w;
    const bool keeps_slope = saves_slope(A) && (kBfloat16 ? f.slope_words.along : f.slope);
    store_results(
        f.y, f.ld, f.y_words, t, f.stored, [&](int r, int c) __attribute__((always_inline)) {
            V slope;
            const V y = activate<A>(load(values + r * w + c) + load(bias + c), &slope);
            if (keeps_slope) store_slope(f, t.b0 + r, t.c0 + c, slope);
            return y;
        });
}
void linear_act(const Forward& f, const Tile& t) {
    with_activation(f.activation, [&](auto a) { finish_linear_act<a.value>(f, t); });
}

// ---- reparameterize_kl: z = mu + e^(logvar / 2) eps, KL per row ---------------------------------------------------------

// All rows' dimensions lie side by side here, (m, d), so that narrow codes fill the registers too.
void reparameterize_kl(const Forward& f, const Tile& t, int panel) {
    const int j0 = t.c0 / 2, d = t.w / 2, rest = f.N / 2 - j0, n = rest < d ? rest : d;  // dimensions of this tile
    constexpr int kMost = kMaxRows * kMaxPairs;
    float eps[kMost + kLanes], codes[kMost + kLanes], kl[kMost + kLanes];  // room for whole registers
    for (int r = 0; r < t.m; ++r)  // in this order: zeros that a row puts into the next one's place are overwritten
        for (int j = 0; j < d; j += kLanes)
            store(eps + r * d + j, load_part(f.eps + (t.b0 + r) * f.ld_eps + j0 + j, valid_lanes(n, j)));
    for (int r = 0; r < t.m; ++r) {
        float *row = t.values + r * t.w, *head = f.head + (t.b0 + r) * f.ld + t.c0;
        for (int c = 0; c < t.w; c += kLanes) {
            const V pairs = load(row + c) + load(f.bias + t.c0 + c);
            store(row + c, pairs);
            store(head + c, pairs);
        }
    }
    const int total = t.m * d;
    for (int i = 0; i < total; i += kLanes) {
        const int pairs = 2 * (total - i);
        V mu, logvar;
        unzip(load(t.values + 2 * i), pairs > kLanes ? load(t.values + 2 * i + kLanes) : set1(0.0f), &mu, &logvar);
        const V sigma = exp(set1(0.5f) * logvar);
        store(codes + i, fma(sigma, load(eps + i), mu));
        store(kl + i, kl_term(mu, logvar, sigma * sigma));  // a padded column is zero, and its KL too
    }
    for (int r = 0; r < t.m; ++r) {
        V sum_of = set1(0.0f);
        for (int j = 0; j < d; j += kLanes)
            sum_of = sum_of + load_part(kl + r * d + j, d - j < kLanes ? d - j : kLanes);
        f.partial[(t.b0 + r) * f.panels.count + panel] = sum(sum_of);
        const ptrdiff_t at = (t.b0 + r) * f.ld_z + j0;
        if (!kBfloat16)
            for (int j = 0; j < n; ++j) f.z[at + j] = codes[r * d + j];
    }
    store_words(f.z_words, codes, d, t.b0, t.m, j0, d);  // the padded columns' z is zero
}

// ---- likelihoods: nll per row, and its gradient --------------------------------------------------------------------------

// Adds each feature of a tile with one output per feature to a sum per row: sum.add(c, x, target, keep, &gradient), where
// keep() zeroes what lies past the last column. Without a gradient (scores) the compiler drops what only the gradient needs.
template <bool kGradient, class Start>
FUSEDVAE_FN void finish_features(const Forward& f, const Tile& t, int panel, Start start) {
    const V scale = set1(f.scale);
    const int whole = f.N - t.c0 < t.w ? (f.N - t.c0) / kLanes * kLanes : t.w;  // columns in full registers
    decltype(start()) nll_of[kMaxRows];
    for (int r = 0; r < t.m; ++r) {
        const float *values = t.values + r * t.w, *bias = f.bias + t.c0, *target = f.target[t.b0 + r] + t.c0;
        float* dy = kGradient ? place(f.dy, (t.b0 + r) * f.ld + t.c0, t.values + r * t.w) : nullptr;
        auto nll = start();
        V gradient;
        int c = 0;
        for (; c < whole; c += kLanes) {
            const auto all = [](V v) __attribute__((always_inline)) { return v; };
            nll.add(c, load(values + c) + load(bias + c), load(target + c), all, &gradient);
            if (kGradient) store(dy + c, gradient * scale);
        }
        for (; c < t.w; c += kLanes) {  // nothing past the target's end is read
            const int n = valid_lanes(f.N, t.c0 + c);
            const auto keep = [n](V v) __attribute__((always_inline)) { return keep_first(v, n); };
            nll.add(c, load(values + c) + load(bias + c), load_part(target + c, n), keep, &gradient);
            if (kGradient) store(dy + c, keep(gradient * scale));
        }
        nll_of[r] = nll;
    }
    // apart, so that one row's long chain of operations does not hold up the next row's
    for (int r = 0; r < t.m; ++r) f.partial[(t.b0 + r) * f.panels.count + panel] = sum(nll_of[r].total());
    if (kGradient) store_words(f.dy_words, t.values, t.w, t.b0, t.m, t.c0, t.w);
}
template <class Start>
FUSEDVAE_FN void finish_likelihood(const Forward& f, const Tile& t, int panel, Start start) {
    if (kBfloat16 ? f.dy_words.along : f.dy) return finish_features<true>(f, t, panel, start);
    finish_features<false>(f, t, panel, start);
}

struct BernoulliSum {
    V sum = set1(0.0f), product = set1(1.0f);  // a panel multiplies at most 16 factors of at most 2
    template <class Keep>
    FUSEDVAE_FN void add(int, V x, V target, Keep keep, V* gradient) {
        V term, u;
        bernoulli_term(x, target, &term, &u, gradient);
        sum = sum + keep(term);
        product = fma(product, keep(u), product);
    }
    FUSEDVAE_FN V total() const { return sum + log(product); }
};
void bernoulli_nll(const Forward& f, const Tile& t, int panel) {
    finish_likelihood(f, t, panel, [] { return BernoulliSum(); });
}

struct GaussianSum {
    const float *inverse, *log_of;  // of each column's variance
    V sum = set1(0.0f);
    template <class Keep>
    FUSEDVAE_FN void add(int c, V x, V target, Keep keep, V* gradient) {
        sum = sum + keep(gaussian_term(x, target, load(inverse + c), load(log_of + c), gradient));
    }
    FUSEDVAE_FN V total() const { return sum; }
};
void gaussian_nll(const Forward& f, const Tile& t, int panel) {
    // per column, shared by the tile's rows
    float inverse[kMaxWidth], log_of[kMaxWidth];
    for (int c = 0; c < t.w; c += kLanes) {
        V e, variance = set1(f.fixed_variance);
        if (f.log_variance) variance = learned_variance(load(f.log_variance + t.c0 + c), set1(f.min_variance), &e);
        store(inverse + c, set1(1.0f) / variance);
        store(log_of + c, log(variance));
    }
    finish_likelihood(f, t, panel, [&] { return GaussianSum{inverse, log_of}; });
}

// Columns are pairs (mean, log-variance); the target has one value for each pair.
void gaussian_element_nll(const Forward& f, const Tile& t, int panel) {
    const int j0 = t.c0 / 2, d = t.w / 2;
    const V scale = set1(f.scale), half = set1(0.5f);
    const int rest = f.N / 2 - j0, valid = rest < d ? rest : d;
    for (int r = 0; r < t.m; ++r) {
        const float *values = t.values + r * t.w, *bias = f.bias + t.c0, *target = f.target[t.b0 + r] + j0;
        float* dy = place(f.dy, (t.b0 + r) * f.ld + t.c0, t.values + r * t.w);
        V nll = set1(0.0f);
        for (int j = 0; j < d; j += kLanes) {
            const int c = 2 * j, n = valid_lanes(valid, j), upper = valid_lanes(t.w, c + kLanes);
            const V first = load(values + c) + load(bias + c);
            const V second = upper ? load(values + c + kLanes) + load(bias + c + kLanes) : set1(0.0f);
            V mean, logvar, e, dm;
            unzip(first, second, &mean, &logvar);
            const V x = n == kLanes ? load(target + j) : load_part(target + j, n);
            const V variance = learned_variance(logvar, set1(f.min_variance), &e), inverse = set1(1.0f) / variance;
            nll = nll + keep_first(gaussian_term(mean, x, inverse, log(variance), &dm), n);
            if (!dy) continue;
            // d nll / d logvar = (1 - (x - m)^2 / var) e^logvar / var / 2
            const V dlv = half * fnma(dm * dm, variance, set1(1.0f)) * (e * inverse);
            V a, b;
            zip(keep_first(dm * scale, n), keep_first(dlv * scale, n), &a, &b);
            store(dy + c, a);
            if (upper) store(dy + c + kLanes, b);
        }
        f.partial[(t.b0 + r) * f.panels.count + panel] = sum(nll);
    }
    store_words(f.dy_words, t.values, t.w, t.b0, t.m, t.c0, t.w);
}

}  // namespace
}  // namespace fusedvae
