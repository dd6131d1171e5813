// SPDX-License-Identifier: MIT
//
// The ELBO's gradient, in two steps: the reference against central differences of its own loss in double (so that the
// specification is right), then the engine's training kernels against the reference (so that the engine is).
// Every activation with every likelihood and kind of variance, with one and several samples, beta, and free bits.
#include <cmath>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "fusedvae/fusedvae.h"
#include "kernel_cases.h"
#include "layer/reference.h"
#include "outputs.h"

using kernel_cases::Buffer;
using kernel_cases::Random;
using kernel_cases::to_matrix;
namespace reference = fusedvae::reference;
using reference::Matrix;

namespace {

const std::vector<const char*> kActivations = {"identity", "relu", "leaky_relu", "elu",     "gelu",
                                               "silu",     "tanh", "sigmoid",    "softplus"};

// One model and one batch: what both halves of this file run.
struct Case {
    std::vector<int64_t> hidden;
    std::vector<int64_t> decoder_hidden;
    int64_t D, Z, B, S;
    double beta, free_bits;
};

std::string title(int activation, const Output& output, const Case& c) {
    std::ostringstream text;
    text << kActivations[static_cast<size_t>(activation)] << ", " << output.name << ", D=" << c.D << " Z=" << c.Z
         << " B=" << c.B << " S=" << c.S << " hidden layers " << c.hidden.size() << " + " << c.decoder_hidden.size()
         << " beta=" << c.beta << " free_bits=" << c.free_bits;
    return text.str();
}

struct Model {
    std::unique_ptr<fvae_model, void (*)(fvae_model*)> handle{nullptr, fvae_model_free};

    Model(int activation, const Output& output, const Case& c) {
        fvae_config config = fvae_config_default();
        config.input_shape = &c.D;
        config.input_rank = 1;
        config.hidden = c.hidden.data();
        config.hidden_count = c.hidden.size();
        // a list of no layers is one too, NULL would mean the encoder's mirror image
        static const int64_t no_layers = 0;
        config.decoder_hidden = c.decoder_hidden.empty() ? &no_layers : c.decoder_hidden.data();
        config.decoder_hidden_count = c.decoder_hidden.size();
        config.latent = c.Z;
        config.activation = static_cast<fvae_activation>(activation);
        config.likelihood = output.likelihood;
        config.variance = output.variance;
        config.fixed_variance = 0.4;
        config.min_variance = 0.05;
        fvae_model* created = nullptr;
        if (fvae_model_create(&config, 11, &created) != FVAE_OK) throw std::runtime_error(fvae_last_error());
        handle.reset(created);
    }

    // The same model in double; a vector of log-variances, which starts at zero, is set to something telling first.
    reference::Vae to_reference() {
        fvae_config config = fvae_config_default();
        CHECK(fvae_model_config(handle.get(), &config) == FVAE_OK);
        reference::Vae vae;
        vae.activation = config.activation;
        vae.likelihood = config.likelihood;
        vae.variance = config.variance;
        vae.fixed_variance = config.fixed_variance;
        vae.min_variance = config.min_variance;
        for (int64_t i = 0; i < fvae_model_parameter_count(handle.get()); ++i) {
            const char* name = nullptr;
            int32_t rank = 0;
            int64_t shape[2] = {};
            CHECK(fvae_model_parameter_info(handle.get(), i, &name, &rank, shape) == FVAE_OK);
            Buffer values(shape[0] * shape[1]);
            CHECK(fvae_model_get_parameter(handle.get(), i, values.data()) == FVAE_OK);
            if (std::string(name) == "log_variance") {
                values = Random(12).uniforms(values.size(), -2.0f, 1.0f);
                CHECK(fvae_model_set_parameter(handle.get(), i, values.data()) == FVAE_OK);
            }
            vae.parameters.emplace_back(name, to_matrix(values, shape[0], shape[1]));
        }
        return vae;
    }
};

double norm(const Matrix& x) {
    double sum = 0.0;
    for (double value : x.values) sum += value * value;
    return std::sqrt(sum);
}

// Random data in [0, 1], which every likelihood takes, and noise.
struct Batch {
    Buffer x, noise;
    Batch(const Case& c, uint32_t seed)
        : x(Random(seed).uniforms(c.B * c.D, 0.0f, 1.0f)), noise(Random(seed + 1).normals(c.S * c.B * c.Z)) {}
};

// Step and bound of a central difference in double: with h = 1e-5 its own error is about h^2 |f'''| / 6 = 1e-11 and
// the subtraction's 1e-16 |f| / h = 1e-10 for a loss of a few nats.
void check_differences(const std::string& name, reference::Vae vae, const Matrix& x, const Matrix& noise,
                       const Case& c) {
    constexpr double kStep = 1e-5, kBound = 2e-8;
    reference::Parameters gradients;
    vae.evaluate(x, noise, c.beta, c.free_bits, &gradients);
    for (size_t p = 0; p < gradients.size(); ++p)
        for (size_t i = 0; i < gradients[p].second.values.size(); ++i) {
            double& value = vae.parameters[p].second.values[i];
            const double kept = value;
            value = kept + kStep;
            const double above = vae.evaluate(x, noise, c.beta, c.free_bits, nullptr).loss;
            value = kept - kStep;
            const double below = vae.evaluate(x, noise, c.beta, c.free_bits, nullptr).loss;
            value = kept;
            const double difference = (above - below) / (2.0 * kStep), gradient = gradients[p].second.values[i];
            if (!(std::fabs(difference - gradient) <= kBound * (1.0 + std::fabs(gradient)))) {
                std::ostringstream text;
                text.precision(12);
                text << name << ": d loss / d " << gradients[p].first << '[' << i << "] is " << gradient
                     << ", the central difference says " << difference;
                throw std::runtime_error(text.str());
            }
        }
}

// Float32 against double. A gradient is a sum over rows and layers of products whose inputs are rounded to 2^-24, six
// hundred times below 1e-5; a wrong factor or a forgotten term anywhere is far above it. The bound holds for each
// parameter's own norm, with a floor of 1% of the whole gradient's for parameters whose terms nearly cancel.
//
// In bfloat16 the reference rounds the same factors. Where float and double differ by 1e-6 before the rounding, one value in
// some thousand lands on the other side and differs by 2^-8: 2^-8 / sqrt(3000) = 7e-5 of a matrix' norm, for each of the
// dozen roundings that lie before a gradient. A factor left unrounded, or a copy that is stale, shifted or not padded, is
// 2e-3 (the root mean square of all roundings) and more. The loss sums such errors over rows and columns, where they meet
// with either sign: it may be off by a tenth of what a gradient may.
void check_engine(const std::string& name, Model& model, const Case& c, uint32_t seed,
                  fvae_precision precision = FVAE_PRECISION_FLOAT32) {
    const bool bfloat16 = precision == FVAE_PRECISION_BFLOAT16;
    const double kBound = bfloat16 ? 8e-4 : 1e-5, kLossBound = bfloat16 ? 8e-5 : 2e-6;
    reference::Vae vae = model.to_reference();
    vae.bfloat16 = bfloat16;
    const Batch batch(c, seed);
    std::vector<Buffer> gradients;
    std::vector<float*> pointers;
    for (const auto& entry : vae.parameters) gradients.emplace_back(entry.second.rows * entry.second.columns);
    for (Buffer& gradient : gradients) pointers.push_back(gradient.data());
    fvae_array x = fvae_array_default();
    x.data = batch.x.data();
    x.dtype = FVAE_FLOAT32;
    x.rows = c.B;
    x.columns = c.D;
    fvae_losses losses{};
    if (fvae_model_gradients(model.handle.get(), &x, batch.noise.data(), c.S, 0, c.beta, c.free_bits, precision,
                             &losses, pointers.data()) != FVAE_OK)
        throw std::runtime_error(name + ": " + fvae_last_error());

    reference::Parameters want;
    const reference::Losses expected =
        vae.evaluate(to_matrix(batch.x, c.B, c.D), to_matrix(batch.noise, c.S * c.B, c.Z), c.beta, c.free_bits, &want);
    const double size = std::fabs(expected.reconstruction) + std::fabs(expected.kl);
    CHECK_NEAR(losses.loss, expected.loss, kLossBound * size);
    CHECK_NEAR(losses.reconstruction, expected.reconstruction, kLossBound * size);
    CHECK_NEAR(losses.kl, expected.kl, kLossBound * size);

    double whole = 0.0;
    for (const auto& entry : want) whole += norm(entry.second) * norm(entry.second);
    whole = std::sqrt(whole);
    for (size_t p = 0; p < want.size(); ++p) {
        CHECK(gradients[p].guards_intact());
        Matrix error = to_matrix(gradients[p], want[p].second.rows, want[p].second.columns);
        for (size_t i = 0; i < error.values.size(); ++i) error.values[i] -= want[p].second.values[i];
        const double relative = norm(error) / std::max(norm(want[p].second), 0.01 * whole);
        if (!(relative <= kBound))
            throw std::runtime_error(name + ": the gradient of " + want[p].first + " errs by " +
                                     std::to_string(relative * 1e6) + "e-6 of its norm");
    }
}

const std::vector<Case> kTiny = {
    {{4}, {3}, 3, 2, 3, 2, 0.7, 0.0},
    {{3, 4}, {4}, 5, 3, 4, 1, 1.0, 0.05},  // free bits silence some latent dimensions and not others
    {{}, {}, 4, 2, 2, 1, 0.5, 0.0},
};
const std::vector<Case> kSmall = {
    {{19, 11}, {11, 19}, 37, 5, 13, 1, 1.0, 0.0},
    {{70}, {33}, 130, 17, 70, 1, 0.3, 0.0},
    {{16}, {16}, 20, 6, 9, 3, 1.5, 0.05},
    {{}, {}, 9, 3, 5, 2, 1.0, 0.0},
    {{1}, {1}, 1, 1, 1, 1, 1.0, 0.0},
    {{9}, {7}, 12, 3, 521, 1, 1.0, 0.0},  // dW is the sum of four parts' products
};

}  // namespace

TEST(reference_gradients_match_central_differences) {
    for (int activation = 0; activation < static_cast<int>(kActivations.size()); ++activation)
        for (const Output& output : kOutputs)
            for (const Case& c : kTiny) {
                Model model(activation, output, c);
                const Batch batch(c, 21);
                check_differences(title(activation, output, c), model.to_reference(), to_matrix(batch.x, c.B, c.D),
                                  to_matrix(batch.noise, c.S * c.B, c.Z), c);
            }
}

TEST(saved_activations_give_the_slope) {
    for (int activation = 0; activation < static_cast<int>(kActivations.size()); ++activation)
        for (double x = -6.0; x <= 6.0; x += 0.37) {
            const auto act = static_cast<fvae_activation>(activation);
            const double slope = reference::activation_slope(act, x);
            const bool saves_slope = act == FVAE_GELU || act == FVAE_SILU;
            CHECK_NEAR(reference::slope_from_saved(act, saves_slope ? slope : reference::activate(act, x)), slope,
                       1e-14);
        }
}

TEST(engine_gradients_match_the_reference) {
    for (int activation = 0; activation < static_cast<int>(kActivations.size()); ++activation)
        for (const Output& output : kOutputs) {
            uint32_t seed = 31;
            for (const Case& c : kSmall) {
                Model model(activation, output, c);
                check_engine(title(activation, output, c), model, c, seed);
                seed += 2;
            }
        }
}

TEST(bfloat16_gradients_match_the_reference) {
    if (!fvae_has_bfloat16()) return;  // a precision that this machine refuses; test_capi sees that it does
    for (int activation = 0; activation < static_cast<int>(kActivations.size()); ++activation)
        for (const Output& output : kOutputs) {
            uint32_t seed = 51;
            for (Case c : kSmall) {
                c.S = 1;  // with several samples, each one's gradients are rounded alone
                Model model(activation, output, c);
                check_engine(title(activation, output, c), model, c, seed, FVAE_PRECISION_BFLOAT16);
                seed += 2;
            }
        }
}

TEST(free_bits_silence_the_kl_of_small_dimensions) {
    const Case c{{6}, {6}, 8, 4, 10, 1, 1.0, 1e3};  // no dimension reaches a thousand nats
    Model model(FVAE_TANH, kOutputs[0], c);
    const reference::Vae vae = model.to_reference();
    const Batch batch(c, 41);
    const Matrix x = to_matrix(batch.x, c.B, c.D), noise = to_matrix(batch.noise, c.B, c.Z);
    reference::Parameters silenced, unweighted;
    const reference::Losses losses = vae.evaluate(x, noise, 1.0, c.free_bits, &silenced);
    vae.evaluate(x, noise, 0.0, 0.0, &unweighted);
    CHECK_NEAR(losses.loss, losses.reconstruction + 4.0 * c.free_bits, 1e-9);
    for (size_t p = 0; p < silenced.size(); ++p) CHECK(silenced[p].second.values == unweighted[p].second.values);
    check_engine("all dimensions silenced", model, c, 41);
}
