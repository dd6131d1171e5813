// SPDX-License-Identifier: MIT
//
// Sharing a step by columns or by rows, each forced: the same losses, parameters and moments, bit for bit, as one
// thread's, on every backend, whether or not the shape suits the way.
#include "bench/native/training.h"
#include "check.h"

using namespace fusedvae;

namespace {

struct Case {
    const char* layers;
    const char* likelihood;
    int B;
};

}  // namespace

TEST(columns_and_rows_give_the_same_bits) {
    // Layers of one panel, which leave a thread without columns; of several; a latent wider than a panel; odd widths.
    for (const Case& c : {Case{"30-64-32-8", "gaussian", 40}, Case{"200-150-70", "bernoulli", 33},
                          Case{"49-100-97-3", "gaussian", 200}})
        for (const Backend* backend : bench::backends_here()) {
            const Config config = bench::parse_network(c.layers, c.likelihood);
            const std::vector<float> data = bench::make_data(2 * c.B, config.width());
            std::vector<float> expected;
            std::vector<double> losses;
            for (int threads : {1, 2, 3, 5})
                for (Sharing sharing : {Sharing::by_rows, Sharing::by_columns}) {
                    bench::Training training(config, *backend, sharing, c.B, data);
                    std::vector<double> got;
                    for (int s = 0; s < 4; ++s) {
                        const fvae_losses one = training.step(threads);
                        got.insert(got.end(), {one.loss, one.reconstruction, one.kl});
                    }
                    CHECK_EQUAL(training.by_columns(), sharing == Sharing::by_columns && threads > 1);
                    if (expected.empty()) expected = training.state(), losses = got;
                    CHECK(training.state() == expected);
                    CHECK(got == losses);
                }
        }
}
