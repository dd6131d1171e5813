// SPDX-License-Identifier: MIT
//
// The backward pairs: act_grad, reparameterize_grad, and dW stored or finished by an optimiser. device_kernels.h says where
// the bounds come from.
#include "device_kernels.h"

using namespace device_kernels;

namespace {

// The clock of a single step.
struct OneStep {
    cuda::Buffer<cuda::Scalars> scalars{context(), 1, "a test"};
    cuda::Buffer<cuda::Progress> progress{context(), 1, "a test"};
    explicit OneStep(const cuda::Scalars& s) { scalars.upload(&s, 1); }
    cuda::Clock clock() const { return {scalars.data(), progress.data(), 0}; }
};

}  // namespace

TEST(act_grad_matches_reference) {
    for_each_case("act_grad", [](const Case& c, Random& random) {
        const auto [B, K, N] = c.shape;
        const Matrix dy = eighths(random, B, N), weight = eighths(random, N, K), saved = eighths(random, B, K);
        const OnDevice dy_d(dy, c.half()), weight_d(weight, c.half()), saved_d(saved, c.half());
        const Matrix product = reference::linear_dgrad(dy, weight);
        for (int a = FVAE_IDENTITY; a <= FVAE_SOFTPLUS; ++a) {
            const OnDevice dx(B, K, c.half());
            cuda::Dgrad g{};
            g.dy = dy_d.factor();
            g.weight = weight_d.data();
            g.ld_weight = weight_d.ld();
            g.B = static_cast<int>(B);
            g.N = static_cast<int>(N);
            g.K = static_cast<int>(K);
            g.epilogue = Epilogue::act_grad;
            g.activation = static_cast<Activation>(a);
            g.saved = saved_d.data();
            g.dx = dx.data();
            g.ld = dx.ld();
            c.kernels().dgrad(g, c.size, context()->stream());
            Matrix want = product;
            Matrix bound(B, K);
            for (int64_t i = 0; i < B * K; ++i) {
                // slopes are made of terms up to e (e^-y for y >= -1)
                bound[i] = kFunction * 3.0 * std::fabs(want[i]);
                want[i] *= reference::slope_from_saved(static_cast<fvae_activation>(a), saved[i]);
                if (c.half()) bound[i] += 0x1p-8 * std::fabs(want[i]);
            }
            expect_near(dx.read(), want, bound, c.name + "dx");
        }
    });
}

TEST(reparameterize_grad_matches_reference) {
    for_each_case("reparameterize_grad", [](const Case& c, Random& random) {
        const auto [B, Z, N] = c.shape;
        const Matrix dy = eighths(random, B, N), weight = eighths(random, N, Z);
        const Matrix head = uniforms(random, B, 2 * Z, -2.0f, 2.0f);
        const OnDevice dy_d(dy, c.half()), weight_d(weight, c.half()), head_d(head, false), dx(B, 2 * Z, c.half());
        Matrix dim_weight(1, Z), kl_weight(Z, 1), eps(B, Z);
        for (int64_t j = 0; j < Z; ++j) dim_weight[j] = j % 3 ? 1.0 : 0.0, kl_weight[j] = j % 3 ? 0.125 : 0.0;
        for (int64_t b = 0; b < B; ++b)
            for (int64_t j = 0; j < Z; ++j)
                eps(b, j) = reference::normal(7, 3, fusedvae::kTrain, static_cast<uint32_t>(b), j);
        const OnDevice dim_weight_d(dim_weight, false);
        const OneStep step({{}, fusedvae::make_stream(7, 3, fusedvae::kTrain), 1.0, 0.125f, 0});
        cuda::Dgrad g{};
        g.clock = step.clock();
        g.dy = dy_d.factor();
        g.weight = weight_d.data();
        g.ld_weight = weight_d.ld();
        g.B = static_cast<int>(B);
        g.N = static_cast<int>(N);
        g.K = static_cast<int>(Z);
        g.epilogue = Epilogue::reparameterize_grad;
        g.dx = dx.data();
        g.ld = dx.ld();
        g.head = head_d.floats();
        g.noise_of_clock = 1;
        g.dim_weight = dim_weight_d.floats();
        c.kernels().dgrad(g, c.size, context()->stream());
        const Matrix mu = every_second(head, 0), logvar = every_second(head, 1);
        const Matrix dz = reference::linear_dgrad(dy, weight);
        const reference::LatentGradient gradient = reference::reparameterize_grad(dz, mu, logvar, eps, kl_weight);
        Matrix want(B, 2 * Z), bound(B, 2 * Z);
        for (int64_t b = 0; b < B; ++b)
            for (int64_t j = 0; j < Z; ++j) {
                const double sigma = std::exp(0.5 * logvar(b, j)), size = std::fabs(dz(b, j));
                want(b, 2 * j) = gradient.mu(b, j);
                want(b, 2 * j + 1) = gradient.logvar(b, j);
                bound(b, 2 * j) = kFunction * (size + std::fabs(mu(b, j)));
                bound(b, 2 * j + 1) =
                    sigma * size * (2.0 * kFunction * std::fabs(eps(b, j)) + 1e-6) + kFunction * (sigma * sigma + 1.0);
                for (int part = 0; c.half() && part < 2; ++part)
                    bound(b, 2 * j + part) += 0x1p-8 * std::fabs(want(b, 2 * j + part));
            }
        expect_near(dx.read(), want, bound, c.name + "dx");
    });
}

// dW of one layer through a gathered index, stored, and finished by each optimiser.
TEST(wgrad_matches_reference) {
    for_each_case("wgrad", [](const Case& c, Random& random) {
        const auto [B, K, N] = c.shape;
        const Matrix all_x = eighths(random, B + 5, K), dy = eighths(random, B, N);
        Matrix x(B, K);
        std::vector<uint32_t> order(3, 0);  // the step's rows begin at the third
        for (int64_t b = 0; b < B; ++b) {
            const int64_t from = (b * 7 + 2) % (B + 5);
            order.push_back(static_cast<uint32_t>(from));
            for (int64_t k = 0; k < K; ++k) x(b, k) = all_x(from, k);
        }
        cuda::Buffer<uint32_t> index(context(), static_cast<int64_t>(order.size()), "a test");
        index.upload(order.data(), index.count());
        const reference::LinearGradient want = reference::linear_wgrad(x, dy);
        const OnDevice x_d(all_x, c.half()), dy_d(dy, c.half());
        const int64_t ld = cuda::padded(K), bias_at = N * ld, floats = bias_at + cuda::padded(N);

        const OnDevice start(eighths(random, 1, floats), false);
        std::vector<float> values;
        for (const double v : start.read().values) values.push_back(static_cast<float>(v));
        for (int64_t n = 0; n < N; ++n)
            for (int64_t k = K; k < ld; ++k) values[static_cast<size_t>(n * ld + k)] = 0.0f;

        for (const Epilogue epilogue : {Epilogue::store, Epilogue::sgd, Epilogue::adam}) {
            fvae_trainer_options o = fvae_trainer_options_default();
            o.optimizer = epilogue == Epilogue::sgd ? FVAE_SGD : FVAE_ADAM;
            o.momentum = 0.9;
            o.learning_rate = 0.01;
            const OneStep step({fusedvae::update_at(o, 4), {}, 1.0, 0.0f, 3});
            cuda::Buffer<float> value(context(), floats, "a test"), m(context(), floats, "a test"),
                v(context(), floats, "a test"), gradient(context(), floats, "a test");
            cuda::Buffer<uint16_t> half(context(), floats, "a test");
            value.upload(values.data(), floats);
            cuda::Wgrad g{};
            g.x = {x_d.data(), x_d.ld(), index.data(), 1, 0};
            g.dy = dy_d.factor();
            g.B = static_cast<int>(B);
            g.K = static_cast<int>(K);
            g.N = static_cast<int>(N);
            g.ld_weight = ld;
            g.bias = bias_at;
            g.log_variance = -1;
            cuda::Buffer<cuda::Wgrad> table(context(), 1, "a test");
            table.upload(&g, 1);
            cuda::Group group{};
            group.clock = step.clock();
            group.table = table.data();
            group.count = 1;
            group.splits = 1;
            group.rows_per_split = static_cast<int>(B);
            group.epilogue = epilogue;
            group.flat = {value.data(), m.data(), v.data(), half.data(), gradient.data(), floats};
            group.scale = 1.0f;
            c.kernels().wgrad(group, cuda::tiles(c.size, N, K), c.size, context()->stream());

            const std::vector<float> got = epilogue == Epilogue::store ? gradient.download() : value.download();
            const std::vector<uint16_t> copy = half.download();
            const auto expect = [&](int64_t at, double dw) {
                Matrix w(1, 1), first(1, 1), second(1, 1), one(1, 1);
                w[0] = values[static_cast<size_t>(at)];
                one[0] = dw;
                const reference::OptimizerConstants constants{o.learning_rate, o.momentum, false,         o.beta1,
                                                              o.beta2,         o.epsilon,  o.weight_decay};
                double wanted = dw, bound = 0.0;
                if (epilogue != Epilogue::store) {
                    if (epilogue == Epilogue::sgd)
                        reference::sgd(constants, one, w, first);
                    else
                        reference::adam(constants, 5, one, w, first, second);
                    wanted = w[0];
                    bound = kFunction * (std::fabs(wanted) + std::fabs(values[static_cast<size_t>(at)]) +
                                         o.learning_rate * (std::fabs(dw) + 40.0));
                }
                if (!(std::fabs(got[static_cast<size_t>(at)] - wanted) <= bound))
                    throw std::runtime_error(c.name + "element " + std::to_string(at) + " is " +
                                             std::to_string(got[static_cast<size_t>(at)]) + ", expected " +
                                             std::to_string(wanted));
            };
            for (int64_t n = 0; n < N; ++n) {
                for (int64_t k = 0; k < K; ++k) {
                    expect(n * ld + k, want.weight(n, k));
                    const auto at = static_cast<size_t>(n * ld + k);
                    if (epilogue != Epilogue::store)
                        CHECK_NEAR(from_half(copy[at]), got[at], 0x1p-8 * std::fabs(got[at]));
                }
                for (int64_t k = K; k < ld; ++k) CHECK(got[static_cast<size_t>(n * ld + k)] == 0.0f);
                expect(bias_at + n, want.bias[n]);
            }
        }
    });
}
