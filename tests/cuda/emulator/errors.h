// SPDX-License-Identifier: MIT
//
// What every call of the emulated runtime does first and last.
#pragma once
#include <mutex>
#include <string>

#include "cuda_runtime.h"

namespace emulator {

std::unique_lock<std::recursive_mutex> lock_runtime();

// A call: holds the runtime's lock, and knows at once whether it must fail (settings' fail, a kernel's earlier fault).
//
//     Call call("cudaMalloc");
//     if (call.failed()) return call.status();
//     ...
//     return call.fail(cudaErrorInvalidValue, "why");  or  return cudaSuccess;
class Call {
  public:
    explicit Call(const char* name);
    bool failed() const { return status_ != cudaSuccess; }
    cudaError_t status() const { return status_; }
    // Remembers the error for cudaGetLastError and `why` for cudaGetErrorString.
    cudaError_t fail(cudaError_t error, const std::string& why);

  private:
    std::unique_lock<std::recursive_mutex> lock_;
    const char* name_;
    cudaError_t status_ = cudaSuccess;
};

// From now on every call fails with this sentence.
void set_fault(const std::string& sentence);
bool faulted();

}  // namespace emulator
