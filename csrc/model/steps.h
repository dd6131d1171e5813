// SPDX-License-Identifier: MIT
//
// Who takes the steps of a training: the CPU (cpu_steps.cpp) or a GPU (device_steps.cpp). The trainer keeps what both
// share: the options, where the run stands, and the optimiser's moments, which a GPU may be ahead of. Each takes the
// model's lock for itself.
#pragma once
#include <algorithm>
#include <memory>
#include <optional>

#include "copies.h"
#include "model.h"
#include "options.h"
#include "step.h"

namespace fusedvae {

// The optimiser's moments in the network's order, as the host has them.
struct Moments {
    Moments(const Network& network, const fvae_trainer_options& options)
        : m(has_m(options) ? network.floats : 0), v(has_v(options) ? network.floats : 0) {}
    Buffer m, v;
};

class Steps {
  public:
    virtual ~Steps() = default;
    // Whether this is where the model is now; where not, another one takes over from the moments.
    virtual bool follows(const Model& model) const = 0;

    // The data set of the epochs to come; `rows` outlives them. Then each epoch's order: batch i takes
    // index[i * batch_size ..].
    virtual void hold(const Rows& rows) = 0;
    virtual void set_order(std::vector<uint32_t> index) = 0;
    // Consecutive batches from first_batch on, when `done` steps were taken before. Returns the steps taken: fewer than
    // `count` where a loss (or, with clipping, a gradient's norm) is not finite, which updates nothing. losses (count):
    // those of the steps taken and of the one that failed.
    virtual int64_t run(int64_t first_batch, int64_t count, int64_t done, fvae_losses* losses) = 0;
    // Whether many steps at a time cost less than one by one.
    virtual bool takes_many() const = 0;
    // One step on rows of their own; noise (B, Z) or NULL. False: not updated.
    virtual bool step(const Rows& batch, const float* noise, int64_t done, fvae_losses* losses) = 0;
    // Means over the rows in batches of batch_size, at the final beta; in float32.
    virtual fvae_losses evaluate(const Rows& rows, uint64_t seed) = 0;

    // Trainings that run beside this one's next runs, on its GPU; NULL: none.
    virtual void join(std::shared_ptr<DeviceEnsemble>) {}
    // Steps to take next, of `left` from first_batch on: what runs beside this one may know better than `most`.
    virtual int64_t at_once(int64_t /*first_batch*/, int64_t left, int64_t most) const { return std::min(left, most); }

    // Between the steps and the trainer's moments, where they are apart.
    virtual void fetch(Moments&) {}
    virtual void load(const Moments&) {}

    struct Memory {
        int64_t transposed = 0, words = 0, gradients = 0, workspace = 0, device = 0;
    };
    virtual Memory memory() const = 0;
};

// The steps where the model is now. All references outlive them.
std::unique_ptr<Steps> make_steps(Model& model, const fvae_trainer_options& options, Moments& moments);
std::unique_ptr<Steps> make_cpu_steps(Model& model, const fvae_trainer_options& options, Moments& moments);
std::unique_ptr<Steps> make_device_steps(Model& model, const fvae_trainer_options& options, Moments& moments);

}  // namespace fusedvae
