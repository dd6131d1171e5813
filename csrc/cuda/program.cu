// SPDX-License-Identifier: MIT
#include "program.h"

#include <algorithm>

namespace fusedvae::cuda {

namespace {

constexpr int kMostOfCluster = 8;   // that every whole GPU with clusters has
constexpr int kCounterStride = 32;  // a line of memory for each group's counter
constexpr const char* kAdvice = "the programs of trainings side by side (train fewer at once)";

int largest_power_of_two(int n) {
    int power = 1;
    while (2 * power <= n) power *= 2;
    return power;
}

}  // namespace

Run make_run(const Kernels& kernels, const std::vector<Stage>& stages, const Stage* on_device, int steps,
             Progress* progress) {
    Run run{&kernels, {on_device, static_cast<int>(stages.size()), steps, progress, nullptr}, {}};
    for (const Stage& stage : stages)
        for (int i = 0; i < 3; ++i) run.widest[i] = std::max(run.widest[i], stage.tiles[i]);
    return run;
}

void Runner::run(const std::vector<Run>& runs) {
    for (const Kernels* kernels : {&kFloat32, &kTf32, &kBfloat16}) {
        std::vector<Run> alike;
        for (const Run& run : runs)
            if (run.kernels == kernels) alike.push_back(run);
        if (!alike.empty()) run_alike(*kernels, alike);
    }
}

void Runner::run_alike(const Kernels& kernels, const std::vector<Run>& runs) {
    const int groups = static_cast<int>(runs.size());
    int most_stages = 0, widest[3] = {};
    for (const Run& run : runs) {
        most_stages = std::max(most_stages, run.program.count);
        for (int i = 0; i < 3; ++i) widest[i] = std::max(widest[i], run.widest[i]);
    }
    // The larger tiles read each operand less often; they are right where each block has several all the same.
    const Chip& chip = context_->chip();
    TileSize size = TileSize::small;
    int room = 0, blocks = 0;
    for (const TileSize candidate : {TileSize::medium, TileSize::small}) {
        size = candidate;
        const int most = widest[static_cast<int>(size)];
        room = chip.multiprocessors * kernels.room(most_stages, size);
        blocks = std::clamp(room / groups, 1, most);
        if (most >= 2 * blocks) break;
    }
    // Clusters have the cheaper barrier, and those that find no room begin when others end.
    const bool clusters = chip.has_clusters && groups > 1 && blocks <= kMostOfCluster;
    if (clusters) blocks = largest_power_of_two(blocks);
    const int at_once = clusters ? groups : std::max(1, room / blocks);

    if (programs_.count() < groups) {
        programs_ = Buffer<Program>(context_, groups, kAdvice);
        arrived_ = Buffer<unsigned>(context_, groups * kCounterStride, kAdvice);
    }
    check(cudaMemsetAsync(arrived_.data(), 0, arrived_.bytes(), context_->stream()), "cudaMemsetAsync");
    std::vector<Program> programs;
    for (int i = 0; i < groups; ++i) {
        programs.push_back(runs[static_cast<size_t>(i)].program);
        programs.back().arrived = clusters ? nullptr : arrived_.data() + i * kCounterStride;
    }
    programs_.upload(programs.data(), groups);
    for (int first = 0; first < groups; first += at_once)
        kernels.run(programs_.data() + first, std::min(at_once, groups - first), blocks, clusters, most_stages, size,
                    context_->stream());
}

}  // namespace fusedvae::cuda
