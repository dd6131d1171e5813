// SPDX-License-Identifier: MIT
//
// Trainings whose programs run side by side, in rounds. A round begins when all that take part have come, or the first has
// waited long enough: who is late, in a callback or a validation, comes to the next one. Its last one to ask for a run
// launches the runs of all.
#pragma once
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <tuple>

#include "held_rows.h"
#include "program.h"

namespace fusedvae::cuda {

class EnsembleOnDevice : public DeviceEnsemble {
  public:
    explicit EnsembleOnDevice(std::shared_ptr<Context> context) : context_(std::move(context)), runner_(context_) {}
    int index() const { return context_->index(); }

    // From here on rounds wait for this one.
    void enter();
    void leave();
    // Waits for a round; then its one run, done on return, or word that there is none.
    void meet();
    void run(const Run& one);
    void pass();
    // Steps of a round: as many as take about kRound.
    int64_t most() const;

    // The one copy of host rows that no table of columns reads in a model's own way; else make()'s.
    std::shared_ptr<const HeldRows> held(const Rows& x, const std::function<std::shared_ptr<const HeldRows>()>& make);

  private:
    using Clock = std::chrono::steady_clock;
    struct Request {
        Run run;
        bool done = false;
        std::exception_ptr error{};
    };
    void begin_round();
    void serve();

    const std::shared_ptr<Context> context_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Runner runner_;
    size_t entered_ = 0, arrived_ = 0;  // members; those that wait for the next round
    size_t expected_ = 0;               // runs of this round that have not been asked for
    int64_t round_ = 0, most_ = 1;
    Clock::time_point deadline_{};                           // of the next round's beginning
    Clock::duration grace_ = std::chrono::milliseconds(10);  // of whoever is late
    std::vector<Request*> requests_;

    using Key = std::tuple<const void*, RowType, int64_t, int64_t, int64_t, float>;
    std::mutex holding_;
    std::map<Key, std::shared_ptr<const HeldRows>> held_;
};

}  // namespace fusedvae::cuda
