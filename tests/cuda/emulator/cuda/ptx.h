// SPDX-License-Identifier: MIT
//
// csrc/cuda/ptx.h for the emulator: the same functions with the meaning and the fragment layouts of the PTX ISA manual
// (9.7.14.5, "Matrix Fragments for mma.m16n8k8 / m16n8k16"; 9.7.14.5.15, ldmatrix). With g = lane / 4 and t = lane % 4:
//
//     A  m16n8k8 tf32    a0 (g, t)   a1 (g + 8, t)   a2 (g, t + 4)   a3 (g + 8, t + 4)
//        m16n8k16 bf16   pairs of columns 2t, 2t + 1: a0 row g, a1 row g + 8, a2 and a3 the same 8 columns further
//     B  m16n8k8 tf32    b0 (t, g)   b1 (t + 4, g)
//        m16n8k16 bf16   pairs of rows 2t, 2t + 1 of column g: b0, and b1 8 rows further
//     D  both            d0 (g, 2t)  d1 (g, 2t + 1)  d2, d3 the same 8 rows further
//
// The lower half of a register is the element that comes first. Products are exact; their sum with d, which the manual
// leaves open ("at least single precision"), is rounded once, towards zero, as the hardware has been seen to do.
#pragma once
#include <cstdint>

#include "../device_code.h"

namespace fusedvae::cuda {

inline float round_towards_zero(double x) {
    const auto nearest = static_cast<float>(x);
    return std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? std::nextafterf(nearest, 0.0f) : nearest;
}

inline float tf32_value(uint32_t bits) { return __uint_as_float(bits & 0xffffe000u); }  // 10 bits of fraction
inline float bf16_value(uint32_t pair, int half) { return __uint_as_float((half ? pair >> 16 : pair) << 16); }

inline void prefetch_line(const void*) {}

inline void group_barrier(unsigned*, unsigned blocks, emulator::Where where = emulator::Where::here()) {
    emulator::blocks_barrier(blocks, where);
}

struct MmaLane {
    float* d;
    const uint32_t *a, *b;
};

// D += A B with A (16, K), B (K, 8) from the lanes' registers.
template <int K, class A, class B>
void warp_mma(void* const lanes[emulator::kWarp], A a_of, B b_of) {
    float a[16][K], b[K][8];
    for (int lane = 0; lane < emulator::kWarp; ++lane) {
        const auto& mine = *static_cast<const MmaLane*>(lanes[lane]);
        a_of(a, mine.a, lane / 4, lane % 4);
        b_of(b, mine.b, lane / 4, lane % 4);
    }
    for (int lane = 0; lane < emulator::kWarp; ++lane) {
        float* d = static_cast<const MmaLane*>(lanes[lane])->d;
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = d[i];
            for (int k = 0; k < K; ++k) sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
            d[i] = round_towards_zero(sum);
        }
    }
}

inline void mma_tf32(float d[4], const uint32_t a[4], const uint32_t b[2],
                     emulator::Where where = emulator::Where::here()) {
    MmaLane mine{d, a, b};
    emulator::collective(
        "mma_tf32()", &mine,
        [](void* const lanes[emulator::kWarp]) {
            warp_mma<8>(
                lanes,
                [](float(*m)[8], const uint32_t* r, int g, int t) {
                    for (int i = 0; i < 4; ++i) m[g + i % 2 * 8][t + i / 2 * 4] = tf32_value(r[i]);
                },
                [](float(*m)[8], const uint32_t* r, int g, int t) {
                    for (int i = 0; i < 2; ++i) m[t + i * 4][g] = tf32_value(r[i]);
                });
        },
        where);
}

inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2],
                     emulator::Where where = emulator::Where::here()) {
    MmaLane mine{d, a, b};
    emulator::collective(
        "mma_bf16()", &mine,
        [](void* const lanes[emulator::kWarp]) {
            warp_mma<16>(
                lanes,
                [](float(*m)[16], const uint32_t* r, int g, int t) {
                    for (int i = 0; i < 4; ++i)
                        for (int half = 0; half < 2; ++half)
                            m[g + i % 2 * 8][2 * t + half + i / 2 * 8] = bf16_value(r[i], half);
                },
                [](float(*m)[8], const uint32_t* r, int g, int t) {
                    for (int i = 0; i < 2; ++i)
                        for (int half = 0; half < 2; ++half) m[2 * t + half + i * 8][g] = bf16_value(r[i], half);
                });
        },
        where);
}

// cvt.rna.tf32.f32: to the nearest with 10 bits of fraction, ties away from zero.
inline uint32_t to_tf32(float x) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
    return (bits + 0x1000u) & 0xffffe000u;
}

// cvt.rn.bf16x2.f32: to the nearest even; `low` goes to the lower half.
inline uint32_t bf16_bits(float x) {
    const uint32_t bits = __float_as_uint(x);
    if (x != x) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }

struct LdmatrixLane {
    uint32_t* r;
    const void* row;  // of matrix lane / 8, its row lane % 8: 8 elements of 16 bits
    bool transposed;
};

inline void ldmatrix(uint32_t* r, const void* row, bool transposed, emulator::Where where) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulator::fault("ldmatrix needs rows at multiples of 16", where);
    LdmatrixLane mine{r, row, transposed};
    emulator::collective(
        "ldmatrix()", &mine,
        [](void* const lanes[emulator::kWarp]) {
            const auto element = [&](int matrix, int i, int j) -> uint32_t {
                const auto& holder = *static_cast<const LdmatrixLane*>(lanes[matrix * 8 + i]);
                return static_cast<const uint16_t*>(holder.row)[j];
            };
            for (int lane = 0; lane < emulator::kWarp; ++lane) {
                const auto& to = *static_cast<const LdmatrixLane*>(lanes[lane]);
                const int g = lane / 4, t = lane % 4;
                for (int m = 0; m < 4; ++m)
                    to.r[m] = to.transposed ? element(m, 2 * t, g) | element(m, 2 * t + 1, g) << 16
                                            : element(m, g, 2 * t) | element(m, g, 2 * t + 1) << 16;
            }
        },
        where);
}
inline void ldmatrix_x4(uint32_t r[4], const void* row, emulator::Where where = emulator::Where::here()) {
    ldmatrix(r, row, false, where);
}
inline void ldmatrix_x4_transposed(uint32_t r[4], const void* row, emulator::Where where = emulator::Where::here()) {
    ldmatrix(r, row, true, where);
}

inline void copy_async16(void* shared, const void* global, bool valid,
                         emulator::Where where = emulator::Where::here()) {
    emulator::copy_async16(shared, global, valid, where);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int groups>
void wait_copies() {
    emulator::wait_copies(groups);
}

// The block's dynamic shared memory.
template <class T>
T* shared_memory() {
    return static_cast<T*>(emulator::shared_memory());
}

}  // namespace fusedvae::cuda
