// SPDX-License-Identifier: MIT
//
// A step as a list of stages, each of as many tiles as blocks can work on at once: the products of jobs.h, and what stands
// between them. One launch for each stage (pass.cu), or one for many whole steps (program.h).
#pragma once
#include "jobs.h"
#include "kernels.h"

namespace fusedvae::cuda {

struct Source {  // rows on the device
    const void* data;
    RowType type;
    int64_t stride;  // bytes from row to row
    int step;        // values from column to column; 2 reads every other one, the means of pairs
    float factor;
    const uint32_t* index;  // NULL: dense; else row i is index[first_row + i], first_row the clock's
    bool padded;            // a matrix of our own: zeros up to a multiple of eight columns
};

// Rows [0, rows) of the source, zeros past the last column: floats (rows, ld_floats) and half (rows, ld_half), either NULL.
struct ReadRows {
    Clock clock;  // where the source has an index
    Source source;
    int64_t rows;
    int columns;
    float* floats;
    int64_t ld_floats;
    uint16_t* half;
    int64_t ld_half;
};

// dim_kl (Z): each latent dimension's KL averaged over the batch's head (B, ld) pairs; dim_weight (Z): 1 where it exceeds
// the free bits, else 0.
struct Dimensions {
    Clock clock;
    const float* head;
    int64_t ld;
    int B, Z;
    double free_bits;
    double* dim_kl;
    float* dim_weight;
};

// Writes the step's losses; where they are not finite, and none were before, marks the step as failed.
struct SumLosses {
    Clock clock;
    const float* nll;  // (B, nll_segments)
    const float* kl;   // (B, kl_segments)
    int nll_segments, kl_segments, B;
    double jacobian;       // taken off the reconstruction
    double free_bits;      // 0: none
    const double* dim_kl;  // (Z) batch means, where there are free bits
    int Z;
    double* parts;   // (loss_parts)
    Losses* losses;  // an element for each of the clock's
};

// Adds the splits of a gradient into the first one, and its squares into parts.
struct Gather {
    Clock clock;
    Flat flat;
    int splits;
    double* parts;  // (norm_parts)
};
// torch.nn.utils.clip_grad_norm_'s factor; a norm that is not finite marks the step as failed.
struct Clip {
    Clock clock;
    const double* parts;
    int64_t floats;
    double clip_norm;
    float* factor;
};
// The optimiser on stored gradients: value, moments and bfloat16 copy of everything.
struct Apply {
    Clock clock;
    Flat flat;
    int splits;
    Epilogue epilogue;
    const float* factor;  // NULL: 1
};

// Every sum is a fixed tree, in double from the rows on.
constexpr int kRowsPerPart = 1024;   // rows of one block's sum
constexpr int kNormChunk = 16384;    // gradients of one block's sum
constexpr int kUnitsPerTile = 1024;  // units of four floats that a block reads or updates
__host__ __device__ constexpr int64_t parts_of(int64_t count, int64_t size) { return (count + size - 1) / size; }
__host__ __device__ constexpr int64_t loss_parts(int64_t B) { return 2 * parts_of(B, kRowsPerPart); }
__host__ __device__ constexpr int64_t norm_parts(int64_t floats) { return parts_of(floats, kNormChunk); }

// How many tiles a stage has; of a product it depends on their size.
__host__ __device__ constexpr int64_t units_of(const ReadRows& job) { return job.rows * (padded(job.columns) / 4); }
__host__ __device__ constexpr int64_t tiles_of(const ReadRows& job, TileSize = {}) {
    return parts_of(units_of(job), kUnitsPerTile);
}
constexpr int64_t tiles_of(const Dimensions& job, TileSize = {}) { return job.Z; }
constexpr int64_t tiles_of(const SumLosses& job, TileSize = {}) { return parts_of(job.B, kRowsPerPart); }
constexpr int64_t tiles_of(const Gather& job, TileSize = {}) { return norm_parts(job.flat.floats); }
constexpr int64_t tiles_of(const Clip&, TileSize = {}) { return 1; }
constexpr int64_t tiles_of(const Apply& job, TileSize = {}) { return parts_of(job.flat.floats / 4, kUnitsPerTile); }

enum class Kind : int { read_rows, forward, weigh_dimensions, sum_losses, dgrad, wgrad, gather_gradient, clip, apply };

struct Stage {
    Kind kind;
    int beside;     // nonzero: what follows does not wait for it, up to and without wgrad
    TileSize size;  // of a product that is launched alone
    int tiles[3];   // of each TileSize
    union {         // each begins with the clock
        Clock clock;
        ReadRows read_rows;
        Forward forward;
        Dimensions dimensions;
        SumLosses losses;
        Dgrad dgrad;
        Group group;
        Gather gather;
        Clip clip;
        Apply apply;
    };
};

}  // namespace fusedvae::cuda
