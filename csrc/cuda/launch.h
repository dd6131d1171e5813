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

template <class... Parameters>
void allow_shared(const char* launcher, void (*kernel)(Parameters...), size_t shared_bytes) {
    if (shared_bytes <= kStaticLimit) return;
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          launcher);
}

// attribute: of the launch, or NULL
template <class... Parameters, class... Arguments>
void launch_with(cudaLaunchAttribute* attribute, const char* launcher, void (*kernel)(Parameters...), dim3 grid,
                 dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
    std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = attribute;
    config.numAttrs = attribute ? 1 : 0;
    std::apply(
        [&](auto&... value) {
            void* pointers[] = {&value...};
            check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers), launcher);
            note_launch(launcher);
        },
        values);
}

template <class... Parameters, class... Arguments>
void launch(const char* launcher, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Arguments&&... arguments) {
    allow_shared(launcher, kernel, shared_bytes);
    launch_with(nullptr, launcher, kernel, grid, block, shared_bytes, stream, std::forward<Arguments>(arguments)...);
}

// Groups of blocks that wait for one another: a cluster each, or all of the grid at once. blocks_per_multiprocessor was
// asked before, and told the most shared memory of any launch: what a kernel is allowed is one setting for all threads.
template <class... Parameters, class... Arguments>
void launch_groups(const char* launcher, void (*kernel)(Parameters...), int groups, int blocks, bool clusters,
                   dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
    cudaLaunchAttribute attribute{};
    if (clusters) {
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = static_cast<unsigned>(blocks);
        attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    } else {
        attribute.id = cudaLaunchAttributeCooperative;
        attribute.val.cooperative = 1;
    }
    const dim3 grid(static_cast<unsigned>(groups) * static_cast<unsigned>(blocks));
    launch_with(&attribute, launcher, kernel, grid, block, shared_bytes, stream, std::forward<Arguments>(arguments)...);
}

// What a kernel's code was compiled for: 80, 90, ..
template <class... Parameters>
int code_version(void (*kernel)(Parameters...)) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)), "cudaFuncGetAttributes");
    return attributes.ptxVersion;
}

template <class... Parameters>
int blocks_per_multiprocessor(const char* launcher, void (*kernel)(Parameters...), int threads, size_t shared_bytes,
                              size_t most_shared_bytes) {
    int blocks = 0;
    allow_shared(launcher, kernel, most_shared_bytes);
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes), launcher);
    return blocks;
}

}  // namespace fusedvae::cuda
