// SPDX-License-Identifier: MIT
//
// An open GPU: its streams, and memory that is given back by itself.
#pragma once
#include <cuda_runtime.h>

#include <memory>
#include <mutex>
#include <vector>

#include "../backend/device.h"
#include "error.h"
#include "kernels.h"

namespace fusedvae::cuda {

class Context : public Device, public std::enable_shared_from_this<Context> {
  public:
    Context(int index, const cudaDeviceProp& properties);
    ~Context() override;

    int index() const override { return index_; }
    std::string name() const override { return name_; }
    int capability() const override { return capability_; }
    int64_t bytes() const override { return bytes_; }
    int64_t free_bytes() const override;
    void wait_for(void* stream) override;
    void release_to(void* stream) override;
    void synchronize() override;
    void* allocate(size_t bytes) override;
    void free(void* memory) noexcept override;
    void upload(void* device, const void* host, size_t bytes) override;
    void download(void* host, const void* device, size_t bytes) override;
    int64_t find_bad(const Rows& rows) override;

    // Of the calling thread; every entry from outside says so first.
    void use() const { check(cudaSetDevice(index_), "cudaSetDevice"); }
    cudaStream_t stream() const { return stream_; }
    const Chip& chip() const { return chip_; }
    // What is launched on the side stream between the two runs beside what the main stream gets meanwhile.
    cudaStream_t fork();
    void join();
    // Throws Error(FVAE_OUT_OF_MEMORY) that says how much was wanted and for what.
    void* allocate(size_t bytes, const char* what);

  private:
    const int index_;
    const std::string name_;
    const int capability_;
    const Chip chip_;
    const int64_t bytes_;
    cudaStream_t stream_ = nullptr, side_ = nullptr;
    cudaEvent_t forked_ = nullptr, joined_ = nullptr;
    cudaEvent_t ordered_ = nullptr;  // with a caller's stream, which any thread may ask for while another one forks
    std::mutex ordering_;
};

// An array on the device, zero at first.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    // what: whose memory it is and how to need less, as the out-of-memory message says it
    Buffer(std::shared_ptr<Context> context, int64_t count, const char* what)
        : context_(std::move(context)), count_(count) {
        if (count == 0) return;
        data_ = static_cast<T*>(context_->allocate(bytes(), what));
        check(cudaMemsetAsync(data_, 0, bytes(), context_->stream()), "cudaMemsetAsync");
    }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        Buffer(std::move(other)).swap(*this);
        return *this;
    }
    ~Buffer() {
        if (data_) context_->free(data_);
    }
    T* data() const { return data_; }
    int64_t count() const { return count_; }
    size_t bytes() const { return static_cast<size_t>(count_) * sizeof(T); }

    // Host memory may be reused on return.
    void upload(const T* host, int64_t count, int64_t at = 0) {
        if (count > 0) context_->upload(data_ + at, host, static_cast<size_t>(count) * sizeof(T));
    }
    void download(T* host, int64_t count, int64_t at = 0) const {
        if (count > 0) context_->download(host, data_ + at, static_cast<size_t>(count) * sizeof(T));
    }
    std::vector<T> download() const {
        std::vector<T> host(static_cast<size_t>(count_));
        download(host.data(), count_);
        return host;
    }

  private:
    void swap(Buffer& other) {
        std::swap(context_, other.context_);
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
    }

    std::shared_ptr<Context> context_;
    T* data_ = nullptr;
    int64_t count_ = 0;
};

// The same on the host, for copies that run beside kernels.
template <class T>
class Pinned {
  public:
    Pinned() = default;
    explicit Pinned(int64_t count) : count_(count) {
        void* memory = nullptr;
        if (count > 0) check(cudaMallocHost(&memory, static_cast<size_t>(count) * sizeof(T)), "cudaMallocHost");
        data_.reset(static_cast<T*>(memory));
    }
    T* data() const { return data_.get(); }
    int64_t count() const { return count_; }

  private:
    struct Free {
        void operator()(T* memory) const { cudaFreeHost(memory); }
    };
    std::unique_ptr<T, Free> data_;
    int64_t count_ = 0;
};

}  // namespace fusedvae::cuda
