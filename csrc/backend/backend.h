// SPDX-License-Identifier: MIT
//
// A backend is a table of functions and tile sizes, one per instruction set, chosen once (select.cpp).
//
// The linker may merge inline functions of files compiled with different flags, and the program then dies with an
// illegal instruction. So the instruction-set files (cpu/isa_*.cpp) include C headers, the intrinsics and our kernel
// headers only, keep everything in an unnamed namespace, and export one constant: their table. A test runs nm over them.
#pragma once
#include "../layer/gemm.h"

namespace fusedvae {

struct Backend {
    const char* name;
    int groups_per_panel;  // widest panel, in kGroup columns
    const int* tallest;    // [groups of a panel] rows of its register tile
    bool bfloat16;         // products read words

    // Tiles of rows [b0, b1) and panels [p0, p1).
    void (*forward)(const Forward&, int b0, int b1, int p0, int p1);
    // One row x (K) through a linear_act layer: y (stored); sums (N padded) is scratch. Neither rows, y nor ld are read.
    void (*forward_row)(const Forward&, const float* x, float* sums, float* y);
    // One row of a head, pairs (2 Z): mu (Z), sigma (Z) = e^(logvar / 2), the sum of logvar; returns KL(q(z|x) || p(z)).
    float (*split_head)(const float* head, int Z, float* mu, float* sigma, float* sum_logvar);
    // z (count, Z) = mu + sigma eps (count, Z); ratio (count) = sum_j (eps^2 - z^2).
    void (*draw_codes)(float* z, const float* eps, const float* mu, const float* sigma, int count, int Z, float* ratio);
    void (*dgrad)(const Dgrad&, int b0, int b1, int p0, int p1);
    // Rows [k0, k1) of dW's panel p; the one with k0 == 0 also finishes the panel's bias (and variance) columns.
    void (*wgrad)(const Wgrad&, int p, int k0, int k1);

    // Prologue: n values of one row to float32, times factor.
    void (*convert)(float* out, const void* in, RowType type, int64_t n, float factor);
    // Prologue of bfloat16: rows [b0, b1) of n columns to words, b0 even; does nothing where products read floats.
    void (*to_words)(const Words& out, const float* const* rows, int b0, int b1, int n);
    // Index of the first value that is not finite, or outside [low, high]; n where there is none.
    int64_t (*find_bad)(const float* values, int64_t n, float low, float high);
    // Normals 0..Z-1 of `count` rows first_row.. of a stream: out (count, ld).
    void (*normals)(float* out, ptrdiff_t ld, const Stream& stream, uint32_t first_row, int count, int Z);
    // Sum of squares in double, in an order fixed by n.
    double (*sum_squares)(const float* values, int64_t n);
    // Register-only multiply-add loop: returns the floating-point operations done in `iterations`.
    double (*fma_loop)(int64_t iterations, float* sink);
};

namespace cpu {
extern const Backend kScalar, kAvx2, kAvx512, kAvx512Bf16, kNeon;  // each defined where its file is built
}

// The backend in use; throws std::invalid_argument where FUSEDVAE_BACKEND asks for what cannot run here.
const Backend& backend();
// By name; throws std::invalid_argument naming those available.
const Backend& backend(const char* name);
const char* available_backends();
// The one whose products read bfloat16 words, with the panels of backend(); NULL where there is none, or where it is not
// known to be faster.
const Backend* bfloat16_backend();
// Whether this processor is known to gain by fetching lines that its own prefetching finds too.
bool gains_from_fetching();

}  // namespace fusedvae
