// SPDX-License-Identifier: MIT
//
// The forward pairs: linear_act, reparameterize_kl and the likelihoods with their gradients. device_kernels.h says where the
// bounds come from.
#include "device_kernels.h"

using namespace device_kernels;

namespace {

// What a forward product reads, and its exact sums plus bias.
struct Layer {
    Matrix x, weight, bias, sums;
    OnDevice x_d, weight_d, bias_d;

    Layer(const Case& c, Random& random, int64_t N)
        : x(eighths(random, c.shape.B, c.shape.K)),
          weight(eighths(random, N, c.shape.K)),
          bias(eighths(random, 1, N)),
          x_d(x, c.half()),
          weight_d(weight, c.half()),
          bias_d(bias, false) {
        Matrix column(N, 1);
        column.values = bias.values;
        sums = reference::linear(x, weight, column);
    }
    cuda::Forward job(const Case& c) const {
        cuda::Forward f{};
        f.x = x_d.factor();
        f.weight = weight_d.data();
        f.ld_weight = weight_d.ld();
        f.bias = bias_d.floats();
        f.B = static_cast<int>(c.shape.B);
        f.K = static_cast<int>(c.shape.K);
        f.N = static_cast<int>(weight.rows);
        f.ld = cuda::padded(weight.rows);
        return f;
    }
};

Matrix sum_segments(const cuda::Buffer<float>& partial, int64_t B) {
    const std::vector<float> parts = partial.download();
    Matrix sums(B, 1);
    const size_t count = parts.size() / static_cast<size_t>(B);
    for (size_t i = 0; i < parts.size(); ++i) sums[static_cast<int64_t>(i / count)] += parts[i];
    return sums;
}

}  // namespace

TEST(linear_act_matches_reference) {
    for_each_case("linear_act", [](const Case& c, Random& random) {
        const Layer layer(c, random, c.shape.N);
        for (int a = FVAE_IDENTITY; a <= FVAE_SOFTPLUS; ++a) {
            const auto activation = static_cast<fvae_activation>(a);
            const OnDevice y(c.shape.B, c.shape.N, c.half()), slope(c.shape.B, c.shape.N, c.half());
            cuda::Buffer<float> floats(context(), c.shape.B * c.shape.N, "a test");
            cuda::Forward f = layer.job(c);
            f.epilogue = Epilogue::linear_act;
            f.activation = static_cast<Activation>(a);
            f.y = y.data();
            f.slope = slope.data();
            f.floats = floats.data();
            f.ld_floats = c.shape.N;
            c.kernels().forward(f, c.size, context()->stream());
            Matrix want = layer.sums, want_slope = layer.sums;
            for (double& value : want.values) value = reference::activate(activation, value);
            for (double& value : want_slope.values) value = reference::activation_slope(activation, value);
            // gelu's erf near -1 is a difference of terms of size x
            const double absolute = kFunction * 8.0;
            expect_near(to_matrix(floats.download().data(), c.shape.B, c.shape.N), want,
                        bound_of(want, kFunction, absolute, false), c.name + "floats");
            expect_near(y.read(), want, bound_of(want, kFunction, absolute, c.half()), c.name + "y");
            if (fusedvae::saves_slope(f.activation))
                expect_near(slope.read(), want_slope, bound_of(want_slope, kFunction, absolute, c.half()),
                            c.name + "slope");
        }
    });
}

TEST(reparameterize_kl_matches_reference) {
    for_each_case("reparameterize_kl", [](const Case& c, Random& random) {
        const int64_t B = c.shape.B, Z = (c.shape.N + 1) / 2;
        const Layer layer(c, random, 2 * Z);
        if (c.shape.K > 200) return;  // log-variances of such sums overflow
        const Matrix noise = to_matrix(random.normals(B * Z), B, Z);
        const std::vector<float> given(noise.values.begin(), noise.values.end());
        cuda::Buffer<float> noise_d(context(), B * Z, "a test");
        noise_d.upload(given.data(), B * Z);
        for (const bool drawn : {false, true}) {
            const OnDevice head(B, 2 * Z, false), z(B, Z, c.half());
            cuda::Buffer<float> partial(context(), B * cuda::segments(static_cast<int>(2 * Z)), "a test");
            cuda::Forward f = layer.job(c);
            f.epilogue = Epilogue::reparameterize_kl;
            f.head = head.floats();
            f.z = z.data();
            f.ld_z = z.ld();
            f.noise.stream = fusedvae::make_stream(7, 3, fusedvae::kTrain);
            f.noise.first_row = 40;
            if (!drawn) f.noise.given = noise_d.data(), f.noise.given_stride = Z;
            f.partial = partial.data();
            c.kernels().forward(f, c.size, context()->stream());
            Matrix eps = noise;
            for (int64_t b = 0; drawn && b < B; ++b)
                for (int64_t j = 0; j < Z; ++j)
                    eps(b, j) = reference::normal(7, 3, fusedvae::kTrain, static_cast<uint32_t>(40 + b), j);
            const Matrix mu = every_second(layer.sums, 0), logvar = every_second(layer.sums, 1);
            const reference::Latent want = reference::reparameterize_kl(mu, logvar, eps);
            expect_near(head.read(), layer.sums, bound_of(layer.sums, 0.0, 0.0, false), c.name + "head");
            Matrix bound(B, Z), kl_bound(B, 1);
            for (int64_t i = 0; i < B * Z; ++i) {
                const double sigma = std::exp(0.5 * logvar[i]);
                // a normal near zero is a difference: its error is absolute (tests/cpp/test_kernels_forward.cpp)
                bound[i] = sigma * (kFunction * std::fabs(eps[i]) + (drawn ? 1e-6 : 0.0)) +
                           kFunction * std::fabs(mu[i]) + (c.half() ? 0x1p-8 * std::fabs(want.z[i]) : 0.0);
                kl_bound[i / Z] += kFunction * (mu[i] * mu[i] + sigma * sigma + 1.0 + std::fabs(logvar[i]));
            }
            expect_near(z.read(), want.z, bound, c.name + "z");
            expect_near(sum_segments(partial, B), kernel_cases::row_sums(want.kl), kl_bound, c.name + "kl");
        }
    });
}

TEST(likelihoods_match_reference) {
    for_each_case("likelihood", [](const Case& c, Random& random) {
        const int64_t B = c.shape.B;
        if (c.shape.K > 200) return;  // as above
        for (const Output& output : kOutputs) {
            const bool element = output.variance == FVAE_ELEMENT && output.likelihood == FVAE_GAUSSIAN;
            const bool feature = output.variance == FVAE_FEATURE;
            const int64_t D = c.shape.N, N = element ? 2 * D : D;
            const Layer layer(c, random, N);
            const Matrix target = uniforms(random, B, D, 0.0f, 1.0f), logvar = uniforms(random, 1, D, -2.0f, 1.0f);
            const OnDevice target_d(target, false), logvar_d(logvar, false), dy(B, N, c.half());
            cuda::Buffer<float> partial(context(), B * cuda::segments(static_cast<int>(N)), "a test");
            cuda::Forward f = layer.job(c);
            f.epilogue = element                              ? Epilogue::gaussian_element_nll
                         : output.likelihood == FVAE_GAUSSIAN ? Epilogue::gaussian_nll
                                                              : Epilogue::bernoulli_nll;
            f.target = target_d.factor();
            f.dy = dy.data();
            f.scale = 0.25f;
            f.fixed_variance = 0.4f;
            f.min_variance = 0.05f;
            if (feature) f.log_variance = logvar_d.floats();
            f.partial = partial.data();
            c.kernels().forward(f, c.size, context()->stream());

            Matrix column(D, 1);
            column.values = logvar.values;
            const double min_variance = 0.05f;
            const reference::Nll want = element   ? reference::gaussian_nll(every_second(layer.sums, 0), target,
                                                                            every_second(layer.sums, 1), min_variance)
                                        : feature ? reference::gaussian_nll(layer.sums, target, column, min_variance)
                                        : output.likelihood == FVAE_GAUSSIAN
                                            ? reference::gaussian_nll(layer.sums, target, double{0.4f})
                                            : reference::bernoulli_nll(layer.sums, target);
            Matrix want_dy(B, N), bound(B, N), nll_bound(B, 1);
            for (int64_t b = 0; b < B; ++b)
                for (int64_t j = 0; j < D; ++j) {
                    const double dm = want.dmean(b, j);
                    // the terms of a value: its own size, the logit's or the squared difference over the variance
                    nll_bound[b] +=
                        2.0 * kFunction *
                        (std::fabs(want.value(b, j)) + std::fabs(layer.sums(b, element ? 2 * j : j)) + dm * dm + 2.0);
                    want_dy(b, element ? 2 * j : j) = 0.25 * dm;
                    bound(b, element ? 2 * j : j) = kFunction * (std::fabs(dm) + 1.0);
                    if (!element) continue;
                    want_dy(b, 2 * j + 1) = 0.25 * want.dlogvar(b, j);
                    bound(b, 2 * j + 1) = 2.0 * kFunction * (std::fabs(want.dlogvar(b, j)) + 1.0);
                }
            for (size_t i = 0; c.half() && i < bound.values.size(); ++i)
                bound.values[i] += 0x1p-8 * std::fabs(want_dy.values[i]);
            expect_near(dy.read(), want_dy, bound, c.name + output.name + ", dy");
            expect_near(sum_segments(partial, B), kernel_cases::row_sums(want.value), nll_bound, c.name + output.name);
        }
    });
}
