// SPDX-License-Identifier: MIT
//
// An aligned, zeroed array of floats, and the row pointers that products read through.
#pragma once
#include <cstring>
#include <memory>
#include <vector>

#include "../backend/platform.h"
#include "../layer/gemm.h"

namespace fusedvae {

class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t floats) : size_(floats) {
        if (floats > SIZE_MAX / sizeof(float) - 64) throw std::bad_alloc();
        if (floats == 0) return;
        data_.reset(static_cast<float*>(platform::aligned_alloc(floats * sizeof(float), 64)));
        std::memset(data_.get(), 0, floats * sizeof(float));
    }
    float* data() const { return data_.get(); }
    size_t size() const { return size_; }
    int64_t bytes() const { return static_cast<int64_t>(size_ * sizeof(float)); }
    void copy_from(const Buffer& other) { std::memcpy(data(), other.data(), size_ * sizeof(float)); }

  private:
    struct Free {
        void operator()(float* p) const { platform::aligned_free(p); }
    };
    std::unique_ptr<float, Free> data_;
    size_t size_ = 0;
};

// A matrix of our own: rows padded so that neighbouring rows do not fall into the same cache set (a row of a multiple
// of 4096 bytes costs a tall tile a fifth of its speed), and a pointer to each.
class Matrix {
  public:
    Matrix() = default;
    static ptrdiff_t leading_dimension(int64_t columns) { return columns % 1024 == 0 ? columns + 16 : columns; }

    Matrix(int64_t rows, int64_t columns) : ld_(leading_dimension(columns)) {
        values_ = Buffer(static_cast<size_t>(rows) * static_cast<size_t>(ld_));
        rows_.resize(static_cast<size_t>(rows));
        for (int64_t b = 0; b < rows; ++b) rows_[static_cast<size_t>(b)] = values_.data() + b * ld_;
    }
    float* data() const { return values_.data(); }
    float* row(int64_t b) const { return values_.data() + b * ld_; }
    const float* const* rows() const { return rows_.data(); }
    ptrdiff_t ld() const { return ld_; }
    int64_t bytes() const { return values_.bytes() + static_cast<int64_t>(rows_.size() * sizeof(float*)); }

  private:
    Buffer values_;
    std::vector<const float*> rows_;
    ptrdiff_t ld_ = 0;
};

// The bfloat16 copies of a (rows, columns) matrix: words along its rows, and across pairs of them.
class WordMatrix {
  public:
    WordMatrix() = default;
    WordMatrix(int64_t rows, int64_t columns, bool across = true)
        : along_(rows, (columns + 15) / 16 * 8), across_(across ? (rows + 1) / 2 : 0, (columns + 15) / 16 * 16) {}
    const float* const* along() const { return along_.rows(); }
    const float* const* across() const { return across_.rows(); }
    Words words() const { return {along_.data(), across_.data(), along_.ld(), across_.ld()}; }
    int64_t bytes() const { return along_.bytes() + across_.bytes(); }

  private:
    Matrix along_, across_;
};

}  // namespace fusedvae
