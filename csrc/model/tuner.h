// SPDX-License-Identifier: MIT
//
// Which of several ways to take the same step is the fastest now. That is measured while training, because it depends
// on what no program is told: how long a cache line takes from core to core (0.1 or 0.6 us on one and the same virtual
// machine, changing within minutes), and who else is at work. The ways give the same bits, so nothing else depends on it.
#pragma once
#include <algorithm>
#include <array>
#include <limits>

namespace fusedvae {

class Tuner {
  public:
    static constexpr int kWays = 3;

    Tuner(int ways, int guess) : ways_(ways), best_(guess) { fastest_.fill(kNever); }

    // A trial takes each way for a few steps. The first one comes at once, the others after ever longer pauses.
    bool trying() const { return pause_ == 0; }
    int way() const { return trying() ? tried_ : best_; }

    // After each step in way(); seconds count only while trying().
    void took(double seconds) {
        if (!trying()) {
            --pause_;
            return;
        }
        double& fastest = fastest_[static_cast<size_t>(tried_)];
        if (step_ > 0) fastest = std::min(fastest, seconds);  // the first one brings the caches in order
        if (++step_ < kSteps) return;
        step_ = 0;
        if (++tried_ < ways_) return;
        tried_ = 0;
        const auto winner = std::min_element(fastest_.begin(), fastest_.end());
        if (*winner < kClearly * fastest_[static_cast<size_t>(best_)])
            best_ = static_cast<int>(winner - fastest_.begin());
        fastest_.fill(kNever);
        pause_ = next_pause_;
        next_pause_ = std::min(2 * next_pause_, kLongestPause);
    }

  private:
    static constexpr int kSteps = 4, kLongestPause = 4096;
    static constexpr double kNever = std::numeric_limits<double>::infinity(), kClearly = 0.97;

    const int ways_;
    int best_, tried_ = 0, step_ = 0, pause_ = 0, next_pause_ = 32;
    std::array<double, kWays> fastest_;  // of this trial, each way
};

}  // namespace fusedvae
