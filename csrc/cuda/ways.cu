// SPDX-License-Identifier: MIT
#include "ways.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "../backend/platform.h"

namespace fusedvae::cuda {

namespace {
constexpr double kNever = 1e30;
}

Ways::Ways() : best_{kNever, kNever} {
    const char* const forced = platform::environment("FUSEDVAE_GPU_STEPS");
    if (!forced || !*forced) return;
    const std::string name = forced;
    if (name != "graphs" && name != "programs")
        throw std::invalid_argument("FUSEDVAE_GPU_STEPS is \"" + name + "\"; it may be graphs or programs");
    forced_ = true;
    trials_[graphs] = trials_[programs] = kTrials;
    best_[name == "graphs" ? graphs : programs] = 0.0;
}

Ways::Way Ways::next() const {
    if (decided()) return best_[programs] < best_[graphs] ? programs : graphs;
    return trials_[programs] < trials_[graphs] ? programs : graphs;
}

void Ways::measured(Way way, double seconds_of_step) {
    ++trials_[way];
    best_[way] = std::min(best_[way], seconds_of_step);
}

}  // namespace fusedvae::cuda
