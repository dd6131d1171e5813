// SPDX-License-Identifier: MIT
//
// A training on the engine's inner parts: network, parameters, moments, data and Step, for a named backend (the one of
// bfloat16 too) and a forced sharing. The same step as Trainer's (Adam, its own noise), without the epoch loop. Used by
// the native benchmarks and by tests/cpp/test_sharing.cpp.
#pragma once
#include <cstdlib>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/copies.h"
#include "model/options.h"
#include "model/step.h"

namespace fusedvae::bench {

// The backends that run here, best first; that of bfloat16 words last.
inline std::vector<const Backend*> backends_here() {
    std::vector<const Backend*> found;
    std::stringstream list(available_backends());
    for (std::string name; std::getline(list, name, ',');) found.push_back(&backend(name.c_str()));
    if (bfloat16_backend()) found.push_back(bfloat16_backend());
    return found;
}
inline const Backend& find_backend(const std::string& name) {
    const Backend* words = bfloat16_backend();
    return words && name == words->name ? *words : backend(name.c_str());
}

// "784-400-20": the width of the data, of the hidden layers (the decoder mirrors them), and of the latent code.
inline Config parse_network(const std::string& layers, const std::string& likelihood) {
    std::vector<int64_t> widths;
    for (size_t at = 0; at <= layers.size();) {
        const size_t end = std::min(layers.find('-', at), layers.size());
        widths.push_back(std::strtoll(layers.substr(at, end - at).c_str(), nullptr, 10));
        at = end + 1;
    }
    if (widths.size() < 2) throw std::invalid_argument("a network is WIDTH-HIDDEN-...-LATENT, not " + layers);
    if (likelihood != "bernoulli" && likelihood != "gaussian")
        throw std::invalid_argument("likelihood is bernoulli or gaussian, not " + likelihood);
    Config config;
    config.input_shape = {widths.front()};
    config.hidden.assign(widths.begin() + 1, widths.end() - 1);
    config.decoder_hidden.assign(config.hidden.rbegin(), config.hidden.rend());
    config.latent = widths.back();
    config.likelihood = likelihood == "gaussian" ? FVAE_GAUSSIAN : FVAE_BERNOULLI;  // Gaussian: unit variance
    config.check();
    return config;
}

// (rows, D) in [0, 1): targets for either likelihood.
inline std::vector<float> make_data(int64_t rows, int64_t D) {
    std::mt19937 engine(2);
    std::vector<float> x(static_cast<size_t>(rows * D));
    for (float& value : x) value = static_cast<float>(engine() >> 8) * 0x1p-24f;
    return x;
}

class Training {
  public:
    // data: (batches * B, D), shared by the trainings that are compared
    Training(const Config& config, const Backend& backend, Sharing sharing, int B, const std::vector<float>& data)
        : config_(config),
          network_(config_, backend),
          options_(fvae_trainer_options_default()),
          rows_(data.data(), static_cast<int64_t>(data.size()) / config_.width(), config_.width()),
          step_(config_, network_, backend, sharing),
          flat_(network_.floats),
          copies_(network_, backend),
          m_(network_.floats),
          v_(network_.floats),
          B_(B) {
        network_.initialize(config_, 1, flat_.data());
        copies_.refresh(network_, flat_.data());
    }
    Training(const Training&) = delete;
    Training& operator=(const Training&) = delete;

    fvae_losses step(int threads) {
        Batch batch{};
        batch.x = &rows_;
        batch.first = steps_ * B_ % rows_.count;
        batch.B = B_;
        batch.noise.stream = make_stream(0, static_cast<uint64_t>(steps_), kTrain);
        batch.beta = 1.0;
        Destination d{};
        d.epilogue = Epilogue::adam;
        d.update = update_at(options_, steps_);
        d.parameters = flat_.data();
        d.transposed = copies_.transposed.data();
        d.words = copies_.words.data();
        d.m = m_.data();
        d.v = v_.data();
        Lease lease(threads);
        fvae_losses losses{};
        if (!step_.run(lease, batch, d, &losses)) throw std::runtime_error("the loss is not finite");
        ++steps_;
        return losses;
    }
    bool by_columns() const { return step_.by_columns(); }
    // Parameters and moments; the copies that the products read show in the next loss.
    std::vector<float> state() const {
        std::vector<float> all;
        for (const Buffer* b : {&flat_, &m_, &v_}) all.insert(all.end(), b->data(), b->data() + b->size());
        return all;
    }

  private:
    const Config config_;
    const Network network_;
    const fvae_trainer_options options_;
    const Rows rows_;
    Step step_;
    Buffer flat_;
    Copies copies_;
    Buffer m_, v_;
    int B_;
    int64_t steps_ = 0;
};

}  // namespace fusedvae::bench
