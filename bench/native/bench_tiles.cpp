// SPDX-License-Identifier: MIT
//
// Times the micro-kernel at every tile of every backend, on one thread, as the passes call it: along, a panel of packed
// weights against kBlock rows of the batch; across, a panel of dY against the columns of a batch. Prints one JSON
// object of samples, in GFLOP/s, beside the arithmetic peak; bench/kernels.py makes a table of it.
//
//     bench_tiles TURNS SECONDS
//
// The tiles take turns. Each is checked first: on rows of ones and a panel of twos every sum is twice the depth, and
// twice that where each float is a word of two bfloat16.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/platform.h"
#include "model/buffer.h"
#include "model/json.h"
#include "tiles/table.h"
#include "training.h"

using namespace fusedvae;

namespace {

// mnist's first layer: K inputs, blocks of a batch of 128 (kRowBlock in passes.h, whose batch pieces are as long).
constexpr int kInputs = 784, kBlock = 128;

struct Tile {
    const Backend* backend;
    tiles::Product product;
    bool along;
    int rows, groups;
    bool chosen;  // by its backend, for panels of that width
    Json::Array samples;
};

std::vector<Tile> all_tiles(const std::vector<const Backend*>& backends) {
    const tiles::Table* tables[] = {
#if defined(__x86_64__)
        &tiles::kAvx512,
        &tiles::kAvx512Bf16,
        &tiles::kAvx2,
#elif defined(__aarch64__)
        &tiles::kNeon,
#endif
        &tiles::kScalar
    };
    std::vector<Tile> all;
    for (const Backend* b : backends)
        for (const tiles::Table* table : tables)
            for (int along = 1; along >= 0 && std::string(table->backend) == b->name; --along)
                for (int groups = 1; groups <= tiles::kMostGroups; ++groups)
                    for (int rows = 1; rows <= tiles::kMostRows; ++rows) {
                        const tiles::Product p = along ? table->along[rows][groups] : table->across[rows][groups];
                        const bool chosen = groups <= b->groups_per_panel && rows == b->tallest[groups];
                        if (p) all.push_back({b, p, along != 0, rows, groups, chosen, {}});
                    }
    return all;
}

struct Operands {
    Matrix x{kBlock, kInputs};                            // rows of the batch
    Buffer panel{kInputs * tiles::kMostGroups * kGroup};  // packed weights, or a panel of dY
    float tile[tiles::kMostRows * tiles::kMostGroups * kGroup];
    int values;  // in a float of the operands

    explicit Operands(bool bfloat16) : values(bfloat16 ? 2 : 1) {
        const uint32_t ones = bfloat16 ? 0x3f803f80u : 0x3f800000u, twos = bfloat16 ? 0x40004000u : 0x40000000u;
        float one, two;
        std::memcpy(&one, &ones, sizeof one);
        std::memcpy(&two, &twos, sizeof two);
        for (int b = 0; b < kBlock; ++b) std::fill(x.row(b), x.row(b) + kInputs, one);
        std::fill(panel.data(), panel.data() + panel.size(), two);
    }
    // One pass over the operands: floating-point operations done.
    double sweep(const Tile& t) {
        const int width = t.groups * kGroup, depth = t.along ? kInputs : kBlock, count = t.along ? kBlock : kInputs;
        int done = 0;
        for (; done + t.rows <= count; done += t.rows)
            t.product(tile, x.rows(), done, panel.data(), width, depth, false, nullptr);
        return 2.0 * done * width * depth * values;
    }
    void check(const Tile& t) {
        sweep(t);
        for (int i = 0; i < t.rows * t.groups * kGroup; ++i)
            if (tile[i] != 2.0f * static_cast<float>((t.along ? kInputs : kBlock) * values))
                throw std::runtime_error("a tile's sums are wrong");
    }
};

template <class Work>
double gflops(double seconds, Work work) {
    double flops = 0.0, now, start = platform::seconds();
    do flops += work();
    while ((now = platform::seconds()) - start < seconds);
    return 1e-9 * flops / (now - start);
}

void bench_tiles(int turns, double seconds) {
    const std::vector<const Backend*> backends = bench::backends_here();
    Operands floats(false), words(true);
    const auto operands = [&](const Tile& t) -> Operands& { return t.backend->bfloat16 ? words : floats; };
    std::vector<Tile> all = all_tiles(backends);
    std::vector<Json::Array> peaks(backends.size());
    for (const Tile& t : all) operands(t).check(t);
    for (int turn = 0; turn < turns; ++turn)
        for (size_t b = 0; b < backends.size(); ++b) {
            float sink;
            peaks[b].emplace_back(gflops(seconds, [&] { return backends[b]->fma_loop(20000, &sink); }));
            for (Tile& t : all)
                if (t.backend == backends[b])
                    t.samples.emplace_back(gflops(seconds, [&] { return operands(t).sweep(t); }));
        }

    Json result{Json::Object{}};
    for (size_t b = 0; b < backends.size(); ++b) {
        Json::Array tiles;
        for (Tile& t : all) {
            if (t.backend != backends[b]) continue;
            Json one{Json::Object{}};
            one.set("walk", t.along ? "along" : "across");
            one.set("rows", t.rows);
            one.set("columns", t.groups * kGroup);
            one.set("chosen", t.chosen);
            one.set("gflops", std::move(t.samples));
            tiles.push_back(std::move(one));
        }
        Json one{Json::Object{}};
        one.set("peak_gflops", std::move(peaks[b]));
        one.set("tiles", std::move(tiles));
        result.set(backends[b]->name, std::move(one));
    }
    std::printf("%s\n", result.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc != 3) throw std::invalid_argument("usage: bench_tiles TURNS SECONDS");
    bench_tiles(std::atoi(argv[1]), std::atof(argv[2]));
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "bench_tiles: %s\n", error.what());
    return 2;
}
