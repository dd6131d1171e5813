// SPDX-License-Identifier: MIT
//
// The one way to start a kernel. Arguments are converted to the kernel's parameter types; the launch is checked at once,
// and `launcher` names it in the error. Included as "cuda/launch.h", so that another runtime can put its own first.
#pragma once
#include <cuda_runtime.h>

#include <tuple>
#include <utility>

#include "error.h"

namespace fusedvae::cuda {

constexpr size_t kStaticLimit = 48 * 1024;  // shared memory that a block gets without asking

template <class... Parameters, class... Arguments>
void launch(const char* launcher, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Arguments&&... arguments) {
    std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    if (shared_bytes > kStaticLimit)
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              launcher);
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    std::apply(
        [&](auto&... value) {
            void* pointers[] = {&value...};
            check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers), launcher);
            note_launch(launcher);
        },
        values);
}

}  // namespace fusedvae::cuda
