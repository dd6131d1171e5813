// SPDX-License-Identifier: MIT
//
// Times one training step of one network in several arms, which take turns within the process: each arm is a backend
// and a way to share the work. Prints one JSON object; bench/choices.py makes tables of it.
//
//     bench_step 784-400-20 bernoulli BATCH BATCHES THREADS TURNS SECONDS avx512/columns avx512/rows avx2/shape ...
//
// Before anything is timed, every arm takes kVerified steps from the same parameters; their last loss is printed, so
// that the caller can compare. Each turn lasts about SECONDS, after steps that bring the arm's memory into the caches.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "backend/platform.h"
#include "model/json.h"
#include "training.h"

using namespace fusedvae;

namespace {

constexpr int kVerified = 4;

struct Arm {
    std::string name;
    std::unique_ptr<bench::Training> training;
    double loss = 0.0;    // after kVerified steps
    int64_t steps = 1;    // in a turn
    Json::Array samples;  // ms per step
};

double run(bench::Training& training, int threads, int64_t steps) {
    const double start = platform::seconds();
    for (int64_t i = 0; i < steps; ++i) training.step(threads);
    return platform::seconds() - start;
}

Sharing parse_sharing(const std::string& name) {
    if (name == "shape") return Sharing::by_shape;
    if (name == "measure") return Sharing::by_measure;
    if (name == "columns") return Sharing::by_columns;
    if (name == "rows") return Sharing::by_rows;
    throw std::invalid_argument("an arm is BACKEND/shape, BACKEND/measure, BACKEND/columns or BACKEND/rows, not " +
                                name);
}

void bench_step(int argc, char** argv) {
    if (argc < 9)
        throw std::invalid_argument("usage: bench_step LAYERS LIKELIHOOD BATCH BATCHES THREADS TURNS SECONDS ARM...");
    const Config config = bench::parse_network(argv[1], argv[2]);
    const int B = std::atoi(argv[3]), batches = std::atoi(argv[4]), threads = std::atoi(argv[5]);
    const int turns = std::atoi(argv[6]);
    const double seconds = std::atof(argv[7]);
    const std::vector<float> data = bench::make_data(int64_t{B} * batches, config.width());

    std::vector<Arm> arms;
    for (int i = 8; i < argc; ++i) {
        Arm arm;
        arm.name = argv[i];
        const size_t slash = arm.name.find('/');
        const Backend& b = bench::find_backend(arm.name.substr(0, slash));
        const Sharing sharing = parse_sharing(slash == std::string::npos ? "" : arm.name.substr(slash + 1));
        arm.training = std::make_unique<bench::Training>(config, b, sharing, B, data);
        for (int s = 0; s < kVerified; ++s) arm.loss = arm.training->step(threads).loss;
        const double once = std::min(run(*arm.training, threads, 1), run(*arm.training, threads, 1));
        arm.steps = std::max<int64_t>(1, static_cast<int64_t>(seconds / once));
        arms.push_back(std::move(arm));
    }
    for (int turn = 0; turn < turns; ++turn)
        for (Arm& arm : arms) {
            run(*arm.training, threads, std::max<int64_t>(1, arm.steps / 8));
            const double took = run(*arm.training, threads, arm.steps);
            arm.samples.emplace_back(1e3 * took / static_cast<double>(arm.steps));
        }

    Json result{Json::Object{}};
    for (Arm& arm : arms) {
        Json one{Json::Object{}};
        one.set("loss", arm.loss);
        one.set("by_columns", arm.training->by_columns());
        one.set("steps_per_sample", arm.steps);
        one.set("ms", std::move(arm.samples));
        result.set(arm.name, std::move(one));
    }
    std::printf("%s\n", result.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) try {
    bench_step(argc, argv);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "bench_step: %s\n", error.what());
    return 2;
}
