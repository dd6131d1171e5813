// SPDX-License-Identifier: MIT
//
// What makes a score of a model into a detector of anomalies: which score, its samples and seed, and the threshold. Kept
// with the model and in its file, so that whoever loads it gives the same scores.
#pragma once
#include <cstdint>
#include <vector>

#include "fusedvae/fusedvae.h"
#include "json.h"

namespace fusedvae {

struct Detector {
    fvae_score score = FVAE_SCORE_ELBO;
    int64_t samples = 32;
    uint64_t seed = 0;
    double threshold = __builtin_nan("");  // rows that score below it are anomalies; NaN: none chosen
    // Times half the squared norm of the encoded row, taken off the score. A nat's score is then the logarithm of a product
    // of experts (Hinton 2002), the model and a standard normal of independent columns, which learns no group of anomalies.
    double distance = 0.0;
    std::vector<double> latent_mean;       // (Z), Mahalanobis
    std::vector<double> latent_precision;  // (Z, Z)

    // Throws std::invalid_argument.
    void check(int64_t latent) const;

    static Detector from_c(const fvae_detector& c, int64_t latent);
    Json to_json() const;
    static Detector from_json(const Json& json, int64_t latent);
};

}  // namespace fusedvae
