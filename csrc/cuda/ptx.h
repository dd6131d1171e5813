// SPDX-License-Identifier: MIT
//
// The instructions that C++ has no words for. Included as "cuda/ptx.h", so that another runtime can put its own first.
// Fragments are laid out as the PTX manual draws them (section "Matrix multiply-accumulate operation using mma").
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

namespace fusedvae::cuda {

// The block's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* shared_memory() {
    extern __shared__ __align__(16) unsigned char fusedvae_shared[];
    return reinterpret_cast<T*>(fusedvae_shared);
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory without a register between; zeros where not valid (then nothing is read).
__device__ __forceinline__ void copy_async16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0));
}
// The copies since the last call become one group.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;\n"); }
// Waits until at most N groups of this thread are under way.
template <int N>
__device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N));
}

// A barrier of a group of blocks, after which each sees what the others wrote. arrived NULL: the group is a cluster; else
// its blocks all run now, and count themselves there: zero at first, and nobody else's.
__device__ __forceinline__ void group_barrier(unsigned* arrived, unsigned blocks) {
    if (blocks == 1) return __syncthreads();
    if (!arrived) {
#if __CUDA_ARCH__ >= 900
        __syncwarp();
        asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n" ::: "memory");
#else
        __trap();
#endif
        return;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const unsigned until = (atomicAdd(arrived, 1u) / blocks + 1) * blocks;  // all of this round have come
        while (static_cast<int>(*static_cast<volatile unsigned*>(arrived) - until) < 0) {
        }
        __threadfence();
    }
    __syncthreads();
}

// Brings a line of 128 bytes into the second-level cache.
__device__ __forceinline__ void prefetch_line(const void* global) {
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(global));
}

// Nearest with 11 significant bits, ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(x));
    return bits;
}
// Two floats as bfloat16, nearest even; `low` in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// d (16, 8) += a (16, 8) b (8, 8)
__device__ __forceinline__ void mma_tf32(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d (16, 8) += a (16, 16) b (16, 8)
__device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit values: lane l points at row l % 8 of matrix l / 8 (16 bytes in shared memory) and gets
// elements (l / 4, 2 (l % 4)) and the next one of each; transposed: of each matrix's transpose.
__device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t r[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

}  // namespace fusedvae::cuda
