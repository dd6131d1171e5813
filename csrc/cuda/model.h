// SPDX-License-Identifier: MIT
//
// A model's parameters on the device, and what the kernels are given of them.
#pragma once
#include <memory>
#include <mutex>

#include "context.h"
#include "kernels.h"
#include "layout.h"
#include "prologue.h"

namespace fusedvae::cuda {

// Whether products can read the source itself: those of float32 and tf32, or those of bfloat16.
bool reads_in_place(const Source& source, int columns, bool bfloat16);

// Host rows as float32 (count, ld) with zeros past the last column, ld = padded(width): rows index[i], or first + i.
void stage_rows(const Rows& rows, const uint32_t* index, int64_t first, int64_t count, float* out);

class ModelOnDevice : public DeviceModel {
  public:
    struct Areas;  // what passes from layer to layer in inference
    ModelOnDevice(std::shared_ptr<Context> context, const Config& config, const Network& network);

    const std::shared_ptr<Device>& device() const override { return device_; }
    int64_t bytes() const override;
    void upload(const float* plain) override;
    void download(float* plain) const override;
    void set_precision(Precision precision) override { precision_ = precision; }

    // inference.cu
    void encode(const Rows& x, float* mu, float* logvar, bool on_device) override;
    void decode(const Rows& z, float* mean, bool on_device) override;
    void reconstruct(const Rows& x, float* mean, bool on_device) override;
    void elbo(const Rows& x, int64_t samples, uint64_t seed, double* result, bool on_device) override;
    void log_likelihood(const Rows& x, int64_t samples, uint64_t seed, double* result, bool on_device) override;

    const std::shared_ptr<Context>& context() const { return context_; }
    const Config& config() const { return config_; }
    const Network& network() const { return network_; }
    const Layout& layout() const { return layout_; }
    float* values() const { return values_.data(); }
    // The bfloat16 copy, made when it is first asked for; whoever updates the parameters keeps it, too. NULL before.
    uint16_t* half() const { return half_.data(); }
    void need_half();
    // What a product reads of a layer in a precision.
    const void* weight(int layer, bool bfloat16) const;
    const float* bias(int layer) const;
    const float* log_variance() const {
        return layout_.log_variance < 0 ? nullptr : values_.data() + layout_.log_variance;
    }
    std::mutex& mutex() const { return mutex_; }

    // Rows [first, first + count) on the device; host rows pass through `staged`.
    Source source(const Rows& rows, int64_t first, int64_t count, Buffer<float>& staged) const;

  private:
    Areas& areas();
    void score(const Rows& x, int64_t samples, uint64_t seed, bool importance, double* result, bool on_device);

    std::shared_ptr<Context> context_;
    std::shared_ptr<Device> device_;
    const Config& config_;
    const Network& network_;
    const Layout layout_;
    Precision precision_ = Precision::float32;
    Buffer<float> values_;
    Buffer<uint16_t> half_;
    std::shared_ptr<Areas> areas_;  // once there has been a call
    mutable std::mutex mutex_;
};

}  // namespace fusedvae::cuda
