// SPDX-License-Identifier: MIT
//
// Several users of the library at once: 32 threads on one model, one that is read while it trains, two trainings, a forked
// child.
// ThreadSanitizer runs these too.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "check.h"
#include "fusedvae/fusedvae.hpp"

namespace {

constexpr int64_t kRows = 150, kColumns = 70;  // two batches of 64 and a short one; a panel and a tail

const std::vector<float>& values() {
    static const std::vector<float> x = [] {
        std::vector<float> made(kRows * kColumns);
        uint32_t state = 1;
        for (float& value : made) {
            state = state * 1664525u + 1013904223u;
            value = static_cast<float>(state >> 8) / 16777216.0f;
        }
        return made;
    }();
    return x;
}

fvae_array data() { return fusedvae::rows(values().data(), kRows, kColumns); }

fusedvae::Model make_model() {
    fusedvae::Config config;
    config.input_shape = {kColumns};
    config.hidden = {48};
    config.latent = 5;
    return fusedvae::Model(config, 3);
}

fvae_trainer_options two_threads() {
    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = 64;
    options.threads = 2;
    return options;
}

std::vector<double> scores(const fusedvae::Model& model) {
    std::vector<double> elbo(kRows);
    model.elbo(data(), 1, 0, elbo.data());
    return elbo;
}

// What one user of a model asks of it: codes, scores, samples, and codes again without a lock.
struct Answers {
    std::vector<float> mu = std::vector<float>(kRows * 5), logvar = mu, served = mu, z = mu,
                       mean = std::vector<float>(kRows * kColumns);
    std::vector<double> elbo = std::vector<double>(kRows), score = elbo;

    explicit Answers(const fusedvae::Model& model) {
        model.encode(data(), mu.data(), logvar.data());
        model.elbo(data(), 3, 7, elbo.data());
        fvae_detector detector = fvae_detector_default();
        detector.score = FVAE_SCORE_RECONSTRUCTION;
        model.score(data(), &detector, score.data());
        fusedvae::check(fvae_sample_latent(9, 0, kRows, 5, 1.0, z.data()));
        model.decode(z.data(), kRows, mean.data());
        const fusedvae::Workspace workspace = model.workspace(kRows);
        model.encode_into(values().data(), kRows, served.data(), nullptr, workspace);
    }
    bool operator==(const Answers& other) const {
        return mu == other.mu && logvar == other.logvar && served == other.served && z == other.z &&
               mean == other.mean && elbo == other.elbo && score == other.score;
    }
};

TEST(thirty_two_threads_use_one_model) {
    const fusedvae::Model model = make_model();
    const Answers alone(model);
    CHECK(alone.served == alone.mu);
    std::atomic<int> ready{0}, same{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 32; ++t)
        threads.emplace_back([&] {
            ++ready;
            while (ready < 32) std::this_thread::yield();  // all at once
            for (int i = 0; i < 3; ++i) same += Answers(model) == alone;
        });
    for (std::thread& thread : threads) thread.join();
    CHECK_EQUAL(same.load(), 32 * 3);
}

// "A model may be read while its trainer runs": from another thread, and from the callback.
TEST(a_model_is_read_while_it_trains) {
    fusedvae::Model model = make_model();
    fusedvae::Trainer trainer(model, two_threads());
    std::atomic<bool> training{true};
    std::atomic<int> reads{0}, bad{0};
    std::thread reader([&] {
        while (training) {
            for (const double score : scores(model)) bad += !std::isfinite(score);
            ++reads;
        }
    });
    int called = 0;
    const auto callback = [&](fvae_event, const fvae_progress&) -> int32_t {
        called += std::isfinite(scores(model)[0]);
        return FVAE_CALLBACK_CONTINUE;
    };
    trainer.fit(data(), 5, nullptr, callback, fusedvae::event_bit(FVAE_BATCH_END));
    while (reads == 0) std::this_thread::yield();
    training = false;
    reader.join();
    CHECK_EQUAL(called, 5 * 3);
    CHECK_EQUAL(bad.load(), 0);
}

TEST(two_models_train_at_once) {
    std::vector<double> results[2];
    std::vector<std::thread> threads;
    for (auto& result : results) {
        threads.emplace_back([&result] {
            fusedvae::Model model = make_model();
            fusedvae::Trainer(model, two_threads()).fit(data(), 3);
            result = scores(model);
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(!results[0].empty());
    CHECK(results[0] == results[1]);
    CHECK(results[0] != scores(make_model()));
}

#if !defined(__SANITIZE_THREAD__) && \
    !defined(FUSEDVAE_UNDER_QEMU)  // neither follows threads that a forked process starts
// The parent's workers do not exist in the child, which must get its own.
TEST(a_forked_child_trains) {
    fusedvae::Model model = make_model();
    fusedvae::Trainer trainer(model, two_threads());
    trainer.fit(data(), 1);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int status = 1;
        try {
            trainer.fit(data(), 1);
            status = trainer.epochs() == 2 ? 0 : 1;
        } catch (...) {
        }
        _exit(status);
    }
    int status = 0;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace
