// SPDX-License-Identifier: MIT
//
// Training through the C API: the same bits for both ways of sharing work, one model scored from many threads, callbacks,
// and a checkpoint taken in the middle of an epoch. Runs under ThreadSanitizer.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fusedvae/fusedvae.h"

namespace {

using ModelHandle = std::unique_ptr<fvae_model, void (*)(fvae_model*)>;
using TrainerHandle = std::unique_ptr<fvae_trainer, void (*)(fvae_trainer*)>;

void ok(fvae_status status) {
    if (status != FVAE_OK) throw std::runtime_error(fvae_last_error());
}

struct Shape {
    int64_t D, hidden, Z, rows, batch;
};

std::vector<float> data(const Shape& s) {  // smooth rows in [0, 1]
    std::vector<float> x;
    for (int64_t i = 0; i < s.rows; ++i)
        for (int64_t j = 0; j < s.D; ++j)
            x.push_back(static_cast<float>(
                0.5 + 0.5 * std::sin(0.37 * static_cast<double>(i) + 0.11 * static_cast<double>((i % 7) * j))));
    return x;
}

fvae_array rows(const std::vector<float>& x, const Shape& s) {
    fvae_array a = fvae_array_default();
    a.data = x.data();
    a.rows = s.rows;
    a.columns = s.D;
    return a;
}

std::vector<fvae_precision> precisions() {
    if (fvae_has_bfloat16()) return {FVAE_PRECISION_FLOAT32, FVAE_PRECISION_BFLOAT16};
    return {FVAE_PRECISION_FLOAT32};
}

ModelHandle make_model(const Shape& s, fvae_likelihood likelihood = FVAE_BERNOULLI, fvae_variance v = FVAE_FIXED) {
    fvae_config config = fvae_config_default();
    config.input_shape = &s.D;
    config.hidden = &s.hidden;
    config.latent = s.Z;
    config.activation = FVAE_GELU;
    config.likelihood = likelihood;
    config.variance = v;
    fvae_model* model = nullptr;
    ok(fvae_model_create(&config, 3, &model));
    return {model, fvae_model_free};
}

TrainerHandle make_trainer(fvae_model* model, const fvae_trainer_options& options) {
    fvae_trainer* trainer = nullptr;
    ok(fvae_trainer_create(model, &options, &trainer));
    return {trainer, fvae_trainer_free};
}

std::vector<float> parameters(const fvae_model* model) {
    std::vector<float> all;
    for (int64_t i = 0; i < fvae_model_parameter_count(model); ++i) {
        int64_t shape[2];
        ok(fvae_model_parameter_info(model, i, nullptr, nullptr, shape));
        std::vector<float> one(static_cast<size_t>(shape[0] * shape[1]));
        ok(fvae_model_get_parameter(model, i, one.data()));
        all.insert(all.end(), one.begin(), one.end());
    }
    return all;
}

}  // namespace

TEST(both_ways_of_sharing_give_the_same_bits) {
    // Two threads share four panels of 48 columns by columns, three and eight share rows, as tall batches always do;
    // 100 rows leave a short last batch.
    for (const Shape& s : {Shape{192, 192, 6, 100, 32}, Shape{20, 16, 3, 1300, 600}})
        for (fvae_precision precision : precisions())
            for (double clip : {0.0, 0.5})
                for (double free_bits : {0.0, 0.1}) {
                    const std::vector<float> x = data(s);
                    const fvae_array a = rows(x, s);
                    std::vector<float> expected;
                    for (int threads : {1, 2, 3, 8}) {
                        ModelHandle model = make_model(s, FVAE_GAUSSIAN, FVAE_FEATURE);
                        fvae_trainer_options options = fvae_trainer_options_default();
                        options.batch_size = s.batch;
                        options.threads = threads;
                        options.precision = precision;
                        options.clip_norm = clip;
                        options.free_bits = free_bits;
                        TrainerHandle trainer = make_trainer(model.get(), options);
                        ok(fvae_trainer_fit(trainer.get(), &a, 2, &a, nullptr, 0, nullptr));
                        const std::vector<float> got = parameters(model.get());
                        if (threads == 1) expected = got;
                        CHECK(got == expected);
                        for (float v : got) CHECK(std::isfinite(v));
                    }
                }
}

TEST(batches_of_all_sizes_with_evaluations_between) {
    // One, two, eight and again two parts, in room that an evaluation of the largest may have reserved before.
    const Shape largest{20, 16, 3, 1300, 0};
    const std::vector<float> x = data(largest);
    const fvae_array all = rows(x, largest);
    for (fvae_precision precision : precisions()) {
        std::vector<float> expected;
        for (int threads : {1, 2, 4}) {
            ModelHandle model = make_model(largest, FVAE_GAUSSIAN, FVAE_FEATURE);
            fvae_trainer_options options = fvae_trainer_options_default();
            options.threads = threads;
            options.precision = precision;
            TrainerHandle trainer = make_trainer(model.get(), options);
            for (int64_t count : {100, 300, 1300, 257}) {
                fvae_array batch = all;
                batch.rows = count;
                fvae_losses losses{};
                ok(fvae_trainer_step(trainer.get(), &batch, nullptr, &losses));
                CHECK(std::isfinite(losses.loss));
                ok(fvae_trainer_evaluate(trainer.get(), &all, 1, &losses));
            }
            const std::vector<float> got = parameters(model.get());
            if (threads == 1) expected = got;
            CHECK(got == expected);
        }
    }
}

TEST(scores_of_one_model_from_many_threads) {
    const Shape s{64, 48, 4, 70, 32};
    const std::vector<float> x = data(s);
    const fvae_array a = rows(x, s);
    ModelHandle model = make_model(s);
    std::vector<double> expected(static_cast<size_t>(s.rows));
    ok(fvae_model_log_likelihood(model.get(), &a, 5, 9, expected.data()));
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 8; ++c)
        callers.emplace_back([&] {
            std::vector<double> scores(expected.size());
            for (int i = 0; i < 5; ++i)
                if (fvae_model_log_likelihood(model.get(), &a, 5, 9, scores.data()) != FVAE_OK || scores != expected)
                    ++wrong;
        });
    for (std::thread& t : callers) t.join();
    CHECK_EQUAL(wrong.load(), 0);
}

namespace {
struct StopAt {
    int64_t step;
    int ends = 0;
};
int32_t stop_at(void* user, fvae_event event, const fvae_progress* progress) {
    auto* at = static_cast<StopAt*>(user);
    if (event == FVAE_TRAIN_END) ++at->ends;
    return event == FVAE_BATCH_END && progress->step == at->step ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
}
int32_t fail_always(void*, fvae_event, const fvae_progress*) { return FVAE_CALLBACK_ERROR; }
}  // namespace

TEST(stopped_saved_and_resumed_is_never_stopped) {
    const Shape s{40, 24, 3, 100, 16};
    const std::vector<float> x = data(s);
    const fvae_array a = rows(x, s);
    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = s.batch;
    ModelHandle whole = make_model(s);
    TrainerHandle undisturbed = make_trainer(whole.get(), options);
    ok(fvae_trainer_fit(undisturbed.get(), &a, 3, nullptr, nullptr, 0, nullptr));

    const std::string path = "test_trainer.ckpt";
    for (int64_t step : {1, 6, 7, 8, 13}) {  // 7 batches an epoch
        ModelHandle model = make_model(s);
        TrainerHandle trainer = make_trainer(model.get(), options);
        StopAt at{step};
        ok(fvae_trainer_fit(trainer.get(), &a, 3, nullptr, stop_at, 1u << FVAE_BATCH_END | 1u << FVAE_TRAIN_END, &at));
        CHECK_EQUAL(fvae_trainer_steps(trainer.get()), step);
        CHECK_EQUAL(at.ends, 1);
        ok(fvae_trainer_save(trainer.get(), path.c_str()));

        fvae_trainer* raw = nullptr;
        ok(fvae_trainer_resume(path.c_str(), &raw));
        TrainerHandle resumed(raw, fvae_trainer_free);
        ok(fvae_trainer_fit(resumed.get(), &a, 3 - fvae_trainer_epochs(resumed.get()), nullptr, nullptr, 0, nullptr));
        fvae_model* resumed_model = nullptr;
        ok(fvae_trainer_model(resumed.get(), &resumed_model));
        ModelHandle end(resumed_model, fvae_model_free);
        CHECK(parameters(end.get()) == parameters(whole.get()));
        for (int64_t e = 0; e < 3; ++e) {
            fvae_epoch one{}, other{};
            ok(fvae_trainer_history(resumed.get(), e, &one));
            ok(fvae_trainer_history(undisturbed.get(), e, &other));
            CHECK_EQUAL(one.train.loss, other.train.loss);
        }
    }
    std::remove(path.c_str());
}

TEST(failing_callback_ends_the_run_at_a_step_boundary) {
    const Shape s{40, 24, 3, 100, 16};
    const std::vector<float> x = data(s);
    const fvae_array a = rows(x, s);
    ModelHandle model = make_model(s);
    TrainerHandle trainer = make_trainer(model.get(), fvae_trainer_options_default());
    const std::vector<float> before = parameters(model.get());
    CHECK_EQUAL(fvae_trainer_fit(trainer.get(), &a, 1, nullptr, fail_always, 1u << FVAE_TRAIN_BEGIN, nullptr),
                FVAE_STOPPED);
    CHECK(parameters(model.get()) == before);
    ok(fvae_trainer_fit(trainer.get(), &a, 1, nullptr, nullptr, 0, nullptr));
}

TEST(snapshot_brings_back_the_epochs_start) {
    const Shape s{40, 24, 3, 128, 16};
    const std::vector<float> x = data(s);
    const fvae_array a = rows(x, s);
    for (int snapshot : {0, 1}) {
        ModelHandle model = make_model(s, FVAE_GAUSSIAN);
        fvae_trainer_options options = fvae_trainer_options_default();
        options.batch_size = s.batch;
        options.optimizer = FVAE_SGD;
        options.learning_rate = 1e12;
        options.snapshot = snapshot;
        TrainerHandle trainer = make_trainer(model.get(), options);
        const std::vector<float> before = parameters(model.get());
        CHECK_EQUAL(fvae_trainer_fit(trainer.get(), &a, 1, nullptr, nullptr, 0, nullptr), FVAE_NON_FINITE);
        CHECK(std::string(fvae_last_error()).find("at step") != std::string::npos);
        CHECK_EQUAL(parameters(model.get()) == before, snapshot == 1);
    }
}
