// SPDX-License-Identifier: MIT
//
// The epoch loop, its state, and the checkpoint that holds all of it: a run resumed from one ends with the bits of the run
// that was never stopped.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <memory>
#include <optional>
#include <vector>

#include "steps.h"

namespace fusedvae {

constexpr int64_t kMostBatchRows = int64_t{1} << 24;

class Trainer {
  public:
    Trainer(std::shared_ptr<Model> model, const fvae_trainer_options& options);

    // ensemble: of trainings that run beside this one, where the model is on their GPU
    void fit(const fvae_array& x, int64_t epochs, const fvae_array* validation, fvae_callback callback, uint32_t events,
             void* user, std::shared_ptr<DeviceEnsemble> ensemble = nullptr);
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
    std::array<Memory, 8> memory() const;

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
    struct Taken;
    struct Epochs;

    Steps& follow_model();
    const Moments& moments() const;
    Rows readable(const fvae_array& array, const char* what, int threads) const;
    void run_epochs(const Epochs& source, int64_t epochs, const Rows* held_out, const Listener& listener);
    void add(const Taken& taken);
    void take_snapshot();
    std::string position() const;
    [[noreturn]] void stop_non_finite(const fvae_losses& losses, const Snapshot* good);
    fvae_losses epoch_means() const;
    std::vector<uint32_t> order(int64_t rows) const;

    std::shared_ptr<Model> model_;
    fvae_trainer_options options_;
    mutable Moments moments_;       // a GPU's may be ahead: see moments()
    std::unique_ptr<Steps> steps_;  // none before the first one
    std::optional<Snapshot> snapshot_;
    State state_;
    bool resumed_ = false;
    std::vector<fvae_epoch> history_;
    std::atomic<bool> busy_{false};
};

// A trainer does one thing at a time; a second caller is told so instead of waiting for hours.
class Trainer::Busy {
  public:
    explicit Busy(std::atomic<bool>& flag);
    ~Busy() { flag_.store(false); }

  private:
    std::atomic<bool>& flag_;
};

}  // namespace fusedvae
