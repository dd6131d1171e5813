// SPDX-License-Identifier: MIT
//
// The backward kernels (dgrad with act' or the reparameterisation, wgrad stored or finished by an optimiser) of every
// backend against the double-precision reference. kernel_cases.h says where the bounds come from.
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "kernel_cases.h"

using namespace kernel_cases;
namespace reference = fusedvae::reference;

namespace {

const std::vector<std::pair<fvae_activation, const char*>> kActivations = {
    {FVAE_IDENTITY, "identity"}, {FVAE_RELU, "relu"},       {FVAE_LEAKY_RELU, "leaky_relu"},
    {FVAE_ELU, "elu"},           {FVAE_GELU, "gelu"},       {FVAE_SILU, "silu"},
    {FVAE_TANH, "tanh"},         {FVAE_SIGMOID, "sigmoid"}, {FVAE_SOFTPLUS, "softplus"},
};
bool saves_slope(fvae_activation activation) { return activation == FVAE_GELU || activation == FVAE_SILU; }

// What the forward pass would have saved for pre-activations in [-4, 4].
Buffer saved_values(Random& random, int64_t count, fvae_activation activation) {
    Buffer saved(count);
    for (int64_t i = 0; i < count; ++i) {
        const double p = random.uniform(-4.0f, 4.0f);
        saved[i] = static_cast<float>(saves_slope(activation) ? reference::activation_slope(activation, p)
                                                              : reference::activate(activation, p));
    }
    return saved;
}

struct Gradients {
    Shape shape;
    Buffer x, dy;
    Matrix dweight, dbias;
    double dweight_bound, dbias_bound;

    Gradients(const Shape& s, Buffer x_, Buffer dy_) : shape(s), x(std::move(x_)), dy(std::move(dy_)) {
        const Matrix mx = to_matrix(x, s.B, s.K), mdy = to_matrix(dy, s.B, s.N);
        reference::LinearGradient gradient = reference::linear_wgrad(mx, mdy);
        dweight = std::move(gradient.weight);
        dbias = std::move(gradient.bias);
        dweight_bound = product_bound(mx, mdy, s.B);
        dbias_bound = kEps * static_cast<double>(s.B + 1) * largest(mdy);
    }
};

// A parameter array before and after one optimiser step: values, first and second moment.
struct State {
    Buffer value, m, v;
};

}  // namespace

TEST(act_grad_matches_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 4001;
        for (const Shape& s : shapes())
            for (const auto& [activation, name] : kActivations) {
                const Where where{std::string("act_grad ") + name, backend, s};
                Random random(seed++);
                const Buffer dy = random.uniforms(s.B * s.N, -1.0f, 1.0f);
                const Buffer weight = random.uniforms(s.N * s.K, -1.0f, 1.0f);
                const Buffer saved = saved_values(random, s.B * s.K, activation);
                Buffer dx(s.B * s.K);
                expect_ok(fvae_kernel_act_grad(backend.c_str(), dy.data(), weight.data(), saved.data(), s.B, s.N, s.K,
                                               activation, dx.data()),
                          where);
                const Matrix mdy = to_matrix(dy, s.B, s.N), mw = to_matrix(weight, s.N, s.K);
                Matrix want = reference::linear_dgrad(mdy, mw), bound(s.B, s.K);
                const double product = product_bound(mdy, mw, s.N);
                for (int64_t i = 0; i < s.B * s.K; ++i) {
                    const double slope = reference::slope_from_saved(activation, saved[i]);
                    // slopes are made of terms up to 1 (1 - y^2, y + 1, 1 - e^-y), so their own error is absolute
                    bound[i] = product * std::fabs(slope) + kFunction * std::fabs(want[i]);
                    want[i] *= slope;
                }
                expect_near(dx, want, bound, where, "dx");
            }
    }
}

TEST(act_grad_is_exact_on_integers) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 4501;
        for (const Shape& s : shapes()) {
            const Where where{"act_grad on integers", backend, s};
            Random random(seed++);
            const Buffer dy = random.integers(s.B * s.N, 8), weight = random.integers(s.N * s.K, 8);
            const Buffer saved = random.integers(s.B * s.K, 1);
            Matrix want = reference::linear_dgrad(to_matrix(dy, s.B, s.N), to_matrix(weight, s.N, s.K));
            Buffer dx(s.B * s.K), masked(s.B * s.K);
            expect_ok(fvae_kernel_act_grad(backend.c_str(), dy.data(), weight.data(), saved.data(), s.B, s.N, s.K,
                                           FVAE_IDENTITY, dx.data()),
                      where);
            expect_equal(dx, want, where, "dx");
            expect_ok(fvae_kernel_act_grad(backend.c_str(), dy.data(), weight.data(), saved.data(), s.B, s.N, s.K,
                                           FVAE_RELU, masked.data()),
                      where);
            for (int64_t i = 0; i < s.B * s.K; ++i)
                if (saved[i] <= 0.0f) want[i] = 0.0;
            expect_equal(masked, want, where, "dx masked by relu");
        }
    }
}

namespace {

void run_reparameterize_grad(const Shape& s, Random& random, bool given, const Where& where) {
    const int64_t Z = s.K;
    const Buffer dy = random.uniforms(s.B * s.N, -1.0f, 1.0f), weight = random.uniforms(s.N * Z, -1.0f, 1.0f);
    const Buffer mu = random.uniforms(s.B * Z, -3.0f, 3.0f), logvar = random.uniforms(s.B * Z, -6.0f, 3.0f);
    const Buffer noise = random.normals(s.B * Z);
    const uint64_t seed = 99, step = 12;
    const double kl_weight = 0.75 / static_cast<double>(s.B);
    Buffer dmu(s.B * Z), dlogvar(s.B * Z);
    expect_ok(fvae_kernel_reparameterize_grad(where.backend.c_str(), dy.data(), weight.data(), mu.data(), logvar.data(),
                                              given ? noise.data() : nullptr, seed, step, kl_weight, s.B, s.N, Z,
                                              dmu.data(), dlogvar.data()),
              where);

    const Matrix mdy = to_matrix(dy, s.B, s.N), mw = to_matrix(weight, s.N, Z);
    const Matrix dz = reference::linear_dgrad(mdy, mw);
    Matrix eps(s.B, Z);
    for (int64_t b = 0; b < s.B; ++b)
        for (int64_t j = 0; j < Z; ++j)
            eps(b, j) = given ? noise[b * Z + j] : reference::normal(seed, step, 0, static_cast<uint32_t>(b), j);
    const reference::LatentGradient want = reference::reparameterize_grad(
        dz, to_matrix(mu, s.B, Z), to_matrix(logvar, s.B, Z), eps, constant(Z, 1, kl_weight));
    const double product = product_bound(mdy, mw, s.N);
    Matrix dmu_bound(s.B, Z), dlogvar_bound(s.B, Z);
    for (int64_t i = 0; i < s.B * Z; ++i) {
        const double sigma = std::exp(0.5 * logvar[i]), drawn = std::fabs(eps[i]);
        const double eps_error = given ? 0.0 : kFunction * drawn + 1e-6;  // see the forward test
        dmu_bound[i] = product + kFunction * (std::fabs(dz[i]) + kl_weight * std::fabs(mu[i]));
        dlogvar_bound[i] = 0.5 * sigma * (product * drawn + std::fabs(dz[i]) * (kFunction * drawn + eps_error)) +
                           0.5 * kl_weight * kFunction * (sigma * sigma + 1.0);
    }
    expect_near(dmu, want.mu, dmu_bound, where, "dmu");
    expect_near(dlogvar, want.logvar, dlogvar_bound, where, "dlogvar");
}

}  // namespace

TEST(reparameterize_grad_matches_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 5001;
        for (const Shape& shape : shapes()) {
            Random random(seed++);
            run_reparameterize_grad(shape, random, true, {"reparameterize_grad, noise given", backend, shape});
            run_reparameterize_grad(shape, random, false, {"reparameterize_grad, noise drawn", backend, shape});
        }
    }
}

TEST(reparameterize_grad_at_extreme_log_variances) {
    const std::vector<float> logvars = {-80.0f, -30.0f, -1e-40f, 0.0f, 1e-40f, 30.0f, 80.0f};
    const int64_t B = static_cast<int64_t>(logvars.size()), Z = 17;
    for (const std::string& backend : backends()) {
        const Where where{"reparameterize_grad at extremes", backend, {B, Z, 1}};
        Buffer dy(B), weight(Z), mu(B * Z), logvar(B * Z), noise(B * Z), dmu(B * Z), dlogvar(B * Z);
        std::fill(dy.data(), dy.data() + B, 2.0f);
        std::fill(weight.data(), weight.data() + Z, -0.5f);
        std::fill(mu.data(), mu.data() + B * Z, 3.0f);
        std::fill(noise.data(), noise.data() + B * Z, 1.5f);
        for (int64_t i = 0; i < B * Z; ++i) logvar[i] = logvars[static_cast<size_t>(i / Z)];
        expect_ok(fvae_kernel_reparameterize_grad(backend.c_str(), dy.data(), weight.data(), mu.data(), logvar.data(),
                                                  noise.data(), 0, 0, 0.25, B, 1, Z, dmu.data(), dlogvar.data()),
                  where);
        const Matrix ml = to_matrix(logvar, B, Z);
        const reference::LatentGradient want = reference::reparameterize_grad(
            constant(B, Z, -1.0), constant(B, Z, 3.0), ml, constant(B, Z, 1.5), constant(Z, 1, 0.25));
        Matrix bound(B, Z);
        for (int64_t i = 0; i < B * Z; ++i)
            bound[i] = kFunction * 0.5 * (1.5 * std::exp(0.5 * ml[i]) + 0.25 * (std::exp(ml[i]) + 1.0));
        expect_equal(dmu, want.mu, where, "dmu");
        expect_near(dlogvar, want.logvar, bound, where, "dlogvar");
    }
}

TEST(store_matches_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 6001;
        for (const Shape& s : shapes()) {
            Random random(seed++);
            for (bool integers : {false, true}) {
                const Where where{integers ? "store on integers" : "store", backend, s};
                const Gradients g = integers
                                        ? Gradients(s, random.integers(s.B * s.K, 8), random.integers(s.B * s.N, 8))
                                        : Gradients(s, random.uniforms(s.B * s.K, -1.0f, 1.0f),
                                                    random.uniforms(s.B * s.N, -1.0f, 1.0f));
                Buffer dweight(s.N * s.K), dbias(s.N);
                expect_ok(fvae_kernel_store(backend.c_str(), g.x.data(), g.dy.data(), s.B, s.K, s.N, dweight.data(),
                                            dbias.data()),
                          where);
                // whole numbers below 2^24 are added without rounding
                expect_near(dweight, g.dweight, integers ? 0.0 : g.dweight_bound, where, "dweight");
                expect_near(dbias, g.dbias, integers ? 0.0 : g.dbias_bound, where, "dbias");
            }
        }
    }
}

namespace {

reference::OptimizerConstants constants_of(const fvae_trainer_options& o) {
    return {o.learning_rate, o.momentum, o.nesterov != 0, o.beta1, o.beta2, o.epsilon, o.weight_decay};
}

// One sgd step from `before`: g = gradient + decay w; m' = momentum m + g; w' = w - lr (m', or g + momentum m').
void expect_sgd(const fvae_trainer_options& o, const Matrix& gradient, double gradient_bound, const State& before,
                const Buffer& value, const Buffer& m, const Where& where, const char* what) {
    Matrix want = to_matrix(before.value, gradient.rows, gradient.columns);
    Matrix want_m = to_matrix(before.m, gradient.rows, gradient.columns);
    reference::sgd(constants_of(o), gradient, want, want_m);
    Matrix bound(gradient.rows, gradient.columns), m_bound(gradient.rows, gradient.columns);
    for (int64_t i = 0; i < value.size(); ++i) {
        const double w = std::fabs(before.value[i]);
        const double size = std::fabs(gradient[i]) + o.weight_decay * w + o.momentum * std::fabs(before.m[i]);
        m_bound[i] = gradient_bound + kFunction * size;
        bound[i] = o.learning_rate * (1.0 + o.momentum) * (m_bound[i] + kFunction * size) + kEps * w;
    }
    expect_near(value, want, bound, where, what);
    expect_near(m, want_m, m_bound, where, (std::string(what) + "_m").c_str());
}

// One adam or adamw step from `before`; the bounds follow the formulas from gradient to moments to step.
void expect_adam(const fvae_trainer_options& o, int64_t step, const Matrix& gradient, double gradient_bound,
                 const State& before, const Buffer& value, const Buffer& m, const Buffer& v, const Where& where,
                 const char* what) {
    Matrix want = to_matrix(before.value, gradient.rows, gradient.columns);
    Matrix want_m = to_matrix(before.m, gradient.rows, gradient.columns);
    Matrix want_v = to_matrix(before.v, gradient.rows, gradient.columns);
    const auto optimiser = o.optimizer == FVAE_ADAMW ? reference::adamw : reference::adam;
    optimiser(constants_of(o), step, gradient, want, want_m, want_v);
    Matrix bound(gradient.rows, gradient.columns), m_bound = bound, v_bound = bound;
    const double correction1 = 1.0 - std::pow(o.beta1, static_cast<double>(step));
    const double correction2 = 1.0 - std::pow(o.beta2, static_cast<double>(step));
    for (int64_t i = 0; i < value.size(); ++i) {
        const double w = std::fabs(before.value[i]);
        const double decay = o.optimizer == FVAE_ADAM ? o.weight_decay * w : 0.0;
        const double g = std::fabs(gradient[i]) + decay;
        const double g_bound = gradient_bound + kEps * g;
        m_bound[i] = (1.0 - o.beta1) * g_bound + kFunction * ((1.0 - o.beta1) * g + std::fabs(before.m[i]));
        v_bound[i] = (1.0 - o.beta2) * (2.0 * g * g_bound + g_bound * g_bound) +
                     kFunction * ((1.0 - o.beta2) * g * g + before.v[i]);
        // step = lr mhat / (sqrt(vhat) + epsilon); a relative error of v counts half under the square root
        const double denominator = std::sqrt(want_v[i] / correction2) + o.epsilon;
        const double taken = o.learning_rate * std::fabs(want_m[i]) / correction1 / denominator;
        const double relative_v = want_v[i] > 0.0 ? v_bound[i] / want_v[i] : 0.0;
        bound[i] = o.learning_rate * m_bound[i] / correction1 / denominator + taken * (relative_v + kFunction) +
                   2.0 * kEps * w;  // roundings of 1 - lr decay, of its product with w, and of the sum
    }
    expect_near(value, want, bound, where, what);
    expect_near(m, want_m, m_bound, where, (std::string(what) + "_m").c_str());
    expect_near(v, want_v, v_bound, where, (std::string(what) + "_v").c_str());
}

State random_state(Random& random, int64_t count) {
    return {random.uniforms(count, -1.0f, 1.0f), random.uniforms(count, -1.0f, 1.0f),
            random.uniforms(count, 0.5f, 1.5f)};
}
State zero_state(Random& random, int64_t count) {
    State state{random.uniforms(count, -1.0f, 1.0f), Buffer(count), Buffer(count)};
    std::fill(state.m.data(), state.m.data() + count, 0.0f);
    std::fill(state.v.data(), state.v.data() + count, 0.0f);
    return state;
}

void run_sgd(const Gradients& g, const fvae_trainer_options& o, Random& random, const Where& where) {
    const Shape& s = g.shape;
    const State weight = random_state(random, s.N * s.K), bias = random_state(random, s.N);
    State w = weight, b = bias;
    expect_ok(fvae_kernel_sgd(where.backend.c_str(), g.x.data(), g.dy.data(), s.B, s.K, s.N, &o, w.value.data(),
                              b.value.data(), w.m.data(), b.m.data()),
              where);
    expect_sgd(o, g.dweight, g.dweight_bound, weight, w.value, w.m, where, "weight");
    expect_sgd(o, g.dbias, g.dbias_bound, bias, b.value, b.m, where, "bias");
}

void run_adam(const Gradients& g, const fvae_trainer_options& o, int64_t step, const State& weight, const State& bias,
              const Where& where) {
    const Shape& s = g.shape;
    State w = weight, b = bias;
    expect_ok(fvae_kernel_adam(where.backend.c_str(), g.x.data(), g.dy.data(), s.B, s.K, s.N, &o, step, w.value.data(),
                               b.value.data(), w.m.data(), b.m.data(), w.v.data(), b.v.data()),
              where);
    expect_adam(o, step, g.dweight, g.dweight_bound, weight, w.value, w.m, w.v, where, "weight");
    expect_adam(o, step, g.dbias, g.dbias_bound, bias, b.value, b.m, b.v, where, "bias");
}

}  // namespace

TEST(sgd_matches_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 7001;
        for (const Shape& s : shapes()) {
            Random random(seed++);
            const Gradients g(s, random.uniforms(s.B * s.K, -1.0f, 1.0f), random.uniforms(s.B * s.N, -1.0f, 1.0f));
            fvae_trainer_options o = fvae_trainer_options_default();
            o.optimizer = FVAE_SGD;
            o.learning_rate = 0.03;
            o.momentum = 0.9;
            o.weight_decay = 0.1;
            run_sgd(g, o, random, {"sgd with momentum", backend, s});
            o.nesterov = 1;
            run_sgd(g, o, random, {"sgd with nesterov", backend, s});
        }
    }
}

TEST(sgd_without_momentum_needs_no_moments) {
    const Shape s{9, 33, 17};
    for (const std::string& backend : backends()) {
        const Where where{"sgd on integers", backend, s};
        Random random(7501);
        const Gradients g(s, random.integers(s.B * s.K, 8), random.integers(s.B * s.N, 8));
        fvae_trainer_options o = fvae_trainer_options_default();
        o.optimizer = FVAE_SGD;
        o.learning_rate = 0.5;
        o.momentum = o.weight_decay = 0.0;
        Buffer weight = random.integers(s.N * s.K, 100), bias = random.integers(s.N, 100);
        Matrix want = to_matrix(weight, s.N, s.K), want_bias = to_matrix(bias, s.N, 1);
        expect_ok(fvae_kernel_sgd(backend.c_str(), g.x.data(), g.dy.data(), s.B, s.K, s.N, &o, weight.data(),
                                  bias.data(), nullptr, nullptr),
                  where);
        for (int64_t i = 0; i < s.N * s.K; ++i) want[i] -= 0.5 * g.dweight[i];
        for (int64_t i = 0; i < s.N; ++i) want_bias[i] -= 0.5 * g.dbias[i];
        expect_equal(weight, want, where, "weight");
        expect_equal(bias, want_bias, where, "bias");
    }
}

TEST(adam_matches_reference) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 8001;
        for (const Shape& s : shapes()) {
            Random random(seed++);
            const Gradients g(s, random.uniforms(s.B * s.K, -1.0f, 1.0f), random.uniforms(s.B * s.N, -1.0f, 1.0f));
            for (fvae_optimizer optimizer : {FVAE_ADAM, FVAE_ADAMW}) {
                fvae_trainer_options o = fvae_trainer_options_default();
                o.optimizer = optimizer;
                o.learning_rate = 0.02;
                o.weight_decay = 0.1;
                run_adam(g, o, 7, random_state(random, s.N * s.K), random_state(random, s.N),
                         {optimizer == FVAE_ADAM ? "adam" : "adamw", backend, s});
            }
        }
    }
}

// From zero moments the first step is lr * sign(g), however small or large the gradient. On whole numbers the
// gradient is exact, so the sign is never in doubt, and a zero gradient leaves its weight alone.
TEST(adam_takes_its_first_step_from_zero_moments) {
    for (const std::string& backend : backends()) {
        uint32_t seed = 8501;
        for (const Shape& s : shapes()) {
            const Where where{"adam, first step", backend, s};
            Random random(seed++);
            Gradients g(s, random.integers(s.B * s.K, 8), random.integers(s.B * s.N, 8));
            g.dweight_bound = g.dbias_bound = 0.0;
            fvae_trainer_options o = fvae_trainer_options_default();
            o.optimizer = FVAE_ADAM;
            run_adam(g, o, 1, zero_state(random, s.N * s.K), zero_state(random, s.N), where);
        }
    }
}

// A dead unit's moments decay; they must end at zero, since subnormal numbers make every later step slow.
TEST(moments_do_not_stay_subnormal) {
    constexpr int64_t kB = 3, kK = 9, kN = 17;
    const std::vector<float> x(kB * kK, 0.5f), dy(kB * kN, 0.0f);
    for (const std::string& backend : backends()) {
        const Where where{"adam, decayed moments", backend, {kB, kK, kN}};
        std::vector<float> weight(kN * kK, 1.0f), bias(kN, 1.0f), m(kN * kK, 1e-37f), v(kN * kK, 1e-38f);
        std::vector<float> bias_m(kN, 1e-30f), bias_v(kN, 1e-30f);
        fvae_trainer_options o = fvae_trainer_options_default();
        expect_ok(fvae_kernel_adam(backend.c_str(), x.data(), dy.data(), kB, kK, kN, &o, 1000, weight.data(),
                                   bias.data(), m.data(), bias_m.data(), v.data(), bias_v.data()),
                  where);
        for (size_t i = 0; i < m.size(); ++i) CHECK(m[i] == 0.0f && v[i] == 0.0f && weight[i] == 1.0f);
        for (size_t i = 0; i < bias_m.size(); ++i) {  // far above the limit nothing is lost
            CHECK_NEAR(bias_m[i], 0.9e-30, 1e-36);
            CHECK_NEAR(bias_v[i], 0.999e-30, 1e-36);
        }
        o.momentum = 0.9;
        std::fill(m.begin(), m.end(), -5e-37f);
        expect_ok(fvae_kernel_sgd(backend.c_str(), x.data(), dy.data(), kB, kK, kN, &o, weight.data(), bias.data(),
                                  m.data(), bias_m.data()),
                  where);
        for (float moment : m) CHECK(moment == 0.0f);
    }
}
