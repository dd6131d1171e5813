// SPDX-License-Identifier: MIT
//
// How a table's columns are read: numbers shifted and scaled, categories as one-hot, fills in place of what is missing.
// The caller's rows are raw; the network's are encoded. Raw columns R <= encoded columns D.
//
//     raw      age  colour  income          (R = 3)
//     encoded  a'   0 1 0   i'              (D = 5, colour has three categories)
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../layer/gemm.h"
#include "fusedvae/fusedvae.h"
#include "json.h"

namespace fusedvae {

struct Backend;

// Of every layer, a row of data and an encoded one included: far beyond any fully connected network; keeps every product
// of two widths inside 64 bits and columns inside 32.
constexpr int64_t kMaxWidth = int64_t{1} << 24;

struct Column {
    std::string name;
    double shift = 0.0, scale = 1.0;      // a number is read as (value - shift) / scale
    double fill = __builtin_nan("");      // stands for NaN; NaN: none does
    std::vector<std::string> categories;  // not empty: the value is an index into them

    int64_t width() const { return categories.empty() ? 1 : static_cast<int64_t>(categories.size()); }
};

class Columns {
  public:
    Columns() = default;  // none: rows are read as they are
    // Throws std::invalid_argument with the column, what it has, and what it may have.
    explicit Columns(std::vector<Column> columns);

    static Columns from_c(const fvae_column* columns, size_t count);
    Json to_json() const;
    static Columns from_json(const Json& json);

    bool empty() const { return columns_.empty(); }
    const std::vector<Column>& list() const { return columns_; }
    int64_t encoded_width() const { return encoded_width_; }
    // ln |d encoded / d raw|: what a density of raw rows has above that of encoded ones
    double log_jacobian() const { return log_jacobian_; }
    double log_jacobian(int64_t raw) const;  // of one column alone

    // A raw row of any type -> encoded (D). What is no category's index becomes NaN.
    void encode(float* encoded, const void* raw, RowType type, const Backend& backend) const;
    // encoded (D), `stride` floats apart -> raw (R): numbers in their own units, the largest category's index
    void decode(float* raw, const float* encoded, ptrdiff_t stride) const;

    // The raw column that an encoded one comes from.
    int64_t source(int64_t encoded) const;
    // "column 3 ('age')"
    std::string place(int64_t raw) const;

  private:
    // Neighbouring numbers, or one column of categories.
    struct Run {
        int64_t raw, encoded, count;
        int64_t categories;  // 0: numbers
    };
    template <class T>
    void encode_from(float* encoded, const T* raw) const;

    std::vector<Column> columns_;
    std::vector<Run> runs_;
    std::vector<double> shift_, scale_, inverse_, fill_;  // [raw]
    int64_t encoded_width_ = 0;
    double log_jacobian_ = 0.0;
};

}  // namespace fusedvae
