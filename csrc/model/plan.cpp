// SPDX-License-Identifier: MIT
#include "plan.h"

#include <algorithm>
#include <cmath>

namespace fusedvae {

namespace {

size_t z(int64_t i) { return static_cast<size_t>(i); }

// Rows [0, size) of all panels, one panel after another, in shares of equal cost, each from one end to the next. A panel is
// parted at a multiple of `grain` rows.
struct End {
    int panel, row;
};
std::vector<End> equal_shares(const std::vector<double>& costs, int threads, int size, int grain) {
    std::vector<End> ends{{0, 0}};
    double total = 0.0, before = 0.0;  // all panels' cost, and those before p
    for (double cost : costs) total += cost;
    size_t p = 0;
    for (int t = 1; t < threads; ++t) {
        const double end = total * t / threads;
        for (; before + costs[p] <= end; ++p) before += costs[p];
        const double part = (end - before) / costs[p];
        ends.push_back({static_cast<int>(p), std::min(size, grain * static_cast<int>(part * size / grain + 0.5))});
    }
    ends.push_back({static_cast<int>(costs.size()), 0});
    return ends;
}

std::vector<double> widths(Panels panels) {
    std::vector<double> result;
    for (int p = 0; p < panels.count; ++p) result.push_back(panels.start[p + 1] - panels.start[p]);
    return result;
}

std::vector<Plan::Block> between(End from, End to, int size) {
    std::vector<Plan::Block> blocks;
    const auto add = [&](int b0, int b1, int p0, int p1) {
        if (b0 < b1 && p0 < p1) blocks.push_back({b0, b1, p0, p1});
    };
    if (from.panel == to.panel) {
        add(from.row, to.row, from.panel, from.panel + 1);
        return blocks;
    }
    const int whole = from.row > 0 ? from.panel + 1 : from.panel;
    add(from.row, size, from.panel, whole);
    add(0, size, whole, to.panel);
    add(0, to.row, to.panel, to.panel + 1);
    return blocks;
}

// In multiply-adds' worth: a weight's update, and what it takes more where the forward pass has parted its panel. All of its
// readers have the lines then, and the one who updates them must take them back: `iwae` (batch 20) spends up to half as long
// again on such weights, and its step takes 2 % less where their threads have less to do for it. Measured on Zen 4.
constexpr double kUpdate = 20.0, kTakenBack = 9.0;

void share_columns(Plan& plan, const Network& network) {
    constexpr int kPair = 2;   // rows of a batch that share words in bfloat16
    constexpr int kEight = 8;  // rows of weights that are transposed together
    for (size_t l = 0; l < network.layers.size(); ++l) {
        const Layer& layer = network.layers[l];
        const std::vector<double> columns = widths(layer.panels());
        const std::vector<End> forward = equal_shares(columns, plan.threads, plan.B, kPair),
                               dgrad = equal_shares(widths(layer.panels_t()), plan.threads, plan.B, kPair);
        std::vector<double> costs = columns;
        for (const End& end : forward) {
            const size_t p = z(end.panel);
            if (end.row > 0 && end.row < plan.B) costs[p] = columns[p] * (1.0 + kTakenBack / (plan.B + kUpdate));
        }
        const std::vector<End> wgrad = equal_shares(costs, plan.threads, layer.K, kEight);
        for (size_t t = 0; t < z(plan.threads); ++t) {
            plan.forward[l].push_back(between(forward[t], forward[t + 1], plan.B));
            plan.dgrad[l].push_back(between(dgrad[t], dgrad[t + 1], plan.B));
            for (const Plan::Block& block : between(wgrad[t], wgrad[t + 1], layer.K))
                for (int p = block.p0; p < block.p1; ++p)
                    plan.tiles[t].push_back({static_cast<int>(l), p, block.b0, block.b1});
        }
    }
}

void share_rows(Plan& plan, const Network& network) {
    // dW's work, in columns times rows of eight, in one row through all layers: with every layer in equal shares instead,
    // `tabular`, whose layers are small, takes 8 % longer in bfloat16.
    double total = 0.0, done = 0.0;
    for (const Layer& layer : network.layers) total += static_cast<double>(layer.padded()) * ((layer.K + 7) / 8);
    for (size_t l = 0; l < network.layers.size(); ++l) {
        const Layer& layer = network.layers[l];
        for (const Range& mine : plan.rows) {
            const int b0 = static_cast<int>(mine.first), b1 = static_cast<int>(mine.last);
            plan.forward[l].push_back({{b0, b1, 0, layer.panels().count}});
            plan.dgrad[l].push_back({{b0, b1, 0, layer.panels_t().count}});
        }
        for (int p = 0; p < layer.count(); ++p) {
            const int w = layer.starts[z(p) + 1] - layer.starts[z(p)];
            for (int k = 0; k < layer.K;) {  // cut where a thread's share ends
                const int thread = std::min(plan.threads - 1, static_cast<int>(done / total * plan.threads));
                const double left = total * (thread + 1) / plan.threads - done;
                const int rows = thread == plan.threads - 1
                                     ? layer.K - k
                                     : std::min(layer.K - k, 8 * std::max(1, static_cast<int>(left / w + 0.5)));
                plan.tiles[z(thread)].push_back({static_cast<int>(l), p, k, k + rows});
                done += static_cast<double>(w) * ((rows + 7) / 8);
                k += rows;
            }
        }
    }
}

}  // namespace

// Columns win while weights outnumber activations (bench/README.md has the measurements): 0.18 against 0.212 ms on `iwae`,
// 0.887 against 0.959 on `wide`, but 0.0806 against 0.0544 on `tabular`.
Way way_by_shape(const Network& network, int B) {
    size_t activations = 0;
    for (const Layer& layer : network.layers) activations += z(B) * z(layer.padded());
    return network.floats >= activations ? kColumns : kRows;
}

// Two threads, by rows, milliseconds without splits and with them, on cores that share no cache: 30-64-32-z8 at batch 256
// 0.083 and 0.069, at 1024 0.255 and 0.19, at 4096 0.95 and 0.68; on cores that do, and on one, within 2 %. With parts of 64
// rows that network takes 3 to 5 % longer. So does 100-256-128-z16, of 127 thousand floats, and 784-400-z20 up to 8 %.
int splits_of(const Network& network, int B) {
    constexpr size_t kMostFloats = 1 << 16;
    constexpr int kFewestRows = 128;
    int splits = 1;
    if (network.floats <= kMostFloats)
        while (splits < kMostSplits && B >= 2 * splits * kFewestRows) splits *= 2;
    return splits;
}

// As rows are shared among threads, so that a thread's rows are those of whole parts.
Range split_rows(int split, int splits, int B) { return share(B, kMaxRows, split, splits); }

Plan make_plan(const Network& network, Way way, int threads, int B) {
    Plan plan;
    plan.threads = way == kAlone ? 1 : threads;
    plan.B = B;
    plan.by_columns = plan.threads > 1 && way == kColumns;
    for (int t = 0; t < plan.threads; ++t) plan.rows.push_back(share(B, kMaxRows, t, plan.threads));
    plan.splits = splits_of(network, B);
    if (!plan.by_columns && plan.threads > 1 && plan.splits % plan.threads == 0)
        plan.own_splits = plan.splits / plan.threads;
    plan.forward.resize(network.layers.size());
    plan.dgrad.resize(network.layers.size());
    plan.tiles.resize(z(plan.threads));
    if (plan.by_columns)
        share_columns(plan, network);
    else
        share_rows(plan, network);
    return plan;
}

double worth_threads(const Network& network, int64_t B) {
    // In multiply-adds' worth: an output element's way through its epilogues, forward and backward, costs about as much as
    // 500. Measured on two Zen 5 cores, microseconds a step on one thread and on two: 8-16-z2 at batch 8 (270 thousand)
    // 2.1 and 2.8, at 16 (530) 3.2 and 3.0, at 32 (1070) 5.4 and 4.4; 64-64-z4 at batch 8 (1280) 6.3 and 5.8;
    // 30-64-32-z8 at batch 8 (1370) 6.4 and 6.4, at 32 (5500) 15 and 14. Below 400 thousand for each, a thread is not
    // worth it.
    double elements = 0.0;
    for (const Layer& layer : network.layers) elements += layer.padded();
    const double work = (3.0 * network.flops_per_row() + 500.0 * elements) * static_cast<double>(B);
    return work / 4e5;
}

int useful_threads(const Network& network, int64_t B, int available) {
    return static_cast<int>(std::clamp(worth_threads(network, B), 1.0, static_cast<double>(available)));
}

}  // namespace fusedvae
