// SPDX-License-Identifier: MIT
//
// Training steps on the device. Of a data set that is held, many steps are one replayed graph, or one launch of a program:
// what they need from the host (scalars, the epoch's order) lies in arrays on the device, and a position there moves on.
// Losses are read once per run.
#pragma once
#include <map>
#include <optional>

#include "ensemble.h"
#include "pass.h"
#include "program.h"
#include "stream.h"
#include "ways.h"

namespace fusedvae::cuda {

class StepOnDevice : public DeviceStep {
  public:
    StepOnDevice(ModelOnDevice& model, const fvae_trainer_options& options, Precision precision);
    ~StepOnDevice() override;

    int64_t bytes() const override;
    void join(std::shared_ptr<DeviceEnsemble> ensemble) override;
    void meet() override;
    void part() noexcept override;
    int64_t at_once(int64_t first_batch, int64_t left, int64_t most) const override;
    void hold(const Rows& x) override;
    void set_order(const uint32_t* index, int64_t count) override;
    int64_t run(int64_t first_batch, int64_t count, const StepScalars* scalars, fvae_losses* losses) override;
    bool step(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses) override;
    fvae_losses evaluate(const Rows& rows, uint64_t seed, double beta) override;
    bool gradients(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses,
                   float* plain) override;
    void upload_moments(const float* m, const float* v) override;
    void download_moments(float* m, float* v) const override;

  private:
    bool one(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses, bool keep);
    int batch_rows(int64_t batch) const;
    bool fits_program() const;
    bool in_company() const;
    Clock clock() const { return {scalars_.data(), progress_.data(), 0}; }
    Pass::Goal goal(bool keep) const;
    void set_scalars(const StepScalars* scalars, int64_t first_batch, int64_t count);
    int64_t finish(int64_t count, fvae_losses* losses);
    int64_t run_held(int64_t first_batch, int64_t count, fvae_losses* losses);
    int64_t run_streamed(int64_t first_batch, int64_t count, fvae_losses* losses);
    void run_alike(int rows, int64_t count);
    void run_graphs(int rows, int steps);
    void replay(int steps);
    void run_program(int steps);
    void forget_graphs();

    ModelOnDevice& model_;
    const std::shared_ptr<Context> context_;
    const fvae_trainer_options options_;
    const Precision precision_;
    Pass pass_;
    std::optional<Pass> scoring_;  // float32, for evaluate
    Buffer<float> m_, v_;
    Buffer<Scalars> scalars_;
    Buffer<Losses> losses_;
    Buffer<Progress> progress_;

    const Rows* x_ = nullptr;
    std::shared_ptr<const HeldRows> held_;  // NULL: streamed
    Buffer<float> staged_, noise_;
    Buffer<uint32_t> order_;
    std::vector<uint32_t> host_order_;
    std::unique_ptr<BatchStream> streamed_;
    std::map<int, cudaGraphExec_t> graphs_;  // by number of steps, of whole batches
    int64_t graphs_of_ = 0;                  // the pass's generation that they belong to
    Buffer<Stage> program_;
    Runner runner_;
    Ways ways_;
    std::shared_ptr<EnsembleOnDevice> ensemble_;
    bool entered_ = false, met_ = false;
};

}  // namespace fusedvae::cuda
