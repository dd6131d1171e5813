// SPDX-License-Identifier: MIT
//
// The three passes: product, then epilogue on the tile it leaves; and their kernels.
#pragma once
#include "cuda/launch.h"
#include "epilogue_forward.h"
#include "kernels.h"
#include "microkernel.h"
#include "reductions.h"
#include "row_types.h"

namespace fusedvae::cuda {
namespace {

// The step's part of the order, for factors that are gathered.
__device__ __forceinline__ const uint32_t* index_now(const Factor& f, const Clock& clock) {
    return f.index ? f.index + now(clock).first_row : nullptr;
}
template <class T>
__device__ __forceinline__ Operand<T> operand(const Factor& f, const uint32_t* index, int outer0, int outers,
                                              int inner0, int inners) {
    return {static_cast<const T*>(f.data), f.ld, index, f.repeat, f.offset, outer0, outers, inner0, inners};
}
template <class T>
__device__ __forceinline__ Operand<T> operand(const void* weight, int64_t ld, int outer0, int outers, int inners) {
    return {static_cast<const T*>(weight), ld, nullptr, 1, 0, outer0, outers, 0, inners};
}

// ---- one tile of a pass --------------------------------------------------------------------------------------------------

// Neighbouring tiles are neighbouring rows: they read the same weights.
template <class S>
__host__ __device__ constexpr int across(int rows) {
    return (rows + S::M - 1) / S::M;
}
template <class S>
__device__ __forceinline__ Place place_of(int tile, int rows) {
    return {tile % across<S>(rows) * S::M, tile / across<S>(rows) * S::N};
}

template <template <class> class Multiply, class S>
__device__ __forceinline__ void forward_tile(const Forward& f, int tile_of) {
    using T = typename Multiply<S>::Element;
    const Place at = place_of<S>(tile_of, f.B);
    const uint32_t* target = index_now(f.target, f.clock);
    const float* tile = multiply<Multiply, S, Walk::along, Walk::along>(
        operand<T>(f.x, index_now(f.x, f.clock), at.b0, f.B, 0, f.K),
        operand<T>(f.weight, f.ld_weight, at.c0, f.N, f.K), [](const T*) {});
    switch (f.epilogue) {
        case Epilogue::linear_act:
            return linear_act<S, T>(f, tile, at);
        case Epilogue::reparameterize_kl:
            return reparameterize_kl<S, T>(f, tile, at);
        case Epilogue::bernoulli_nll:
            return bernoulli_nll<S, T>(f, target, tile, at);
        case Epilogue::gaussian_nll:
            return gaussian_nll<S, T>(f, target, tile, at, Shared<Multiply, S>::column_scratch());
        case Epilogue::gaussian_element_nll:
            return gaussian_element_nll<S, T>(f, target, tile, at);
        default:
            return;  // the other entries of the list belong to the other passes
    }
}

template <template <class> class Multiply, class S>
__device__ __forceinline__ void dgrad_tile(const Dgrad& g, int tile_of) {
    using T = typename Multiply<S>::Element;
    const Place at = place_of<S>(tile_of, g.B);
    const float* tile = multiply<Multiply, S, Walk::along, Walk::across>(
        operand<T>(g.dy, nullptr, at.b0, g.B, 0, g.N), operand<T>(g.weight, g.ld_weight, at.c0, g.K, g.N),
        [](const T*) {});
    if (g.epilogue == Epilogue::act_grad) return act_grad<S, T>(g, tile, at);
    reparameterize_grad<S, T>(g, tile, at);
}

// Of every layer's dW (N, K), one after another, and a piece of the batch. Tiles at k0 = 0 also sum the columns of dY as
// they pass.
template <template <class> class Multiply, class S>
__device__ __forceinline__ void wgrad_tile(const Group& group, int tile_of, int split) {
    using T = typename Multiply<S>::Element;
    using A = Side<T, Walk::across, S::M, S::threads>;
    if (group.clock.progress->failed) return;
    const Wgrad* layer = group.table;
    for (int own; tile_of >= (own = across<S>(layer->N) * ((layer->K + S::N - 1) / S::N)); ++layer) tile_of -= own;
    const Wgrad g = *layer;
    const int tiles_k = (g.K + S::N - 1) / S::N;
    const int n0 = tile_of / tiles_k * S::M, k0 = tile_of % tiles_k * S::N;
    const int first = split * group.rows_per_split;
    const int last = g.B - first < group.rows_per_split ? g.B : first + group.rows_per_split;

    if (group.epilogue != Epilogue::store) prefetch_weights<S>(group.flat, g, n0, k0);
    float sum = 0.0f, squares = 0.0f;
    const bool sums = k0 == 0 && static_cast<int>(threadIdx.x) < S::M;
    const float* tile = multiply<Multiply, S, Walk::across, Walk::across>(
        operand<T>(g.dy, nullptr, n0, g.N, first, last),
        operand<T>(g.x, index_now(g.x, group.clock), k0, g.K, first, last), [&](const T* stage) {
            if (!sums) return;
            for (int i = 0; i < A::inner; ++i) {
                const float dy = to_float(stage[i * A::ld + static_cast<int>(threadIdx.x)]);
                sum = __fadd_rn(sum, dy);
                squares = __fmaf_rn(dy, dy, squares);
            }
        });
    const Update u = now(group.clock).update;
    finish_weights<S>(group, g, u, tile, n0, k0, split);
    if (sums) finish_column(group, g, u, n0 + static_cast<int>(threadIdx.x), split, last - first, sum, squares);
}

// ---- kernels -------------------------------------------------------------------------------------------------------------

template <template <class> class Multiply, class S>
__global__ void __launch_bounds__(S::threads, S::blocks) forward_kernel(const Forward f) {
    forward_tile<Multiply, S>(f, static_cast<int>(blockIdx.x));
}
template <template <class> class Multiply, class S>
__global__ void __launch_bounds__(S::threads, S::blocks) dgrad_kernel(const Dgrad g) {
    dgrad_tile<Multiply, S>(g, static_cast<int>(blockIdx.x));
}
template <template <class> class Multiply, class S>
__global__ void __launch_bounds__(S::threads, S::blocks) wgrad_kernel(const Group group) {
    wgrad_tile<Multiply, S>(group, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
}

// Calls run(shape) for the shape of a size.
template <class Run>
void with_shape(TileSize size, Run run) {
    if (size == TileSize::small) return run(Small());
    if (size == TileSize::medium) return run(Medium());
    run(Large());
}

template <class S>
constexpr TileSize kSizeOf = S::M == side_of(TileSize::small)    ? TileSize::small
                             : S::M == side_of(TileSize::medium) ? TileSize::medium
                                                                 : TileSize::large;

static_assert(Shared<Fma, Large>::bytes <= 112 * 1024 && Shared<Bfloat16, Large>::bytes <= 112 * 1024, "device.cu");

template <template <class> class Multiply>
void launch_forward(const Forward& f, TileSize size, cudaStream_t stream) {
    with_shape(size, [&](auto shape) {
        using S = decltype(shape);
        launch("forward", forward_kernel<Multiply, S>, dim3(static_cast<unsigned>(tiles_of(f, size))), dim3(S::threads),
               Shared<Multiply, S>::bytes, stream, f);
    });
}
template <template <class> class Multiply>
void launch_dgrad(const Dgrad& g, TileSize size, cudaStream_t stream) {
    with_shape(size, [&](auto shape) {
        using S = decltype(shape);
        launch("dgrad", dgrad_kernel<Multiply, S>, dim3(static_cast<unsigned>(tiles_of(g, size))), dim3(S::threads),
               Shared<Multiply, S>::bytes, stream, g);
    });
}
template <template <class> class Multiply>
void launch_wgrad(const Group& group, int tiles, TileSize size, cudaStream_t stream) {
    with_shape(size, [&](auto shape) {
        using S = decltype(shape);
        launch("wgrad", wgrad_kernel<Multiply, S>,
               dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(group.splits)), dim3(S::threads),
               Shared<Multiply, S>::bytes, stream, group);
    });
}

}  // namespace
}  // namespace fusedvae::cuda
