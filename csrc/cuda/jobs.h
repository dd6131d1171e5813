// SPDX-License-Identifier: MIT
//
// layer/gemm.h's three products as a GPU reads them: what a kernel is given, by value or in a table.
//
// Matrices are row-major. Those of our own have rows of a multiple of eight elements, zeros past the last column, so that
// every 16-byte piece of a row is ours to read. One copy of the weights, (N, K) as outside, serves all three products:
// shared memory turns what a product reads across. Elements of what products read are floats, or bfloat16 (uint16_t).
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include "../layer/gemm.h"

namespace fusedvae::cuda {

__host__ __device__ constexpr int64_t padded(int64_t n) { return (n + 7) / 8 * 8; }
// Epilogues add a row's terms in pieces of 32 columns, whatever the tiles: a row's sum has the same bits in every batch.
constexpr int kSegment = 32;
__host__ __device__ constexpr int segments(int n) { return (n + kSegment - 1) / kSegment; }

// What a step needs beside its rows; an array of them, and where in it the running graph stands.
struct Scalars {
    Update update;
    Stream noise;
    double beta;
    float kl_weight;    // beta / rows of the batch
    int64_t first_row;  // of the epoch's order
};
struct Losses {
    double loss, reconstruction, kl;
};
struct Progress {
    int64_t position;  // of the array's element that the next graph's first step takes
    int64_t failed;    // 1 + the element whose loss was not finite; 0: none. Nothing is updated from there on.
};
struct Clock {
    const Scalars* scalars;
    Progress* progress;
    int at;  // step within the graph
};

// Rows that a product reads: row i lies at index[first + i], or at i / repeat.
struct Factor {
    const void* data;
    int64_t ld;             // elements
    const uint32_t* index;  // NULL: dense
    int repeat;             // 1: every row once
    int offset;             // of repeated rows: row i is (offset + i) / repeat
};

struct Forward {
    Clock clock;
    Factor x;            // (B, K)
    const void* weight;  // (N, ld_weight)
    int64_t ld_weight;
    const float* bias;  // (N padded)
    int B, K, N;
    Epilogue epilogue;

    // linear_act
    Activation activation;
    void* y;      // (B, ld) or NULL
    void* slope;  // (B, ld) or NULL
    int64_t ld;
    float* floats;  // (B, ld_floats): y in float32 for whoever asked, without padding; or NULL
    int64_t ld_floats;

    // reparameterize_kl
    float* head;  // (B, ld) pairs
    void* z;      // (B, ld_z)
    int64_t ld_z;
    Noise noise;         // given is device memory
    int noise_of_clock;  // nonzero: the stream is the clock's

    // likelihoods
    Factor target;  // float rows
    void* dy;       // (B, ld) or NULL
    float scale;    // 1 / rows of the batch
    float fixed_variance, min_variance;
    const float* log_variance;  // (N padded) or NULL

    float* partial;  // (B, segments): each segment's share of a row's KL or nll
};

struct Dgrad {
    Clock clock;
    Factor dy;           // (B, N)
    const void* weight;  // (N, ld_weight)
    int64_t ld_weight;
    int B, N, K;
    Epilogue epilogue;

    // act_grad
    Activation activation;
    const void* saved;  // (B, ld)
    void* dx;           // (B, ld); reparameterize_grad: pairs
    int64_t ld;

    // reparameterize_grad
    const float* head;  // (B, ld) pairs
    Noise noise;
    int noise_of_clock;
    const float* dim_weight;  // (K) or NULL
};

// One layer's dW, finished by the optimiser. Offsets are into the flat buffers of the parameters, their moments, their
// gradients and their bfloat16 copies, which share one order.
struct Wgrad {
    Factor x;   // (B, K)
    Factor dy;  // (B, N)
    int B, K, N;
    int64_t weight;  // (N, ld_weight)
    int64_t ld_weight;
    int64_t bias;          // (N padded)
    int64_t log_variance;  // (N padded); -1: none
    float min_variance;
};
struct Flat {
    float* value;
    float* m;
    float* v;
    uint16_t* half;   // bfloat16 copy, or NULL
    float* gradient;  // (splits, floats)
    int64_t floats;
};
struct Group {  // all dW products of a step, one launch
    Clock clock;
    const Wgrad* table;  // on the device
    int count;
    int splits;  // pieces of the batch, each with a gradient of its own; 1 unless the epilogue is store
    int rows_per_split;
    Epilogue epilogue;
    Flat flat;
    float scale;  // 1 / rows of the batch
};

enum class TileSize { small, medium, large };

}  // namespace fusedvae::cuda
