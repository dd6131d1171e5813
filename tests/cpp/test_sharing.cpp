// SPDX-License-Identifier: MIT
//
// Sharing a step by columns or by rows, each forced, and by all ways in turn: the same losses, parameters and moments, bit
// for bit, as one thread's, on every backend, whether or not the shape suits the way.
#include "bench/native/training.h"
#include "check.h"
#include "model/plan.h"

using namespace fusedvae;

namespace {

struct Case {
    const char* layers;
    const char* likelihood;
    int B;
};

}  // namespace

TEST(columns_and_rows_give_the_same_bits) {
    // Layers of one panel, which leave a thread without columns; of several; a latent wider than a panel; odd widths;
    // no hidden layer, so that the head is the first to read what threads have made; batches of two and of eight parts.
    for (const Case& c :
         {Case{"30-64-32-8", "gaussian", 40}, Case{"200-150-70", "bernoulli", 33}, Case{"49-100-97-3", "gaussian", 200},
          Case{"40-50-4", "gaussian", 3}, Case{"40-70", "gaussian", 200}, Case{"49-60-33-5", "gaussian", 259},
          Case{"9-20-2", "bernoulli", 1031}})
        for (const Backend* backend : bench::backends_here()) {
            const Config config = bench::parse_network(c.layers, c.likelihood);
            const std::vector<float> data = bench::make_data(2 * c.B, config.width());
            std::vector<float> expected;
            std::vector<double> losses;
            for (int threads : {1, 2, 3, 4, 5, 8, 16})
                for (Sharing sharing : {Sharing::by_rows, Sharing::by_columns, Sharing::by_measure}) {
                    bench::Training training(config, *backend, sharing, c.B, data);
                    std::vector<double> got;
                    for (int s = 0; s < 16; ++s) {  // each of the measured ways comes into it
                        const fvae_losses one = training.step(threads);
                        got.insert(got.end(), {one.loss, one.reconstruction, one.kl});
                    }
                    if (sharing != Sharing::by_measure)
                        CHECK_EQUAL(training.by_columns(), sharing == Sharing::by_columns && threads > 1);
                    if (expected.empty()) expected = training.state(), losses = got;
                    CHECK(training.state() == expected);
                    CHECK(got == losses);
                }
        }
}

TEST(a_plan_covers_every_element_once) {
    const auto network_of = [](const char* layers) {
        return Network(bench::parse_network(layers, "bernoulli"), *bench::backends_here().back());
    };
    const Network large = network_of("200-150-70-3"), small = network_of("30-64-3");
    CHECK_EQUAL(splits_of(small, 1031), 8);
    CHECK_EQUAL(splits_of(small, 255), 1);
    CHECK_EQUAL(splits_of(large, 1031), 1);  // sums would be more than what they are the sums of
    for (int B : {1, 7, 20, 128, 1031})
        for (int threads : {1, 2, 3, 4, 5, 8, 16, 64})
            for (Way way : {kRows, kColumns}) {
                const Network& network = B > 128 ? small : large;
                const Plan plan = make_plan(network, way, threads, B);
                const bool divides = threads == 2 || threads == 4 || threads == 8;  // the eight parts of 1031 rows
                CHECK_EQUAL(plan.own_splits, B > 128 && way == kRows && divides ? 8 / threads : 0);
                int64_t covered = 0;
                for (const Range& mine : plan.rows) {
                    CHECK_EQUAL(mine.first, covered);
                    covered = mine.last;
                }
                CHECK_EQUAL(covered, B);
                for (size_t l = 0; l < network.layers.size(); ++l) {
                    const Layer& layer = network.layers[l];
                    const auto counts = [](int rows, Panels panels) {
                        return std::vector<int>(static_cast<size_t>(rows) * static_cast<size_t>(panels.count));
                    };
                    std::vector<int> forward = counts(B, layer.panels()), dgrad = counts(B, layer.panels_t()),
                                     wgrad = counts(layer.K, layer.panels());
                    const auto count = [](std::vector<int>& seen, Panels panels, Plan::Block k) {
                        for (int b = k.b0; b < k.b1; ++b)
                            for (int p = k.p0; p < k.p1; ++p) ++seen[static_cast<size_t>(b * panels.count + p)];
                    };
                    for (size_t t = 0; t < static_cast<size_t>(threads); ++t) {
                        for (const Plan::Block& k : plan.forward[l][t]) count(forward, layer.panels(), k);
                        for (const Plan::Block& k : plan.dgrad[l][t]) count(dgrad, layer.panels_t(), k);
                        for (const Plan::Tiles& k : plan.tiles[t]) {
                            if (k.layer != static_cast<int>(l)) continue;
                            CHECK(k.k0 < k.k1);  // else the first one would update the biases, too
                            count(wgrad, layer.panels(), {k.k0, k.k1, k.panel, k.panel + 1});
                        }
                    }
                    for (const std::vector<int>& seen : {forward, dgrad, wgrad})
                        CHECK(seen == std::vector<int>(seen.size(), 1));
                }
            }
}
