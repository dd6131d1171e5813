// SPDX-License-Identifier: MIT
//
// Trainers through the C API where callers are careless or hostile: two of them on one model, handles freed in any order,
// parameters set while a fit runs, rows that turn bad in mid-training, checkpoints whose parts disagree. Runs under all
// three sanitizers.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>

#include "capi.h"
#include "model/safetensors.h"

namespace {

fvae_losses one_step(fvae_trainer* trainer) {
    const fvae_array x = rows();
    fvae_losses losses;
    ok(fvae_trainer_step(trainer, &x, nullptr, &losses));
    return losses;
}

}  // namespace

TEST(two_trainers_of_one_model) {
    ModelHandle model = make_model(), fresh = make_model();
    fvae_trainer_options sgd = fvae_trainer_options_default();
    sgd.optimizer = FVAE_SGD;
    sgd.learning_rate = 0.1;
    TrainerHandle first = make_trainer(model.get(), sgd), second = make_trainer(model.get(), sgd);
    one_step(first.get());
    for (int i = 0; i < 20; ++i) one_step(second.get());
    set_parameters(fresh.get(), parameters(model.get()));
    one_step(first.get());  // the first trainer's second step, on what the second trainer left
    TrainerHandle alone = make_trainer(fresh.get(), sgd);
    const fvae_array x = rows();
    std::vector<float> noise(kRows * kZ, 0.0f);
    ok(fvae_trainer_step(first.get(), &x, noise.data(), nullptr));
    set_parameters(fresh.get(), parameters(model.get()));
    ok(fvae_trainer_step(second.get(), &x, noise.data(), nullptr));
    ok(fvae_trainer_step(alone.get(), &x, noise.data(), nullptr));
    CHECK(parameters(model.get()) == parameters(fresh.get()));
}

TEST(handles_may_be_freed_in_any_order) {
    const fvae_array x = rows();
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get());
    model.reset();
    ok(fvae_trainer_fit(trainer.get(), &x, 1, nullptr, nullptr, 0, nullptr));
    fvae_model* kept = nullptr;
    ok(fvae_trainer_model(trainer.get(), &kept));
    model.reset(kept);
    // A callback may free its own trainer: the run goes on to its end.
    fvae_trainer* raw = trainer.release();
    const fvae_callback free_it = [](void* user, fvae_event, const fvae_progress*) -> int32_t {
        fvae_trainer_free(static_cast<fvae_trainer*>(user));
        return FVAE_CALLBACK_CONTINUE;
    };
    ok(fvae_trainer_fit(raw, &x, 1, nullptr, free_it, 1u << FVAE_TRAIN_BEGIN, raw));
    std::vector<double> scores(kRows);
    ok(fvae_model_elbo(model.get(), &x, 1, 0, scores.data()));
}

TEST(parameters_set_while_a_fit_runs) {
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get());
    const auto values = parameters(model.get());
    std::atomic<bool> stop{false};
    std::thread writer([&] {
        while (!stop) fvae_model_set_parameter(model.get(), 0, values[0].data());
    });
    const fvae_array x = rows();
    const fvae_status status = fvae_trainer_fit(trainer.get(), &x, 200, nullptr, nullptr, 0, nullptr);
    stop = true;
    writer.join();
    ok(status);
    for (const auto& parameter : parameters(model.get()))
        for (float v : parameter) CHECK(std::isfinite(v));
}

TEST(bad_rows_of_streamed_data_name_the_step) {
    std::vector<float> values = data();
    values[29 * kD + 5] = std::nanf("");
    fvae_array x = rows(values), good = rows();
    x.streamed = 1;
    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = 8;
    options.shuffle = 0;
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get(), options);
    CHECK_FAILS(fvae_trainer_fit(trainer.get(), &x, 1, nullptr, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT,
                "NaN in row 29, column 5");
    CHECK(std::string(fvae_last_error()).find("before step 3 (epoch 0, batch 3)") != std::string::npos);
    CHECK_EQUAL(fvae_trainer_steps(trainer.get()), 3);
    TrainerHandle other = make_trainer(model.get(), options);
    CHECK_FAILS(fvae_trainer_fit(other.get(), &good, 1, &x, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT,
                "after all steps of epoch 0, before its validation");
    CHECK_EQUAL(fvae_trainer_steps(other.get()), 5);
    ok(fvae_trainer_fit(other.get(), &good, 1, nullptr, nullptr, 0, nullptr));
    CHECK_EQUAL(fvae_trainer_epochs(other.get()), 1);
}

TEST(a_step_by_hand_brings_no_snapshot_back) {
    fvae_config config = small_config();
    config.likelihood = FVAE_GAUSSIAN;
    ModelHandle model = make_model(config);
    fvae_trainer_options options = fvae_trainer_options_default();
    options.snapshot = 1;
    TrainerHandle trainer = make_trainer(model.get(), options);
    const fvae_array x = rows();
    ok(fvae_trainer_fit(trainer.get(), &x, 2, nullptr, nullptr, 0, nullptr));
    one_step(trainer.get());
    const auto before = parameters(model.get());
    const std::vector<float> huge(kRows * kD, 1e30f);
    const fvae_array far = rows(huge);
    CHECK_FAILS(fvae_trainer_step(trainer.get(), &far, nullptr, nullptr), FVAE_NON_FINITE, "as they were before");
    CHECK(parameters(model.get()) == before);
    CHECK_EQUAL(fvae_trainer_steps(trainer.get()), 3);
}

namespace {

// A checkpoint after one epoch of five steps, rewritten with `from` replaced by `to` in one metadata entry.
void write_checkpoint(const char* path, const char* key = "", const std::string& from = "",
                      const std::string& to = "") {
    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = 8;
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get(), options);
    const fvae_array x = rows();
    ok(fvae_trainer_fit(trainer.get(), &x, 1, nullptr, nullptr, 0, nullptr));
    ok(fvae_trainer_save(trainer.get(), path));
    if (!*key) return;
    std::vector<fusedvae::TensorToWrite> tensors;
    fusedvae::Metadata metadata;
    {
        const auto file = fusedvae::SafetensorsFile::open(path);
        metadata = file.metadata();
        for (const auto& tensor : file.tensors()) {
            std::vector<float> values(static_cast<size_t>(tensor.elements));
            file.read_float32(tensor, values.data());
            tensors.push_back(
                {tensor.name, tensor.shape, [values](float* out) { std::copy(values.begin(), values.end(), out); }});
        }
    }
    bool replaced = false;
    for (auto& [name, text] : metadata) {
        const size_t at = name == key ? text.find(from) : std::string::npos;
        if (at != std::string::npos) text.replace(at, from.size(), to), replaced = true;
    }
    if (!replaced) throw std::runtime_error(std::string(key) + " does not hold " + from);
    fusedvae::write_safetensors(path, tensors, metadata);
}

}  // namespace

TEST(checkpoints_whose_parts_disagree) {
    const char* path = "test_capi.ckpt";
    const struct {
        const char *key, *from, *to, *message;
    } cases[] = {
        {"config", "[16]", "[17]", "another shape"},
        {"config", "[16]", "[16,16]", "is missing"},
        {"config", "[16]", "[16777216,16777216]", "asks for more parameters"},
        {"config", "\"latent\":3", "\"latent\":-3", "latent"},
        {"config", "\"relu\"", "\"relo\"", "activation must be one of"},
        {"options", "\"seed\":\"0\"", "\"seed\":\"-1\"", "seed"},
        {"options", "\"threads\":0", "\"threads\":5000", "threads"},
        {"options", "\"batch_size\":8", "\"batch_size\":0", "batch_size"},
        {"state", "\"steps\":5", "\"steps\":-5", "steps"},
        {"state", "\"steps\":5", "\"steps\":9007199254740993", "steps"},
        {"state", "\"epoch\":1", "\"epoch\":2", "number of epochs"},
        {"state", "\"data\":\"", "\"data\":\"x", "data"},
        {"history", "\"step\":5", "\"step\":null", "step"},
    };
    for (const auto& c : cases) {
        write_checkpoint(path, c.key, c.from, c.to);
        fvae_trainer* raw = nullptr;
        CHECK_FAILS(fvae_trainer_resume(path, &raw), FVAE_BAD_FILE, c.message);
        CHECK(!raw);
    }
    std::remove(path);
}

TEST(checkpoints_of_absurd_but_possible_runs) {
    const char* path = "test_capi.ckpt";
    const fvae_array x = rows();
    fvae_trainer* raw = nullptr;
    write_checkpoint(path, "state", "\"steps\":5", "\"steps\":9007199254740992");
    ok(fvae_trainer_resume(path, &raw));
    TrainerHandle old(raw, fvae_trainer_free);
    ok(fvae_trainer_fit(old.get(), &x, 1, nullptr, nullptr, 0, nullptr));
    CHECK_EQUAL(fvae_trainer_steps(old.get()), (int64_t{1} << 53) + 5);
    CHECK_FAILS(fvae_trainer_fit(old.get(), &x, kLargest, nullptr, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT,
                "epochs must be between 0");

    write_checkpoint(path, "state", "\"batch\":0", "\"batch\":4503599627370496");
    ok(fvae_trainer_resume(path, &raw));
    TrainerHandle beyond(raw, fvae_trainer_free);
    CHECK_FAILS(fvae_trainer_fit(beyond.get(), &x, 1, nullptr, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT,
                "x has only 5");
    std::remove(path);
}

TEST(batches_from_a_source_train_as_the_same_rows_do) {
    // Without shuffling both see rows 0..15, 16..31, 32..39; the source stops within an epoch and goes on.
    constexpr int64_t kSize = 16;
    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = kSize;
    options.shuffle = 0;
    ModelHandle from_rows = make_model(), from_source = make_model();
    TrainerHandle first = make_trainer(from_rows.get(), options), second = make_trainer(from_source.get(), options);
    const fvae_array x = rows();
    ok(fvae_trainer_fit(first.get(), &x, 3, &x, nullptr, 0, nullptr));

    struct State {
        int64_t calls = 0, stop_after;
    } state{0, 4};
    const fvae_source source = [](void* user, int64_t, int64_t batch, fvae_array* out) -> int32_t {
        ++static_cast<State*>(user)->calls;
        if (batch * kSize >= kRows) return FVAE_CALLBACK_STOP;
        out->data = data().data() + batch * kSize * kD;
        out->rows = std::min(int64_t{kSize}, kRows - batch * kSize);
        out->columns = kD;
        return FVAE_CALLBACK_CONTINUE;
    };
    const fvae_callback stop = [](void* user, fvae_event, const fvae_progress* progress) -> int32_t {
        CHECK_EQUAL(progress->batches, int64_t{0});
        return progress->step == static_cast<State*>(user)->stop_after ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
    };
    ok(fvae_trainer_fit_source(second.get(), source, 3, &x, stop, 1u << FVAE_BATCH_END, &state));
    CHECK_EQUAL(fvae_trainer_steps(second.get()), int64_t{4});
    CHECK_EQUAL(fvae_trainer_epochs(second.get()), int64_t{1});
    ok(fvae_trainer_fit_source(second.get(), source, 2, &x, nullptr, 0, &state));
    CHECK_EQUAL(state.calls, int64_t{3 + 1 + 1 + 2 + 1 + 3 + 1});
    CHECK(parameters(from_rows.get()) == parameters(from_source.get()));
    fvae_epoch expected{}, got{};
    ok(fvae_trainer_history(first.get(), 2, &expected));
    ok(fvae_trainer_history(second.get(), 2, &got));
    CHECK_EQUAL(got.train.loss, expected.train.loss);
    CHECK_EQUAL(got.validation.loss, expected.validation.loss);
}

TEST(a_source_that_fails_leaves_the_training_at_its_step) {
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get());
    const auto before = parameters(model.get());
    const fvae_source failing = [](void*, int64_t, int64_t, fvae_array*) -> int32_t { return FVAE_CALLBACK_ERROR; };
    CHECK_FAILS(fvae_trainer_fit_source(trainer.get(), failing, 1, nullptr, nullptr, 0, nullptr), FVAE_STOPPED,
                "source");
    const fvae_source empty = [](void*, int64_t, int64_t, fvae_array*) -> int32_t { return FVAE_CALLBACK_STOP; };
    CHECK_FAILS(fvae_trainer_fit_source(trainer.get(), empty, 1, nullptr, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT,
                "epoch 0 has no batches");
    const fvae_source narrow = [](void*, int64_t, int64_t, fvae_array* out) -> int32_t {
        *out = rows();
        out->columns = kD - 1;
        return FVAE_CALLBACK_CONTINUE;
    };
    CHECK_FAILS(fvae_trainer_fit_source(trainer.get(), narrow, 1, nullptr, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT,
                "batch has shape (40, 11)");
    CHECK_FAILS(fvae_trainer_fit_source(trainer.get(), nullptr, 1, nullptr, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT,
                "source is NULL");
    CHECK(parameters(model.get()) == before);
}

TEST(a_source_frees_the_training_from_its_array_with_its_first_batch) {
    const char* path = "test_capi_source.checkpoint";
    const fvae_array x = rows();
    const fvae_source whole = [](void*, int64_t, int64_t batch, fvae_array* out) -> int32_t {
        *out = rows();
        return batch == 0 ? FVAE_CALLBACK_CONTINUE : FVAE_CALLBACK_STOP;
    };
    const fvae_source failing = [](void*, int64_t, int64_t, fvae_array*) -> int32_t { return FVAE_CALLBACK_ERROR; };
    const fvae_callback stop = [](void*, fvae_event, const fvae_progress*) -> int32_t { return FVAE_CALLBACK_STOP; };
    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = 16;
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get(), options);
    ok(fvae_trainer_fit(trainer.get(), &x, 1, nullptr, stop, 1u << FVAE_BATCH_END, nullptr));
    ok(fvae_trainer_fit_source(trainer.get(), whole, 0, nullptr, nullptr, 0, nullptr));
    CHECK_FAILS(fvae_trainer_fit_source(trainer.get(), failing, 1, nullptr, nullptr, 0, nullptr), FVAE_STOPPED,
                "source");
    ok(fvae_trainer_fit(trainer.get(), &x, 1, nullptr, nullptr, 0, nullptr));
    CHECK_EQUAL(fvae_trainer_steps(trainer.get()), int64_t{3});

    ok(fvae_trainer_save(trainer.get(), path));
    fvae_trainer* raw = nullptr;
    ok(fvae_trainer_resume(path, &raw));
    std::remove(path);
    TrainerHandle resumed(raw, fvae_trainer_free);
    ok(fvae_trainer_fit_source(resumed.get(), whole, 1, nullptr, nullptr, 0, nullptr));
    ok(fvae_trainer_fit(resumed.get(), &x, 1, nullptr, nullptr, 0, nullptr));
    CHECK_EQUAL(fvae_trainer_epochs(resumed.get()), int64_t{3});
}

TEST(an_epoch_without_batches_is_named_alone) {
    ModelHandle model = make_model();
    TrainerHandle trainer = make_trainer(model.get());
    const fvae_source empty = [](void*, int64_t, int64_t, fvae_array*) -> int32_t { return FVAE_CALLBACK_STOP; };
    fvae_trainer_fit_source(trainer.get(), empty, 1, nullptr, nullptr, 0, nullptr);
    CHECK_EQUAL(std::string(fvae_last_error()), std::string("epoch 0 has no batches"));
}
