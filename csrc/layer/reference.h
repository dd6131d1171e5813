// SPDX-License-Identifier: MIT
//
// The specification: what every kernel, every optimiser and the whole model mean, as plain loops in double precision.
// The engine's float kernels are tested against this file, so it shares no code with them and takes no short cuts.
// Letters: B batch rows, K inputs, N outputs, Z latent width, S Monte-Carlo samples. Weights are (out, in).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "fusedvae/fusedvae.h"

namespace fusedvae::reference {

struct Matrix {
    int64_t rows = 0;
    int64_t columns = 0;
    std::vector<double> values;  // (rows, columns), row-major

    Matrix() = default;
    Matrix(int64_t rows_, int64_t columns_)
        : rows(rows_), columns(columns_), values(static_cast<size_t>(rows_ * columns_)) {}

    double& operator()(int64_t i, int64_t j) { return values[static_cast<size_t>(i * columns + j)]; }
    double operator()(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * columns + j)]; }
    double& operator[](int64_t i) { return values[static_cast<size_t>(i)]; }
    double operator[](int64_t i) const { return values[static_cast<size_t>(i)]; }
};

// y = x W^T + b: x (B, K), weight (N, K), bias (N, 1) or empty -> (B, N).
Matrix linear(const Matrix& x, const Matrix& weight, const Matrix& bias);
// dx = dy W: dy (B, N), weight (N, K) -> (B, K).
Matrix linear_dgrad(const Matrix& dy, const Matrix& weight);
// dW = dy^T x and db = column sums of dy: x (B, K), dy (B, N) -> (N, K), (N, 1).
struct LinearGradient {
    Matrix weight;
    Matrix bias;
};
LinearGradient linear_wgrad(const Matrix& x, const Matrix& dy);

// Activations with PyTorch's constants: leaky slope 0.01, elu alpha 1, gelu by erf, softplus beta 1.
double activate(fvae_activation activation, double x);
double activation_slope(fvae_activation activation, double x);
// act' from what the engine saves: act' itself for gelu and silu, act's output for the others.
double slope_from_saved(fvae_activation activation, double saved);

// The head's end: z = mu + exp(logvar / 2) * noise; kl (B, Z) holds each element's share of
// KL(N(mu, exp(logvar)) || N(0, 1)) = -1/2 (1 + logvar - mu^2 - exp(logvar)) (Kingma and Welling 2013, appendix B).
struct Latent {
    Matrix z;   // (B, Z)
    Matrix kl;  // (B, Z)
};
Latent reparameterize_kl(const Matrix& mu, const Matrix& logvar, const Matrix& noise);
// dmu = dz + kl_weight * mu, dlogvar = dz * noise * exp(logvar / 2) / 2 + kl_weight * (exp(logvar) - 1) / 2;
// kl_weight (Z, 1), so that free bits can silence one dimension.
struct LatentGradient {
    Matrix mu;      // (B, Z)
    Matrix logvar;  // (B, Z)
};
LatentGradient reparameterize_grad(const Matrix& dz, const Matrix& mu, const Matrix& logvar, const Matrix& noise,
                                   const Matrix& kl_weight);

// -log p(target | parameters) of every element and its derivatives.
struct Nll {
    Matrix value;    // (B, N)
    Matrix dmean;    // (B, N): with respect to the logit (Bernoulli) or the mean (Gaussian)
    Matrix dlogvar;  // (B, N): with respect to the log-variance; empty where there is none
};
Nll bernoulli_nll(const Matrix& logits, const Matrix& target);
Nll gaussian_nll(const Matrix& mean, const Matrix& target, double fixed_variance);
// variance = min_variance + exp(logvar); logvar is (B, N), or (N, 1): one value for a whole column.
Nll gaussian_nll(const Matrix& mean, const Matrix& target, const Matrix& logvar, double min_variance);

// Optimisers as PyTorch 2 defines them, one step in place; moments start at zero, step counts from 1.
struct OptimizerConstants {
    double learning_rate = 1e-3;
    double momentum = 0.0;
    bool nesterov = false;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double weight_decay = 0.0;
};
void sgd(const OptimizerConstants& constants, const Matrix& gradient, Matrix& weight, Matrix& m);
void adam(const OptimizerConstants& constants, int64_t step, const Matrix& gradient, Matrix& weight, Matrix& m,
          Matrix& v);
void adamw(const OptimizerConstants& constants, int64_t step, const Matrix& gradient, Matrix& weight, Matrix& m,
           Matrix& v);

struct Losses {
    double loss = 0.0;  // reconstruction + beta * KL, the KL with free bits applied
    double reconstruction = 0.0;
    double kl = 0.0;  // without free bits
};

using Parameters = std::vector<std::pair<std::string, Matrix>>;

// The nearest bfloat16, ties to even.
double to_bfloat16(double x);
// The nearest number of 11 significant bits, ties away from zero.
double to_tf32(double x);

// A whole model: parameters under the names of the model file, weights (out, in), vectors (n, 1).
struct Vae {
    fvae_activation activation = FVAE_RELU;
    fvae_likelihood likelihood = FVAE_BERNOULLI;
    fvae_variance variance = FVAE_FIXED;
    double fixed_variance = 1.0;
    double min_variance = 1e-4;
    bool bfloat16 = false;  // factors of products, and what act' is made of, are rounded as that precision rounds them
    bool tf32 = false;      // factors of products are rounded to tf32, but for the sums that give a bias its gradient
    Parameters parameters;

    // x (B, D), noise (S * B, Z) with sample s of row b at row s * B + b. The terms are means over rows and samples;
    // the KL that is optimised is sum_j max(free_bits, mean_b KL_bj) (Kingma et al. 2016, eq. 15).
    // gradients receives one matrix for each parameter, in the same order; NULL asks for the losses alone.
    Losses evaluate(const Matrix& x, const Matrix& noise, double beta, double free_bits, Parameters* gradients) const;
};

// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);
// Normal number `index` of a row, by Box-Muller; the counter's layout and the purposes are written down in philox.h.
double normal(uint64_t seed, uint64_t step, uint32_t purpose, uint32_t row, int64_t index);

}  // namespace fusedvae::reference
