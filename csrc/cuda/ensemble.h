// SPDX-License-Identifier: MIT
//
// Trainings whose programs run side by side: the last of those that have entered to ask for a run launches all of them.
#pragma once
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

    // From here on the others wait for this one's runs.
    void enter();
    void leave();
    // One's program, once all that have entered ask for one; done on return. What the program reads is on the device.
    void run(const Run& one);
    // The one copy of host rows that no table of columns reads in a model's own way; else make()'s.
    std::shared_ptr<const HeldRows> held(const Rows& x, const std::function<std::shared_ptr<const HeldRows>()>& make);

  private:
    struct Request {
        Run run;
        bool done = false;
        std::exception_ptr error{};
    };
    void serve();

    const std::shared_ptr<Context> context_;
    std::mutex mutex_;
    std::condition_variable served_;
    Runner runner_;
    size_t entered_ = 0;
    std::vector<Request*> requests_;

    using Key = std::tuple<const void*, RowType, int64_t, int64_t, int64_t, float>;
    std::mutex holding_;
    std::map<Key, std::shared_ptr<const HeldRows>> held_;
};

}  // namespace fusedvae::cuda
