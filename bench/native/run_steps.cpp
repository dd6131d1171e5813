// SPDX-License-Identifier: MIT
//
// Runs a number of training steps on one thread and one named backend, for bench/instructions.py to count them under
// callgrind: the difference between two numbers of steps is the cost of a step, without what comes before.
//
//     run_steps 784-400-20 bernoulli BATCH BACKEND STEPS
#include <cstdio>

#include "training.h"

int main(int argc, char** argv) try {
    using namespace fusedvae;
    if (argc != 6) throw std::invalid_argument("usage: run_steps LAYERS LIKELIHOOD BATCH BACKEND STEPS");
    const Config config = bench::parse_network(argv[1], argv[2]);
    const int B = std::atoi(argv[3]), steps = std::atoi(argv[5]);
    const std::vector<float> data = bench::make_data(B, config.width());
    bench::Training training(config, bench::find_backend(argv[4]), Sharing::by_rows, B, data);
    fvae_losses losses{};
    for (int i = 0; i < steps; ++i) losses = training.step(1);
    std::printf("%.9g\n", losses.loss);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "run_steps: %s\n", error.what());
    return 2;
}
