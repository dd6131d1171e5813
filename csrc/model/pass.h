// SPDX-License-Identifier: MIT
//
// One thread's pass through the layers of a model, in memory that it is given: blocks of up to kBlock rows go from layer
// to layer between two areas, and nothing is allocated, locked or shared. A row's result is a function of that row alone.
//
//     workspace   | row pointers: input, area 0, area 1 | area 0 | area 1 | one row's sums | converted rows |
#pragma once
#include <algorithm>

#include "../cpu/threads.h"
#include "model.h"

namespace fusedvae {

class Pass {
  public:
    static constexpr int64_t kBlock = 128;  // rows of a block: weights are read from the cache once for so many

    // What up to `rows` rows at a time take; `converts` where they are not float32.
    static size_t bytes(const Model& model, int64_t rows, bool converts);
    // workspace: that many bytes, aligned or not.
    Pass(const Model& model, int64_t rows, bool converts, void* workspace);

    // The part of `range` that the block from `first` on takes.
    int block(Range range, int64_t first) const { return static_cast<int>(std::min(rows_, range.last - first)); }
    // Pointers to float rows, valid until the next call.
    const float* const* read(const Rows& rows, int64_t first, int n);
    // The same for rows that one pointer each is set to by the caller.
    const float** pointers() { return pointers_[2]; }
    float* converted(int r) { return converted_ + r * int64_t{model_.network.D}; }

    // Through the encoder to the head's pairs: mu_j at [2j], logvar_j at [2j + 1].
    const float* const* encode(const float* const* x, int n) { return layers(0, model_.network.head + 1, x, n); }
    // Where to put n codes, dense, and the rows that decode and nll then read.
    float* codes(int n);
    const float* const* code_rows() const { return pointers_[turn_ ^ 1]; }
    // The output layer's rows at the mean codes of encode's pairs: y (n, ld)
    void output(const float* const* head, int n, const Forward& job, float* y, ptrdiff_t ld);
    // mean of p(x|z), as the caller reads rows: (n, width)
    void decode(const float* const* codes, int n, float* mean);
    // -log p(target | code) of each row
    void nll(const float* const* codes, const float* const* target, int n, double* result);

  private:
    void layer(const Forward& job, const float* const* x, int n, float* y, ptrdiff_t ld);
    const float* const* layers(int first, int last, const float* const* x, int n);
    const float* const* hidden(const float* const* codes, int n) {
        return layers(model_.network.head + 1, static_cast<int>(model_.network.layers.size()) - 1, codes, n);
    }

    const Model& model_;
    int64_t rows_;
    const float** pointers_[3];
    float* area_[2];
    float* sums_;
    float* converted_;
    int turn_ = 0;  // the area that is written next; the other one holds what was written last
};

// Memory for a pass, not initialised.
class Workspace {
  public:
    Workspace(const Model& model, int64_t rows, bool converts)
        : bytes_(new unsigned char[Pass::bytes(model, rows, converts)]) {}
    void* data() const { return bytes_.get(); }

  private:
    std::unique_ptr<unsigned char[]> bytes_;
};

}  // namespace fusedvae
