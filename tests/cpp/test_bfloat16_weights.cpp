// SPDX-License-Identifier: MIT
//
// Weights held in bfloat16, on every backend: packed, they are the nearest ones, and each product over them has the bits
// of the float32 product over the rounded weights, in tiles and row by row.
#include <cmath>
#include <cstring>

#include "check.h"
#include "kernel_cases.h"
#include "model/model.h"
#include "model/pass.h"

using namespace fusedvae;
using kernel_cases::backends;
using kernel_cases::Random;
using kernel_cases::Shape;
using kernel_cases::shapes;
using kernel_cases::Where;

namespace {

size_t z(int64_t i) { return static_cast<size_t>(i); }

// Eight significant bits, ties to even: nearbyint rounds so by default.
float nearest_bfloat16(float value) {
    int exponent = 0;
    const double fraction = std::frexp(double{value}, &exponent);  // in [1/2, 1)
    return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8));
}

// A network in both forms, of the same parameters: in float32 with rounded weights, and with weights in bfloat16.
struct Pair {
    Pair(const Config& config, const Backend& backend, Random& random)
        : rounded(config, backend), held(config, backend, true), flat(rounded.floats), held_flat(held.floats) {
        for (const Parameter& p : rounded.parameters) {
            const kernel_cases::Buffer values = random.uniforms(p.size(), -1.0f, 1.0f);
            std::vector<float> expected(values.data(), values.data() + p.size()), got(z(p.size()));
            if (p.kind == Parameter::weight)
                for (float& value : expected) value = nearest_bfloat16(value);
            rounded.pack(expected.data(), p, flat.data());
            held.pack(values.data(), p, held_flat.data());
            held.unpack(held_flat.data(), p, got.data());
            CHECK(got == expected);
        }
    }

    const Network rounded, held;
    const fusedvae::Buffer flat, held_flat;
};

// Rows with guards that no result may show.
struct Input {
    Input(int64_t B, int64_t K, Random& random) : values(random.uniforms(B * K, 0.0f, 1.0f)) {
        for (int64_t b = 0; b < B; ++b) rows.push_back(values.data() + b * K);
    }
    kernel_cases::Buffer values;
    std::vector<const float*> rows;
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> outputs(Forward f, const Backend& backend, const Input& x, int64_t B) {
    std::vector<float> y(z(B * f.stored), -1.0f);
    f.rows = x.rows.data();
    f.y = y.data();
    f.ld = f.stored;
    backend.forward(f, 0, static_cast<int>(B), 0, f.panels.count);
    return y;
}

std::vector<float> outputs_by_row(Forward f, bool fetches, const Backend& backend, const Input& x, int64_t B) {
    f.fetches = fetches;
    std::vector<float> y(z(B * f.stored), -1.0f), sums(z(f.panels.start[f.panels.count]));
    for (int64_t b = 0; b < B; ++b) backend.forward_row(f, x.rows[z(b)], sums.data(), y.data() + b * f.stored);
    return y;
}

std::vector<float> nll(Forward f, const Backend& backend, const Input& x, const Input& target, int64_t B) {
    std::vector<float> parts(z(B * f.panels.count), -1.0f);
    f.rows = x.rows.data();
    f.target = target.rows.data();
    f.partial = parts.data();
    backend.forward(f, 0, static_cast<int>(B), 0, f.panels.count);
    return parts;
}

// K -> N -> head of 2 x 3, 3 -> N -> K (or its pairs): the shape's sizes as depth and as columns.
Config config_of(const Shape& shape, fvae_likelihood likelihood, fvae_variance variance) {
    Config config;
    config.input_shape = {shape.K};
    config.hidden = {shape.N};
    config.decoder_hidden = {shape.N};
    config.latent = 3;
    config.activation = FVAE_TANH;
    config.likelihood = likelihood;
    config.variance = variance;
    return config;
}

}  // namespace

TEST(products_have_the_bits_of_float32_over_rounded_weights) {
    struct Output {
        fvae_likelihood likelihood;
        fvae_variance variance;
    };
    const Output kOutputs[] = {
        {FVAE_BERNOULLI, FVAE_FIXED}, {FVAE_GAUSSIAN, FVAE_FEATURE}, {FVAE_GAUSSIAN, FVAE_ELEMENT}};
    for (const std::string& name : backends()) {
        const Backend& b = backend(name.c_str());
        uint32_t seed = 31;
        for (const Shape& shape : shapes()) {
            const Output& output = kOutputs[seed % 3];
            const Config config = config_of(shape, output.likelihood, output.variance);
            Random random(seed++);
            const Pair pair(config, b, random);
            const Inference rounded(config, pair.rounded, pair.flat.data());
            const Inference held(config, pair.held, pair.held_flat.data());
            const Where where{"bfloat16 weights", name, shape};
            for (size_t l = 0; l < held.layers.size(); ++l) {
                const Input x(shape.B, held.layers[l].K, random);
                const std::vector<float> expected = outputs(rounded.layers[l], b, x, shape.B);
                if (!same(outputs(held.layers[l], b, x, shape.B), expected)) fail(where, "layer differs in tiles");
                for (const Inference* each : {&held, &rounded})
                    for (bool fetches : {false, true})
                        if (!same(outputs_by_row(each->layers[l], fetches, b, x, shape.B), expected))
                            fail(where, "layer differs by rows");
            }
            const Input x(shape.B, held.scoring.K, random), target(shape.B, shape.K, random);
            if (!same(nll(held.scoring, b, x, target, shape.B), nll(rounded.scoring, b, x, target, shape.B)))
                fail(where, "likelihood differs");
        }
    }
}

TEST(weights_take_half_the_bytes) {
    Config config;
    config.input_shape = {784};
    config.hidden = {400};
    config.latent = 20;
    const Model model(config, 1);
    const auto copy = model.copy(FVAE_PRECISION_BFLOAT16);
    size_t biases = 0;
    for (const Layer& layer : model.network.layers) biases += z(layer.padded());
    CHECK_EQUAL(copy->flat.size() - biases, (model.flat.size() - biases) / 2);
}

// Halfway cases go to the even neighbour, up and down; beyond the largest bfloat16 there is no nearest one.
TEST(rounding_is_to_nearest_even) {
    Config config;
    config.input_shape = {7};
    config.hidden = {};
    config.latent = 1;
    const Model model(config);
    const auto copy = model.copy(FVAE_PRECISION_BFLOAT16);
    const Parameter& p = copy->network.parameters[0];
    CHECK_EQUAL(p.size(), 7);
    const float values[] = {1.0f + 0x1p-8f, 1.0f + 0x3p-8f, -(1.0f + 0x1.0002p-8f), 0.0f,
                            0x1p-126f,      -0x1.fep127f,   0x1.fefffep127f};
    const float expected[] = {1.0f, 1.0f + 0x1p-6f, -(1.0f + 0x1p-7f), 0.0f, 0x1p-126f, -0x1.fep127f, 0x1.fep127f};
    float got[7];
    copy->set(p, values);
    copy->get(p, got);
    for (int i = 0; i < 7; ++i) CHECK_EQUAL(got[i], expected[i]);
    const float too_large[] = {0.0f, 0.0f, 0x1.ffp127f, 0.0f, 0.0f, 0.0f, 0.0f};
    CHECK_THROWS(copy->set(p, too_large), std::invalid_argument, "too large for bfloat16 at element 2");
    copy->get(p, got);
    for (int i = 0; i < 7; ++i) CHECK_EQUAL(got[i], expected[i]);
}
