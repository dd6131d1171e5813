// SPDX-License-Identifier: MIT
//
// Whole trainings through the C API: the same bits for any number of threads, and a model that is read while it trains.
// ThreadSanitizer runs these too.
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "check.h"
#include "fusedvae/fusedvae.hpp"

namespace {

constexpr int64_t kRows = 150, kColumns = 70;  // two batches of 64 and a short one; a panel and a tail

std::vector<float> make_rows() {
    std::vector<float> x(kRows * kColumns);
    uint32_t state = 1;
    for (size_t i = 0; i < x.size(); ++i) {
        state = state * 1664525u + 1013904223u;
        x[i] = static_cast<float>(state >> 8) / 16777216.0f * (i % kColumns < 35 ? 1.0f : 0.2f);
    }
    return x;
}

// What a training may differ in, beside its threads: the two ways to share work, and the pass over stored gradients.
struct Setting {
    std::vector<int64_t> hidden;
    fvae_likelihood likelihood;
    fvae_variance variance;
    fvae_optimizer optimizer;
    double clip_norm;
    double free_bits;
    int64_t batch_size;
};

const std::vector<Setting> kSettings = {
    {{48}, FVAE_BERNOULLI, FVAE_FIXED, FVAE_ADAM, 0.0, 0.0, 64},
    {{200, 40}, FVAE_GAUSSIAN, FVAE_FEATURE, FVAE_SGD, 1.0, 0.0, 64},
    {{33}, FVAE_GAUSSIAN, FVAE_ELEMENT, FVAE_ADAMW, 0.0, 0.1, 1000},
    {{}, FVAE_BERNOULLI, FVAE_FIXED, FVAE_ADAM, 0.5, 0.05, 1},
};

fusedvae::Model make_model(const Setting& setting) {
    fusedvae::Config config;
    config.input_shape = {kColumns};
    config.hidden = setting.hidden;
    config.latent = 5;
    config.activation = FVAE_GELU;
    config.likelihood = setting.likelihood;
    config.variance = setting.variance;
    return fusedvae::Model(config, 3);
}

fvae_trainer_options options_of(const Setting& setting, int threads) {
    fvae_trainer_options options = fvae_trainer_options_default();
    options.optimizer = setting.optimizer;
    options.learning_rate = 3e-3;
    options.momentum = 0.9;
    options.clip_norm = setting.clip_norm;
    options.free_bits = setting.free_bits;
    options.batch_size = setting.batch_size;
    options.threads = threads;
    return options;
}

std::vector<float> parameters_of(const fusedvae::Model& model) {
    std::vector<float> all;
    const auto infos = model.parameters();
    for (size_t i = 0; i < infos.size(); ++i) {
        std::vector<float> values(static_cast<size_t>(infos[i].size()));
        model.get_parameter(static_cast<int64_t>(i), values.data());
        all.insert(all.end(), values.begin(), values.end());
    }
    return all;
}

TEST(any_number_of_threads_gives_the_same_bits) {
    const std::vector<float> x = make_rows();
    const fvae_array data = fusedvae::rows(x.data(), kRows, kColumns);
    for (const Setting& setting : kSettings) {
        std::vector<float> first;
        for (const int threads : {1, 2, 3, 8}) {
            fusedvae::Model model = make_model(setting);
            fusedvae::Trainer trainer(model, options_of(setting, threads));
            trainer.fit(data, 2);
            const std::vector<float> parameters = parameters_of(model);
            if (first.empty()) {
                first = parameters;
                CHECK(first != parameters_of(make_model(setting)));  // it trained
                for (const float value : first) CHECK(std::isfinite(value));
            }
            CHECK(std::memcmp(first.data(), parameters.data(), first.size() * sizeof(float)) == 0);
        }
    }
}

// "A model may be read while its trainer runs": from other threads, and from the callback.
TEST(a_model_is_read_while_it_trains) {
    const std::vector<float> x = make_rows();
    const fvae_array data = fusedvae::rows(x.data(), kRows, kColumns);
    fusedvae::Model model = make_model(kSettings[0]);
    fusedvae::Trainer trainer(model, options_of(kSettings[0], 2));
    std::atomic<bool> training{true};
    std::atomic<int> bad{0};
    std::thread reader([&] {
        std::vector<double> scores(kRows);
        while (training) {
            model.elbo(data, 1, 0, scores.data());
            for (const double score : scores) bad += !std::isfinite(score);
        }
    });
    int called = 0;
    trainer.fit(data, 5, nullptr, [&](fvae_event, const fvae_progress&) -> int32_t {
        std::vector<double> scores(kRows);
        model.elbo(data, 1, 0, scores.data());
        called += std::isfinite(scores[0]);
        return FVAE_CALLBACK_CONTINUE;
    }, fusedvae::event_bit(FVAE_BATCH_END));
    training = false;
    reader.join();
    CHECK_EQUAL(called, 5 * 3);
    CHECK_EQUAL(bad.load(), 0);
}

TEST(two_models_train_at_once) {
    const std::vector<float> x = make_rows();
    const fvae_array data = fusedvae::rows(x.data(), kRows, kColumns);
    std::vector<float> results[2];
    std::vector<std::thread> threads;
    for (auto& result : results) {
        threads.emplace_back([&result, &data] {
            fusedvae::Model model = make_model(kSettings[1]);
            fusedvae::Trainer(model, options_of(kSettings[1], 2)).fit(data, 3);
            result = parameters_of(model);
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(!results[0].empty());
    CHECK(results[0] == results[1]);
}

}  // namespace
