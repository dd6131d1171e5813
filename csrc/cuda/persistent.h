// SPDX-License-Identifier: MIT
//
// The kernel that runs programs (program.h): each group of blocks goes through all stages of all steps.
#pragma once
#include "passes.h"
#include "program.h"

namespace fusedvae::cuda {
namespace {

template <template <class> class Multiply, class S>
__device__ __forceinline__ void run_tile(const Stage& stage, int tile) {
    switch (stage.kind) {
        case Kind::read_rows:
            return read_units<S::threads>(stage.read_rows, tile);
        case Kind::forward:
            return forward_tile<Multiply, S>(stage.forward, tile);
        case Kind::weigh_dimensions:
            return weigh_dimension<S::threads>(stage.dimensions, tile);
        case Kind::sum_losses:
            return sum_losses<S::threads>(stage.losses, tile, 1);
        case Kind::dgrad:
            return dgrad_tile<Multiply, S>(stage.dgrad, tile);
        case Kind::wgrad:
            return wgrad_tile<Multiply, S>(stage.group, tile, 0);
        case Kind::gather_gradient:
            return gather_chunk<S::threads>(stage.gather, tile);
        case Kind::clip:
            return clip<S::threads>(stage.clip);
        case Kind::apply:
            return apply_units<S::threads>(stage.apply, tile);
    }
}

template <template <class> class Multiply, class S>
__global__ void __launch_bounds__(S::threads, S::blocks) run_kernel(const Program* programs, int blocks) {
    static_assert(Shared<Multiply, S>::bytes % alignof(Stage) == 0 && sizeof(Stage) % sizeof(uint32_t) == 0);
    const Program program = programs[static_cast<int>(blockIdx.x) / blocks];
    const int rank = static_cast<int>(blockIdx.x) % blocks, thread = static_cast<int>(threadIdx.x);
    Stage* const stages = reinterpret_cast<Stage*>(shared_memory<unsigned char>() + Shared<Multiply, S>::bytes);
    const int words = program.count * static_cast<int>(sizeof(Stage) / sizeof(uint32_t));
    for (int i = thread; i < words; i += S::threads)
        reinterpret_cast<uint32_t*>(stages)[i] = reinterpret_cast<const uint32_t*>(program.stages)[i];
    for (int at = 0; at < program.steps; ++at) {
        __syncthreads();
        for (int s = thread; s < program.count; s += S::threads) stages[s].clock.at = at;
        __syncthreads();
        int given = 0;  // tiles since the last barrier: who had none of a short stage begins with the one beside it
        for (int s = 0; s < program.count; ++s) {
            const Stage& stage = stages[s];
            const int tiles = stage.tiles[static_cast<int>(kSizeOf<S>)];
            for (int tile = (rank + blocks - given % blocks) % blocks; tile < tiles; tile += blocks) {
                run_tile<Multiply, S>(stage, tile);
                __syncthreads();  // what the epilogue reads is where the next tile's copies go
            }
            given += tiles;
            if (stage.beside) continue;
            group_barrier(program.arrived, static_cast<unsigned>(blocks));
            given = 0;
        }
    }
    if (rank == 0 && thread == 0) program.progress->position += program.steps;
}

// Calls run(shape) for the shape of a size that programs are run in.
template <class Run>
auto with_program_shape(TileSize size, Run run) {
    return size == TileSize::small ? run(Small()) : run(Medium());
}
template <template <class> class Multiply, class S>
constexpr size_t program_bytes(int most_stages) {
    return Shared<Multiply, S>::bytes + static_cast<size_t>(most_stages) * sizeof(Stage);
}

template <template <class> class Multiply>
void launch_run(const Program* programs, int groups, int blocks, bool clusters, int most_stages, TileSize size,
                cudaStream_t stream) {
    with_program_shape(size, [&](auto shape) {
        using S = decltype(shape);
        launch_groups("run", run_kernel<Multiply, S>, groups, blocks, clusters, dim3(S::threads),
                      program_bytes<Multiply, S>(most_stages), stream, programs, blocks);
    });
}
template <template <class> class Multiply>
int room_for_run(int most_stages, TileSize size) {
    return with_program_shape(size, [&](auto shape) {
        using S = decltype(shape);
        return blocks_per_multiprocessor("run", run_kernel<Multiply, S>, S::threads,
                                         program_bytes<Multiply, S>(most_stages),
                                         program_bytes<Multiply, S>(kMostStages));
    });
}

}  // namespace
}  // namespace fusedvae::cuda

#define FUSEDVAE_DEFINE_KERNELS(symbol, multiply, bfloat16)                                           \
    namespace fusedvae::cuda {                                                                        \
    const Kernels symbol = {launch_forward<multiply>, launch_dgrad<multiply>, launch_wgrad<multiply>, \
                            launch_run<multiply>,     room_for_run<multiply>, bfloat16};              \
    }
