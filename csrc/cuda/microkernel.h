// SPDX-License-Identifier: MIT
//
// The main loop: one block's tile (M, N) = A (M, inner) . B (inner, N), from global memory through a ring of shared stages
// into registers, and from there into a scratch tile in shared memory for the epilogue.
//
//     stage   | A: M rows of 128 bytes | B: N rows of 128 bytes |      `along`: rows run along the inner dimension
//             | A: inner rows of M     | B: inner rows of N     |      `across`: rows run across it, as dW reads X and dY
//
// Three ways to multiply a stage, float32 (Fma), tf32 and bfloat16 on tensor cores, behind one interface: accumulate and
// unload. Each element is one chain over the inner dimension in order, so its bits depend on no tile shape. A faster loop
// for one architecture (wgmma with bulk copies) would be a fourth.
#pragma once
#include "cuda/ptx.h"
#include "jobs.h"

namespace fusedvae::cuda {
namespace {

enum class Walk { along, across };

// A small net at batch 128 is latency: small tiles spread a layer over as many multiprocessors as there are, with a deep
// ring. Large ones read each operand less often: 128 x 128 reads a byte for every 32 (float32) or 64 (bfloat16) operations.
template <int kM, int kN, int kThreads, int kStages, int kRows, int kColumns, int kWarpM, int kWarpN>
struct Shape {
    static constexpr int M = kM, N = kN, threads = kThreads, stages = kStages;
    static constexpr int rows = kRows, columns = kColumns;  // of a thread of Fma
    static constexpr int warp_m = kWarpM, warp_n = kWarpN;  // of a warp on tensor cores
    static constexpr int tile_ld = kN + 4;                  // the scratch tile's: rows of 16 bytes, banks shifted
    static constexpr int blocks = kM == 32 ? 4 : kM == 64 ? 3 : 1;  // per multiprocessor that registers must allow
};
using Small = Shape<32, 32, 128, 4, 2, 4, 16, 16>;
using Medium = Shape<64, 64, 128, 3, 8, 4, 32, 32>;
using Large = Shape<128, 128, 256, 3, 8, 8, 64, 32>;

// One operand of a block as it lies in memory: `outers` rows (A) or columns (B) from outer0 on, `inners` terms.
template <class T>
struct Operand {
    const T* data;
    int64_t ld;
    const uint32_t* index;
    int repeat, offset;
    int outer0, outers, inner0, inners;

    __device__ __forceinline__ const T* row(int i) const {
        const int64_t at = index ? index[i] : repeat == 1 ? i : (offset + i) / repeat;
        return data + at * ld;
    }
};

// Its part of a stage, and the copies that fill it: every thread moves kOuter / (threads / 8) pieces of 16 bytes. Rows of
// 144 bytes (along), and 16 bytes more than the tile (across), leave no two lanes of a load in one bank.
template <class T, Walk kWalk, int kOuter, int kThreads>
struct Side {
    static constexpr Walk walk = kWalk;
    static constexpr int piece = 16 / sizeof(T), inner = 128 / sizeof(T);
    static constexpr int ld = kWalk == Walk::along ? inner + piece : kOuter + 8;
    static constexpr int size = (kWalk == Walk::along ? kOuter : inner) * ld;
    static constexpr int pieces_per_row = (kWalk == Walk::along ? inner : kOuter) / piece;
    static constexpr int rows_at_once = kThreads / pieces_per_row;
    static constexpr int copies = kOuter * inner / piece / kThreads;

    const Operand<T>& from;
    int column;             // this thread's piece of a row
    const T* rows[copies];  // along: where this thread's rows begin; NULL past the last one

    __device__ __forceinline__ explicit Side(const Operand<T>& operand)
        : from(operand), column(static_cast<int>(threadIdx.x) % pieces_per_row * piece) {
        if constexpr (kWalk == Walk::along) {
#pragma unroll
            for (int i = 0; i < copies; ++i) {
                const int outer = from.outer0 + first() + i * rows_at_once;
                rows[i] = outer < from.outers ? from.row(outer) : nullptr;
            }
        }
    }
    static __device__ __forceinline__ int first() { return static_cast<int>(threadIdx.x) / pieces_per_row; }

    __device__ __forceinline__ void copy(T* stage, int k) const {
#pragma unroll
        for (int i = 0; i < copies; ++i) {
            const int r = first() + i * rows_at_once;
            bool valid;
            const T* source;
            if constexpr (kWalk == Walk::along) {
                valid = rows[i] && k + column < from.inners;
                source = rows[i] + k + column;
            } else {
                valid = k + r < from.inners && from.outer0 + column < from.outers;
                source = valid ? from.row(k + r) + from.outer0 + column : nullptr;
            }
            copy_async16(stage + r * ld + column, valid ? source : from.data, valid);
        }
    }
};

// ---- float32 -----------------------------------------------------------------------------------------------------------

template <class S>
struct Fma {
    using Element = float;
    static constexpr int across_x = S::N / S::columns, across_y = S::M / S::rows;

    float sums[S::rows][S::columns] = {};

    // Which of the tile's rows (or columns) the i-th of thread t's is: neighbours where a load takes several.
    template <class Side, int kCount, int kThreads>
    static __device__ __forceinline__ int own(int i, int t) {
        constexpr int group = kCount < 4 ? kCount : 4;
        if constexpr (Side::walk == Walk::along)
            return t + i * kThreads;
        else
            return i / group * group * kThreads + t * group + i % group;
    }
    // Four terms of the inner dimension.
    template <class Side, int kCount, int kThreads>
    static __device__ __forceinline__ void load(float v[4][kCount], const float* stage, int k, int t) {
        constexpr int group = kCount < 4 ? kCount : 4;
        if constexpr (Side::walk == Walk::along) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                const float4 four = *reinterpret_cast<const float4*>(stage + (t + i * kThreads) * Side::ld + k);
                v[0][i] = four.x, v[1][i] = four.y, v[2][i] = four.z, v[3][i] = four.w;
            }
        } else {
#pragma unroll
            for (int term = 0; term < 4; ++term)
#pragma unroll
                for (int i = 0; i < kCount; i += group) {
                    const float* p = stage + (k + term) * Side::ld + i * kThreads + t * group;
                    if constexpr (group == 4) {
                        const float4 four = *reinterpret_cast<const float4*>(p);
                        v[term][i] = four.x, v[term][i + 1] = four.y, v[term][i + 2] = four.z, v[term][i + 3] = four.w;
                    } else {
                        const float2 two = *reinterpret_cast<const float2*>(p);
                        v[term][i] = two.x, v[term][i + 1] = two.y;
                    }
                }
        }
    }
    template <class A, class B>
    __device__ __forceinline__ void accumulate(const float* a, const float* b) {
        const int tx = static_cast<int>(threadIdx.x) % across_x, ty = static_cast<int>(threadIdx.x) / across_x;
#pragma unroll
        for (int k = 0; k < A::inner; k += 4) {
            float left[4][S::rows], right[4][S::columns];
            load<A, S::rows, across_y>(left, a, k, ty);
            load<B, S::columns, across_x>(right, b, k, tx);
#pragma unroll
            for (int term = 0; term < 4; ++term)
#pragma unroll
                for (int i = 0; i < S::rows; ++i)
#pragma unroll
                    for (int j = 0; j < S::columns; ++j)
                        sums[i][j] = __fmaf_rn(left[term][i], right[term][j], sums[i][j]);
        }
    }
    template <class A, class B>
    __device__ __forceinline__ void unload(float* tile) const {
        const int tx = static_cast<int>(threadIdx.x) % across_x, ty = static_cast<int>(threadIdx.x) / across_x;
#pragma unroll
        for (int i = 0; i < S::rows; ++i)
#pragma unroll
            for (int j = 0; j < S::columns; ++j)
                tile[own<A, S::rows, across_y>(i, ty) * S::tile_ld + own<B, S::columns, across_x>(j, tx)] = sums[i][j];
    }
};

// ---- tensor cores ------------------------------------------------------------------------------------------------------

// What tf32 and bfloat16 share: a warp's part of the tile in pieces of (16, 8).
template <class S>
struct Warps {
    static constexpr int across = S::N / S::warp_n, pieces_m = S::warp_m / 16, pieces_n = S::warp_n / 8;

    float sums[pieces_m][pieces_n][4] = {};

    static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
    static __device__ __forceinline__ int first_row() {
        return static_cast<int>(threadIdx.x) / 32 / across * S::warp_m;
    }
    static __device__ __forceinline__ int first_column() {
        return static_cast<int>(threadIdx.x) / 32 % across * S::warp_n;
    }
    template <class A, class B>
    __device__ __forceinline__ void unload(float* tile) const {
        const int g = lane() / 4, t = lane() % 4;
#pragma unroll
        for (int i = 0; i < pieces_m; ++i)
#pragma unroll
            for (int j = 0; j < pieces_n; ++j) {
                float* out = tile + (first_row() + 16 * i + g) * S::tile_ld + first_column() + 8 * j + 2 * t;
                *reinterpret_cast<float2*>(out) = make_float2(sums[i][j][0], sums[i][j][1]);
                *reinterpret_cast<float2*>(out + 8 * S::tile_ld) = make_float2(sums[i][j][2], sums[i][j][3]);
            }
    }
};

template <class S>
struct Tf32 : Warps<S> {
    using Element = float;
    using Base = Warps<S>;

    template <class Side>
    static __device__ __forceinline__ uint32_t load(const float* stage, int outer, int k) {
        return to_tf32(Side::walk == Walk::along ? stage[outer * Side::ld + k] : stage[k * Side::ld + outer]);
    }
    template <class A, class B>
    __device__ __forceinline__ void accumulate(const float* a, const float* b) {
        const int g = Base::lane() / 4, t = Base::lane() % 4;
#pragma unroll
        for (int k = 0; k < A::inner; k += 8) {
            uint32_t left[Base::pieces_m][4], right[Base::pieces_n][2];
#pragma unroll
            for (int i = 0; i < Base::pieces_m; ++i) {
                const int m = Base::first_row() + 16 * i + g;
                left[i][0] = load<A>(a, m, k + t);
                left[i][1] = load<A>(a, m + 8, k + t);
                left[i][2] = load<A>(a, m, k + t + 4);
                left[i][3] = load<A>(a, m + 8, k + t + 4);
            }
#pragma unroll
            for (int j = 0; j < Base::pieces_n; ++j) {
                const int n = Base::first_column() + 8 * j + g;
                right[j][0] = load<B>(b, n, k + t);
                right[j][1] = load<B>(b, n, k + t + 4);
            }
#pragma unroll
            for (int i = 0; i < Base::pieces_m; ++i)
#pragma unroll
                for (int j = 0; j < Base::pieces_n; ++j) mma_tf32(Base::sums[i][j], left[i], right[j]);
        }
    }
};

template <class S>
struct Bfloat16 : Warps<S> {
    using Element = uint16_t;
    using Base = Warps<S>;

    // Four 8 x 8 pieces from (outer, k) on: the second one 8 further along the outer dimension and the third along the
    // inner one (A's fragment), or the other way round (two of B's).
    template <class Side, bool kOuterFirst>
    static __device__ __forceinline__ void load(uint32_t r[4], const uint16_t* stage, int outer, int k) {
        const int row = Base::lane() % 8, second = Base::lane() / 8 % 2 * 8, third = Base::lane() / 16 * 8;
        outer += kOuterFirst ? second : third;
        k += kOuterFirst ? third : second;
        if constexpr (Side::walk == Walk::along)
            ldmatrix_x4(r, stage + (outer + row) * Side::ld + k);
        else
            ldmatrix_x4_transposed(r, stage + (k + row) * Side::ld + outer);
    }
    template <class A, class B>
    __device__ __forceinline__ void accumulate(const uint16_t* a, const uint16_t* b) {
#pragma unroll
        for (int k = 0; k < A::inner; k += 16) {
            uint32_t left[Base::pieces_m][4], right[Base::pieces_n / 2][4];
#pragma unroll
            for (int i = 0; i < Base::pieces_m; ++i) load<A, true>(left[i], a, Base::first_row() + 16 * i, k);
#pragma unroll
            for (int j = 0; j < Base::pieces_n / 2; ++j) load<B, false>(right[j], b, Base::first_column() + 16 * j, k);
#pragma unroll
            for (int i = 0; i < Base::pieces_m; ++i)
#pragma unroll
                for (int j = 0; j < Base::pieces_n; ++j) mma_bf16(Base::sums[i][j], left[i], right[j / 2] + j % 2 * 2);
        }
    }
};

// ---- the loop ----------------------------------------------------------------------------------------------------------

// Shared memory: the ring, or the scratch tile that takes its place, and two rows of floats for epilogues.
template <template <class> class Multiply, class S>
struct Shared {
    using T = typename Multiply<S>::Element;
    template <Walk kWalk, int kOuter>
    static constexpr int size = Side<T, kWalk, kOuter, S::threads>::size;
    static constexpr size_t a =
        size<Walk::along, S::M> > size<Walk::across, S::M> ? size<Walk::along, S::M> : size<Walk::across, S::M>;
    static constexpr size_t b =
        size<Walk::along, S::N> > size<Walk::across, S::N> ? size<Walk::along, S::N> : size<Walk::across, S::N>;
    static constexpr size_t ring = S::stages * (a + b) * sizeof(T), tile = S::M * S::tile_ld * sizeof(float);
    static constexpr size_t columns = ring > tile ? ring : tile, bytes = columns + 2 * S::N * sizeof(float);

    static __device__ __forceinline__ float* column_scratch() {
        return reinterpret_cast<float*>(shared_memory<unsigned char>() + columns);
    }
};

// Leaves the product in the returned tile (M, tile_ld). visit(stage of A) sees every stage as it passes.
template <template <class> class Multiply, class S, Walk kWalkA, Walk kWalkB, class T, class Visit>
__device__ __forceinline__ float* multiply(const Operand<T>& left, const Operand<T>& right, Visit visit) {
    using A = Side<T, kWalkA, S::M, S::threads>;
    using B = Side<T, kWalkB, S::N, S::threads>;
    const A a(left);
    const B b(right);
    T* const ring = shared_memory<T>();
    constexpr int stage = A::size + B::size;
    const int first = left.inner0, steps = (left.inners - first + A::inner - 1) / A::inner;

    Multiply<S> product;
#pragma unroll
    for (int s = 0; s < S::stages - 1; ++s) {
        if (s < steps) {
            a.copy(ring + s * stage, first + s * A::inner);
            b.copy(ring + s * stage + A::size, first + s * A::inner);
        }
        commit_copies();
    }
    for (int step = 0, slot = 0; step < steps; ++step) {
        wait_copies<S::stages - 2>();
        __syncthreads();  // everyone's copies have come, and nobody still reads the slot that is filled next
        const int next = step + S::stages - 1, free_slot = slot == 0 ? S::stages - 1 : slot - 1;
        if (next < steps) {
            a.copy(ring + free_slot * stage, first + next * A::inner);
            b.copy(ring + free_slot * stage + A::size, first + next * A::inner);
        }
        commit_copies();
        visit(ring + slot * stage);
        product.template accumulate<A, B>(ring + slot * stage, ring + slot * stage + A::size);
        slot = slot + 1 == S::stages ? 0 : slot + 1;
    }
    wait_copies<0>();
    __syncthreads();
    float* const tile = reinterpret_cast<float*>(ring);
    product.template unload<A, B>(tile);
    __syncthreads();
    return tile;
}

}  // namespace
}  // namespace fusedvae::cuda
