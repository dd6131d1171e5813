// SPDX-License-Identifier: MIT
//
// The epoch loop, its state, and the checkpoint that holds all of it: a run resumed from one ends with the bits of the run
// that was never stopped.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "copies.h"
#include "model.h"
#include "options.h"
#include "step.h"

namespace fusedvae {

class Trainer {
  public:
    Trainer(std::shared_ptr<Model> model, const fvae_trainer_options& options);

    void fit(const fvae_array& x, int64_t epochs, const fvae_array* validation, fvae_callback callback, uint32_t events,
             void* user);
    void fit_source(fvae_source source, int64_t epochs, const fvae_array* validation, fvae_callback callback,
                    uint32_t events, void* user);
    fvae_losses step(const fvae_array& batch, const float* noise);
    fvae_losses evaluate(const fvae_array& x, uint64_t seed) const;

    const std::shared_ptr<Model>& model() const { return model_; }
    const fvae_trainer_options& options() const { return options_; }
    const std::vector<fvae_epoch>& history() const { return history_; }
    int64_t steps() const { return state_.steps; }
    void set_learning_rate(double rate);

    struct Memory {
        const char* name;
        int64_t bytes;
    };
    std::array<Memory, 7> memory() const;

    void save(const std::string& path) const;                         // checkpoint.cpp
    static std::shared_ptr<Trainer> resume(const std::string& path);  // checkpoint.cpp
    static std::shared_ptr<Trainer> resume(const SafetensorsFile& file);

  private:
    // Where the run stands. Sums are of this epoch, weighted by rows.
    struct State {
        int64_t steps = 0, epoch = 0, batch = 0;
        double rows = 0.0, loss = 0.0, reconstruction = 0.0, kl = 0.0;
        uint64_t fingerprint = 0;  // of the data; 0 before the first fit
    };
    struct Snapshot {
        Buffer flat, m, v;
        State state;
    };
    struct Listener {
        fvae_callback callback;
        uint32_t events;
        void* user;
    };
    class Busy;

    int threads_for(int64_t rows) const;
    Destination destination();
    void refresh_copies();
    void train_on(Batch& batch, fvae_losses* losses, const Snapshot* good);
    void run_epochs(const std::function<void()>& begin, const std::function<bool(Batch&)>& next, int64_t batches,
                    int64_t epochs, const Rows* held_out, const Listener& listener);
    void take_snapshot();
    std::string position() const;
    [[noreturn]] void stop_non_finite(const fvae_losses& losses, const Snapshot* good);
    fvae_losses evaluate_rows(Step& step, const Rows& rows, uint64_t seed) const;
    fvae_losses epoch_means() const;
    std::vector<uint32_t> order(int64_t rows) const;

    std::shared_ptr<Model> model_;
    fvae_trainer_options options_;
    const Backend& backend_;  // of the step's precision; the model's own scores held-out rows
    Step step_;
    std::optional<Step> float32_step_;  // scores held-out rows where step_ computes in bfloat16
    Copies copies_;
    Buffer m_, v_, gradient_;
    uint64_t seen_version_ = 0;  // of the model's parameters, when their copies were made
    std::optional<Snapshot> snapshot_;
    State state_;
    bool resumed_ = false;
    std::vector<fvae_epoch> history_;
    std::atomic<bool> busy_{false};
};

}  // namespace fusedvae
