// SPDX-License-Identifier: MIT
//
// What a model is: its shape and its likelihood. Checked once, here, whether it comes from a caller or from a file.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "columns.h"
#include "fusedvae/fusedvae.h"
#include "json.h"

namespace fusedvae {

struct Config {
    std::vector<int64_t> input_shape{784};
    std::vector<int64_t> hidden{400};
    std::vector<int64_t> decoder_hidden{400};
    int64_t latent = 20;
    fvae_activation activation = FVAE_RELU;
    fvae_likelihood likelihood = FVAE_BERNOULLI;
    fvae_variance variance = FVAE_FIXED;
    double fixed_variance = 1.0;
    double min_variance = 1e-4;
    fvae_init init = FVAE_INIT_PYTORCH;
    double uint8_scale = 1.0 / 255.0;
    Columns columns;  // none: rows are read as they are

    int64_t width() const;  // values of a caller's row
    int64_t encoded_width() const { return columns.empty() ? width() : columns.encoded_width(); }  // D
    // ln |d encoded row / d raw row|, which densities have on top; 0 for Bernoulli, which has none
    double log_jacobian() const { return likelihood == FVAE_GAUSSIAN ? columns.log_jacobian() : 0.0; }
    // Throws std::invalid_argument with the field, what it is, and what it may be.
    void check() const;

    static Config from_c(const fvae_config& c);
    Json to_json() const;
    // From a file in two steps: what the columns take is bounded by a width that the file has parameters for.
    static Config without_columns(const Json& json);
    void add_columns(const Json& json);

  private:
    void check_columns(size_t count) const;
};

}  // namespace fusedvae
