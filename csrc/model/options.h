// SPDX-License-Identifier: MIT
//
// How to train: checked options, and what follows from them at a given step.
#pragma once
#include "../backend/backend.h"
#include "fusedvae/fusedvae.h"
#include "json.h"

namespace fusedvae {

// Throws std::invalid_argument with the field, what it is, and what it may be.
void check(const fvae_trainer_options& options);

// The precision that the CPU, or a GPU, computes in where `wanted` is asked for; throws std::invalid_argument where it
// cannot.
fvae_precision available(fvae_precision wanted, bool on_device);
// The CPU's backend whose products compute in it; throws as above.
const Backend& backend_in(fvae_precision wanted);

// Steps count from 0. Warm-up: (step + 1) / warmup_steps of the rate; then the schedule.
double learning_rate_at(const fvae_trainer_options& options, int64_t step);
double beta_at(const fvae_trainer_options& options, int64_t step);
// The constants of the optimiser step that follows `done` earlier ones.
Update update_at(const fvae_trainer_options& options, int64_t done);

inline Epilogue update_epilogue(const fvae_trainer_options& options) {
    return options.optimizer == FVAE_SGD ? Epilogue::sgd : Epilogue::adam;
}
inline bool has_m(const fvae_trainer_options& o) { return o.optimizer != FVAE_SGD || o.momentum != 0.0; }
inline bool has_v(const fvae_trainer_options& o) { return o.optimizer != FVAE_SGD; }

Json to_json(const fvae_trainer_options& options);
fvae_trainer_options options_from_json(const Json& json);

}  // namespace fusedvae
