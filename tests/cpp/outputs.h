// SPDX-License-Identifier: MIT
//
// What a decoder can put out: every likelihood with every kind of variance.
#pragma once
#include <vector>

#include "fusedvae/fusedvae.h"

struct Output {
    fvae_likelihood likelihood;
    fvae_variance variance;
    const char* name;
};
inline const std::vector<Output> kOutputs = {{FVAE_BERNOULLI, FVAE_FIXED, "bernoulli"},
                                             {FVAE_GAUSSIAN, FVAE_FIXED, "gaussian, fixed variance"},
                                             {FVAE_GAUSSIAN, FVAE_FEATURE, "gaussian, variance per feature"},
                                             {FVAE_GAUSSIAN, FVAE_ELEMENT, "gaussian, variance per element"}};
