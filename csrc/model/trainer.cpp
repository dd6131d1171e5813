// SPDX-License-Identifier: MIT
#include "trainer.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "error.h"

namespace fusedvae {

namespace {

constexpr double kTickSeconds = 0.05;
constexpr int64_t kMostBatchRows = int64_t{1} << 24;
constexpr int64_t kMostEpochs = int64_t{1} << 53;  // as far as a checkpoint counts
constexpr double kNaN = __builtin_nan("");

void check_epochs(int64_t epochs) {
    if (epochs < 0 || epochs > kMostEpochs)
        throw std::invalid_argument("epochs must be between 0 and " + std::to_string(kMostEpochs) + ", it is " +
                                    std::to_string(epochs));
}

std::shared_ptr<Model> trainable(std::shared_ptr<Model> model) {
    model->check_trainable();
    return model;
}

fvae_trainer_options checked(fvae_trainer_options options) {
    check(options);
    options.precision = available(options.precision);
    return options;
}

std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "infinite" : "minus infinity";
    return Json(value).dump();
}

}  // namespace

// A trainer does one thing at a time; a second caller is told so instead of waiting for hours.
class Trainer::Busy {
  public:
    explicit Busy(std::atomic<bool>& flag) : flag_(flag) {
        if (flag_.exchange(true))
            throw Error(FVAE_RUNTIME_ERROR, "this trainer is already running; wait for that call to end");
    }
    ~Busy() { flag_.store(false); }

  private:
    std::atomic<bool>& flag_;
};

Trainer::Trainer(std::shared_ptr<Model> model, const fvae_trainer_options& options)
    : model_(trainable(std::move(model))),
      options_(checked(options)),
      backend_(backend_in(options_.precision)),
      step_(model_->config, model_->network, backend_),
      copies_(model_->network, backend_),
      m_(has_m(options) ? model_->network.floats : 0),
      v_(has_v(options) ? model_->network.floats : 0),
      gradient_(options.clip_norm > 0.0 ? model_->network.floats : 0),
      seen_version_(model_->version - 1) {}

int Trainer::threads_for(int64_t rows) const {
    return options_.threads > 0 ? options_.threads : useful_threads(model_->network, rows, default_threads());
}

Destination Trainer::destination() {
    Destination d{};
    d.epilogue = update_epilogue(options_);
    d.update = update_at(options_, state_.steps);
    d.clip_norm = options_.clip_norm;
    d.parameters = model_->flat.data();
    d.transposed = copies_.transposed.data();
    d.words = copies_.words.data();
    d.m = m_.data();
    d.v = v_.data();
    d.gradient = gradient_.data();
    return d;
}

void Trainer::refresh_copies() {
    if (seen_version_ == model_->version) return;
    copies_.refresh(model_->network, model_->flat.data());
    seen_version_ = model_->version;
}

// One optimiser step; the caller holds the trainer, this takes the model. A loss that is not finite brings `good` back.
void Trainer::train_on(Batch& batch, fvae_losses* losses, const Snapshot* good) {
    bool updated;
    {
        const std::unique_lock lock(model_->mutex);
        refresh_copies();
        if (!batch.noise.given)
            batch.noise.stream = make_stream(options_.seed, static_cast<uint64_t>(state_.steps), kTrain);
        batch.beta = beta_at(options_, state_.steps);
        batch.free_bits = options_.free_bits;
        Lease lease(threads_for(batch.B));
        updated = step_.run(lease, batch, destination(), losses);
        if (updated) {
            ++state_.steps;
            seen_version_ = ++model_->version;  // another trainer of this model has to transpose again
        }
    }
    if (!updated) stop_non_finite(*losses, good);
}

std::string Trainer::position() const {
    return "step " + std::to_string(state_.steps) + " (epoch " + std::to_string(state_.epoch) + ", batch " +
           std::to_string(state_.batch) + ")";
}

void Trainer::take_snapshot() {
    if (!options_.snapshot) return;
    if (!snapshot_) snapshot_ = Snapshot{Buffer(model_->flat.size()), Buffer(m_.size()), Buffer(v_.size()), State()};
    const std::shared_lock lock(model_->mutex);
    snapshot_->flat.copy_from(model_->flat);
    if (m_.size()) snapshot_->m.copy_from(m_);
    if (v_.size()) snapshot_->v.copy_from(v_);
    snapshot_->state = state_;
}

void Trainer::stop_non_finite(const fvae_losses& losses, const Snapshot* good) {
    std::string message =
        (std::isfinite(losses.loss) ? "the gradient's norm became non-finite at " : "the loss became non-finite at ") +
        position() + ": reconstruction " + number(losses.reconstruction) + ", KL " + number(losses.kl) + ". ";
    const auto finite = [&] {
        const int64_t n = static_cast<int64_t>(model_->flat.size());
        return model_->backend.find_bad(model_->flat.data(), n, -3.402823466e38f, 3.402823466e38f) == n;
    };
    if (good) {
        const std::unique_lock lock(model_->mutex);
        model_->flat.copy_from(good->flat);
        if (m_.size()) m_.copy_from(good->m);
        if (v_.size()) v_.copy_from(good->v);
        state_ = good->state;
        ++model_->version;
        message += "The parameters are those before " + position() + ". ";
    } else if (finite()) {
        message += "The parameters are as they were before this step. ";
    } else {
        message +=
            "The parameters, as they were before this step, already hold non-finite values: load an earlier "
            "checkpoint, or train with snapshot on. ";
    }
    message += "Try a lower learning rate (it is " + number(learning_rate_at(options_, state_.steps)) +
               "), clip_norm, a warm-up, or data of a smaller scale";
    throw Error(FVAE_NON_FINITE, message);
}

// Fisher and Yates (Durstenfeld 1964); each draw takes 64 bits, so its bias is below 2^-32.
std::vector<uint32_t> Trainer::order(int64_t rows) const {
    std::vector<uint32_t> index(static_cast<size_t>(rows));
    for (size_t i = 0; i < index.size(); ++i) index[i] = static_cast<uint32_t>(i);
    if (!options_.shuffle) return index;
    const Stream stream = make_stream(options_.seed, static_cast<uint64_t>(state_.epoch), kShuffle);
    uint32_t words[4];
    for (size_t i = index.size(); i > 1; --i) {
        const size_t draw = index.size() - i;  // two draws from each four words
        if (draw % 2 == 0) {
            const uint32_t counter[4] = {static_cast<uint32_t>(draw / 2), 0, stream.step, stream.step_purpose};
            philox4x32(counter, stream.key, words);
        }
        const uint64_t bits = (uint64_t{words[2 * (draw % 2) + 1]} << 32) | words[2 * (draw % 2)];
        std::swap(index[i - 1], index[static_cast<size_t>(bits % i)]);
    }
    return index;
}

fvae_losses Trainer::epoch_means() const {
    const double rows = std::max(1.0, state_.rows);
    return {state_.loss / rows, state_.reconstruction / rows, state_.kl / rows};
}

fvae_losses Trainer::evaluate_rows(Step& step, const Rows& rows, uint64_t seed) const {
    const std::shared_lock lock(model_->mutex);
    const int64_t size = std::min<int64_t>(rows.count, options_.batch_size);
    Lease lease(threads_for(size));
    fvae_losses sum{0.0, 0.0, 0.0};
    for (int64_t first = 0; first < rows.count; first += size) {
        Batch batch{};
        batch.x = &rows;
        batch.first = first;
        batch.B = static_cast<int>(std::min(size, rows.count - first));
        batch.noise = Noise{nullptr, 0, make_stream(seed, 0, kEvaluate), static_cast<uint32_t>(first)};
        batch.beta = options_.beta;  // always the final one
        batch.free_bits = options_.free_bits;
        batch.check = rows.streamed;
        const fvae_losses one = step.evaluate(lease, batch, model_->flat.data());
        const double weight = static_cast<double>(batch.B) / static_cast<double>(rows.count);
        sum.loss += one.loss * weight;
        sum.reconstruction += one.reconstruction * weight;
        sum.kl += one.kl * weight;
    }
    return sum;
}

fvae_losses Trainer::evaluate(const fvae_array& x, uint64_t seed) const {
    const Rows rows(x, model_->config, "x");
    if (!rows.streamed) rows.check_all(model_->backend, default_threads());
    Step step(model_->config, model_->network, model_->backend);
    return evaluate_rows(step, rows, seed);
}

fvae_losses Trainer::step(const fvae_array& array, const float* noise) {
    const Busy busy(busy_);
    const Rows rows(array, model_->config, "batch");
    if (rows.count > kMostBatchRows) throw std::invalid_argument("batch has more than 16777216 rows");
    const int Z = model_->network.Z;
    if (noise) check_noise(model_->backend, noise, 1, rows.count, Z);
    rows.check_all(model_->backend, 1);
    Batch batch{};
    batch.x = &rows;
    batch.B = static_cast<int>(rows.count);
    batch.noise.given = noise;
    batch.noise.given_stride = Z;
    fvae_losses losses;
    train_on(batch, &losses, nullptr);
    return losses;
}

void Trainer::fit(const fvae_array& x, int64_t epochs, const fvae_array* validation, fvae_callback callback,
                  uint32_t events, void* user) {
    const Busy busy(busy_);
    check_epochs(epochs);
    const Rows rows(x, model_->config, "x");
    std::optional<Rows> held_out;
    if (validation) held_out.emplace(*validation, model_->config, "validation_data");
    const int64_t size = std::min<int64_t>(options_.batch_size, rows.count);
    const int64_t batches = options_.drop_last ? rows.count / options_.batch_size : (rows.count + size - 1) / size;
    if (batches == 0)
        throw std::invalid_argument("x has " + std::to_string(rows.count) + " rows, fewer than a batch of " +
                                    std::to_string(options_.batch_size) +
                                    ", and drop_last leaves short batches out: lower batch_size or turn it off");
    const uint64_t fingerprint = rows.fingerprint();
    if (fingerprint != state_.fingerprint && (state_.batch > 0 || resumed_))
        throw std::invalid_argument(
            "x is not the data this training began with, which it would have to go on with; "
            "to train on other data, make a new trainer for the model");
    if (state_.batch > batches)
        throw std::invalid_argument("this training stands at batch " + std::to_string(state_.batch) +
                                    " of its epoch, and x has only " + std::to_string(batches));
    if (!rows.streamed) rows.check_all(model_->backend, default_threads());
    if (held_out && !held_out->streamed) held_out->check_all(model_->backend, default_threads());
    state_.fingerprint = fingerprint;

    std::vector<uint32_t> index;
    const auto next = [&](Batch& batch) {
        if (state_.batch == batches) return false;
        batch.x = &rows;
        batch.index = index.data() + state_.batch * size;
        batch.B = static_cast<int>(std::min(size, rows.count - state_.batch * size));
        batch.check = rows.streamed;
        return true;
    };
    run_epochs([&] { index = order(rows.count); }, next, batches, epochs, held_out ? &*held_out : nullptr,
               {callback, events, user});
}

void Trainer::fit_source(fvae_source source, int64_t epochs, const fvae_array* validation, fvae_callback callback,
                         uint32_t events, void* user) {
    const Busy busy(busy_);
    check_epochs(epochs);
    std::optional<Rows> held_out;
    if (validation) held_out.emplace(*validation, model_->config, "validation_data");
    if (held_out && !held_out->streamed) held_out->check_all(model_->backend, default_threads());
    if (state_.batch > 0 && state_.fingerprint != 0)
        throw std::invalid_argument("this training stands within an epoch of the array that fit was given, at batch " +
                                    std::to_string(state_.batch) + ": finish it with fit, or make a new trainer");

    std::optional<Rows> rows;
    const auto next = [&](Batch& batch) {
        fvae_array array = fvae_array_default();
        const int32_t answer = source(user, state_.epoch, state_.batch, &array);
        if (answer == FVAE_CALLBACK_ERROR) throw Error(FVAE_STOPPED, "the source of batches failed");
        if (answer == FVAE_CALLBACK_STOP) return false;
        rows.emplace(array, model_->config, "batch");
        if (rows->count > kMostBatchRows) throw std::invalid_argument("batch has more than 16777216 rows");
        rows->check_all(model_->backend, 1);
        state_.fingerprint = 0;  // from its first step on the training is bound to no array, also where it was resumed
        resumed_ = false;
        batch.x = &*rows;
        batch.B = static_cast<int>(rows->count);
        return true;
    };
    run_epochs([] {}, next, 0, epochs, held_out ? &*held_out : nullptr, {callback, events, user});
}

// begin() before each epoch, also one that goes on; next() fills a batch or says that the epoch is over. batches 0: unknown.
void Trainer::run_epochs(const std::function<void()>& begin, const std::function<bool(Batch&)>& next, int64_t batches,
                         int64_t epochs, const Rows* held_out, const Listener& listener) {
    if (held_out && backend_.bfloat16 && !float32_step_)
        float32_step_.emplace(model_->config, model_->network, model_->backend);
    const int64_t last_epoch = state_.epoch + epochs;
    fvae_progress progress{};
    progress.struct_size = sizeof progress;
    progress.epochs = last_epoch;
    progress.batches = batches;
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

    tell(FVAE_TRAIN_BEGIN);
    while (state_.epoch < last_epoch && !stop) {
        take_snapshot();
        if (state_.batch == 0) tell(FVAE_EPOCH_BEGIN);
        begin();
        bool over = false;
        while (!stop && !over) {
            Batch batch{};
            fvae_losses losses;
            try {
                over = !next(batch);
                if (!over) train_on(batch, &losses, snapshot_ ? &*snapshot_ : nullptr);
            } catch (const std::invalid_argument& bad_row) {  // of streamed data
                throw std::invalid_argument(std::string(bad_row.what()) + ". The training stands before " + position() +
                                            ", which would have read it");
            }
            if (over) break;
            ++state_.batch;
            state_.rows += batch.B;
            state_.loss += losses.loss * batch.B;
            state_.reconstruction += losses.reconstruction * batch.B;
            state_.kl += losses.kl * batch.B;
            over = state_.batch == batches;
            if (listener.callback) {
                progress.batch_losses = losses;
                place(state_.steps - 1);  // the rate and beta that these losses were made with
                call(FVAE_BATCH_END);
                const double now = platform::seconds();
                if (now - last_tick >= kTickSeconds) {
                    last_tick = now;
                    tell(FVAE_TICK);
                }
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
            entry.validation = held_out
                                   ? evaluate_rows(float32_step_ ? *float32_step_ : step_, *held_out, options_.seed)
                                   : fvae_losses{kNaN, kNaN, kNaN};
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

void Trainer::set_learning_rate(double rate) {
    fvae_trainer_options changed = options_;
    changed.learning_rate = rate;
    check(changed);
    options_ = changed;
}

std::array<Trainer::Memory, 7> Trainer::memory() const {
    const int64_t copies = snapshot_ ? snapshot_->flat.bytes() + snapshot_->m.bytes() + snapshot_->v.bytes() : 0;
    return {{{"parameters", model_->flat.bytes()},
             {"transposed", copies_.transposed.bytes()},
             {"words", copies_.words.bytes()},
             {"moments", m_.bytes() + v_.bytes()},
             {"gradients", gradient_.bytes()},
             {"snapshot", copies},
             {"workspace", step_.bytes() + (float32_step_ ? float32_step_->bytes() : 0)}}};
}

}  // namespace fusedvae
