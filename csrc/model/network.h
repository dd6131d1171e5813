// SPDX-License-Identifier: MIT
//
// A configuration as layers: their sizes, how their columns are cut into panels, and where each one's parameters lie in
// the flat buffer. Also the way between packed parameters and the plain (out, in) matrices of the outside.
//
//     encoder.0 .. -> head (pairs mu_j, logvar_j) -> decoder.0 .. -> output
//
// The head, and an output that predicts its variance, are two layers outside and one inside: output column 2j is the
// first one's row j, column 2j + 1 the second one's, so that an epilogue finds both in one tile.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "config.h"

namespace fusedvae {

// Panel starts for `columns` columns in panels of up to `widest` groups. Either half of the columns is cut by itself, so that
// two threads can share them evenly, and a last panel of one group is avoided (it runs at three quarters of the speed):
// eight groups in threes are 2 + 2, 2 + 2, ten are 3 + 2, 3 + 2.
std::vector<int32_t> cut(int columns, int widest);

struct Layer {
    std::vector<std::string> names;  // one, or the two of a pair
    int K, N;                        // N counts both columns of a pair
    Activation activation;           // identity for head and output
    std::vector<int32_t> starts;     // cut of N
    std::vector<int32_t> starts_t;   // cut of K, for the transposed copy
    size_t weight, bias;             // offsets in the flat buffer, in floats
    size_t weight_t;                 // offset in the transposed buffer; none for the first layer
    size_t words, words_t;           // the same in the buffers of bfloat16 words
    bool pairs() const { return names.size() == 2; }
    int padded() const { return starts.back(); }
    int count() const { return static_cast<int>(starts.size()) - 1; }
    Panels panels() const { return {starts.data(), count()}; }
    Panels panels_t() const { return {starts_t.data(), static_cast<int32_t>(starts_t.size()) - 1}; }
};

// One parameter of the outside: a matrix (rows, columns), or a vector (rows, 1).
struct Parameter {
    std::string name;
    int32_t rank;
    int64_t rows, columns;
    int layer;
    int part;  // 0, or 1 for the second one of a pair
    enum { weight, bias, log_variance } kind;
    int64_t size() const { return rows * columns; }
};

struct Network {
    // bfloat16_weights: the flat buffer holds the weights as words, for serving; all else in it stays float32.
    Network(const Config& config, const Backend& backend, bool bfloat16_weights = false);

    const bool bfloat16_weights;
    int D, Z;
    std::vector<Layer> layers;
    int head;               // its index
    Epilogue likelihood;    // what finishes the output layer
    bool has_log_variance;  // a learned variance per feature
    size_t log_variance;    // offset in the flat buffer
    size_t floats;          // of the flat buffer
    size_t floats_t;        // of the transposed buffer
    size_t words, words_t;  // of the buffers of bfloat16 words
    std::vector<Parameter> parameters;

    const Layer& output() const { return layers.back(); }
    // Multiply-adds of one row through all layers, times two.
    double flops_per_row() const;

    // Rows of a layer's packed weights in the flat buffer: floats, or words.
    int depth(const Layer& layer) const { return bfloat16_weights ? words_of(layer.K) : layer.K; }

    // Between a parameter and the flat buffer (or gradients and moments, which have the same order).
    void unpack(const float* flat, const Parameter& p, float* values) const;
    void pack(const float* values, const Parameter& p, float* flat) const;
    // The transposed copies, from the flat buffer.
    void transpose(const float* flat, float* transposed) const;
    // The bfloat16 words that forward and dgrad read, from the flat buffer.
    void make_words(const float* flat, float* words, float* words_t) const;
    void initialize(const Config& config, uint64_t seed, float* flat) const;
};

}  // namespace fusedvae
