// SPDX-License-Identifier: MIT
//
// The whole backward pass on the device against the reference: every activation with every likelihood in every
// precision, beta, free bits, no hidden layers, and batches long enough that dW is summed in pieces.
#include "check.h"
#include "device_cases.h"

using namespace device_cases;
using kernel_cases::Buffer;
using kernel_cases::Random;
using kernel_cases::to_matrix;

namespace {

struct Case {
    Net net;
    int64_t B;
    double beta, free_bits;
};
const std::vector<Case> kCases = {
    {{{19, 11}, {11, 19}, 37, 5}, 13, 1.0, 0.0},
    {{{70}, {33}, 130, 17}, 70, 0.3, 0.0},
    {{{16}, {16}, 20, 6}, 9, 1.5, 0.05},
    {{{}, {}, 9, 3}, 5, 1.0, 0.0},
    {{{1}, {1}, 1, 1}, 1, 1.0, 0.0},
};

const std::vector<const char*> kActivations = {"identity", "relu", "leaky_relu", "elu",     "gelu",
                                               "silu",     "tanh", "sigmoid",    "softplus"};

// float32 and bfloat16: as tests/cpp/test_elbo_gradients.cpp derives them; the reference rounds factors as each precision
// does. tf32's step is an eighth of bfloat16's: where float and double differ by 1e-6 before the rounding, one value in some
// 500 lands on the other side and differs by 2^-11, which is 2e-5 of a matrix' norm for each of the dozen roundings before a
// gradient. A factor left unrounded is 2.5e-4 for each.
struct Bounds {
    double gradient, loss;
};
Bounds bounds_of(Precision p) {
    return p == Precision::float32 ? Bounds{1e-5, 2e-6}
           : p == Precision::tf32  ? Bounds{2.4e-4, 2.4e-5}
                                   : Bounds{8e-4, 8e-5};
}

void check_gradients(int activation, const Output& output, const Case& c, Precision precision, uint32_t seed) {
    std::ostringstream title;
    title << kActivations[static_cast<size_t>(activation)] << ", " << output.name << ", " << name_of(precision)
          << ", D=" << c.net.D << " Z=" << c.net.Z << " B=" << c.B << " free_bits=" << c.free_bits;
    const std::string name = title.str();
    Models models(config_of(c.net, output, static_cast<fvae_activation>(activation)), 11);
    reference::Vae vae = models.to_reference(precision);
    const Buffer x = Random(seed).uniforms(c.B * c.net.D, 0.0f, 1.0f), noise = Random(seed + 1).normals(c.B * c.net.Z);

    fvae_trainer_options options = fvae_trainer_options_default();
    options.free_bits = c.free_bits;
    const auto step = fusedvae::DeviceStep::make(*models.device, options, precision);
    fusedvae::StepScalars scalars = fusedvae::scalars_at(options, 0);
    scalars.beta = c.beta;
    const fusedvae::Rows rows(x.data(), c.B, c.net.D);
    fvae_losses losses{};
    std::vector<float> plain(static_cast<size_t>(fusedvae::plain_floats(models.host.network)));
    CHECK(step->gradients(rows, noise.data(), scalars, &losses, plain.data()));

    reference::Parameters want;
    const reference::Losses expected =
        vae.evaluate(to_matrix(x, c.B, c.net.D), to_matrix(noise, c.B, c.net.Z), c.beta, c.free_bits, &want);
    const Bounds bounds = bounds_of(precision);
    const double size = std::fabs(expected.reconstruction) + std::fabs(expected.kl);
    const auto near = [&](double got, double wanted, const char* what) {
        if (!(std::fabs(got - wanted) <= bounds.loss * size))
            throw std::runtime_error(name + ": " + what + " is " + std::to_string(got) + ", expected " +
                                     std::to_string(wanted));
    };
    near(losses.reconstruction, expected.reconstruction, "reconstruction");
    near(losses.kl, expected.kl, "kl");
    near(losses.loss, expected.loss, "loss");
    double whole = 0.0;
    for (const auto& entry : want) whole += norm(entry.second) * norm(entry.second);
    whole = std::sqrt(whole);
    const float* at = plain.data();
    for (const auto& entry : want) {
        Matrix error = to_matrix(at, entry.second.rows, entry.second.columns);
        at += error.values.size();
        for (size_t i = 0; i < error.values.size(); ++i) error.values[i] -= entry.second.values[i];
        const double relative = norm(error) / std::max(norm(entry.second), 0.01 * whole);
        if (!(relative <= bounds.gradient))
            throw std::runtime_error(name + ": the gradient of " + entry.first + " errs by " +
                                     std::to_string(relative * 1e6) + "e-6 of its norm");
    }
}

void check_all(Precision precision) {
    if (!gpu()) return;
    for (int activation = 0; activation < static_cast<int>(kActivations.size()); ++activation)
        for (const Output& output : kOutputs) {
            uint32_t seed = 31;
            for (const Case& c : kCases) check_gradients(activation, output, c, precision, seed += 2);
        }
}

}  // namespace

TEST(float32_gradients_match_the_reference) { check_all(Precision::float32); }
TEST(tf32_gradients_match_the_reference) { check_all(Precision::tf32); }
TEST(bfloat16_gradients_match_the_reference) { check_all(Precision::bfloat16); }

TEST(long_batches_are_summed_in_pieces) {
    if (!gpu()) return;
    for (const Precision precision : kPrecisions)
        for (const Output& output : kOutputs)
            check_gradients(FVAE_TANH, output, {{{5}, {7}, 11, 2}, 3333, 1.0, 0.0}, precision, 91);
}
