// SPDX-License-Identifier: MIT
//
// Which of the two ways to run steps is the faster one.
#pragma once

namespace fusedvae::cuda {

// Graphs or programs: the bits are the same, so the first runs measure which are faster here.
class Ways {
  public:
    enum Way { graphs, programs };
    Ways();  // FUSEDVAE_GPU_STEPS names one of them
    Way next() const;
    bool forced(Way way) const { return forced_ && next() == way; }
    bool decided() const { return trials_[graphs] >= kTrials && trials_[programs] >= kTrials; }
    void measured(Way way, double seconds_of_step);

  private:
    static constexpr int kTrials = 3;  // the first of each also loads code
    int trials_[2] = {0, 0};
    double best_[2];
    bool forced_ = false;
};

}  // namespace fusedvae::cuda
