// SPDX-License-Identifier: MIT
#include "ensemble.h"

#include <algorithm>

namespace fusedvae::cuda {

namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
constexpr microseconds kRound{50000}, kLeastGrace{1000}, kMostGrace{10000};

}  // namespace

void EnsembleOnDevice::enter() {
    const std::lock_guard lock(mutex_);
    ++entered_;
}

void EnsembleOnDevice::leave() {
    const std::lock_guard lock(mutex_);
    --entered_;
    changed_.notify_all();  // the others may be complete now
}

void EnsembleOnDevice::meet() {
    std::unique_lock lock(mutex_);
    const int64_t before = round_;
    if (arrived_++ == 0) deadline_ = Clock::now() + grace_;
    while (round_ == before) {
        const bool free = expected_ == 0 && requests_.empty();  // no round is on
        if (free && (arrived_ >= entered_ || Clock::now() >= deadline_))
            begin_round();
        else if (free)
            changed_.wait_until(lock, deadline_);
        else
            changed_.wait(lock);
    }
}

void EnsembleOnDevice::begin_round() {
    expected_ = arrived_;
    arrived_ = 0;
    ++round_;
    changed_.notify_all();
}

void EnsembleOnDevice::run(const Run& one) {
    Request mine{one};
    std::unique_lock lock(mutex_);
    requests_.push_back(&mine);
    if (--expected_ == 0)
        serve();
    else
        changed_.wait(lock, [&] { return mine.done; });
    if (mine.error) std::rethrow_exception(mine.error);
}

void EnsembleOnDevice::pass() {
    const std::lock_guard lock(mutex_);
    if (--expected_ == 0) serve();
}

int64_t EnsembleOnDevice::most() const {
    const std::lock_guard lock(mutex_);
    return most_;
}

// All of the round have asked.
void EnsembleOnDevice::serve() {
    std::exception_ptr error;
    const Clock::time_point began = Clock::now();
    int steps = 1;
    try {
        context_->use();
        std::vector<Run> runs;
        for (const Request* request : requests_) {
            runs.push_back(request->run);
            steps = std::max(steps, request->run.program.steps);
        }
        runner_.run(runs);
        context_->synchronize();
    } catch (...) {
        error = std::current_exception();
    }
    for (Request* request : requests_) {
        request->error = error;
        request->done = true;
    }
    requests_.clear();
    const Clock::time_point now = Clock::now();
    const microseconds took = std::max(duration_cast<microseconds>(now - began), microseconds{1});
    most_ = std::clamp<int64_t>(kRound.count() * steps / took.count(), 1, std::min(2 * most_, kMostSteps));
    grace_ = std::clamp(took / 5, kLeastGrace, kMostGrace);
    deadline_ = now + grace_;
    changed_.notify_all();
}

std::shared_ptr<const HeldRows> EnsembleOnDevice::held(const Rows& x,
                                                       const std::function<std::shared_ptr<const HeldRows>()>& make) {
    const std::lock_guard lock(holding_);  // one looks for room at a time
    if (x.table || x.on_device || x.streamed) return make();
    std::shared_ptr<const HeldRows>& one = held_[{x.data, x.type, x.stride, x.count, x.width, x.factor}];
    if (!one) one = make();
    return one;
}

}  // namespace fusedvae::cuda

namespace fusedvae {

std::shared_ptr<DeviceEnsemble> DeviceEnsemble::make(int device) {
    return std::make_shared<cuda::EnsembleOnDevice>(std::static_pointer_cast<cuda::Context>(Device::open(device)));
}

}  // namespace fusedvae
