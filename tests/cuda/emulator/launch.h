// SPDX-License-Identifier: MIT
//
// How kernels enter the emulated runtime, and what its own tests ask of it.
#pragma once
#include <functional>

#include "cuda_runtime.h"

namespace emulator {

struct Launch {
    const char* name;
    dim3 grid, block;
    size_t shared_bytes, parameter_bytes;
};

// Gives the stream a kernel: `body` is called as each of its threads.
cudaError_t launch(const Launch& launch, cudaStream_t stream, std::function<void()> body);

// Forgets a kernel's fault, which otherwise all later calls return.
void forget_fault();

}  // namespace emulator
