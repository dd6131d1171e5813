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
    unsigned together = 1;  // neighbouring blocks that run at the same time
};

// Gives the stream a kernel: `body` is called as each of its threads.
cudaError_t launch(const Launch& launch, cudaStream_t stream, std::function<void()> body);

// The same of groups of blocks that wait for one another: clusters, or as many as all multiprocessors hold at once.
cudaError_t launch_groups(const Launch& launch, bool clusters, cudaStream_t stream, std::function<void()> body);
int blocks_per_multiprocessor(int threads, size_t shared_bytes);

// Forgets a kernel's fault, which otherwise all later calls return.
void forget_fault();

}  // namespace emulator
