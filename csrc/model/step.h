// SPDX-License-Identifier: MIT
//
// One training step: forward, loss and dX, then, if the loss is finite, the dW products finished by the optimiser. Two ways
// to share the work among threads, with the same bits:
//
//     by columns  each thread owns a range of every layer's output columns, in forward, dW and update alike, so that a
//                 weight stays in one core's cache; a barrier per layer
//     by rows     each thread takes a block of batch rows through forward, loss and dX without a barrier; then one
//                 barrier, then dW by tiles
#pragma once
#include <vector>

#include "../cpu/threads.h"
#include "buffer.h"
#include "network.h"
#include "rows.h"

namespace fusedvae {

// by_shape takes the faster way for the network, batch and threads at hand; tests and benches force one.
enum class Sharing { by_shape, by_columns, by_rows };

struct Batch {
    const Rows* x;
    const uint32_t* index;  // (B) rows of x; NULL: rows first ..
    int64_t first;
    int B;
    Noise noise;
    double beta;
    double free_bits;  // 0: none
    bool check;        // look at the values first (memory maps are not read ahead)
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

    // Fills *losses. False where the loss (or, with clipping, the gradient's norm) is not finite: then nothing was
    // updated. Throws, before anything is updated, what a batch's check finds.
    bool run(Lease& lease, const Batch& batch, const Destination& destination, fvae_losses* losses);
    // Forward and loss alone, in float32.
    fvae_losses evaluate(Lease& lease, const Batch& batch, const float* parameters);

    // Threads that a batch of B rows is worth.
    int useful_threads(int64_t B, int available) const;
    int64_t bytes() const;
    // How the last batch was shared; one thread always takes rows.
    bool by_columns() const { return plan_.by_columns; }

  private:
    struct Tiles {  // rows [k0, k1) of dW's panel
        int layer, panel, k0, k1;
    };
    struct Plan {  // who does what, for one number of threads and rows
        int threads = 0, B = 0;
        bool by_columns = false;
        std::vector<Range> rows;                   // [thread]
        std::vector<std::vector<Range>> panels;    // [layer][thread], forward
        std::vector<std::vector<Range>> panels_t;  // [layer][thread], dgrad
        std::vector<std::vector<Tiles>> tiles;     // [thread], wgrad
    };
    void reserve(int64_t B);
    bool pass(Lease& lease, const Batch& batch, const float* parameters, const Destination* destination);
    void bind(const Batch& batch, const float* parameters, const Destination* destination);
    void bind_copies(Wgrad& wgrad, int layer, const Destination& destination) const;
    void make_plan(int threads, int B);
    double imbalance_by_columns(int threads) const;

    void read_rows(const Team& team, const Batch& batch);
    void to_words(Range rows);
    void forward(const Team& team);
    void sum_rows(const Team& team);
    void weigh_dimensions(const Team& team, const Batch& batch);
    void backward(const Team& team);
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
    Matrix z_;                                 // (B, Z)
    std::vector<float> nll_parts_, kl_parts_;  // (B, panels)
    std::vector<double> nll_, kl_;             // (B)
    std::vector<float> dim_weight_;            // (Z padded) free bits
    std::vector<double> dim_kl_;               // (Z) batch means
    std::vector<double> norm_parts_;           // sums of squares, one for each chunk of the gradient

    std::vector<Forward> forward_;
    std::vector<Dgrad> dgrad_;  // [layer], unused for the first
    std::vector<Wgrad> wgrad_;
    Plan plan_;
    bool finite_ = false;
};

}  // namespace fusedvae
