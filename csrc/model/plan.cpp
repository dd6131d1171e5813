// SPDX-License-Identifier: MIT
#include "plan.h"

#include <algorithm>
#include <cmath>

namespace fusedvae {

namespace {

size_t z(int64_t i) { return static_cast<size_t>(i); }

// Contiguous panels for each thread, ends nearest to equal shares of the columns.
std::vector<Range> share_panels(Panels panels, int threads) {
    std::vector<Range> ranges;
    const double total = panels.start[panels.count];
    int64_t first = 0;
    for (int t = 1; t <= threads; ++t) {
        const double end = total * t / threads;
        int64_t last = first;
        while (last < panels.count && std::abs(panels.start[last + 1] - end) <= std::abs(panels.start[last] - end))
            ++last;
        if (t == threads) last = panels.count;
        ranges.push_back({first, last});
        first = last;
    }
    return ranges;
}

// The slowest thread's work over an equal share.
double imbalance_by_columns(const Network& network, int threads) {
    double slowest = 0.0, total = 0.0;
    for (const Layer& layer : network.layers) {
        const Panels p = layer.panels();
        int64_t widest = 0;
        for (const Range& r : share_panels(p, threads))
            widest = std::max<int64_t>(widest, p.start[r.last] - p.start[r.first]);
        slowest += static_cast<double>(widest) * layer.K;
        total += static_cast<double>(layer.padded()) * layer.K;
    }
    return slowest * threads / total;
}

}  // namespace

Plan make_plan(const Network& network, Sharing sharing, int threads, int B) {
    Plan plan;
    plan.threads = threads;
    plan.B = B;
    // Columns win while weights outnumber activations and every thread has panels enough (bench/README.md has the
    // measurements): 0.18 against 0.212 ms on `iwae`, 0.887 against 0.959 on `wide`, but 0.0806 against
    // 0.0544 on `tabular`.
    size_t activations = 0;
    for (const Layer& layer : network.layers) activations += z(B) * z(layer.padded());
    const bool columns_win = network.floats >= activations && imbalance_by_columns(network, threads) < 1.1;
    plan.by_columns = threads > 1 && (sharing == Sharing::by_shape ? columns_win : sharing == Sharing::by_columns);
    for (int t = 0; t < threads; ++t) plan.rows.push_back(share(B, kMaxRows, t, threads));
    plan.tiles.resize(z(threads));

    double total = 0.0, done = 0.0;  // dW's work, in columns times rows of eight
    for (const Layer& layer : network.layers) total += static_cast<double>(layer.padded()) * ((layer.K + 7) / 8);
    for (size_t l = 0; l < network.layers.size(); ++l) {
        const Layer& layer = network.layers[l];
        const int index = static_cast<int>(l);
        plan.panels.push_back(share_panels(layer.panels(), threads));
        plan.panels_t.push_back(share_panels(layer.panels_t(), threads));
        for (int p = 0; p < layer.count(); ++p) {
            if (plan.by_columns) {
                for (int t = 0; t < threads; ++t)
                    if (p >= plan.panels[l][z(t)].first && p < plan.panels[l][z(t)].last)
                        plan.tiles[z(t)].push_back({index, p, 0, layer.K});
                continue;
            }
            const int w = layer.starts[z(p) + 1] - layer.starts[z(p)];
            for (int k = 0; k < layer.K;) {  // cut where a thread's share ends
                const int thread = std::min(threads - 1, static_cast<int>(done / total * threads));
                const double left = total * (thread + 1) / threads - done;
                const int rows = thread == threads - 1
                                     ? layer.K - k
                                     : std::min(layer.K - k, 8 * std::max(1, static_cast<int>(left / w + 0.5)));
                plan.tiles[z(thread)].push_back({index, p, k, k + rows});
                done += static_cast<double>(w) * ((rows + 7) / 8);
                k += rows;
            }
        }
    }
    return plan;
}

int useful_threads(const Network& network, int64_t B, int available) {
    // In multiply-adds' worth: an output element's way through its epilogues, forward and backward, costs about as much as
    // 500. Measured on two Zen 5 cores, microseconds a step on one thread and on two: 8-16-z2 at batch 8 (270 thousand)
    // 2.1 and 2.8, at 16 (530) 3.2 and 3.0, at 32 (1070) 5.4 and 4.4; 64-64-z4 at batch 8 (1280) 6.3 and 5.8;
    // 30-64-32-z8 at batch 8 (1370) 6.4 and 6.4, at 32 (5500) 15 and 14. Below 400 thousand for each, a thread is not
    // worth it.
    double elements = 0.0;
    for (const Layer& layer : network.layers) elements += layer.padded();
    const double work = (3.0 * network.flops_per_row() + 500.0 * elements) * static_cast<double>(B);
    return static_cast<int>(std::clamp(work / 4e5, 1.0, static_cast<double>(available)));
}

}  // namespace fusedvae
