// SPDX-License-Identifier: MIT
//
// The three passes of one precision, the programs made of them, and the tile sizes to choose from. Each table is compiled
// in a file of its own.
#pragma once
#include <cuda_runtime.h>

#include "../backend/device.h"
#include "jobs.h"

namespace fusedvae::cuda {

struct Program;  // program.h

struct Kernels {
    void (*forward)(const Forward&, TileSize, cudaStream_t);
    void (*dgrad)(const Dgrad&, TileSize, cudaStream_t);
    void (*wgrad)(const Group&, int tiles, TileSize, cudaStream_t);
    // Groups of so many blocks, each with a program of at most `most_stages` stages, in small or medium tiles; and how
    // many such blocks a multiprocessor holds at once.
    void (*run)(const Program* programs, int groups, int blocks, bool clusters, int most_stages, TileSize,
                cudaStream_t);
    int (*room)(int most_stages, TileSize);
    bool bfloat16;  // products read bfloat16
};
extern const Kernels kFloat32, kTf32, kBfloat16;

inline const Kernels& kernels_of(Precision p) {
    return p == Precision::float32 ? kFloat32 : p == Precision::tf32 ? kTf32 : kBfloat16;
}

constexpr int side_of(TileSize size) { return size == TileSize::small ? 32 : size == TileSize::medium ? 64 : 128; }
constexpr int64_t tiles(TileSize size, int64_t rows, int64_t columns) {
    const int64_t side = side_of(size);
    return ((rows + side - 1) / side) * ((columns + side - 1) / side);
}
inline int64_t tiles_of(const Forward& f, TileSize size) {
    // The head's epilogue also clears z's padding, which may be one unit wider than its own.
    return tiles(size, f.B, f.epilogue == Epilogue::reparameterize_kl ? 2 * f.ld_z : f.N);
}
inline int64_t tiles_of(const Dgrad& g, TileSize size) { return tiles(size, g.B, g.K); }

// What a choice of tiles depends on. A large tile's ring takes 110 kB of shared memory, which compute capability 8.6 and 8.9
// do not have.
struct Chip {
    int multiprocessors;
    bool fits_large;
    bool cooperates;    // blocks of one launch may wait for one another
    bool has_clusters;  // of blocks: compute capability 9.0 and later, and code for it
};
// The largest tiles that still give every multiprocessor one; a layer too small for that is spread as widely as it goes.
template <class Count>
TileSize choose(const Chip& chip, Count count) {
    if (chip.fits_large && count(TileSize::large) >= chip.multiprocessors) return TileSize::large;
    return count(TileSize::medium) >= chip.multiprocessors ? TileSize::medium : TileSize::small;
}

}  // namespace fusedvae::cuda
