// SPDX-License-Identifier: MIT
#include "ensemble.h"

namespace fusedvae::cuda {

void EnsembleOnDevice::enter() {
    const std::lock_guard lock(mutex_);
    ++entered_;
}

void EnsembleOnDevice::leave() {
    const std::lock_guard lock(mutex_);
    --entered_;
    if (!requests_.empty() && requests_.size() == entered_) serve();
}

void EnsembleOnDevice::run(const Run& one) {
    Request mine{one};
    std::unique_lock lock(mutex_);
    requests_.push_back(&mine);
    if (requests_.size() == entered_)
        serve();
    else
        served_.wait(lock, [&] { return mine.done; });
    if (mine.error) std::rethrow_exception(mine.error);
}

void EnsembleOnDevice::serve() {
    std::exception_ptr error;
    try {
        context_->use();
        std::vector<Run> runs;
        for (const Request* request : requests_) runs.push_back(request->run);
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
    served_.notify_all();
}

std::shared_ptr<const HeldRows> EnsembleOnDevice::held(const Rows& x,
                                                       const std::function<std::shared_ptr<const HeldRows>()>& make) {
    if (x.table || x.on_device || x.streamed) return make();
    const std::lock_guard lock(holding_);
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
