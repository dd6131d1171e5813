// SPDX-License-Identifier: MIT
//
// What the tests of the C API share: a 12-16-3 model, forty rows, handles that free themselves, and the check that a call
// fails with a status and a message.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "fusedvae/fusedvae.h"

using ModelHandle = std::unique_ptr<fvae_model, void (*)(fvae_model*)>;
using TrainerHandle = std::unique_ptr<fvae_trainer, void (*)(fvae_trainer*)>;

constexpr int64_t kD = 12, kHidden = 16, kZ = 3, kRows = 40;
constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();

inline void ok(fvae_status status) {
    if (status != FVAE_OK) throw std::runtime_error(fvae_last_error());
}

// The status must be `expected`, its message must contain `part`.
#define CHECK_FAILS(call, expected, part)                                                           \
    do {                                                                                            \
        CHECK_EQUAL(call, expected);                                                                \
        if (std::string(fvae_last_error()).find(part) == std::string::npos)                         \
            throw ::native_test::Failure(__FILE__, __LINE__,                                        \
                                         std::string(#call " says \"") + fvae_last_error() + "\""); \
    } while (false)

inline fvae_config small_config() {
    fvae_config config = fvae_config_default();
    config.input_shape = &kD;
    config.hidden = &kHidden;
    config.latent = kZ;
    return config;
}

inline ModelHandle make_model(const fvae_config& config = small_config()) {
    fvae_model* model = nullptr;
    ok(fvae_model_create(&config, 3, &model));
    return {model, fvae_model_free};
}

inline TrainerHandle make_trainer(fvae_model* model,
                                  const fvae_trainer_options& options = fvae_trainer_options_default()) {
    fvae_trainer* trainer = nullptr;
    ok(fvae_trainer_create(model, &options, &trainer));
    return {trainer, fvae_trainer_free};
}

inline const std::vector<float>& data() {
    static const std::vector<float> x = [] {
        std::vector<float> values;
        for (int i = 0; i < kRows * kD; ++i) values.push_back(static_cast<float>(0.5 + 0.5 * std::sin(0.7 * i)));
        return values;
    }();
    return x;
}

inline fvae_array rows(const std::vector<float>& x = data()) {
    fvae_array a = fvae_array_default();
    a.data = x.data();
    a.rows = kRows;
    a.columns = kD;
    return a;
}

inline std::vector<std::vector<float>> parameters(const fvae_model* model) {
    std::vector<std::vector<float>> all;
    for (int64_t i = 0; i < fvae_model_parameter_count(model); ++i) {
        int64_t shape[2];
        ok(fvae_model_parameter_info(model, i, nullptr, nullptr, shape));
        all.emplace_back(static_cast<size_t>(shape[0] * shape[1]));
        ok(fvae_model_get_parameter(model, i, all.back().data()));
    }
    return all;
}

inline void set_parameters(fvae_model* model, const std::vector<std::vector<float>>& values) {
    for (size_t i = 0; i < values.size(); ++i)
        ok(fvae_model_set_parameter(model, static_cast<int64_t>(i), values[i].data()));
}
