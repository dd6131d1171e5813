// SPDX-License-Identifier: MIT
//
// Batches of a data set that is too large for the device.
#pragma once
#include "context.h"

namespace fusedvae::cuda {

// Two pinned and two device buffers: while the device computes on one batch, the host fills the next one's and copies it.
class BatchStream {
  public:
    BatchStream(std::shared_ptr<Context> context, int64_t floats) : context_(std::move(context)) {
        check(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
        for (int i = 0; i < 2; ++i) {
            host_[i] = Pinned<float>(floats);
            device_[i] = Buffer<float>(context_, floats, "two batches of streamed rows (lower batch_size)");
            check(cudaEventCreateWithFlags(&copied_[i], cudaEventDisableTiming), "cudaEventCreateWithFlags");
            check(cudaEventCreateWithFlags(&computed_[i], cudaEventDisableTiming), "cudaEventCreateWithFlags");
            check(cudaEventRecord(computed_[i], context_->stream()), "cudaEventRecord");
        }
    }
    ~BatchStream() {
        if (copies_) cudaStreamSynchronize(copies_);
        for (int i = 0; i < 2; ++i) {
            if (copied_[i]) cudaEventDestroy(copied_[i]);
            if (computed_[i]) cudaEventDestroy(computed_[i]);
        }
        if (copies_) cudaStreamDestroy(copies_);
    }
    // fill(host) writes `floats` floats; they are on their way to the returned buffer, and the main stream waits for them.
    template <class Fill>
    const float* next(int64_t floats, Fill fill) {
        check(cudaStreamSynchronize(copies_), "cudaStreamSynchronize");  // the copy before the last has left its buffer
        fill(host_[turn_].data());
        check(cudaStreamWaitEvent(copies_, computed_[turn_], 0), "cudaStreamWaitEvent");
        check(cudaMemcpyAsync(device_[turn_].data(), host_[turn_].data(), static_cast<size_t>(floats) * sizeof(float),
                              cudaMemcpyHostToDevice, copies_),
              "cudaMemcpyAsync");
        check(cudaEventRecord(copied_[turn_], copies_), "cudaEventRecord");
        check(cudaStreamWaitEvent(context_->stream(), copied_[turn_], 0), "cudaStreamWaitEvent");
        return device_[turn_].data();
    }
    // The main stream has been given all that reads the buffer.
    void done() {
        check(cudaEventRecord(computed_[turn_], context_->stream()), "cudaEventRecord");
        turn_ ^= 1;
    }
    int64_t bytes() const { return 2 * static_cast<int64_t>(device_[0].bytes()); }

  private:
    std::shared_ptr<Context> context_;
    cudaStream_t copies_ = nullptr;
    Pinned<float> host_[2];
    Buffer<float> device_[2];
    cudaEvent_t copied_[2] = {}, computed_[2] = {};
    int turn_ = 0;
};

}  // namespace fusedvae::cuda
