// SPDX-License-Identifier: MIT
//
// Serving: the *_into calls give the bits of the ordinary ones for any number of rows, stay within their workspace,
// allocate nothing, and refuse what they cannot do. Scores keep their bits for any company and number of threads.
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "allocations.h"
#include "check.h"
#include "fusedvae/fusedvae.hpp"

namespace {

struct Net {
    const char* name;
    int64_t D;
    std::vector<int64_t> hidden;
    int64_t Z;
    fvae_activation activation;
    fvae_likelihood likelihood;
    fvae_variance variance;
};

// Widths on both sides of panels and registers; no hidden layer; a leading dimension that is padded; every kind of output.
const std::vector<Net>& nets() {
    static const std::vector<Net> all = {
        {"small", 12, {16}, 3, FVAE_RELU, FVAE_BERNOULLI, FVAE_FIXED},
        {"linear", 7, {}, 9, FVAE_RELU, FVAE_GAUSSIAN, FVAE_FIXED},
        {"two hidden", 70, {100, 33}, 17, FVAE_GELU, FVAE_GAUSSIAN, FVAE_FEATURE},
        {"element", 25, {40}, 5, FVAE_TANH, FVAE_GAUSSIAN, FVAE_ELEMENT},
        {"padded", 49, {1024}, 2, FVAE_ELU, FVAE_BERNOULLI, FVAE_FIXED},
        {"many panels", 1000, {1}, 1, FVAE_SILU, FVAE_BERNOULLI, FVAE_FIXED},
    };
    return all;
}

fusedvae::Model make_model(const Net& net) {
    fusedvae::Config config;
    config.input_shape = {net.D};
    config.hidden = net.hidden;
    config.latent = net.Z;
    config.activation = net.activation;
    config.likelihood = net.likelihood;
    config.variance = net.variance;
    return fusedvae::Model(config, 5);
}

// The net with its weights in float32, and in bfloat16.
std::vector<fusedvae::Model> served_models(const Net& net) {
    std::vector<fusedvae::Model> both;
    both.push_back(make_model(net));
    both.push_back(both[0].copy(FVAE_PRECISION_BFLOAT16));
    return both;
}

size_t z(int64_t i) { return static_cast<size_t>(i); }

std::vector<float> values(int64_t n) {  // in [0, 1]
    std::vector<float> made(z(n));
    uint32_t state = 1;
    for (float& value : made) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(state >> 8) / 16777216.0f;
    }
    return made;
}

// A workspace of exactly the size asked for, at an odd address, filled with NaN, between guards.
class Guarded {
  public:
    Guarded(const fusedvae::Model& model, int64_t rows) : bytes_(model.workspace_bytes(rows)), memory_(bytes_ + 64) {
        std::memset(memory_.data(), 0xff, memory_.size());
    }
    void* data() { return memory_.data() + 17; }
    size_t size() const { return bytes_; }
    bool intact() const {
        for (size_t i = 0; i < memory_.size(); ++i)
            if ((i < 17 || i >= 17 + bytes_) && memory_[i] != 0xff) return false;
        return true;
    }

  private:
    size_t bytes_;
    std::vector<unsigned char> memory_;
};

}  // namespace

TEST(bits_are_those_of_the_ordinary_calls) {
    for (const Net& net : nets()) {
        for (const fusedvae::Model& model : served_models(net)) {
            const std::vector<float> x = values(300 * net.D), codes = values(300 * net.Z);
            for (const int64_t n : {1, 2, 3, 7, 8, 9, 31, 127, 128, 129, 300}) {
                std::vector<float> mu(z(n * net.Z)), logvar(mu), decoded(z(n * net.D)), mean(decoded);
                model.encode(fusedvae::rows(x.data(), n, net.D), mu.data(), logvar.data());
                model.decode(codes.data(), n, decoded.data());
                model.reconstruct(fusedvae::rows(x.data(), n, net.D), mean.data());

                Guarded w(model, n);
                std::vector<float> mu2(mu.size()), logvar2(mu.size()), decoded2(mean.size()), mean2(mean.size());
                fusedvae::check(
                    fvae_model_encode_into(model.get(), x.data(), n, mu2.data(), nullptr, w.data(), w.size()));
                CHECK(mu2 == mu);
                fusedvae::check(
                    fvae_model_encode_into(model.get(), x.data(), n, mu2.data(), logvar2.data(), w.data(), w.size()));
                CHECK(logvar2 == logvar);
                fusedvae::check(
                    fvae_model_decode_into(model.get(), codes.data(), n, decoded2.data(), w.data(), w.size()));
                CHECK(decoded2 == decoded);
                fusedvae::check(
                    fvae_model_reconstruct_into(model.get(), x.data(), n, mean2.data(), w.data(), w.size()));
                CHECK(mean2 == mean);
                CHECK(w.intact());

                std::vector<float> in_place(x.begin(), x.begin() + static_cast<ptrdiff_t>(n * net.D));
                fusedvae::check(
                    fvae_model_reconstruct_into(model.get(), in_place.data(), n, in_place.data(), w.data(), w.size()));
                CHECK(in_place == mean);
            }
        }
    }
}

TEST(a_row_has_its_bits_in_any_company) {
    for (const Net& net : nets()) {
        for (const fusedvae::Model& model : served_models(net)) {
            const std::vector<float> x = values(20 * net.D);
            std::vector<float> all(z(20 * net.D)), one(z(net.D));
            const fusedvae::Workspace workspace = model.workspace(20);
            model.reconstruct_into(x.data(), 20, all.data(), workspace);
            for (int64_t r = 0; r < 20; ++r) {
                model.reconstruct_into(x.data() + r * net.D, 1, one.data(), workspace);
                CHECK(std::memcmp(one.data(), all.data() + r * net.D, z(net.D) * sizeof(float)) == 0);
            }
        }
    }
}

// What is made of layers is the same function of the weights, whatever holds them: each call, at a few rows and at many.
TEST(bfloat16_weights_give_the_bits_of_a_rounded_model) {
    for (const Net& net : nets()) {
        const fusedvae::Model held = make_model(net).copy(FVAE_PRECISION_BFLOAT16);
        const fusedvae::Model rounded = held.copy(FVAE_PRECISION_FLOAT32);
        CHECK_EQUAL(held.weights(), FVAE_PRECISION_BFLOAT16);
        CHECK_EQUAL(held.copy().weights(), FVAE_PRECISION_BFLOAT16);
        CHECK_EQUAL(rounded.weights(), FVAE_PRECISION_FLOAT32);
        const std::vector<float> x = values(150 * net.D), codes = values(150 * net.Z);
        for (const int64_t n : {1, 2, 150}) {
            const fvae_array rows = fusedvae::rows(x.data(), n, net.D);
            std::vector<float> floats[2];
            std::vector<double> doubles[2];
            for (const bool second : {false, true}) {
                const fusedvae::Model& model = second ? held : rounded;
                std::vector<float>& f = floats[second];
                std::vector<double>& d = doubles[second];
                f.resize(z(n * (2 * net.Z + 2 * net.D)));
                model.encode(rows, f.data(), f.data() + n * net.Z);
                model.decode(codes.data(), n, f.data() + 2 * n * net.Z);
                model.reconstruct(rows, f.data() + n * (2 * net.Z + net.D));
                d.resize(z(n * (3 + net.D)));
                fvae_detector detector = fvae_detector_default();
                detector.score = FVAE_SCORE_RECONSTRUCTION;
                model.elbo(rows, 3, 7, d.data());
                model.log_likelihood(rows, 5, 7, d.data() + n);
                model.score(rows, &detector, d.data() + 2 * n);
                model.contributions(rows, d.data() + 3 * n);
            }
            CHECK(std::memcmp(floats[0].data(), floats[1].data(), floats[0].size() * sizeof(float)) == 0);
            CHECK(std::memcmp(doubles[0].data(), doubles[1].data(), doubles[0].size() * sizeof(double)) == 0);
        }
    }
}

TEST(workspaces_stop_growing) {
    const fusedvae::Model model = make_model(nets()[0]);
    CHECK(model.workspace_bytes(1) < model.workspace_bytes(2));
    CHECK_EQUAL(model.workspace_bytes(128), model.workspace_bytes(std::numeric_limits<int64_t>::max()));
}

#if FUSEDVAE_COUNTS_ALLOCATIONS
TEST(nothing_is_allocated) {
    for (const Net& net : nets()) {
        for (const fusedvae::Model& model : served_models(net)) {
            const std::vector<float> x = values(200 * net.D), codes = values(200 * net.Z);
            std::vector<float> mu(z(200 * net.Z)), logvar(mu), mean(z(200 * net.D));
            const fusedvae::Workspace workspace = model.workspace(200);
            const long before_ordinary = allocations;
            model.encode(fusedvae::rows(x.data(), 200, net.D), mu.data(), logvar.data());
            CHECK(allocations > before_ordinary);  // the counter counts
            const long before = allocations;
            for (const int64_t n : {1, 5, 200}) {
                model.encode_into(x.data(), n, mu.data(), logvar.data(), workspace);
                model.decode_into(codes.data(), n, mean.data(), workspace);
                model.reconstruct_into(x.data(), n, mean.data(), workspace);
            }
            CHECK_EQUAL(allocations.load(), before);
        }
    }
}
#endif

TEST(what_cannot_be_served_is_refused) {
    const Net& net = nets()[0];
    const fusedvae::Model model = make_model(net);
    std::vector<float> x = values(3 * net.D), codes = values(3 * net.Z), mean(z(3 * net.D), -1.0f);
    const fusedvae::Workspace workspace = model.workspace(3), small = model.workspace(2);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS(model.workspace_bytes(0), std::invalid_argument, "rows must be at least 1");
    CHECK_THROWS(model.reconstruct_into(x.data(), 3, mean.data(), small), std::invalid_argument, "3 rows take");
    CHECK_THROWS(model.encode_into(x.data(), 3, mean.data(), nullptr, small), std::invalid_argument, "3 rows take");
    CHECK_THROWS(model.decode_into(codes.data(), 3, mean.data(), small), std::invalid_argument, "3 rows take");
    CHECK_THROWS(model.reconstruct_into(x.data(), 0, mean.data(), workspace), std::invalid_argument, "empty");
    CHECK_THROWS(model.reconstruct_into(nullptr, 3, mean.data(), workspace), std::invalid_argument, "empty");
    CHECK_THROWS(model.decode_into(nullptr, 3, mean.data(), workspace), std::invalid_argument, "empty");
    CHECK_THROWS(model.decode_into(codes.data(), -1, mean.data(), workspace), std::invalid_argument, "empty");
    CHECK_THROWS(model.reconstruct_into(x.data(), std::numeric_limits<int64_t>::max(), mean.data(), workspace),
                 std::invalid_argument, "at most 2^32 - 1");
    const void* absent = nullptr;
    CHECK(fvae_model_reconstruct_into(model.get(), x.data(), 3, nullptr, workspace.data(), workspace.size()) ==
          FVAE_INVALID_ARGUMENT);
    CHECK(fvae_model_decode_into(model.get(), codes.data(), 3, nullptr, workspace.data(), workspace.size()) ==
          FVAE_INVALID_ARGUMENT);
    CHECK(fvae_model_reconstruct_into(model.get(), x.data(), 3, mean.data(), const_cast<void*>(absent),
                                      workspace.size()) == FVAE_INVALID_ARGUMENT);
    CHECK(fvae_model_workspace_bytes(model.get(), 1, nullptr) == FVAE_INVALID_ARGUMENT);
    x[z(2 * net.D + 4)] = 1.5f;
    CHECK_THROWS(model.reconstruct_into(x.data(), 3, mean.data(), workspace), std::invalid_argument,
                 "in row 2, column 4; Bernoulli targets lie in [0, 1]");
    x[z(1 * net.D + 5)] = nan;
    CHECK_THROWS(model.encode_into(x.data(), 3, mean.data(), nullptr, workspace), std::invalid_argument,
                 "NaN in row 1, column 5");
    codes[z(2 * net.Z + 1)] = nan;
    CHECK_THROWS(model.decode_into(codes.data(), 3, mean.data(), workspace), std::invalid_argument, "row 2, column 1");
    for (const float value : mean) CHECK_EQUAL(value, -1.0f);  // nothing was written
}

TEST(many_threads_serve_one_model) {
    const Net& net = nets()[2];
    const fusedvae::Model model = make_model(net);
    const std::vector<float> x = values(40 * net.D);
    std::vector<float> expected(x.size());
    model.reconstruct(fusedvae::rows(x.data(), 40, net.D), expected.data());
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 8; ++c)
        callers.emplace_back([&] {
            const fusedvae::Workspace workspace = model.workspace(40);
            std::vector<float> mean(x.size());
            for (int i = 0; i < 50; ++i) {
                const int64_t n = 1 + i % 40;
                model.reconstruct_into(x.data(), n, mean.data(), workspace);
                if (std::memcmp(mean.data(), expected.data(), z(n * net.D) * sizeof(float)) != 0) ++wrong;
            }
        });
    for (std::thread& caller : callers) caller.join();
    CHECK_EQUAL(wrong.load(), 0);
}

// Pairs (row, sample) are cut into blocks and shared without regard to rows: neither blocks, threads, strips nor the type
// that holds the rows may show.
TEST(scores_do_not_depend_on_threads_blocks_or_company) {
    const Net& net = nets()[0];
    const fusedvae::Model model = make_model(net);
    const std::vector<float> x = values(300 * net.D);
    std::vector<double> wide(x.begin(), x.end());
    const int threads_before = fvae_num_threads();
    for (const int64_t samples : {1, 3, 128, 1000, 150'000}) {  // the last one takes a strip for each row
        const int64_t n = samples > 1000 ? 3 : 300;
        std::vector<double> elbo(z(n)), likelihood(z(n)), again(z(n));
        fusedvae::check(fvae_set_num_threads(1));
        model.elbo(fusedvae::rows(x.data(), n, net.D), samples, 7, elbo.data());
        model.log_likelihood(fusedvae::rows(x.data(), n, net.D), samples, 7, likelihood.data());
        for (const int threads : {2, 3, 8}) {
            fusedvae::check(fvae_set_num_threads(threads));
            model.elbo(fusedvae::rows(x.data(), n, net.D), samples, 7, again.data());
            CHECK(again == elbo);
            model.log_likelihood(fusedvae::rows(wide.data(), n, net.D), samples, 7, again.data());
            CHECK(again == likelihood);
        }
        for (const int64_t r : {int64_t{0}, int64_t{1}, n - 1}) {
            double one = 0.0;
            model.elbo(fusedvae::rows(x.data() + r * net.D, 1, net.D), samples, 7, &one);
            CHECK_EQUAL(one, elbo[z(r)]);
            model.log_likelihood(fusedvae::rows(x.data() + r * net.D, 1, net.D), samples, 7, &one);
            CHECK_EQUAL(one, likelihood[z(r)]);
        }
    }
    fusedvae::check(fvae_set_num_threads(threads_before));
}

// From the definition (Burda et al. 2015, eq. 8), with the library's own encode, decode and noise.
TEST(log_likelihood_is_its_definition) {
    const Net& net = nets()[0];
    const fusedvae::Model model = make_model(net);
    const int64_t S = 37;
    const std::vector<float> x = values(net.D);
    std::vector<float> mu(z(net.Z)), logvar(mu), code(mu), mean(z(net.D));
    model.encode(fusedvae::rows(x.data(), 1, net.D), mu.data(), logvar.data());
    double elbo_sum = 0.0, kl = 0.0, weights = 0.0;
    for (int64_t j = 0; j < net.Z; ++j) {
        const double m = mu[z(j)], lv = logvar[z(j)];
        kl += 0.5 * (m * m + std::exp(lv) - 1.0 - lv);
    }
    for (int64_t s = 0; s < S; ++s) {
        double log_ratio = 0.0, log_p = 0.0;
        for (int64_t j = 0; j < net.Z; ++j) {
            uint32_t words[4];
            const uint32_t counter[4] = {static_cast<uint32_t>(j / 4), static_cast<uint32_t>(s), 0, 3};
            const uint32_t key[2] = {11, 0};
            fvae_philox(counter, key, words);
            const uint32_t a = words[j % 4 / 2 * 2], b = words[j % 4 / 2 * 2 + 1];
            const double radius = std::sqrt(-2.0 * std::log((a >> 1) * 0x1p-31 + 0x1p-32));
            const double angle =
                (static_cast<double>(b >> 30) + static_cast<int32_t>(b << 2) * 0x1p-32) * std::acos(0.0);
            const double eps = radius * (j % 2 ? std::sin(angle) : std::cos(angle));
            const double c = mu[z(j)] + std::exp(0.5 * logvar[z(j)]) * eps;
            code[z(j)] = static_cast<float>(c);
            log_ratio += 0.5 * (eps * eps + logvar[z(j)] - c * c);
        }
        model.decode(code.data(), 1, mean.data());
        for (int64_t d = 0; d < net.D; ++d)
            log_p += x[z(d)] * std::log(double{mean[z(d)]}) + (1.0 - x[z(d)]) * std::log1p(-double{mean[z(d)]});
        elbo_sum += log_p;
        weights += std::exp(log_p + log_ratio);
    }
    double elbo = 0.0, likelihood = 0.0;
    model.elbo(fusedvae::rows(x.data(), 1, net.D), S, 11, &elbo);
    model.log_likelihood(fusedvae::rows(x.data(), 1, net.D), S, 11, &likelihood);
    CHECK_NEAR(elbo, elbo_sum / static_cast<double>(S) - kl, 2e-5);  // sums of 12 terms in float
    CHECK_NEAR(likelihood, std::log(weights / static_cast<double>(S)), 2e-5);
}
