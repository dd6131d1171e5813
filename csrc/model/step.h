// SPDX-License-Identifier: MIT
//
// One training step: forward, loss and dX, then, if the loss is finite, the dW products finished by the optimiser, shared
// among threads as plan.h says.
#pragma once
#include <array>
#include <optional>
#include <vector>

#include "buffer.h"
#include "plan.h"
#include "rows.h"
#include "tuner.h"

namespace fusedvae {

struct Batch {
    const Rows* x;
    const uint32_t* index;  // (B) rows of x; NULL: rows first ..
    int64_t first;
    int B;
    Noise noise;
    double beta;
    double free_bits;      // 0: none
    bool check;            // look at the values first (memory maps are not read ahead)
    const uint32_t* next;  // (next_B) the rows of x that the step after this one will read; NULL: not known
    int next_B;
};

// Where the gradients go. epilogue: store into `gradient`, or sgd or adam in place on `parameters`.
struct Destination {
    Epilogue epilogue;
    Update update;
    double clip_norm;   // 0: none; else gradients are stored, measured, scaled and then applied
    float* parameters;  // flat buffers in the network's order
    float* transposed;  // kept equal to parameters; read by dgrad. bfloat16: its words
    float* words;       // bfloat16: kept equal to parameters; read by forward
    float* m;
    float* v;
    float* gradient;  // NULL where neither store nor clipping needs it
};

class Step {
  public:
    // A backend of bfloat16 words runs training steps only.
    Step(const Config& config, const Network& network, const Backend& backend, Sharing sharing = Sharing::by_shape);
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

    // Fills *losses. False where the loss (or, with clipping, the gradient's norm) is not finite: then nothing was
    // updated. Throws, before anything is updated, what a batch's check finds.
    bool run(Lease& lease, const Batch& batch, const Destination& destination, fvae_losses* losses);
    // Forward and loss alone, in float32.
    fvae_losses evaluate(Lease& lease, const Batch& batch, const float* parameters);

    int64_t bytes() const;
    // How the last batch was shared; one thread always takes rows.
    bool by_columns() const { return plan_->by_columns; }

  private:
    void reserve(int64_t B);
    Tuner* tuner(int threads, int B);
    Way chosen(int B) const;
    bool pass(Lease& lease, Way way, const Batch& batch, const float* parameters, const Destination* destination);
    // What bind depends on; the rest is a step's own.
    struct Bound {
        int B;
        const float* parameters;
        const float* noise;
        ptrdiff_t noise_stride;
        bool weighs;
        Destination places;  // but for the update
        bool trains;
        bool operator==(const Bound& other) const;
    };
    void bind(const Batch& batch, const float* parameters, const Destination* destination);
    void bind_anew(const Batch& batch, const float* parameters, const Destination* destination);
    void bind_copies(Wgrad& wgrad, int layer, const Destination& destination) const;
    void bind_splits(int B, const float* parameters);
    void count_split_sums();
    Wgrad& split_wgrad(int64_t split, size_t layer) {
        return split_wgrad_[static_cast<size_t>(split) * wgrad_.size() + layer];
    }

    void read_rows(const Team& team, const Batch& batch);
    void draw_noise(const Team& team, const Noise& noise);
    void to_words(Range rows);
    void forward(const Team& team);
    void sum_rows(const Team& team);
    void weigh_dimensions(const Team& team, const Batch& batch);
    void backward(const Team& team, const Batch& batch);
    void fetch_next(const Team& team, const Batch& batch, size_t layer) const;
    void multiply_own_splits(const Team& team, size_t layer);
    void update(const Team& team, const Destination& destination);
    void apply_clipped(const Team& team, const Destination& destination);
    fvae_losses losses(const Batch& batch) const;

    const Config& config_;
    const Network& network_;
    const Backend& backend_;
    const Sharing sharing_;
    int64_t capacity_ = 0;

    // One layer's results, in the form that the backend's products read.
    struct Results {
        Matrix y, slope, dy;  // (B, N): outputs or the head's pairs; act' where it is saved; gradients
        WordMatrix y_words, slope_words, dy_words;
    };

    Matrix converted_;                         // (B, D), where rows are not float32
    WordMatrix x_words_, z_words_;             // (B, D), (B, Z): bfloat16
    std::vector<const float*> x_;              // (B) pointers to float rows
    std::vector<Results> results_;             // [layer]
    Matrix z_, eps_;                           // (B, Z): codes and noise
    std::vector<float> nll_parts_, kl_parts_;  // (B, panels)
    std::vector<double> nll_, kl_;             // (B)
    std::vector<float> dim_weight_;            // (Z padded) free bits
    std::vector<double> dim_kl_;               // (Z) batch means
    std::vector<double> norm_parts_;           // sums of squares, one for each chunk of the gradient

    std::optional<Bound> bound_;  // what the jobs below are of
    std::vector<Forward> forward_;
    std::vector<Dgrad> dgrad_;  // [layer], unused for the first
    std::vector<Wgrad> wgrad_;
    Buffer split_gradients_;                // (splits, floats)
    std::vector<Wgrad> split_wgrad_;        // [split][layer]
    std::array<Plan, Tuner::kWays> plans_;  // [way]
    const Plan* plan_ = plans_.data();      // of the last batch

    // By measure, for full batches; what it was made for.
    std::optional<Tuner> tuner_;
    int tuned_threads_ = 0, tuned_B_ = 0;

    // Of the last step.
    fvae_losses losses_{};
    bool finite_ = false;
};

}  // namespace fusedvae
