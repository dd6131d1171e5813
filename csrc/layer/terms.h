// SPDX-License-Identifier: MIT
//
// The ELBO's terms of single values in double, for what is computed outside the kernels (model/detection.cpp). The
// kernels have them over registers (formulas.h); the tests' specification is written apart from both (reference.cpp).
#pragma once
#include <algorithm>
#include <cmath>

namespace fusedvae::terms {

// KL(N(mu, e^logvar) || N(0, 1)) of one dimension (Kingma and Welling 2013, appendix B)
inline double kl(double mu, double logvar) { return 0.5 * (mu * mu + std::exp(logvar) - logvar - 1.0); }

// ln(1 + e^v)
inline double softplus(double v) { return std::max(v, 0.0) + std::log1p(std::exp(-std::fabs(v))); }

// -log p(target | logit)
inline double bernoulli_nll(double logit, double target) { return softplus(logit) - target * logit; }

// As formulas.h has it, where e^88 is the largest power that a float holds.
inline double learned_variance(double log_variance, double min_variance) {
    return min_variance + std::exp(std::min(88.0, log_variance));
}

// -log N(target; mean, variance)
inline double gaussian_nll(double mean, double target, double variance) {
    constexpr double kLog2Pi = 1.8378770664093453;
    const double difference = target - mean;
    return 0.5 * (difference * difference / variance + std::log(variance) + kLog2Pi);
}

}  // namespace fusedvae::terms
