// SPDX-License-Identifier: MIT
//
// A model's parameters on a GPU, beside those on the host. Either copy may be ahead of the other, and is brought up to date
// when it is asked for: nothing travels without need.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../backend/device.h"
#include "buffer.h"

namespace fusedvae {

constexpr int kCpu = -1;
// "cpu" -> kCpu, "cuda" -> 0, "cuda:1" -> 1; throws std::invalid_argument for anything else.
int device_index(const std::string& name);

// Of what available(…, true) gives.
Precision device_precision(fvae_precision precision);

// A flat buffer's values as they are outside, one parameter after another, and back.
std::vector<float> to_plain(const Network& network, const float* flat);
void from_plain(const Network& network, const float* plain, float* flat);

class OnDevice {
  public:
    OnDevice(int index, const Config& config, const Network& network);

    const std::string& name() const { return name_; }
    Device& device() const { return *device_; }
    int64_t bytes() const { return model_->bytes(); }

    // The parameters on the device as they are now; flat holds the host's. Safe from several threads that read.
    DeviceModel& model(const Buffer& flat);
    // Brings the host's up to date. Safe like model().
    void fetch(const Buffer& flat);
    // One of them was written; the caller has the model for itself.
    void host_changed() { host_ahead_ = true; }
    void device_changed() { device_ahead_ = true; }

  private:
    const Network& network_;
    std::string name_;
    std::shared_ptr<Device> device_;
    std::unique_ptr<DeviceModel> model_;
    std::mutex mutex_;  // of the two flags and what they ask for
    bool host_ahead_ = true, device_ahead_ = false;
};

}  // namespace fusedvae
