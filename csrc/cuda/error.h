// SPDX-License-Identifier: MIT
//
// CUDA's status codes as this library's errors.
#pragma once
#include <cuda_runtime.h>

#include <string>

namespace fusedvae::cuda {

// Throws Error naming `what` (a call or a kernel) and CUDA's reason; device.cu.
[[noreturn]] void fail(cudaError_t status, const char* what);

// What this thread launched last: where a call fails because of earlier work, the message names it.
void note_launch(const char* launcher);

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) fail(status, what);
}

}  // namespace fusedvae::cuda
