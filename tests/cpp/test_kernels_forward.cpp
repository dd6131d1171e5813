// SPDX-License-Identifier: MIT
//
// The forward kernels (product + activation, head, likelihood) of every backend against the double-precision reference,
// over awkward sizes. kernel_cases.h says where the bounds come from.
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "kernel_cases.h"

using namespace kernel_cases;
namespace reference = fusedvae::reference;

namespace {

struct Named {
    fvae_activation activation;
    const char* name;
    double slope;      // the largest |act'|
    double curvature;  // the largest |act''|; 0 where act' jumps
};
const std::vector<Named> kActivations = {
    {FVAE_IDENTITY, "identity", 1.0, 0.0},
    {FVAE_RELU, "relu", 1.0, 0.0},
    {FVAE_LEAKY_RELU, "leaky_relu", 1.0, 0.0},
    {FVAE_ELU, "elu", 1.0, 1.0},
    {FVAE_GELU, "gelu", 1.13, 0.8},
    {FVAE_SILU, "silu", 1.1, 0.5},
    {FVAE_TANH, "tanh", 1.0, 0.77},
    {FVAE_SIGMOID, "sigmoid", 0.25, 0.1},
    {FVAE_SOFTPLUS, "softplus", 1.0, 0.25},
};

// The activation's own error at pre-activation p. gelu is p * Phi(p), and Phi a sum of halves: its error is absolute.
// silu is p * sigmoid(p), where far below zero sigmoid is a denormal, spaced 2^-149.
double value_error(fvae_activation activation, double p) {
    if (activation == FVAE_IDENTITY || activation == FVAE_RELU) return 0.0;
    if (activation == FVAE_GELU) return kFunction * std::fabs(p);
    const double denormal = activation == FVAE_SILU ? std::fabs(p) * std::ldexp(1.0, -149) : 0.0;
    return kFunction * std::fabs(reference::activate(activation, p)) + denormal;
}
// The slope's own error: slopes are made of terms no larger than 1, but silu's holds p (1 - sigmoid(p)), where the
// rounding of sigmoid is multiplied by p until, from about 17 on, the difference is exactly zero.
double slope_error(fvae_activation activation, double p) {
    return activation == FVAE_SILU ? kFunction * (1.0 + std::min(std::fabs(p), 17.0)) : kFunction;
}
// Whether act' jumps within `error` of p, so that either side's slope is right.
bool jumps(fvae_activation activation, double p, double error) {
    return (activation == FVAE_RELU || activation == FVAE_LEAKY_RELU) && std::fabs(p) <= error;
}

struct LinearCase {
    Shape shape;
    Buffer x, weight, bias;
    Matrix pre;
    double bound;  // of the product with its bias

    LinearCase(Shape s, Random& random, int64_t columns)
        : shape(s),
          x(random.uniforms(s.B * s.K, -1.0f, 1.0f)),
          weight(random.uniforms(columns * s.K, -1.0f, 1.0f)),
          bias(random.uniforms(columns, -1.0f, 1.0f)) {
        const Matrix mx = to_matrix(x, s.B, s.K), mw = to_matrix(weight, columns, s.K),
                     mb = to_matrix(bias, columns, 1);
        pre = reference::linear(mx, mw, mb);
        bound = linear_bound(mx, mw, mb);
    }
};

Matrix columns_of(const Matrix& x, int64_t first, int64_t count) {
    Matrix part(x.rows, count);
    for (int64_t i = 0; i < x.rows; ++i)
        for (int64_t j = 0; j < count; ++j) part(i, j) = x(i, first + j);
    return part;
}

void run_linear_act(const LinearCase& c, const Named& act, const Where& where) {
    const Shape& s = c.shape;
    Buffer y(s.B * s.N), slope(s.B * s.N);
    expect_ok(fvae_kernel_linear_act(where.backend.c_str(), c.x.data(), c.weight.data(), c.bias.data(), s.B, s.K, s.N,
                                     act.activation, y.data(), slope.data()),
              where);
    Matrix want(s.B, s.N), want_slope(s.B, s.N), bound(s.B, s.N), slope_bound(s.B, s.N);
    for (int64_t i = 0; i < s.B * s.N; ++i) {
        const double p = c.pre[i];
        want[i] = reference::activate(act.activation, p);
        want_slope[i] = reference::activation_slope(act.activation, p);
        bound[i] = act.slope * c.bound + value_error(act.activation, p);
        slope_bound[i] =
            jumps(act.activation, p, c.bound) ? 1.0 : act.curvature * c.bound + slope_error(act.activation, p);
    }
    expect_near(y, want, bound, where, "y");
    expect_near(slope, want_slope, slope_bound, where, "slope");

    Buffer without_slope(s.B * s.N);
    expect_ok(fvae_kernel_linear_act(where.backend.c_str(), c.x.data(), c.weight.data(), c.bias.data(), s.B, s.K, s.N,
                                     act.activation, without_slope.data(), nullptr),
              where);
    expect_equal(without_slope, to_matrix(y, s.B, s.N), where, "y without slope");
}

// One input per row, one weight of 1 per column: the pre-activation is the input itself.
const std::vector<float> kExtremes = {-1e4f, -100.0f, -20.0f, -1.0f,  -1e-3f, -1e-38f, -1e-40f, -1e-45f, -0.0f,
                                      0.0f,  1e-45f,  1e-40f, 1e-38f, 1e-3f,  1.0f,    20.0f,   100.0f,  1e4f};
constexpr int64_t kExtremeColumns = 17;

}  // namespace

TEST(linear_act_matches_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 1;
        for (const Shape& shape : shapes()) {
            Random random(seed++);
            const LinearCase c(shape, random, shape.N);
            for (const Named& act : kActivations)
                run_linear_act(c, act, {std::string("linear_act ") + act.name, backend, shape});
        }
    }
}

TEST(linear_act_is_exact_on_integers) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 1001;
        for (const Shape& s : shapes()) {
            const Where where{"linear_act on integers", backend, s};
            Random random(seed++);
            const Buffer x = random.integers(s.B * s.K, 8), weight = random.integers(s.N * s.K, 8);
            const Buffer bias = random.integers(s.N, 100);
            Matrix want =
                reference::linear(to_matrix(x, s.B, s.K), to_matrix(weight, s.N, s.K), to_matrix(bias, s.N, 1));
            Buffer y(s.B * s.N);
            expect_ok(fvae_kernel_linear_act(backend.c_str(), x.data(), weight.data(), bias.data(), s.B, s.K, s.N,
                                             FVAE_IDENTITY, y.data(), nullptr),
                      where);
            expect_equal(y, want, where, "y");
            Buffer positive(s.B * s.N);
            expect_ok(fvae_kernel_linear_act(backend.c_str(), x.data(), weight.data(), bias.data(), s.B, s.K, s.N,
                                             FVAE_RELU, positive.data(), nullptr),
                      where);
            for (double& value : want.values) value = std::max(value, 0.0);
            expect_equal(positive, want, where, "relu(y)");
            Buffer unbiased(s.B * s.N);
            expect_ok(fvae_kernel_linear_act(backend.c_str(), x.data(), weight.data(), nullptr, s.B, s.K, s.N,
                                             FVAE_IDENTITY, unbiased.data(), nullptr),
                      where);
            expect_equal(unbiased, reference::linear(to_matrix(x, s.B, s.K), to_matrix(weight, s.N, s.K), Matrix()),
                         where, "y without bias");
        }
    }
}

TEST(linear_act_at_extreme_inputs) {
    const int64_t B = static_cast<int64_t>(kExtremes.size()), N = kExtremeColumns;
    for (const std::string& backend : backends())
        for (const Named& act : kActivations) {
            const Where where{std::string("linear_act at extremes, ") + act.name, backend, {B, 1, N}};
            Buffer x(B), weight(N), y(B * N), slope(B * N);
            std::copy(kExtremes.begin(), kExtremes.end(), x.data());
            std::fill(weight.data(), weight.data() + N, 1.0f);
            expect_ok(fvae_kernel_linear_act(backend.c_str(), x.data(), weight.data(), nullptr, B, 1, N, act.activation,
                                             y.data(), slope.data()),
                      where);
            Matrix want(B, N), bound(B, N), want_slope(B, N), slope_bound(B, N);
            for (int64_t b = 0; b < B; ++b)
                for (int64_t n = 0; n < N; ++n) {
                    const double p = x[b];
                    want(b, n) = reference::activate(act.activation, p);
                    bound(b, n) = value_error(act.activation, p);
                    want_slope(b, n) = reference::activation_slope(act.activation, p);
                    slope_bound(b, n) = slope_error(act.activation, p);
                }
            expect_near(y, want, bound, where, "y");
            expect_near(slope, want_slope, slope_bound, where, "slope");
        }
}

// A loss that is not finite stops a training, so no activation or likelihood may swallow a NaN; and a row's bits may
// not depend on the rows beside it, so its neighbours stay what they are without it.
TEST(nan_reaches_the_loss_and_no_other_row) {
    const Shape s{9, 16, 17};
    for (const std::string& backend : backends()) {
        Random random(7);
        const LinearCase c(s, random, s.N);
        Buffer spoiled = c.x;
        spoiled[4 * s.K + 3] = std::nanf("");
        const Buffer target = random.uniforms(s.B * s.N, 0.0f, 1.0f);
        for (const Named& act : kActivations) {
            const Where where{std::string("linear_act with NaN, ") + act.name, backend, s};
            Buffer clean(s.B * s.N), y(s.B * s.N);
            expect_ok(fvae_kernel_linear_act(backend.c_str(), c.x.data(), c.weight.data(), c.bias.data(), s.B, s.K, s.N,
                                             act.activation, clean.data(), nullptr),
                      where);
            expect_ok(fvae_kernel_linear_act(backend.c_str(), spoiled.data(), c.weight.data(), c.bias.data(), s.B, s.K,
                                             s.N, act.activation, y.data(), nullptr),
                      where);
            for (int64_t i = 0; i < s.B * s.N; ++i)
                if (i / s.N == 4)
                    CHECK(std::isnan(y[i]));
                else
                    CHECK(y[i] == clean[i]);
        }
        Buffer nll(s.B), dlogits(s.B * s.N);
        CHECK(fvae_kernel_bernoulli_nll(backend.c_str(), spoiled.data(), c.weight.data(), c.bias.data(), target.data(),
                                        s.B, s.K, s.N, nll.data(), dlogits.data()) == FVAE_OK);
        for (int64_t b = 0; b < s.B; ++b) CHECK(std::isnan(nll[b]) == (b == 4));
        Buffer gaussian(s.B), dmean(s.B * s.N);
        CHECK(fvae_kernel_gaussian_nll(backend.c_str(), spoiled.data(), c.weight.data(), c.bias.data(), target.data(),
                                       nullptr, 1.0, 0.0, s.B, s.K, s.N, gaussian.data(), dmean.data()) == FVAE_OK);
        for (int64_t b = 0; b < s.B; ++b) CHECK(std::isnan(gaussian[b]) == (b == 4));
    }
}

TEST(a_row_has_the_same_bits_in_any_company) {
    const Shape s{19, 100, 65};
    for (const std::string& backend : backends()) {
        Random random(8);
        const LinearCase c(s, random, s.N);
        const Buffer target = random.uniforms(s.B * s.N, 0.0f, 1.0f);
        Buffer nll(s.B), dlogits(s.B * s.N), y(s.B * s.N);
        const Where where{"rows in company", backend, s};
        expect_ok(fvae_kernel_bernoulli_nll(backend.c_str(), c.x.data(), c.weight.data(), c.bias.data(), target.data(),
                                            s.B, s.K, s.N, nll.data(), dlogits.data()),
                  where);
        expect_ok(fvae_kernel_linear_act(backend.c_str(), c.x.data(), c.weight.data(), c.bias.data(), s.B, s.K, s.N,
                                         FVAE_GELU, y.data(), nullptr),
                  where);
        for (int64_t b = 0; b < s.B; ++b) {
            Buffer one(1), gradient(s.N), y_b(s.N);
            expect_ok(fvae_kernel_bernoulli_nll(backend.c_str(), c.x.data() + b * s.K, c.weight.data(), c.bias.data(),
                                                target.data() + b * s.N, 1, s.K, s.N, one.data(), gradient.data()),
                      where);
            expect_ok(fvae_kernel_linear_act(backend.c_str(), c.x.data() + b * s.K, c.weight.data(), c.bias.data(), 1,
                                             s.K, s.N, FVAE_GELU, y_b.data(), nullptr),
                      where);
            expect_equal(one, to_matrix(nll.data() + b, 1, 1), where, "nll");
            expect_equal(gradient, to_matrix(dlogits.data() + b * s.N, 1, s.N), where, "dlogits");
            expect_equal(y_b, to_matrix(y.data() + b * s.N, 1, s.N), where, "y");
        }
    }
}

namespace {

// The head at shape (B, K, Z) with given noise, or (noise NULL) with the numbers drawn at (seed, step, row).
void run_head(const Shape& s, Random& random, bool given, const Where& where) {
    const int64_t Z = s.N;
    // Log-variances of a few units: a quarter of the weights' size is enough for sums of up to 100 products.
    Buffer x = random.uniforms(s.B * s.K, -1.0f, 1.0f), weight = random.uniforms(2 * Z * s.K, -0.25f, 0.25f);
    Buffer bias = random.uniforms(2 * Z, -1.0f, 1.0f), noise = random.normals(s.B * Z);
    const uint64_t seed = 0x123456789abcdefull, step = (uint64_t{5} << 32) + 77;
    Buffer mu(s.B * Z), logvar(s.B * Z), z(s.B * Z), kl(s.B);
    expect_ok(fvae_kernel_reparameterize_kl(where.backend.c_str(), x.data(), weight.data(), bias.data(),
                                            given ? noise.data() : nullptr, seed, step, s.B, s.K, Z, mu.data(),
                                            logvar.data(), z.data(), kl.data()),
              where);

    const Matrix mx = to_matrix(x, s.B, s.K), mw = to_matrix(weight, 2 * Z, s.K), mb = to_matrix(bias, 2 * Z, 1);
    const Matrix head = reference::linear(mx, mw, mb);
    const Matrix want_mu = columns_of(head, 0, Z), want_logvar = columns_of(head, Z, Z);
    const double product = linear_bound(mx, mw, mb);
    Matrix eps(s.B, Z), eps_error(s.B, Z);
    for (int64_t b = 0; b < s.B; ++b)
        for (int64_t j = 0; j < Z; ++j) {
            eps(b, j) =
                given ? noise[b * Z + j] : reference::normal(seed, step, /*kTrain*/ 0, static_cast<uint32_t>(b), j);
            // Box-Muller in float: a rounding of u (half of kEps near 1) moves r = sqrt(-2 ln u) by kEps / 2r.
            if (!given) eps_error(b, j) = kFunction * std::fabs(eps(b, j)) + 1e-6;
        }
    const reference::Latent want = reference::reparameterize_kl(want_mu, want_logvar, eps);
    Matrix z_bound(s.B, Z), kl_bound(s.B, 1);
    for (int64_t b = 0; b < s.B; ++b) {
        double terms = 0.0;
        for (int64_t j = 0; j < Z; ++j) {
            const double m = std::fabs(want_mu(b, j)), l = want_logvar(b, j), sigma = std::exp(0.5 * l);
            const double drawn = std::fabs(eps(b, j));
            z_bound(b, j) =
                product + sigma * (drawn * (product / 2 + kFunction) + eps_error(b, j)) + kEps * (m + sigma * drawn);
            const double size = 0.5 * (m * m + sigma * sigma + 1.0 + std::fabs(l));
            kl_bound[b] += (m + 0.5 * std::fabs(std::expm1(l))) * product + kFunction * size;
            terms += size;
        }
        kl_bound[b] += kEps * static_cast<double>(Z) * terms / 2;  // the sum over Z
    }
    expect_near(mu, want_mu, product, where, "mu");
    expect_near(logvar, want_logvar, product, where, "logvar");
    expect_near(z, want.z, z_bound, where, "z");
    expect_near(kl, row_sums(want.kl), kl_bound, where, "kl");
}

}  // namespace

TEST(reparameterize_kl_matches_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 2001;
        for (const Shape& shape : shapes()) {
            Random random(seed++);
            run_head(shape, random, true, {"reparameterize_kl, noise given", backend, shape});
            run_head(shape, random, false, {"reparameterize_kl, noise drawn", backend, shape});
        }
    }
}

TEST(reparameterize_kl_at_extreme_log_variances) {
    const std::vector<float> logvars = {-80.0f, -30.0f, -1e-3f, -1e-40f, 0.0f, 1e-40f, 1e-3f, 30.0f, 80.0f};
    const int64_t B = static_cast<int64_t>(logvars.size()), Z = 17;
    for (const std::string& backend : backends()) {
        const Where where{"reparameterize_kl at extremes", backend, {B, 1, Z}};
        Buffer x(B), weight(2 * Z), bias(2 * Z), noise(B * Z), mu(B * Z), logvar(B * Z), z(B * Z), kl(B);
        std::copy(logvars.begin(), logvars.end(), x.data());
        for (int64_t j = 0; j < Z; ++j) weight[j] = 0.0f, weight[Z + j] = 1.0f, bias[j] = 3.0f, bias[Z + j] = 0.0f;
        std::fill(noise.data(), noise.data() + B * Z, -1.5f);
        expect_ok(fvae_kernel_reparameterize_kl(backend.c_str(), x.data(), weight.data(), bias.data(), noise.data(), 0,
                                                0, B, 1, Z, mu.data(), logvar.data(), z.data(), kl.data()),
                  where);
        Matrix want_mu = constant(B, Z, 3.0), want_logvar(B, Z), z_bound(B, Z), kl_bound(B, 1);
        for (int64_t b = 0; b < B; ++b)
            for (int64_t j = 0; j < Z; ++j) {
                want_logvar(b, j) = logvars[static_cast<size_t>(b)];
                const double sigma = std::exp(0.5 * want_logvar(b, j));
                z_bound(b, j) = kFunction * (3.0 + 1.5 * sigma);
                kl_bound[b] += 0.5 * (kFunction + kEps * static_cast<double>(Z)) *
                               (9.0 + sigma * sigma + 1.0 + std::fabs(want_logvar(b, j)));
            }
        const reference::Latent want = reference::reparameterize_kl(want_mu, want_logvar, constant(B, Z, -1.5));
        expect_equal(logvar, want_logvar, where, "logvar");
        expect_near(z, want.z, z_bound, where, "z");
        expect_near(kl, row_sums(want.kl), kl_bound, where, "kl");
    }
}

TEST(an_unknown_backend_is_refused_by_name) {
    float one = 1.0f, y = 0.0f;
    CHECK(fvae_kernel_linear_act("abacus", &one, &one, &one, 1, 1, 1, FVAE_RELU, &y, nullptr) == FVAE_INVALID_ARGUMENT);
    CHECK(std::string(fvae_last_error()).find("abacus") != std::string::npos);
    CHECK(y == 0.0f);
}
