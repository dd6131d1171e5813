// SPDX-License-Identifier: MIT
//
// Every pair of pairs.inc, in every precision and tile size, around the tiles' edges, against the double-precision
// reference. Factors are eighths between -1 and 1, which every precision holds exactly, and sums of their products are
// exact in float32 while they stay below 2^24 sixty-fourths: so the products must be exact, and what is left is the
// epilogue's own error (kernel_cases.h) and, in bfloat16, the rounding of what it stores.
#include <cstring>

#include "check.h"
#include "cuda/context.h"
#include "cuda/kernels.h"
#include "device_cases.h"

using namespace device_cases;
namespace cuda = fusedvae::cuda;
using fusedvae::Activation;
using fusedvae::Epilogue;
using kernel_cases::kEps;
using kernel_cases::kFunction;
using kernel_cases::Random;
using kernel_cases::Shape;
using kernel_cases::to_matrix;

namespace {

const std::vector<Shape> kShapes = {{1, 1, 1},     {17, 33, 129},  {129, 17, 33},
                                    {33, 129, 17}, {31, 1000, 31}, {130, 8, 64}};
constexpr cuda::TileSize kSizes[] = {cuda::TileSize::small, cuda::TileSize::medium, cuda::TileSize::large};

std::shared_ptr<cuda::Context> context() { return std::static_pointer_cast<cuda::Context>(gpu()); }

float from_half(uint16_t h) {
    const uint32_t bits = static_cast<uint32_t>(h) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
uint16_t to_half(float x) {  // exact for what the tests give it
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>(bits >> 16);
}

// A matrix on the device in elements that products read, as our own are: padded with zeros.
class OnDevice {
  public:
    OnDevice(int64_t rows, int64_t columns, bool half) : rows_(rows), columns_(columns), half_(half) {
        const int64_t count = rows * cuda::padded(columns);
        if (half)
            halves_ = cuda::Buffer<uint16_t>(context(), count, "a test");
        else
            floats_ = cuda::Buffer<float>(context(), count, "a test");
    }
    OnDevice(const Matrix& x, bool half) : OnDevice(x.rows, x.columns, half) {
        const int64_t ld = cuda::padded(columns_);
        std::vector<float> values(static_cast<size_t>(rows_ * ld), 0.0f);
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t c = 0; c < columns_; ++c)
                values[static_cast<size_t>(r * ld + c)] = static_cast<float>(x(r, c));
        std::vector<uint16_t> halves;
        for (const float value : values) halves.push_back(to_half(value));
        if (half)
            halves_.upload(halves.data(), rows_ * ld);
        else
            floats_.upload(values.data(), rows_ * ld);
    }
    void* data() const { return half_ ? static_cast<void*>(halves_.data()) : floats_.data(); }
    float* floats() const { return floats_.data(); }
    int64_t ld() const { return cuda::padded(columns_); }
    cuda::Factor factor() const { return {data(), ld(), nullptr, 1, 0}; }
    // What it holds; padding must be zero.
    Matrix read() const {
        std::vector<float> values;
        if (half_)
            for (const uint16_t h : halves_.download()) values.push_back(from_half(h));
        else
            values = floats_.download();
        Matrix x(rows_, columns_);
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t c = 0; c < ld(); ++c) {
                const float value = values[static_cast<size_t>(r * ld() + c)];
                if (c < columns_)
                    x(r, c) = value;
                else
                    CHECK(value == 0.0f);
            }
        return x;
    }

  private:
    int64_t rows_, columns_;
    bool half_;
    cuda::Buffer<float> floats_;
    cuda::Buffer<uint16_t> halves_;
};

Matrix eighths(Random& random, int64_t rows, int64_t columns) {
    Matrix x = to_matrix(random.integers(rows * columns, 8), rows, columns);
    for (double& value : x.values) value /= 8.0;
    return x;
}
Matrix uniforms(Random& random, int64_t rows, int64_t columns, float low, float high) {
    return to_matrix(random.uniforms(rows * columns, low, high), rows, columns);
}
// Every second column, from `first` on.
Matrix every_second(const Matrix& x, int64_t first) {
    Matrix half(x.rows, x.columns / 2);
    for (int64_t r = 0; r < half.rows; ++r)
        for (int64_t c = 0; c < half.columns; ++c) half(r, c) = x(r, 2 * c + first);
    return half;
}

void expect_near(const Matrix& got, const Matrix& want, const Matrix& bound, const std::string& what) {
    CHECK(got.values.size() == want.values.size());
    for (size_t i = 0; i < got.values.size(); ++i)
        if (!(std::fabs(got.values[i] - want.values[i]) <= bound.values[i]))
            throw std::runtime_error(what + "[" + std::to_string(i) + "] is " + std::to_string(got.values[i]) +
                                     ", expected " + std::to_string(want.values[i]) + " within " +
                                     std::to_string(bound.values[i] * 1e6) + "e-6");
}
// |want| * relative + absolute, and what storing in bfloat16 rounds.
Matrix bound_of(const Matrix& want, double relative, double absolute, bool half) {
    Matrix bound = want;
    for (double& value : bound.values) value = std::fabs(value) * (relative + (half ? 0x1p-8 : 0.0)) + absolute;
    return bound;
}

struct Case {
    Precision precision;
    cuda::TileSize size;
    Shape shape;
    std::string name;
    const cuda::Kernels& kernels() const { return cuda::kernels_of(precision); }
    bool half() const { return precision == Precision::bfloat16; }
};
template <class Run>
void for_each_case(const char* kernel, Run run) {
    if (!gpu()) return;
    context()->use();
    uint32_t seed = 1;
    for (const Precision precision : kPrecisions)
        for (const cuda::TileSize size : kSizes)
            for (const Shape& shape : kShapes) {
                std::ostringstream name;
                name << kernel << ", " << name_of(precision) << ", tiles of " << cuda::side_of(size)
                     << ", B=" << shape.B << " K=" << shape.K << " N=" << shape.N << ": ";
                Random random(++seed);
                run(Case{precision, size, shape, name.str()}, random);
            }
}

// The clock of a single step.
struct OneStep {
    cuda::Buffer<cuda::Scalars> scalars{context(), 1, "a test"};
    cuda::Buffer<cuda::Progress> progress{context(), 1, "a test"};
    explicit OneStep(const cuda::Scalars& s) { scalars.upload(&s, 1); }
    cuda::Clock clock() const { return {scalars.data(), progress.data(), 0}; }
};

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
            g.tiles_k = static_cast<int>(cuda::tiles(c.size, 1, K));
            cuda::Buffer<cuda::Wgrad> table(context(), 1, "a test");
            table.upload(&g, 1);
            cuda::Group group{};
            group.clock = step.clock();
            group.table = table.data();
            group.count = 1;
            group.tiles = static_cast<int>(cuda::tiles(c.size, N, K));
            group.splits = 1;
            group.rows_per_split = static_cast<int>(B);
            group.epilogue = epilogue;
            group.flat = {value.data(), m.data(), v.data(), half.data(), gradient.data(), floats};
            group.scale = 1.0f;
            c.kernels().wgrad(group, c.size, context()->stream());

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
