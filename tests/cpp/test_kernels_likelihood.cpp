// SPDX-License-Identifier: MIT
//
// The likelihood kernels (product + negative log-likelihood + its gradient) of every backend against the
// double-precision reference. kernel_cases.h says where the bounds come from; here they are carried through
//     bernoulli  softplus(l) - t l                 slopes at most 1 (value) and 1/4 (gradient)
//     gaussian   ((m - t)^2 / v + ln 2 pi v) / 2    slopes |m - t| / v and 1 / v; through v those of the log-variance
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "kernel_cases.h"

using namespace kernel_cases;
namespace reference = fusedvae::reference;

namespace {

// The error of adding N terms to one row's sum, of these terms' sizes.
double sum_error(double sizes, int64_t terms) { return kEps * static_cast<double>(terms) * sizes / 2; }

// Value, gradient and the bounds of one likelihood over a (B, N) batch whose product errs by `product`.
struct Expected {
    reference::Nll nll;
    Matrix value_bound, dmean_bound, dlogvar_bound;
};

Expected expect_bernoulli(const Matrix& logits, const Matrix& target, double product) {
    Expected e{reference::bernoulli_nll(logits, target), Matrix(logits.rows, 1), logits, Matrix()};
    for (int64_t b = 0; b < logits.rows; ++b) {
        double sizes = 0.0;
        for (int64_t n = 0; n < logits.columns; ++n) {
            const double size = std::fabs(logits(b, n)) + std::log(2.0);  // no less than either term
            e.value_bound[b] += product + kFunction * size;
            sizes += size;
            // sigmoid is relative to itself until the target is subtracted
            e.dmean_bound(b, n) = product / 4 + kFunction * (e.nll.dmean(b, n) + target(b, n)) + kEps * target(b, n);
        }
        e.value_bound[b] += sum_error(sizes, logits.columns);
    }
    return e;
}

// logvar is (B, N), (N, 1), or empty for a fixed variance; it errs by logvar_product.
Expected expect_gaussian(const Matrix& mean, const Matrix& target, const Matrix& logvar, double fixed_variance,
                         double min_variance, double product, double logvar_product) {
    const bool learned = !logvar.values.empty(),
               shared = learned && (logvar.rows != mean.rows || logvar.columns != mean.columns);
    Expected e{learned ? reference::gaussian_nll(mean, target, logvar, min_variance)
                       : reference::gaussian_nll(mean, target, fixed_variance),
               Matrix(mean.rows, 1), mean, mean};
    for (int64_t b = 0; b < mean.rows; ++b) {
        double sizes = 0.0;
        for (int64_t n = 0; n < mean.columns; ++n) {
            const double l = learned ? (shared ? logvar[n] : logvar(b, n)) : 0.0;
            const double growing = learned ? std::exp(l) : 0.0;  // the part of v that follows logvar
            const double v = learned ? min_variance + growing : fixed_variance;
            const double d = std::fabs(mean(b, n) - target(b, n));
            // d errs by the product and its own rounding; v, relatively, by exp's error and the log-variance's.
            const double d_error = product + kEps * d;
            const double v_error = kFunction + growing / v * logvar_product * (1.0 + logvar_product);
            const double size = 0.5 * (d * d / v + std::fabs(std::log(v)) + 1.84);
            e.value_bound[b] +=
                (d * d_error + d_error * d_error) / v + 0.5 * (d * d / v + 1.0) * v_error + kFunction * size;
            sizes += size;
            e.dmean_bound(b, n) = d_error / v + d / v * (v_error + kFunction);
            // 1/2 (1 - d^2 / v) growing / v: growing and each v err by v_error, and 1 and d^2 / v may cancel
            e.dlogvar_bound(b, n) = 0.5 * growing / v *
                                    ((d * d_error + d_error * d_error) * 2 / v +
                                     (1.0 + 2.0 * d * d / v) * (2.0 * v_error + logvar_product + kFunction));
        }
        e.value_bound[b] += sum_error(sizes, mean.columns);
    }
    return e;
}

// Weights that keep sums of up to 100 products within a few units.
constexpr float kWeight = 0.25f;

struct Inputs {
    Shape shape;
    Buffer x, weight, bias, target;
    Matrix out;
    double product;

    Inputs(const Shape& s, Random& random, int64_t columns, float low, float high)
        : shape(s),
          x(random.uniforms(s.B * s.K, -1.0f, 1.0f)),
          weight(random.uniforms(columns * s.K, -kWeight, kWeight)),
          bias(random.uniforms(columns, -1.0f, 1.0f)),
          target(random.uniforms(s.B * s.N, low, high)) {
        const Matrix mx = to_matrix(x, s.B, s.K), mw = to_matrix(weight, columns, s.K),
                     mb = to_matrix(bias, columns, 1);
        out = reference::linear(mx, mw, mb);
        product = linear_bound(mx, mw, mb);
    }
    Matrix targets() const { return to_matrix(target, shape.B, shape.N); }
    Matrix part(int64_t first) const {
        Matrix columns(shape.B, shape.N);
        for (int64_t b = 0; b < shape.B; ++b)
            for (int64_t n = 0; n < shape.N; ++n) columns(b, n) = out(b, first + n);
        return columns;
    }
};

void run_bernoulli(const Shape& s, Random& random, const std::string& backend) {
    const Where where{"bernoulli_nll", backend, s};
    const Inputs in(s, random, s.N, 0.0f, 1.0f);
    Buffer nll(s.B), dlogits(s.B * s.N);
    expect_ok(fvae_kernel_bernoulli_nll(backend.c_str(), in.x.data(), in.weight.data(), in.bias.data(),
                                        in.target.data(), s.B, s.K, s.N, nll.data(), dlogits.data()),
              where);
    const Expected e = expect_bernoulli(in.out, in.targets(), in.product);
    expect_near(nll, row_sums(e.nll.value), e.value_bound, where, "nll");
    expect_near(dlogits, e.nll.dmean, e.dmean_bound, where, "dlogits");
}

void run_gaussian(const Shape& s, Random& random, const std::string& backend, bool per_feature) {
    const Where where{per_feature ? "gaussian_nll, variance per feature" : "gaussian_nll, fixed variance", backend, s};
    const Inputs in(s, random, s.N, -2.0f, 2.0f);
    const Buffer log_variance = random.uniforms(s.N, -4.0f, 4.0f);
    const double fixed_variance = 0.37, min_variance = 0.01;
    Buffer nll(s.B), dmean(s.B * s.N);
    expect_ok(fvae_kernel_gaussian_nll(backend.c_str(), in.x.data(), in.weight.data(), in.bias.data(), in.target.data(),
                                       per_feature ? log_variance.data() : nullptr, fixed_variance, min_variance, s.B,
                                       s.K, s.N, nll.data(), dmean.data()),
              where);
    const Expected e = expect_gaussian(in.out, in.targets(), per_feature ? to_matrix(log_variance, s.N, 1) : Matrix(),
                                       fixed_variance, min_variance, in.product, 0.0);
    expect_near(nll, row_sums(e.nll.value), e.value_bound, where, "nll");
    expect_near(dmean, e.nll.dmean, e.dmean_bound, where, "dmean");
}

void run_gaussian_element(const Shape& s, Random& random, const std::string& backend) {
    const Where where{"gaussian_element_nll", backend, s};
    const Inputs in(s, random, 2 * s.N, -2.0f, 2.0f);
    const double min_variance = 0.01;
    Buffer nll(s.B), dmean(s.B * s.N), dlogvar(s.B * s.N);
    expect_ok(fvae_kernel_gaussian_element_nll(backend.c_str(), in.x.data(), in.weight.data(), in.bias.data(),
                                               in.target.data(), min_variance, s.B, s.K, s.N, nll.data(), dmean.data(),
                                               dlogvar.data()),
              where);
    const Expected e =
        expect_gaussian(in.part(0), in.targets(), in.part(s.N), 0.0, min_variance, in.product, in.product);
    expect_near(nll, row_sums(e.nll.value), e.value_bound, where, "nll");
    expect_near(dmean, e.nll.dmean, e.dmean_bound, where, "dmean");
    expect_near(dlogvar, e.nll.dlogvar, e.dlogvar_bound, where, "dlogvar");
}

}  // namespace

TEST(likelihoods_match_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 3001;
        for (const Shape& shape : shapes()) {
            Random random(seed++);
            run_bernoulli(shape, random, backend);
            run_gaussian(shape, random, backend, false);
            run_gaussian(shape, random, backend, true);
            run_gaussian_element(shape, random, backend);
        }
    }
}

TEST(bernoulli_nll_at_extreme_logits) {
    const std::vector<float> logits = {-1e4f,  -100.0f, -20.0f, -1e-3f, -1e-40f, -0.0f, 0.0f,
                                       1e-45f, 1e-38f,  1e-3f,  20.0f,  100.0f,  1e4f};
    const int64_t B = static_cast<int64_t>(logits.size()), N = 17;
    for (const std::string& backend : backends())
        for (float t : {0.0f, 1.0f, 0.5f, 1e-40f}) {
            const Where where{"bernoulli_nll at extremes, target " + std::to_string(t), backend, {B, 1, N}};
            Buffer x(B), weight(N), bias(N), target(B * N), nll(B), dlogits(B * N);
            std::copy(logits.begin(), logits.end(), x.data());
            std::fill(weight.data(), weight.data() + N, 1.0f);
            std::fill(bias.data(), bias.data() + N, 0.0f);
            std::fill(target.data(), target.data() + B * N, t);
            expect_ok(fvae_kernel_bernoulli_nll(backend.c_str(), x.data(), weight.data(), bias.data(), target.data(), B,
                                                1, N, nll.data(), dlogits.data()),
                      where);
            Matrix out(B, N);
            for (int64_t i = 0; i < B * N; ++i) out[i] = x[i / N];
            const Expected e = expect_bernoulli(out, to_matrix(target, B, N), 0.0);
            expect_near(nll, row_sums(e.nll.value), e.value_bound, where, "nll");
            expect_near(dlogits, e.nll.dmean, e.dmean_bound, where, "dlogits");
        }
}

TEST(gaussian_element_nll_at_extreme_log_variances) {
    // Rows (mean, logvar) and targets 0: from a variance at its lower bound to one whose square no float holds.
    const std::vector<float> means = {0.0f, 1e-40f, 1.0f, -30.0f, 1e4f},
                             logvars = {-80.0f, -20.0f, -1e-40f, 0.0f, 20.0f, 80.0f};
    const int64_t B = static_cast<int64_t>(means.size() * logvars.size()), N = 17;
    for (const std::string& backend : backends())
        for (double min_variance : {1e-4, 1e-8}) {
            const Where where{"gaussian_element_nll at extremes", backend, {B, 2, N}};
            Buffer x(2 * B), weight(4 * N), bias(2 * N), target(B * N), nll(B), dmean(B * N), dlogvar(B * N);
            for (int64_t b = 0; b < B; ++b) {
                x[2 * b] = means[static_cast<size_t>(b) / logvars.size()];
                x[2 * b + 1] = logvars[static_cast<size_t>(b) % logvars.size()];
            }
            for (int64_t n = 0; n < 2 * N; ++n) {
                weight[2 * n] = n < N ? 1.0f : 0.0f;
                weight[2 * n + 1] = n < N ? 0.0f : 1.0f;
                bias[n] = 0.0f;
            }
            std::fill(target.data(), target.data() + B * N, 0.0f);
            expect_ok(
                fvae_kernel_gaussian_element_nll(backend.c_str(), x.data(), weight.data(), bias.data(), target.data(),
                                                 min_variance, B, 2, N, nll.data(), dmean.data(), dlogvar.data()),
                where);
            Matrix mean(B, N), logvar(B, N);
            for (int64_t i = 0; i < B * N; ++i) mean[i] = x[2 * (i / N)], logvar[i] = x[2 * (i / N) + 1];
            const Expected e = expect_gaussian(mean, to_matrix(target, B, N), logvar, 0.0, min_variance, 0.0, 0.0);
            expect_near(nll, row_sums(e.nll.value), e.value_bound, where, "nll");
            expect_near(dmean, e.nll.dmean, e.dmean_bound, where, "dmean");
            expect_near(dlogvar, e.nll.dlogvar, e.dlogvar_bound, where, "dlogvar");
        }
}

// Whole numbers and a variance of 1/2: (m - t) / v = 2 (m - t) has no rounding at all.
TEST(gaussian_gradient_is_exact_on_integers) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 3501;
        for (const Shape& s : shapes()) {
            const Where where{"gaussian_nll on integers", backend, s};
            Random random(seed++);
            const Buffer x = random.integers(s.B * s.K, 8), weight = random.integers(s.N * s.K, 8);
            const Buffer bias = random.integers(s.N, 8), target = random.integers(s.B * s.N, 8);
            Buffer nll(s.B), dmean(s.B * s.N);
            expect_ok(fvae_kernel_gaussian_nll(backend.c_str(), x.data(), weight.data(), bias.data(), target.data(),
                                               nullptr, 0.5, 0.0, s.B, s.K, s.N, nll.data(), dmean.data()),
                      where);
            Matrix want =
                reference::linear(to_matrix(x, s.B, s.K), to_matrix(weight, s.N, s.K), to_matrix(bias, s.N, 1));
            for (int64_t i = 0; i < s.B * s.N; ++i) want[i] = 2.0 * (want[i] - target[i]);
            expect_equal(dmean, want, where, "dmean");
        }
    }
}
