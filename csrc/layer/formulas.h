// SPDX-License-Identifier: MIT
//
// Every formula of the engine, once, over a vector V whose vocabulary (see cpu/simd/scalar.h) was included before this
// file: SIMD registers on a CPU, one float per thread on a GPU. The specification, in double and written apart, is
// reference.cpp. Polynomials are least-maximum fits of our own over the intervals named; reductions are the classical
// ones (Cody and Waite). NaN passes through everything but the logarithm: min and max keep their second operand.
//
// Errors are stated in ULP, units in the last place of the exact result, the greatest over every float32 of the domain
// and every instruction set, with fused multiply-add or without. tests/cpp/test_accuracy.cpp holds them;
// bench/results/ulp.txt has what was found.
#pragma once

namespace fusedvae {
namespace {

constexpr float kLog2E = 1.442695041f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;

// ---- elementary functions ----------------------------------------------------------------------------------------

// (e^r - 1 - r) / r^2 for |r| <= ln(2)/2
FUSEDVAE_FN V exp_tail(V r) {
    V p = set1(1.9917829e-4f);
    p = fma(p, r, set1(1.3946084e-3f));
    p = fma(p, r, set1(8.333266e-3f));
    p = fma(p, r, set1(4.166627e-2f));
    p = fma(p, r, set1(0.16666667f));
    return fma(p, r, set1(0.5f));
}
// x = n ln 2 + r
FUSEDVAE_FN V reduce_ln2(V x, V* r) {
    const V n = round(x * set1(kLog2E));
    *r = fnma(n, set1(kLn2Low), fnma(n, set1(kLn2High), x));
    return n;
}
// within 1 ULP
FUSEDVAE_FN V exp(V x) {
    x = min(set1(89.0f), max(set1(-105.0f), x));  // beyond, the result is infinite or zero all the same
    V r;
    const V n = reduce_ln2(x, &r);
    return scale2(fma(r * r, exp_tail(r), r) + set1(1.0f), n);
}
// e^x - 1 for x <= 0, with its relative accuracy kept near 0; within 1 ULP
FUSEDVAE_FN V expm1_negative(V x) {
    x = max(set1(-105.0f), x);
    V r;
    const V n = reduce_ln2(x, &r);
    const V s = scale2(set1(1.0f), n);
    return fma(s, fma(r * r, exp_tail(r), r), s - set1(1.0f));
}
// ln(1 + f) + e ln 2 for f in [sqrt(1/2) - 1, sqrt(2) - 1]
FUSEDVAE_FN V log_tail(V f, V e) {
    V p = set1(6.746601e-2f);
    p = fma(p, f, set1(-0.11675641f));
    p = fma(p, f, set1(0.11888175f));
    p = fma(p, f, set1(-0.124055915f));
    p = fma(p, f, set1(0.14219551f));
    p = fma(p, f, set1(-0.16667996f));
    p = fma(p, f, set1(0.20002119f));
    p = fma(p, f, set1(-0.2500001f));
    p = fma(p, f, set1(0.33333313f));
    const V square = f * f;
    V y = fma(e, set1(kLn2Low), f * square * p);
    y = fnma(set1(0.5f), square, y);
    return fma(e, set1(kLn2High), f + y);
}
// natural logarithm of a positive normal number; within 1 ULP
FUSEDVAE_FN V log(V x) {
    V e;
    const V m = split_exponent(x, &e);
    const M upper = gt(m, set1(1.41421356f));
    return log_tail(select(upper, m * set1(0.5f), m) - set1(1.0f), select(upper, e + set1(1.0f), e));
}
// ln(1 + u) for u in [0, 1]; u itself is the reduced argument below sqrt(2) - 1, so nothing is rounded away.
// Within 1.5 ULP.
FUSEDVAE_FN V log1p_unit(V u) {
    const M upper = gt(u, set1(0.41421356f));
    return log_tail(select(upper, (u - set1(1.0f)) * set1(0.5f), u), select(upper, set1(1.0f), set1(0.0f)));
}
FUSEDVAE_FN V with_sign_of(V x, V magnitude) { return select(gt(set1(0.0f), x), set1(0.0f) - magnitude, magnitude); }

// within 1.5 ULP
FUSEDVAE_FN V tanh(V x) {
    const V square = x * x, a = abs(x);
    V p = set1(-5.6039053e-3f);
    p = fma(p, square, set1(2.0551711e-2f));
    p = fma(p, square, set1(-5.3714104e-2f));
    p = fma(p, square, set1(0.13331152f));
    p = fma(p, square, set1(-0.33333272f));
    const V small = fma(x * square, p, x);
    const V large = set1(1.0f) - set1(2.0f) / (exp(a + a) + set1(1.0f));
    return select(gt(set1(0.64f), a), small, with_sign_of(x, large));
}
// within 2.75 ULP
FUSEDVAE_FN V erf(V x) {
    const V square = x * x, a = abs(x);
    V p = set1(7.853858e-5f);
    p = fma(p, square, set1(-8.0101925e-4f));
    p = fma(p, square, set1(5.1883277e-3f));
    p = fma(p, square, set1(-2.6853811e-2f));
    p = fma(p, square, set1(0.112835854f));
    p = fma(p, square, set1(-0.37612626f));
    p = fma(p, square, set1(1.1283791f));
    // 1 - e^-q, q = -ln erfc(a) for a in [0.9, 4]; erf rounds to 1 from there on
    const V b = min(set1(4.0f), a);
    V q = set1(-1.982207e-4f);
    q = fma(q, b, set1(3.0654997e-3f));
    q = fma(q, b, set1(-2.2315249e-2f));
    q = fma(q, b, set1(0.10411374f));
    q = fma(q, b, set1(0.636976f));
    q = fma(q, b, set1(1.1277972f));
    q = fma(q, b, set1(1.6643909e-4f));
    const V large = set1(1.0f) - exp(set1(0.0f) - q);
    return select(gt(set1(1.0f), a), x * p, with_sign_of(x, large));
}
// sin and cos of t quarter turns, t in [-1/2, 1/2]
FUSEDVAE_FN void sincos_quarter(V t, V* s, V* c) {
    const V x = t * set1(1.57079633f), square = x * x;
    V p = set1(-1.9517298e-4f);
    p = fma(p, square, set1(8.332178e-3f));
    p = fma(p, square, set1(-0.16666655f));
    *s = fma(x * square, p, x);
    V q = set1(2.443845e-5f);
    q = fma(q, square, set1(-1.3887368e-3f));
    q = fma(q, square, set1(4.1666646e-2f));
    *c = fma(square * square, q, fnma(set1(0.5f), square, set1(1.0f)));
}

// u = e^-|x|, and from it the logistic function, within 3 ULP, and softplus, within 1.75 ULP
FUSEDVAE_FN V sigmoid_of(V x, V u) {
    const V p = set1(1.0f) / (set1(1.0f) + u);
    return select(gt(x, set1(0.0f)), p, u * p);
}
FUSEDVAE_FN V softplus_of(V x, V u) { return max(set1(0.0f), x) + log1p_unit(u); }
FUSEDVAE_FN V exp_minus_abs(V x) { return exp(set1(0.0f) - abs(x)); }

// ---- activations ---------------------------------------------------------------------------------------------------

constexpr float kLeakySlope = 0.01f;

// act(x); *slope = act'(x) for the activations that save it.
template <Activation A>
FUSEDVAE_FN V activate(V x, V* slope) {
    const V zero = set1(0.0f), one = set1(1.0f);
    if constexpr (A == Activation::identity) return x;
    if constexpr (A == Activation::relu) return max(zero, x);
    if constexpr (A == Activation::leaky_relu) return select(gt(zero, x), x * set1(kLeakySlope), x);
    if constexpr (A == Activation::elu) return select(gt(x, zero), x, expm1_negative(min(zero, x)));
    if constexpr (A == Activation::tanh) return tanh(x);
    if constexpr (A == Activation::sigmoid) return sigmoid_of(x, exp_minus_abs(x));
    if constexpr (A == Activation::softplus) return softplus_of(x, exp_minus_abs(x));
    if constexpr (A == Activation::gelu) {
        const V cdf = fma(set1(0.5f), erf(x * set1(0.707106781f)), set1(0.5f));
        const V pdf = set1(0.398942280f) * exp(set1(-0.5f) * x * x);
        *slope = fma(x, pdf, cdf);
        return x * cdf;
    }
    if constexpr (A == Activation::silu) {
        const V s = sigmoid_of(x, exp_minus_abs(x));
        *slope = s * fma(x, one - s, one);
        return x * s;
    }
}
// act'(x) from what was saved: y, or act' itself.
template <Activation A>
FUSEDVAE_FN V slope_of(V saved) {
    const V zero = set1(0.0f), one = set1(1.0f);
    if constexpr (A == Activation::identity) return one;
    if constexpr (A == Activation::relu) return select(gt(saved, zero), one, zero);
    if constexpr (A == Activation::leaky_relu) return select(gt(saved, zero), one, set1(kLeakySlope));
    if constexpr (A == Activation::elu) return select(gt(saved, zero), one, saved + one);
    if constexpr (A == Activation::tanh) return fnma(saved, saved, one);
    if constexpr (A == Activation::sigmoid) return saved * (one - saved);
    if constexpr (A == Activation::softplus) return zero - expm1_negative(zero - saved);  // sigmoid(x) = 1 - e^-y
    if constexpr (A == Activation::gelu || A == Activation::silu) return saved;
}

template <Activation A>
struct Is {
    static constexpr Activation value = A;
};
// Calls finish(Is<a>()): the one switch over activations, outside the loops over a tile.
template <class Finish>
FUSEDVAE_FN void with_activation(Activation a, Finish finish) {
    switch (a) {
        case Activation::identity:
            return finish(Is<Activation::identity>());
        case Activation::relu:
            return finish(Is<Activation::relu>());
        case Activation::leaky_relu:
            return finish(Is<Activation::leaky_relu>());
        case Activation::elu:
            return finish(Is<Activation::elu>());
        case Activation::gelu:
            return finish(Is<Activation::gelu>());
        case Activation::silu:
            return finish(Is<Activation::silu>());
        case Activation::tanh:
            return finish(Is<Activation::tanh>());
        case Activation::sigmoid:
            return finish(Is<Activation::sigmoid>());
        case Activation::softplus:
            return finish(Is<Activation::softplus>());
    }
}

// ---- the ELBO's terms ----------------------------------------------------------------------------------------------

// KL(N(mu, e^logvar) || N(0, 1)) of one dimension (Kingma and Welling 2013, appendix B); variance = e^logvar.
FUSEDVAE_FN V kl_term(V mu, V logvar, V variance) {
    return set1(0.5f) * (fma(mu, mu, variance) - (set1(1.0f) + logvar));
}
// -log p(t | logit) = softplus(logit) - t logit = max(0, logit) - t logit + ln(1 + u), u = e^-|logit|. The logarithms of a
// row's features are taken together: sum += the first two terms, product *= 1 + u, at most 2 for each feature, and in the
// end ln(product) is added (cpu/epilogue_forward.h). It costs each logarithm an absolute error of half an epsilon.
// *gradient = sigmoid(logit) - t
FUSEDVAE_FN void bernoulli_term(V logit, V target, V* sum, V* u, V* gradient) {
    *u = exp_minus_abs(logit);
    *gradient = sigmoid_of(logit, *u) - target;
    *sum = fnma(target, logit, max(set1(0.0f), logit));
}
// variance = min_variance + e^log_variance: bounded below and smooth, so it can neither collapse nor get stuck.
// e^88 is the largest power that stays finite.
FUSEDVAE_FN V learned_variance(V log_variance, V min_variance, V* exponential) {
    *exponential = exp(min(set1(88.0f), log_variance));
    return min_variance + *exponential;
}
constexpr float kLog2Pi = 1.837877066f;
// -log N(t; mean, variance) = ((t - mean)^2 / variance + ln variance + ln 2 pi) / 2; *dmean = (mean - t) / variance
FUSEDVAE_FN V gaussian_term(V mean, V target, V inverse_variance, V log_of_variance, V* dmean) {
    const V difference = mean - target;
    *dmean = difference * inverse_variance;
    return set1(0.5f) * fma(difference, *dmean, log_of_variance + set1(kLog2Pi));
}

// ---- the optimiser -------------------------------------------------------------------------------------------------

// Adam's direction, m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon). Root and division are the hardware's, each correctly
// rounded, so that a reciprocal root made of them is within 1.5 ULP: no slower here than an estimate with Newton steps.
FUSEDVAE_FN V adam_direction(V m, V v, V inv_bias2, V epsilon) { return m / fma(sqrt(v), inv_bias2, epsilon); }

// The moments of a unit that has died decay towards zero and would stay subnormal for ever, where a square root or a
// division takes many times as long: without this the whole `iwae` step slows by 35 % after a thousand steps. 2^-120 is
// 1e-36 of a gradient that is itself divided by at least epsilon.
FUSEDVAE_FN V flush_tiny(V moment) { return select(gt(set1(7.52316385e-37f), abs(moment)), set1(0.0f), moment); }

// ---- noise ---------------------------------------------------------------------------------------------------------

// The words of philox.h, a lane for each counter.
FUSEDVAE_FN void philox(U c0, U c1, U c2, U c3, const Stream& stream, U words[4]) {
    uint32_t k0 = stream.key[0], k1 = stream.key[1];
    for (int i = 0; i < kPhiloxRounds; ++i) {
        U high0, low0, high1, low1;
        mul_wide(c0, kPhiloxM0, &high0, &low0);
        mul_wide(c2, kPhiloxM1, &high1, &low1);
        c0 = high1 ^ c1 ^ uset1(k0);
        c1 = low1;
        c2 = high0 ^ c3 ^ uset1(k1);
        c3 = low0;
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}
// Box and Muller (1958), as laid down in philox.h.
FUSEDVAE_FN void normal_pair(U a, U b, V* n0, V* n1) {
    const V u = fma(to_float(shr<1>(a)), set1(4.65661287e-10f), set1(2.32830644e-10f));  // 2^-31, 2^-32
    const V r = sqrt(set1(-2.0f) * log(min(set1(1.0f), u)));
    V s, c;
    sincos_quarter(to_float(shl<2>(b)) * set1(2.32830644e-10f), &s, &c);
    const M odd = bit_set(b, 0x40000000u), half = bit_set(b, 0x80000000u);  // quarter turns: b >> 30
    const V x = select(odd, set1(0.0f) - s, c), y = select(odd, c, s);
    *n0 = r * select(half, set1(0.0f) - x, x);
    *n1 = r * select(half, set1(0.0f) - y, y);
}

}  // namespace
}  // namespace fusedvae
