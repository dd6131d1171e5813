// SPDX-License-Identifier: MIT
#include "model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "pass.h"

namespace fusedvae {

namespace {
const Config& checked(const Config& config) {
    config.check();
    return config;
}
}  // namespace

Model::Model(const Config& c)
    : config(checked(c)),
      backend(fusedvae::backend()),
      network(config, backend),
      flat(network.floats),
      inference(config, network, flat.data()) {}

Model::Model(const Config& c, uint64_t seed) : Model(c) { network.initialize(config, seed, flat.data()); }

void Model::get(const Parameter& p, float* values) const {
    const std::shared_lock lock(mutex);
    network.unpack(host(), p, values);
}

void Model::set(const Parameter& p, const float* values) {
    const int64_t bad = backend.find_bad(values, p.size(), -3.402823466e38f, 3.402823466e38f);
    if (bad < p.size())
        throw std::invalid_argument("parameter '" + p.name + "' holds NaN or an infinity at element " +
                                    std::to_string(bad));
    const std::unique_lock lock(mutex);
    network.pack(values, p, change());
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

std::shared_ptr<Model> Model::copy() const {
    auto other = std::make_shared<Model>(config);
    const std::shared_lock lock(mutex);
    host();
    other->flat.copy_from(flat);
    other->detector = detector;
    other->other_metadata = other_metadata;
    other->to(device());
    return other;
}

}  // namespace fusedvae
