// SPDX-License-Identifier: MIT
//
// What the engine's thread pool costs here, measured on the pool itself; bench/scaling.py builds and runs it.
//
//     threads COUNT     prints {"barrier_ns": .., "region_ns": .., "exchange_gbs": ..}, medians of kSamples
//
// barrier: all threads meet. region: threads are called to work and waited for. exchange: each thread reads what its
// neighbour has just written, as a layer reads the columns that other threads computed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/threads.h"

using namespace fusedvae;

namespace {

constexpr int kSamples = 21, kRounds = 2000, kExchanges = 50;
constexpr size_t kFloats = 1 << 16;  // 256 KiB for each thread: larger than a first-level cache, as activations are

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Sample>
double median(Sample sample) {
    std::vector<double> values(kSamples);
    for (double& value : values) value = sample();
    std::nth_element(values.begin(), values.begin() + kSamples / 2, values.end());
    return values[kSamples / 2];
}

// Eight chains, so that the loads and not the additions are waited for.
float sum(const std::vector<float>& values) {
    float parts[8] = {};
    for (size_t i = 0; i < values.size(); i += 8)
        for (size_t j = 0; j < 8; ++j) parts[j] += values[i + j];
    float total = 0.0f;
    for (float part : parts) total += part;
    return total;
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc == 2 ? std::atoi(argv[1]) : 0;
    if (threads < 2) {
        std::fprintf(stderr, "usage: threads COUNT, two or more\n");
        return 2;
    }
    Lease lease(threads);
    const double barrier = median([&] {
        double took = 0.0;
        lease.run([&](const Team& team) {
            team.meet();
            const double start = seconds();
            for (int i = 0; i < kRounds; ++i) team.meet();
            if (team.thread == 0) took = (seconds() - start) / kRounds;
        });
        return took;
    });
    const double region = median([&] {
        const double start = seconds();
        for (int i = 0; i < kRounds; ++i) lease.run([](const Team&) {});
        return (seconds() - start) / kRounds;
    });
    std::vector<std::vector<float>> buffers(static_cast<size_t>(threads), std::vector<float>(kFloats));
    std::vector<float> sums(static_cast<size_t>(threads) * 16);  // a cache line each
    const double exchange = median([&] {
        double reading = 0.0;
        lease.run([&](const Team& team) {
            const auto mine = static_cast<size_t>(team.thread);
            const size_t next = (mine + 1) % buffers.size();
            for (int i = 0; i < kExchanges; ++i) {
                std::fill(buffers[mine].begin(), buffers[mine].end(), static_cast<float>(i));
                team.meet();
                const double start = seconds();
                sums[mine * 16] += sum(buffers[next]);
                team.meet();
                if (team.thread == 0) reading += seconds() - start;
            }
        });
        return static_cast<double>(kExchanges * kFloats * sizeof(float)) / reading;
    });
    const bool right = std::all_of(sums.begin(), sums.end(), [&](float s) { return s == 0.0f || s == sums[0]; });
    if (!right || sums[0] == 0.0f) return 1;
    std::printf("{\"barrier_ns\": %.1f, \"region_ns\": %.1f, \"exchange_gbs\": %.2f}\n", barrier * 1e9, region * 1e9,
                exchange / 1e9);
}
