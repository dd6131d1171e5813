// SPDX-License-Identifier: MIT
//
// Many trainings on the same rows at once, each on one thread. A small model has too little work for two threads to share
// a step: they would meet at every layer. Whole models have nothing to wait for, and the bits are the same. On a GPU the
// threads only give it work, which it does side by side.
#pragma once
#include <string>
#include <vector>

#include "trainer.h"

namespace fusedvae {

// fit of each trainer, `threads` (0: default_threads(), or all where they are on GPUs) at a time, those with the most parameters first. Returns for each
// trainer why its loss became non-finite, "" where it did not; that ends it alone. Whatever else is thrown ends all, at
// their next step's boundary, and is thrown again.
std::vector<std::string> fit_ensemble(const std::vector<std::shared_ptr<Trainer>>& trainers, const fvae_array& x,
                                      int64_t epochs, const fvae_array* validation, int threads,
                                      fvae_ensemble_callback callback, uint32_t events, void* user);

}  // namespace fusedvae
