// SPDX-License-Identifier: MIT
//
// Training steps on a GPU, many at a time: backend/device.h's, and the moments' way there and back.
#include "steps.h"

namespace fusedvae {

namespace {

class DeviceSteps : public Steps {
  public:
    DeviceSteps(Model& model, const fvae_trainer_options& options, const Moments& moments)
        : model_(model),
          options_(options),
          place_(model.place()),
          step_(DeviceStep::make(place_->model(model.flat), options, device_precision(options.precision))) {
        load(moments);
    }

    bool follows(const Model& model) const override { return model.place() == place_; }
    bool takes_many() const override { return true; }

    void join(std::shared_ptr<DeviceEnsemble> ensemble) override { step_->join(std::move(ensemble)); }
    void hold(const Rows& rows) override { step_->hold(rows); }
    void set_order(std::vector<uint32_t> index) override {
        step_->set_order(index.data(), static_cast<int64_t>(index.size()));
    }

    int64_t run(int64_t first_batch, int64_t count, int64_t done, fvae_losses* losses) override {
        std::vector<StepScalars> scalars;
        for (int64_t i = 0; i < count; ++i) scalars.push_back(scalars_at(options_, done + i));
        const Meeting meeting(*step_);
        return changing([&] { return step_->run(first_batch, count, scalars.data(), losses); });
    }

    bool step(const Rows& batch, const float* noise, int64_t done, fvae_losses* losses) override {
        const StepScalars scalars = scalars_at(options_, done);
        return changing([&] { return int64_t{step_->step(batch, noise, scalars, losses)}; }) == 1;
    }

    fvae_losses evaluate(const Rows& rows, uint64_t seed) override {
        const std::shared_lock lock(model_.mutex);
        model_.on_device();
        return step_->evaluate(rows, seed, options_.beta);
    }

    void fetch(Moments& moments) override {
        if (!ahead_) return;
        const Network& network = model_.network;
        std::vector<float> m, v;
        if (moments.m.size()) m.resize(static_cast<size_t>(plain_floats(network)));
        if (moments.v.size()) v.resize(static_cast<size_t>(plain_floats(network)));
        step_->download_moments(m.empty() ? nullptr : m.data(), v.empty() ? nullptr : v.data());
        if (!m.empty()) from_plain(network, m.data(), moments.m.data());
        if (!v.empty()) from_plain(network, v.data(), moments.v.data());
        ahead_ = false;
    }

    void load(const Moments& moments) override {
        std::vector<float> m, v;
        if (moments.m.size()) m = to_plain(model_.network, moments.m.data());
        if (moments.v.size()) v = to_plain(model_.network, moments.v.data());
        if (!m.empty()) step_->upload_moments(m.data(), v.empty() ? nullptr : v.data());
        ahead_ = false;
    }

    Memory memory() const override {
        Memory memory;
        memory.device = place_->bytes() + step_->bytes();
        return memory;
    }

    int64_t at_once(int64_t first_batch, int64_t left, int64_t most) const override {
        return step_->at_once(first_batch, left, most);
    }

  private:
    struct Meeting {
        DeviceStep& step;
        explicit Meeting(DeviceStep& one) : step(one) { step.meet(); }
        Meeting(const Meeting&) = delete;
        ~Meeting() { step.part(); }
    };

    // Runs work() -> steps taken, with the model for itself.
    template <class Work>
    int64_t changing(Work work) {
        const std::unique_lock lock(model_.mutex);
        model_.on_device();  // what the host changed since goes there first
        const int64_t taken = work();
        if (taken > 0) {
            model_.changed_on_device();
            ahead_ = true;
        }
        return taken;
    }

    Model& model_;
    const fvae_trainer_options& options_;
    const std::shared_ptr<OnDevice> place_;
    const std::unique_ptr<DeviceStep> step_;
    bool ahead_ = false;  // of the trainer's moments
};

}  // namespace

std::unique_ptr<Steps> make_device_steps(Model& model, const fvae_trainer_options& options, Moments& moments) {
    return std::make_unique<DeviceSteps>(model, options, moments);
}

}  // namespace fusedvae
