// SPDX-License-Identifier: MIT
//
// Many steps in one launch: a group of blocks goes through the stages of its model's step, tile by tile, and meets at a
// barrier where a stage needs what the one before it has made. A small step is bound by the cost of starting kernels, of
// which this needs none; the groups of several models share a GPU that one of them cannot fill. The bits are those of one
// launch for each stage.
#pragma once
#include <vector>

#include "../model/network.h"
#include "context.h"
#include "stages.h"

namespace fusedvae::cuda {

struct Program {  // of one group, in device memory
    const Stage* stages;
    int count;
    int steps;
    Progress* progress;  // moves on by the steps
    unsigned* arrived;   // the group's blocks at its barriers, zero at first; NULL: the group is a cluster
};

constexpr int kMostStages = 48;       // they are held in shared memory
constexpr int64_t kMostSteps = 1024;  // of a program, and of one upload of scalars

// Whether a step can be a program: larger batches fill a GPU stage by stage.
inline bool fits_program(const Chip& chip, const Network& network, int64_t B) {
    const auto most = static_cast<int>(2 * network.layers.size()) + 6;  // products, and what stands between
    return chip.cooperates && most <= kMostStages && B <= kRowsPerPart;
}

struct Run {  // a program, and what of it decides how many blocks run it
    const Kernels* kernels;
    Program program;
    int widest[3];  // the most tiles of a stage, of each TileSize
};
// Of stages on the device, which `stages` is a copy of.
Run make_run(const Kernels& kernels, const std::vector<Stage>& stages, const Stage* on_device, int steps,
             Progress* progress);

class Runner {
  public:
    explicit Runner(std::shared_ptr<Context> context) : context_(std::move(context)) {}
    // All of a precision side by side, as far as there is room. On the context's stream; not waited for.
    void run(const std::vector<Run>& runs);

  private:
    void run_alike(const Kernels& kernels, const std::vector<Run>& runs);

    std::shared_ptr<Context> context_;
    Buffer<Program> programs_;
    Buffer<unsigned> arrived_;
};

}  // namespace fusedvae::cuda
