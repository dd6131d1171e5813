// SPDX-License-Identifier: MIT
//
// The epoch loop. A CPU takes one step at a time; a GPU takes as many as fit into a tick, or one where the caller wants to
// hear of each. What the caller sees, losses, history, errors and their places, does not depend on it.
#include <algorithm>
#include <stdexcept>

#include "error.h"
#include "trainer.h"

namespace fusedvae {

namespace {

constexpr double kTickSeconds = 0.05;
constexpr int64_t kMostAtOnce = 4096;              // steps whose losses are waited for together
constexpr int64_t kMostEpochs = int64_t{1} << 53;  // as far as a checkpoint counts
constexpr double kNaN = __builtin_nan("");

void check_epochs(int64_t epochs) {
    if (epochs < 0 || epochs > kMostEpochs)
        throw std::invalid_argument("epochs must be between 0 and " + std::to_string(kMostEpochs) + ", it is " +
                                    std::to_string(epochs));
}

// Among the trainings beside it, as long as it runs.
struct Joined {
    Steps& steps;
    Joined(Steps& one, std::shared_ptr<DeviceEnsemble> ensemble) : steps(one) { steps.join(std::move(ensemble)); }
    Joined(const Joined&) = delete;
    ~Joined() { steps.join(nullptr); }
};

}  // namespace

// Consecutive steps of an epoch. One that was not taken, because something was not finite, has the last losses.
struct Trainer::Taken {
    int64_t steps = 0;
    bool finite = true;
    std::vector<fvae_losses> losses;  // of each
    std::vector<int64_t> rows;        // of each one's batch
};

// Where an epoch's batches come from.
struct Trainer::Epochs {
    int64_t batches;              // of an epoch; 0: unknown
    bool takes_many;              // steps at a time
    std::function<void()> begin;  // before each epoch, also one that goes on
    // Takes some steps, which fill `taken`; none where the epoch is over. One, unless many: then about `most`.
    std::function<void(bool many, int64_t most, Taken& taken)> advance;
};

void Trainer::fit(const fvae_array& x, int64_t epochs, const fvae_array* validation, fvae_callback callback,
                  uint32_t events, void* user, std::shared_ptr<DeviceEnsemble> ensemble) {
    const Busy busy(busy_);
    check_epochs(epochs);
    const Rows as_given(x, model_->config, "x");
    if (validation) Rows(*validation, model_->config, "validation_data");
    const int64_t count = as_given.count, size = std::min<int64_t>(options_.batch_size, count);
    const int64_t batches = options_.drop_last ? count / options_.batch_size : (count + size - 1) / size;
    if (batches == 0)
        throw std::invalid_argument("x has " + std::to_string(count) + " rows, fewer than a batch of " +
                                    std::to_string(options_.batch_size) +
                                    ", and drop_last leaves short batches out: lower batch_size or turn it off");
    const uint64_t fingerprint = model_->fingerprint(as_given);
    if (fingerprint != state_.fingerprint && (state_.batch > 0 || resumed_))
        throw std::invalid_argument(
            "x is not the data this training began with, which it would have to go on with; "
            "to train on other data, make a new trainer for the model");
    if (state_.batch > batches)
        throw std::invalid_argument("this training stands at batch " + std::to_string(state_.batch) +
                                    " of its epoch, and x has only " + std::to_string(batches));
    const Rows rows = readable(x, "x", default_threads());
    std::optional<Rows> held_out;
    if (validation) held_out.emplace(readable(*validation, "validation_data", default_threads()));
    Steps& steps = follow_model();
    const Joined joined(steps, std::move(ensemble));
    steps.hold(rows);
    state_.fingerprint = fingerprint;

    const auto advance = [&](bool many, int64_t most, Taken& taken) {
        const int64_t first = state_.batch, left = batches - first;
        const int64_t wanted = many ? steps.at_once(first, left, most) : std::min<int64_t>(left, 1);
        taken.losses.resize(static_cast<size_t>(wanted));
        taken.rows.resize(static_cast<size_t>(wanted));
        for (int64_t i = 0; i < wanted; ++i)
            taken.rows[static_cast<size_t>(i)] = std::min(size, count - (first + i) * size);
        taken.steps = wanted > 0 ? steps.run(first, wanted, state_.steps, taken.losses.data()) : 0;
        taken.finite = taken.steps == wanted;
    };
    run_epochs({batches, steps.takes_many(), [&] { steps.set_order(order(count)); }, advance}, epochs,
               held_out ? &*held_out : nullptr, {callback, events, user});
}

void Trainer::fit_source(fvae_source source, int64_t epochs, const fvae_array* validation, fvae_callback callback,
                         uint32_t events, void* user) {
    const Busy busy(busy_);
    check_epochs(epochs);
    std::optional<Rows> held_out;
    if (validation) held_out.emplace(readable(*validation, "validation_data", default_threads()));
    if (state_.batch > 0 && state_.fingerprint != 0)
        throw std::invalid_argument("this training stands within an epoch of the array that fit was given, at batch " +
                                    std::to_string(state_.batch) + ": finish it with fit, or make a new trainer");

    Steps& steps = follow_model();
    const auto advance = [&](bool, int64_t, Taken& taken) {
        taken.steps = 0;
        fvae_array array = fvae_array_default();
        const int32_t answer = source(user, state_.epoch, state_.batch, &array);
        if (answer == FVAE_CALLBACK_ERROR) throw Error(FVAE_STOPPED, "the source of batches failed");
        if (answer == FVAE_CALLBACK_STOP) return;
        array.streamed = 0;  // it is here
        const Rows rows = readable(array, "batch", 1);
        if (rows.count > kMostBatchRows) throw std::invalid_argument("batch has more than 16777216 rows");
        state_.fingerprint = 0;  // from its first step on the training is bound to no array, also where it was resumed
        resumed_ = false;
        taken.losses.resize(1);
        taken.rows = {rows.count};
        taken.finite = steps.step(rows, nullptr, state_.steps, taken.losses.data());
        taken.steps = taken.finite;
    };
    run_epochs({0, false, [] {}, advance}, epochs, held_out ? &*held_out : nullptr, {callback, events, user});
}

void Trainer::add(const Taken& taken) {
    state_.steps += taken.steps;
    state_.batch += taken.steps;
    for (size_t i = 0; i < static_cast<size_t>(taken.steps); ++i) {
        const double rows = static_cast<double>(taken.rows[i]);
        state_.rows += rows;
        state_.loss += taken.losses[i].loss * rows;
        state_.reconstruction += taken.losses[i].reconstruction * rows;
        state_.kl += taken.losses[i].kl * rows;
    }
}

void Trainer::run_epochs(const Epochs& source, int64_t epochs, const Rows* held_out, const Listener& listener) {
    const int64_t last_epoch = state_.epoch + epochs;
    fvae_progress progress{};
    progress.struct_size = sizeof progress;
    progress.epochs = last_epoch;
    progress.batches = source.batches;
    bool stop = false;
    double last_tick = platform::seconds();
    const auto call = [&](fvae_event event) {
        if (!listener.callback || !(listener.events & (1u << event))) return;
        const int32_t answer = listener.callback(listener.user, event, &progress);
        if (answer == FVAE_CALLBACK_ERROR) throw Error(FVAE_STOPPED, "a callback failed");
        if (answer == FVAE_CALLBACK_STOP) stop = true;
    };
    const auto place = [&](int64_t step) {
        progress.epoch = state_.epoch;
        progress.batch = state_.batch;
        progress.step = state_.steps;
        progress.train = epoch_means();
        progress.learning_rate = learning_rate_at(options_, step);
        progress.beta = beta_at(options_, step);
    };
    const auto tell = [&](fvae_event event) {
        place(state_.steps);
        call(event);
    };
    const bool many = source.takes_many && !(listener.callback && (listener.events & (1u << FVAE_BATCH_END)));
    int64_t most = 1;  // steps at a time
    Taken taken;

    tell(FVAE_TRAIN_BEGIN);
    while (state_.epoch < last_epoch && !stop) {
        take_snapshot();
        if (state_.batch == 0) tell(FVAE_EPOCH_BEGIN);
        source.begin();
        bool over = false;
        while (!stop && !over) {
            const double began = many ? platform::seconds() : 0.0;
            try {
                source.advance(many, most, taken);
            } catch (const std::invalid_argument& bad_row) {  // of streamed data
                throw std::invalid_argument(std::string(bad_row.what()) + ". The training stands before " + position() +
                                            ", which would have read it");
            }
            add(taken);
            if (!taken.finite)
                stop_non_finite(taken.losses[static_cast<size_t>(taken.steps)], snapshot_ ? &*snapshot_ : nullptr);
            over = taken.steps == 0 || state_.batch == source.batches;
            if (taken.steps == 0) break;
            if (many) {
                const double took = std::max(platform::seconds() - began, 1e-6) / static_cast<double>(taken.steps);
                most =
                    std::clamp(static_cast<int64_t>(kTickSeconds / took), int64_t{1}, std::min(2 * most, kMostAtOnce));
            }
            if (!listener.callback) continue;
            progress.batch_losses = taken.losses[static_cast<size_t>(taken.steps) - 1];
            place(state_.steps - 1);  // the rate and beta that these losses were made with
            call(FVAE_BATCH_END);
            const double now = platform::seconds();
            if (now - last_tick >= kTickSeconds) {
                last_tick = now;
                tell(FVAE_TICK);
            }
        }
        if (!over) break;  // stopped inside an epoch: the next fit finishes it
        if (state_.batch == 0) throw std::invalid_argument("epoch " + std::to_string(state_.epoch) + " has no batches");

        fvae_epoch entry{};
        entry.struct_size = sizeof entry;
        entry.epoch = state_.epoch;
        entry.step = state_.steps;
        entry.train = epoch_means();
        try {
            entry.validation = held_out ? steps_->evaluate(*held_out, options_.seed) : fvae_losses{kNaN, kNaN, kNaN};
        } catch (const std::invalid_argument& bad_row) {
            throw std::invalid_argument(std::string(bad_row.what()) + ". The training stands after all steps of " +
                                        "epoch " + std::to_string(state_.epoch) + ", before its validation");
        }
        entry.learning_rate = learning_rate_at(options_, state_.steps - 1);
        entry.beta = beta_at(options_, state_.steps - 1);
        history_.push_back(entry);
        place(state_.steps - 1);
        progress.validation = entry.validation;
        progress.has_validation = held_out != nullptr;
        // The state moves on first, so that a checkpoint saved from the callback begins with the next epoch.
        state_.batch = 0;
        state_.rows = state_.loss = state_.reconstruction = state_.kl = 0.0;
        ++state_.epoch;
        call(FVAE_EPOCH_END);
        progress.has_validation = 0;
    }
    call(FVAE_TRAIN_END);
}

}  // namespace fusedvae
