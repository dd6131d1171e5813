// SPDX-License-Identifier: MIT
//
// One batch on the device: its buffers in one precision, and its stages in their order.
//
//     [read_rows]  forward ..  [weigh_dimensions]  dgrad ..            wgrad  ([gather_gradient] [clip] apply)
//                                             \--   sum_losses   --/
//
// The losses are summed beside the dgrad chain; dW waits for both, and does nothing where they are not finite.
#pragma once
#include <vector>

#include "model.h"
#include "stages.h"

namespace fusedvae::cuda {

class Pass {
  public:
    struct Batch {
        Source source;
        int B;
        Noise noise;          // given: device memory
        bool noise_of_clock;  // the stream is that of the step's scalars
    };
    struct Goal {  // what becomes of the gradients
        Epilogue epilogue;
        bool keep;  // store alone: they stay in gradient()
        double clip_norm;
        float* m;
        float* v;
    };

    Pass(ModelOnDevice& model, Precision precision, double free_bits);

    // Sets up what enqueue launches; goal NULL: losses alone. losses has an element for each of the clock's.
    void bind(const Batch& batch, const Clock& clock, const Goal* goal, Losses* losses);
    // Launches the stages one after another, as step `at` of the clock.
    void enqueue(int at);
    const std::vector<Stage>& stages() const { return stages_; }
    const Kernels& kernels() const { return kernels_; }
    // Grows where a change of buffers makes what was captured from enqueue invalid.
    int64_t generation() const { return generation_; }
    int64_t bytes() const { return bytes_; }
    const Buffer<float>& gradient() const { return gradient_; }

  private:
    struct Results {  // of one layer
        Buffer<unsigned char> y, slope, dy;
        Buffer<float> head;
    };
    template <class T>
    void resize(Buffer<T>& buffer, int64_t count, const char* what);
    void reserve(int64_t B, bool training);
    // `count` gives the tiles of a size.
    template <class Job, class Count>
    void add(Kind kind, Job Stage::*member, Job job, Count count);
    template <class Job>
    void add(Kind kind, Job Stage::*member, const Job& job);
    void bind_rows(const Batch& batch);
    void bind_forward(const Batch& batch);
    void bind_losses(bool trains, Losses* losses);
    void bind_backward(const Batch& batch);
    void bind_table();
    void bind_update(const Goal& goal);
    Factor dy_of(int layer) const;
    int64_t elements(int64_t count) const { return count * (kernels_.bfloat16 ? 2 : 4); }

    ModelOnDevice& model_;
    const Network& network_;
    const std::shared_ptr<Context>& context_;
    const Kernels& kernels_;
    const double free_bits_;
    int64_t capacity_ = 0, generation_ = 0, bytes_ = 0;
    bool trains_ = false;

    std::vector<Results> results_;
    Buffer<float> x_floats_;  // (B, D padded)
    Buffer<uint16_t> x_half_;
    Buffer<unsigned char> z_;  // (B, Z padded)
    Buffer<float> nll_, kl_;   // (B, segments)
    Buffer<double> loss_parts_, dim_kl_, norm_parts_;
    Buffer<float> dim_weight_, clip_factor_;
    Buffer<float> gradient_;  // (splits, floats)
    Buffer<Wgrad> table_;
    std::vector<Wgrad> bound_table_;
    const uint16_t* bound_half_ = nullptr;

    Clock clock_{};
    int B_ = 0;
    Factor target_{};        // the batch as a likelihood reads it
    std::vector<Factor> x_;  // what each layer reads
    std::vector<Stage> stages_;
};

}  // namespace fusedvae::cuda
