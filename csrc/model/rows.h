// SPDX-License-Identifier: MIT
//
// Rows of numbers from outside: checked once at the boundary, read in place where they are float32 and the model has no
// table of columns, converted row by row otherwise. Errors name the row, the column and the value.
#pragma once
#include <functional>
#include <string>

#include "../backend/backend.h"
#include "config.h"

namespace fusedvae {

int64_t value_bytes(RowType type);

struct Rows {
    const unsigned char* data = nullptr;
    RowType type = RowType::float32;
    int64_t count = 0;
    int64_t columns = 0;
    int64_t width = 0;   // floats of a row as it is read
    int64_t stride = 0;  // bytes
    float factor = 1.0f;
    const Columns* table = nullptr;  // how to read the columns; NULL: as they are
    bool streamed = false;
    bool on_device = false;  // data is device memory: backend/device.h reads it, nothing else may
    float low, high;         // what a value may be: [0, 1] for Bernoulli targets, else finite
    int64_t first_row = 0;   // what messages call row 0

    // Throws std::invalid_argument or Error(FVAE_TYPE_ERROR); `what` names the argument.
    Rows(const fvae_array& array, const Config& config, const char* what);
    // float rows the library already has
    Rows(const float* values, int64_t rows, int64_t row_width);

    bool direct() const { return type == RowType::float32 && !table; }
    const unsigned char* row(int64_t i) const { return data + i * stride; }
    // Row i as floats: itself, or converted into scratch (width).
    const float* read(const Backend& backend, int64_t i, float* scratch) const {
        if (direct()) return reinterpret_cast<const float*>(row(i));
        if (table)
            table->encode(scratch, row(i), type, backend);
        else
            backend.convert(scratch, row(i), type, columns, factor);
        return scratch;
    }
    // Rows [first, first + count), whose messages name them as these do.
    Rows part(int64_t first, int64_t part_count) const {
        Rows rows = *this;
        rows.data = row(first);
        rows.count = part_count;
        rows.first_row += first;
        return rows;
    }
    // Throws std::invalid_argument where row i holds NaN, an infinity, or a target outside [low, high].
    void check_row(const Backend& backend, int64_t i, float* scratch) const;
    // The same for all rows, on the pool's threads.
    void check_all(const Backend& backend, int threads) const;
    // A hash of shape, type and up to 1024 rows, given by row(i): which data set a checkpoint belongs to.
    uint64_t fingerprint(const std::function<const void*(int64_t)>& row) const;
    const std::string& what() const { return what_; }

  private:
    double raw(int64_t i, int64_t column) const;
    [[noreturn]] void refuse_raw(int64_t i, int64_t column) const;

    std::string what_;
};

// Throws std::invalid_argument where given noise (samples, rows, Z) holds NaN or an infinity.
void check_noise(const Backend& backend, const float* noise, int64_t samples, int64_t rows, int64_t Z);

}  // namespace fusedvae
