// SPDX-License-Identifier: MIT
//
// The one idea: every layer is one matrix product with a reader in front and a finisher behind.
//
//     forward   Y(B,N)  = finish( read(X)(B,K) . W(K,N) )
//     dgrad     dX(B,K) = finish( dY(B,N)      . W^T    )
//     wgrad     dW(K,N) = finish( read(X)^T    . dY     )
//
// These structs say what one product reads, and what its epilogue finishes and saves. They are plain C so that the
// instruction-set files can include them. Each element of a product is one chain of multiply-adds over the whole inner
// dimension in order: its bits depend on neither tile size, thread count nor the rows beside it. A small network's dW is
// the sum of such products over parts of a large batch (plan.h).
//
// W lives packed: columns are cut into panels (a multiple of kGroup columns each, the last one padded with zeros), and
// the panel that starts at column c holds its K rows of `width` neighbouring floats at offset c * K:
//
//     W (K, N)  ->  |k=0: w0 w1 .. |k=1: w0 w1 .. | ...  k=K-1 |  next panel ...
//
// In bfloat16 the operands are words: 32 bits with two neighbours along the inner dimension, which one instruction
// multiplies and adds to a float32 sum. Rows, packed weights and dY keep the shapes above with half the inner dimension
// (an odd one is padded with a zero), so that the same loops walk both precisions. Parameters, moments, log-variances
// and losses stay float32.
//
// For serving, weights alone may be words (`widens`): each half is widened to the float that it stands for as it is
// read, which is exact, and the chain of multiply-adds stays the float32 one.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "philox.h"

namespace fusedvae {

constexpr int kGroup = 16;      // columns per group: one AVX-512 register, two AVX2 ones
constexpr int kMaxRows = 8;     // rows of the largest register tile, in every backend
constexpr int kMostSplits = 8;  // parts of a batch with a gradient of their own

enum class Epilogue {
#define PAIR(pass, prologue, epilogue) epilogue,
#include "pairs.inc"
#undef PAIR
};

enum class Activation { identity, relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, softplus };

// True where act' cannot be had from y = act(x), so the forward pass saves it beside y.
constexpr bool saves_slope(Activation a) { return a == Activation::gelu || a == Activation::silu; }

// Column cut of a matrix of N columns: panel p covers [start[p], start[p + 1]); start[count] is N rounded up to kGroup.
struct Panels {
    const int32_t* start;
    int32_t count;
};

// The reparameterisation's noise: given rows, or drawn at (stream, first_row + row, j).
struct Noise {
    const float* given;      // (B, Z), or NULL
    ptrdiff_t given_stride;  // floats from row to row
    Stream stream;
    uint32_t first_row;
};

constexpr int words_of(int n) { return (n + 1) / 2; }

// The bfloat16 copies of a matrix (B, N) of our own that the next products read: along, columns 2j and 2j + 1 of a row are
// one word; across, rows 2i and 2i + 1 of a column. Words travel in float arrays.
struct Words {
    float* along;         // (B, ld_along)
    float* across;        // ((B + 1) / 2, ld_across), or NULL
    ptrdiff_t ld_along;   // words from row to row
    ptrdiff_t ld_across;  // words from pair of rows to pair of rows
};

struct Forward {
    const float* const* rows;  // (B) pointers to K floats, or words
    const float* weight;       // packed (K, N)
    int widens;                // nonzero: weight is packed words ((K + 1) / 2, N), the rows are floats
    int fetches;               // nonzero: one row's weights are fetched ahead (gains_from_fetching)
    const float* bias;         // (N padded)
    Panels panels;
    int K;  // floats, or words
    int N;  // valid columns; for heads that hold pairs, columns 2j and 2j + 1 are mean and log-variance of j
    Epilogue epilogue;

    // linear_act: y = act(.), slope = act'(.) where the backward pass cannot have it from y (gelu, silu)
    Activation activation;
    float* y;      // (B, ld): `stored` columns of each row are written
    float* slope;  // (B, ld) or NULL
    ptrdiff_t ld;  // of y and slope; of head and dy below
    int stored;    // N, or N padded where the buffer is ours

    // reparameterize_kl: head = (mu, logvar) pairs; z = mu + exp(logvar / 2) eps; KL per row and panel
    float* head;       // (B, ld)
    float* z;          // (B, ld_z)
    const float* eps;  // (B, ld_eps) noise
    ptrdiff_t ld_z, ld_eps;

    // likelihoods: negative log-likelihood per row and panel; its gradient by what the layer puts out, times scale
    const float* const* target;  // (B) pointers to D floats
    float* dy;                   // (B, ld) or NULL
    float scale;                 // 1 / rows of the batch
    float fixed_variance;        // used where log_variance is NULL
    float min_variance;
    const float* log_variance;  // (N padded) or NULL

    float* partial;  // (B, panels.count): this panel's share of the row's KL or nll

    // bfloat16: what takes the place of y, slope (along only), z and dy
    Words y_words, slope_words, z_words, dy_words;
};

struct Dgrad {
    const float* const* rows;  // (B) pointers to N floats, or words: dY
    const float* weight_t;     // packed (N, K)
    Panels panels;             // of the K columns
    int N;                     // floats, or words
    int K;
    Epilogue epilogue;

    // act_grad: dx = (.) act'
    Activation activation;
    const float* saved;  // (B, ld): y, or act' for gelu and silu
    float* dx;           // (B, ld), pad columns set to zero; reparameterize_grad: (B, ld) pairs (dmu, dlogvar)
    ptrdiff_t ld;

    // reparameterize_grad: dz = (.), dmu = dz + w mu, dlogvar = dz eps sigma / 2 + w (exp(logvar) - 1) / 2
    const float* head;  // (B, ld) pairs
    const float* eps;   // (B, ld_eps)
    ptrdiff_t ld_eps;
    float kl_weight;          // beta / rows of the batch
    const float* dim_weight;  // (K) or NULL: free bits' 0 or 1 per latent dimension

    // bfloat16: what takes the place of saved and dx
    Words saved_words, dx_words;
};

// Constants of one optimiser step, computed once per step in double.
struct Update {
    float weight_decay;  // added to the gradient (sgd, adam)
    float decay_factor;  // 1 - lr * weight_decay, decoupled (adamw); else 1
    float lr;            // sgd
    float momentum;
    int nesterov;
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float step_size;  // lr / (1 - beta1^t)
    float inv_bias2;  // 1 / sqrt(1 - beta2^t)
    float epsilon;
    float gradient_scale;  // clipping; 1 without
};

// One parameter array in the trainer's order: the values, and where the epilogue keeps its state.
struct Slot {
    float* value;
    float* m;                       // momentum or first moment; NULL where the optimiser has none
    float* v;                       // second moment
    float* gradient;                // store writes it
    const float* stored = nullptr;  // the first of the splits' gradients
};

struct Wgrad {
    const float* const* rows;  // (depth) pointers to K floats, or words across the batch, read transposed
    const float* dy;           // (depth, ld)
    ptrdiff_t ld;
    int depth;  // B; words: (B + 1) / 2
    int B;
    int K;
    int N;
    Panels panels;    // of the N columns
    Panels panels_t;  // of the K columns, for the transposed copy
    Epilogue epilogue;
    Update update;

    Slot weight;      // packed (K, N)
    float* weight_t;  // packed (N, K), kept equal to weight; NULL where no dgrad reads it (first layer, store)
    float* words;     // bfloat16: packed ((K + 1) / 2, N) for the next forward, kept like weight_t; else NULL
    Slot bias;        // (N padded)

    // gaussian_nll with a variance per feature: its gradient comes from the same columns, since dy = (m - x) scale / var
    Slot log_variance;  // (N padded); value NULL where there is none
    float scale;
    float min_variance;

    // Nonzero: where the product has too few steps to fetch the optimiser's lines one by one, all are fetched before it.
    int fetches;

    // Nonzero: no product; what is finished is the sum of so many stored gradients, a power of two up to kMostSplits, which
    // lie `split_floats` apart: those of the parts of a batch, or the one that clipping measures and scales. Neighbours are
    // added in pairs, the pairs' sums again, and so on.
    int splits;
    ptrdiff_t split_floats;
};

// What rows from outside hold.
enum class RowType { float32, float64, float16, uint8, boolean, bfloat16 };

}  // namespace fusedvae
