// SPDX-License-Identifier: MIT
//
// Training steps on the CPU, one batch at a time: step.h's, with the copies of the weights that they read.
#include <algorithm>

#include "steps.h"

namespace fusedvae {

namespace {

class CpuSteps : public Steps {
  public:
    CpuSteps(Model& model, const fvae_trainer_options& options, Moments& moments)
        : model_(model),
          options_(options),
          moments_(moments),
          backend_(backend_in(options.precision)),
          step_(model.config, model.network, backend_, Sharing::by_measure) {}

    bool follows(const Model& model) const override { return !model.place(); }
    bool takes_many() const override { return false; }

    void hold(const Rows& rows) override { rows_ = &rows; }
    void set_order(std::vector<uint32_t> index) override { index_ = std::move(index); }

    int64_t run(int64_t first_batch, int64_t count, int64_t done, fvae_losses* losses) override {
        const int64_t rows = static_cast<int64_t>(index_.size());
        const int64_t size = std::min<int64_t>(options_.batch_size, rows);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t first = (first_batch + i) * size;
            Batch batch{};
            batch.x = rows_;
            batch.index = index_.data() + first;
            batch.B = static_cast<int>(std::min(size, rows - first));
            batch.check = rows_->streamed;
            batch.next = batch.index + batch.B;
            batch.next_B = static_cast<int>(std::min(size, rows - first - batch.B));
            if (!take(batch, done + i, losses + i)) return i;
        }
        return count;
    }

    bool step(const Rows& rows, const float* noise, int64_t done, fvae_losses* losses) override {
        Batch batch{};
        batch.x = &rows;
        batch.B = static_cast<int>(rows.count);
        batch.noise.given = noise;
        batch.noise.given_stride = model_.network.Z;
        return take(batch, done, losses);
    }

    fvae_losses evaluate(const Rows& rows, uint64_t seed) override {
        if (backend_.bfloat16 && !float32_step_) float32_step_.emplace(model_.config, model_.network, model_.backend);
        Step& step = float32_step_ ? *float32_step_ : step_;
        const std::shared_lock lock(model_.mutex);
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
            const fvae_losses one = step.evaluate(lease, batch, model_.host());
            const double weight = static_cast<double>(batch.B) / static_cast<double>(rows.count);
            sum.loss += one.loss * weight;
            sum.reconstruction += one.reconstruction * weight;
            sum.kl += one.kl * weight;
        }
        return sum;
    }

    Memory memory() const override {
        return {copies_ ? copies_->transposed.bytes() : 0, copies_ ? copies_->words.bytes() : 0, gradient_.bytes(),
                step_.bytes() + (float32_step_ ? float32_step_->bytes() : 0), 0};
    }

  private:
    int threads_for(int64_t rows) const {
        return options_.threads > 0 ? options_.threads : useful_threads(model_.network, rows, default_threads());
    }

    Destination destination(int64_t done) {
        Destination d{};
        d.epilogue = update_epilogue(options_);
        d.update = update_at(options_, done);
        d.clip_norm = options_.clip_norm;
        d.parameters = model_.flat.data();
        d.transposed = copies_->transposed.data();
        d.words = copies_->words.data();
        d.m = moments_.m.data();
        d.v = moments_.v.data();
        d.gradient = gradient_.data();
        return d;
    }

    bool take(Batch& batch, int64_t done, fvae_losses* losses) {
        const std::unique_lock lock(model_.mutex);
        const bool first = !copies_;
        if (first) {  // whoever only evaluates needs neither
            if (options_.clip_norm > 0.0) gradient_ = Buffer(model_.network.floats);
            copies_.emplace(model_.network, backend_);
        }
        if (first || seen_version_ != model_.version) {
            copies_->refresh(model_.network, model_.flat.data());
            seen_version_ = model_.version;
        }
        if (!batch.noise.given) batch.noise.stream = make_stream(options_.seed, static_cast<uint64_t>(done), kTrain);
        batch.beta = beta_at(options_, done);
        batch.free_bits = options_.free_bits;
        Lease lease(threads_for(batch.B));
        const bool updated = step_.run(lease, batch, destination(done), losses);
        if (updated) seen_version_ = ++model_.version;  // another trainer of this model has to make its copies again
        return updated;
    }

    Model& model_;
    const fvae_trainer_options& options_;
    Moments& moments_;
    const Backend& backend_;  // of the step's precision; the model's own scores held-out rows
    Step step_;
    std::optional<Step> float32_step_;  // scores held-out rows where step_ computes in bfloat16
    std::optional<Copies> copies_;
    Buffer gradient_;
    uint64_t seen_version_ = 0;  // of the model's parameters, when their copies were made
    const Rows* rows_ = nullptr;
    std::vector<uint32_t> index_;
};

}  // namespace

std::unique_ptr<Steps> make_cpu_steps(Model& model, const fvae_trainer_options& options, Moments& moments) {
    return std::make_unique<CpuSteps>(model, options, moments);
}

std::unique_ptr<Steps> make_steps(Model& model, const fvae_trainer_options& options, Moments& moments) {
    return model.place() ? make_device_steps(model, options, moments) : make_cpu_steps(model, options, moments);
}

}  // namespace fusedvae
