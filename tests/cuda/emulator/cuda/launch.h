// SPDX-License-Identifier: MIT
//
// csrc/cuda/launch.h for the emulator: a launch is a closure that the stream runs.
#pragma once
#include <tuple>
#include <utility>

#include "../cuda_runtime.h"
#include "../launch.h"
#include "../settings.h"
#include "cuda/error.h"

namespace fusedvae::cuda {

template <class... Parameters, class... Arguments>
void launch(const char* launcher, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Arguments&&... arguments) {
    const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    check(emulator::launch({launcher, grid, block, shared_bytes, sizeof values}, stream,
                           [kernel, values] { std::apply(kernel, values); }),
          launcher);
}

template <class... Parameters, class... Arguments>
void launch_groups(const char* launcher, void (*kernel)(Parameters...), int groups, int blocks, bool clusters,
                   dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
    const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    const auto together = static_cast<unsigned>(blocks);
    const dim3 grid(static_cast<unsigned>(groups) * together);
    check(emulator::launch_groups({launcher, grid, block, shared_bytes, sizeof values, together}, clusters, stream,
                                  [kernel, values] { std::apply(kernel, values); }),
          launcher);
}

template <class... Parameters>
int blocks_per_multiprocessor(const char*, void (*)(Parameters...), int threads, size_t shared_bytes, size_t) {
    return emulator::blocks_per_multiprocessor(threads, shared_bytes);
}

template <class... Parameters>
int code_version(void (*)(Parameters...)) {
    return emulator::settings().architecture;
}

}  // namespace fusedvae::cuda
