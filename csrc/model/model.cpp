// SPDX-License-Identifier: MIT
#include "model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "names.h"
#include "pass.h"

namespace fusedvae {

namespace {
const Config& checked(const Config& config) {
    config.check();
    return config;
}

// Beyond these a float32 is no number, or is nearer to 2^128 than to any bfloat16.
constexpr float kMostFloat32 = 3.402823466e38f, kMostBfloat16 = 0x1.fefffep127f;
}  // namespace

Model::Model(const Config& c, fvae_precision weights)
    : config(checked(c)),
      backend(fusedvae::backend()),
      network(config, backend, weights == FVAE_PRECISION_BFLOAT16),
      flat(network.floats),
      inference(config, network, flat.data()) {}

Model::Model(const Config& c, uint64_t seed) : Model(c) { network.initialize(config, seed, flat.data()); }

void Model::get(const Parameter& p, float* values) const {
    const std::shared_lock lock(mutex);
    network.unpack(host(), p, values);
}

void Model::set(const Parameter& p, const float* values) {
    const bool rounds = network.bfloat16_weights && p.kind == Parameter::weight;
    const float most = rounds ? kMostBfloat16 : kMostFloat32;
    const int64_t bad = backend.find_bad(values, p.size(), -most, most);
    if (bad < p.size())
        throw std::invalid_argument(
            "parameter '" + p.name + "' holds " +
            (std::isfinite(values[bad]) ? "a value too large for bfloat16" : "NaN or an infinity") + " at element " +
            std::to_string(bad));
    const std::unique_lock lock(mutex);
    network.pack(values, p, change());
}

void Model::check_trainable() const {
    if (network.bfloat16_weights)
        throw std::invalid_argument(
            "the model's weights are bfloat16, for serving; train the model that they were copied from, or a float32 "
            "copy");
}

std::shared_ptr<Model> Model::copy(fvae_precision weights) const {
    const std::string name = name_of(weights);  // known before it is read
    if (weights != FVAE_PRECISION_FLOAT32 && weights != FVAE_PRECISION_BFLOAT16)
        throw std::invalid_argument("a copy's weights are float32 or bfloat16, which never is chosen for you; not " +
                                    name);
    auto other = std::make_shared<Model>(config, weights);
    std::vector<float> values;
    const std::shared_lock lock(mutex);
    const float* const own = host();
    for (const Parameter& p : network.parameters) {
        values.resize(static_cast<size_t>(p.size()));
        network.unpack(own, p, values.data());
        other->set(p, values.data());
    }
    other->detector = detector;
    other->other_metadata = other_metadata;
    other->to(device());
    return other;
}

void Model::init_output_bias(const fvae_array& x) {
    const Rows given(x, config, "x");
    check(given, 1);
    const HostRows here = [&] {
        const std::shared_lock lock(mutex);
        return HostRows(*this, given);
    }();
    const Rows& rows = here.rows();
    std::vector<double> mean(static_cast<size_t>(network.D), 0.0);
    std::vector<float> scratch(mean.size());
    for (int64_t i = 0; i < rows.count; ++i) {
        const float* row = rows.read(backend, i, scratch.data());
        for (size_t j = 0; j < mean.size(); ++j) mean[j] += row[j];
    }
    std::vector<float> bias(mean.size());
    for (size_t j = 0; j < mean.size(); ++j) {
        mean[j] /= static_cast<double>(rows.count);
        // a column that is always 0 or always 1 gets logits of about +-7, from which training can still move
        const double p = std::clamp(mean[j], 1e-3, 1.0 - 1e-3);
        bias[j] = static_cast<float>(config.likelihood == FVAE_BERNOULLI ? std::log(p / (1.0 - p)) : mean[j]);
    }
    for (const Parameter& p : network.parameters)
        if (p.kind == Parameter::bias && p.part == 0 && p.layer + 1 == static_cast<int>(network.layers.size()))
            set(p, bias.data());
}

}  // namespace fusedvae
