// SPDX-License-Identifier: MIT
#include "trainer.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "error.h"

namespace fusedvae {

namespace {

std::shared_ptr<Model> trainable(std::shared_ptr<Model> model) {
    model->check_trainable();
    return model;
}

fvae_trainer_options checked(fvae_trainer_options options, const Model& model) {
    check(options);
    options.precision = available(options.precision, model.place() != nullptr);
    return options;
}

std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "infinite" : "minus infinity";
    return Json(value).dump();
}

}  // namespace

Trainer::Busy::Busy(std::atomic<bool>& flag) : flag_(flag) {
    if (flag_.exchange(true))
        throw Error(FVAE_RUNTIME_ERROR, "this trainer is already running; wait for that call to end");
}

Trainer::Trainer(std::shared_ptr<Model> model, const fvae_trainer_options& options)
    : model_(trainable(std::move(model))), options_(checked(options, *model_)), moments_(model_->network, options) {}

// The steps where the model is now; the caller holds the trainer. Where it has moved, the moments follow it.
Steps& Trainer::follow_model() {
    if (!steps_ || !steps_->follows(*model_)) {
        moments();
        steps_.reset();
        steps_ = make_steps(*model_, options_, moments_);
    }
    return *steps_;
}

// The moments as they are now.
const Moments& Trainer::moments() const {
    if (steps_) steps_->fetch(moments_);
    return moments_;
}

// Rows from outside, checked, except those that a CPU reads batch by batch. A GPU is given all of them at once.
Rows Trainer::readable(const fvae_array& array, const char* what, int threads) const {
    Rows rows(array, model_->config, what);
    if (model_->place()) rows.streamed = false;
    if (!rows.streamed) model_->check(rows, threads);
    return rows;
}

std::string Trainer::position() const {
    return "step " + std::to_string(state_.steps) + " (epoch " + std::to_string(state_.epoch) + ", batch " +
           std::to_string(state_.batch) + ")";
}

void Trainer::take_snapshot() {
    if (!options_.snapshot) return;
    const Buffer &m = moments().m, &v = moments().v;
    if (!snapshot_) snapshot_ = Snapshot{Buffer(model_->flat.size()), Buffer(m.size()), Buffer(v.size()), State()};
    const std::shared_lock lock(model_->mutex);
    model_->host();
    snapshot_->flat.copy_from(model_->flat);
    if (m.size()) snapshot_->m.copy_from(m);
    if (v.size()) snapshot_->v.copy_from(v);
    snapshot_->state = state_;
}

void Trainer::stop_non_finite(const fvae_losses& losses, const Snapshot* good) {
    std::string message =
        (std::isfinite(losses.loss) ? "the gradient's norm became non-finite at " : "the loss became non-finite at ") +
        position() + ": reconstruction " + number(losses.reconstruction) + ", KL " + number(losses.kl) + ". ";
    const auto finite = [&] {
        const int64_t n = static_cast<int64_t>(model_->flat.size());
        return model_->backend.find_bad(model_->host(), n, -3.402823466e38f, 3.402823466e38f) == n;
    };
    if (good) {
        const std::unique_lock lock(model_->mutex);
        model_->change();
        model_->flat.copy_from(good->flat);
        if (good->m.size()) moments_.m.copy_from(good->m);
        if (good->v.size()) moments_.v.copy_from(good->v);
        if (steps_) steps_->load(moments_);
        state_ = good->state;
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
    // Places are drawn and fetched some time before they are swapped: in random order each swap would wait for memory.
    constexpr size_t kAhead = 64;  // even: two draws from each four words
    size_t places[kAhead];
    for (size_t left = index.size(), ahead; left > 1; left -= ahead) {
        ahead = std::min(left - 1, kAhead);
        for (size_t k = 0; k < ahead; k += 2) {
            const size_t draw = index.size() - left + k;
            const uint32_t counter[4] = {static_cast<uint32_t>(draw / 2), 0, stream.step, stream.step_purpose};
            uint32_t words[4];
            philox4x32(counter, stream.key, words);
            for (size_t i = 0; i < 2; ++i) {
                const uint64_t bits = (uint64_t{words[2 * i + 1]} << 32) | words[2 * i];
                places[k + i] = static_cast<size_t>(bits % (left - k - i));
                __builtin_prefetch(&index[places[k + i]], 1);
            }
        }
        for (size_t k = 0; k < ahead; ++k) std::swap(index[left - k - 1], index[places[k]]);
    }
    return index;
}

fvae_losses Trainer::epoch_means() const {
    const double rows = std::max(1.0, state_.rows);
    return {state_.loss / rows, state_.reconstruction / rows, state_.kl / rows};
}

fvae_losses Trainer::evaluate(const fvae_array& x, uint64_t seed) const {
    const Rows rows = readable(x, "x", default_threads());
    // The CPU's steps are one caller's at a time, and cheap to make; calls on a GPU take turns.
    if (steps_ && steps_->takes_many() && steps_->follows(*model_)) return steps_->evaluate(rows, seed);
    // They score in float32, also where the precision of the steps is not to be had.
    fvae_trainer_options float32 = options_;
    float32.precision = FVAE_PRECISION_FLOAT32;
    return make_steps(*model_, float32, moments_)->evaluate(rows, seed);
}

fvae_losses Trainer::step(const fvae_array& array, const float* noise) {
    const Busy busy(busy_);
    const Rows rows = readable(array, "batch", 1);
    if (rows.count > kMostBatchRows) throw std::invalid_argument("batch has more than 16777216 rows");
    if (noise) check_noise(model_->backend, noise, 1, rows.count, model_->network.Z);
    fvae_losses losses;
    if (!follow_model().step(rows, noise, state_.steps, &losses)) stop_non_finite(losses, nullptr);
    ++state_.steps;
    return losses;
}

void Trainer::set_learning_rate(double rate) {
    fvae_trainer_options changed = options_;
    changed.learning_rate = rate;
    check(changed);
    options_ = changed;
}

std::array<Trainer::Memory, 8> Trainer::memory() const {
    const int64_t copies = snapshot_ ? snapshot_->flat.bytes() + snapshot_->m.bytes() + snapshot_->v.bytes() : 0;
    const Steps::Memory steps = steps_ ? steps_->memory() : Steps::Memory{};
    return {{{"parameters", model_->flat.bytes()},
             {"transposed", steps.transposed},
             {"words", steps.words},
             {"moments", moments_.m.bytes() + moments_.v.bytes()},
             {"gradients", steps.gradients},
             {"snapshot", copies},
             {"workspace", steps.workspace},
             {"device", steps.device}}};
}

}  // namespace fusedvae
