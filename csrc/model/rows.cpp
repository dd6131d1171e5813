// SPDX-License-Identifier: MIT
#include "rows.h"

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "../cpu/threads.h"
#include "error.h"
#include "names.h"

namespace fusedvae {

int64_t value_bytes(RowType type) {
    switch (type) {
        case RowType::float64:
            return 8;
        case RowType::float32:
            return 4;
        case RowType::float16:
        case RowType::bfloat16:
            return 2;
        default:
            return 1;
    }
}

namespace {

std::string shape(int64_t rows, int64_t columns) {
    return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

}  // namespace

Rows::Rows(const float* values, int64_t rows, int64_t row_width)
    : data(reinterpret_cast<const unsigned char*>(values)),
      count(rows),
      columns(row_width),
      width(row_width),
      stride(row_width * 4),
      low(-FLT_MAX),
      high(FLT_MAX) {}

Rows::Rows(const fvae_array& array, const Config& config, const char* what) : what_(what) {
    const int dtype = code_of(array.dtype);
    if (dtype < FVAE_FLOAT32 || dtype > FVAE_BFLOAT16)
        throw Error(FVAE_TYPE_ERROR, what_ + " has dtype number " + std::to_string(dtype) + "; the library reads " +
                                         known_names<fvae_dtype>());
    data = static_cast<const unsigned char*>(array.data);
    type = static_cast<RowType>(dtype);
    count = array.rows;
    columns = array.columns;
    streamed = array.streamed != 0;
    if (count <= 0 || columns <= 0 || !data)
        throw std::invalid_argument(what_ + " is empty: its shape is " + shape(count, columns));
    if (columns != config.width())
        throw std::invalid_argument(what_ + " has shape " + shape(count, columns) + "; the model reads " +
                                    std::to_string(config.width()) + " columns");
    if (count > UINT32_MAX)
        throw std::invalid_argument(what_ + " has " + std::to_string(count) + " rows; at most 2^32 - 1 are read");
    const int64_t item = value_bytes(type), farthest = INT64_MAX / count;
    stride = array.row_stride ? array.row_stride : columns * item;
    if (stride > farthest || stride < -farthest)
        throw std::invalid_argument(what_ + " has a row_stride of " + std::to_string(stride) +
                                    " bytes, which no memory can hold");
    if (reinterpret_cast<uintptr_t>(data) % static_cast<size_t>(item) != 0 || stride % item != 0)
        throw std::invalid_argument(what_ + " is not aligned to its " + std::to_string(item) +
                                    "-byte values; pass an aligned copy");
    if (type == RowType::uint8) factor = static_cast<float>(config.uint8_scale);
    const bool bernoulli = config.likelihood == FVAE_BERNOULLI;
    low = bernoulli ? 0.0f : -FLT_MAX;
    high = bernoulli ? 1.0f : FLT_MAX;
    if (!config.columns.empty()) table = &config.columns;
    width = config.encoded_width();
    on_device = array.on_device != 0;
    if (!on_device) return;
    if (stride != columns * item)
        throw std::invalid_argument(what_ + " is in a GPU's memory, where rows must be neighbours");
    if (table)
        throw std::invalid_argument(what_ + " is in a GPU's memory; a model with columns reads its rows on the host");
}

void Rows::check_row(const Backend& backend, int64_t i, float* scratch) const {
    const float* values = read(backend, i, scratch);
    const int64_t column = backend.find_bad(values, width, low, high);
    if (column == width) return;
    const float value = values[column];
    if (table && !std::isfinite(value)) refuse_raw(i, table->source(column));
    const std::string place =
        what_ + " holds " +
        (std::isnan(value)   ? "NaN"
         : std::isinf(value) ? "an infinity"
                             : std::to_string(value)) +
        " in row " + std::to_string(first_row + i) + ", " +
        (table ? table->place(table->source(column)) + " as it is scaled" : "column " + std::to_string(column));
    if (!std::isfinite(value)) throw std::invalid_argument(place + "; every value must be finite: drop or fill it");
    throw std::invalid_argument(place +
                                "; Bernoulli targets lie in [0, 1]: rescale the data or use "
                                "likelihood \"gaussian\"");
}

// What is wrong with a raw value that a table does not read as a finite number.
void Rows::refuse_raw(int64_t i, int64_t column) const {
    const double value = raw(i, column);
    const std::string place = " in row " + std::to_string(i) + ", " + table->place(column);
    const auto& categories = table->list()[static_cast<size_t>(column)].categories;
    if (std::isnan(value))
        throw std::invalid_argument(what_ + " misses a value" + place +
                                    ": fill it, or give the column a fill (estimators: impute)");
    if (categories.empty() || std::isinf(value))
        throw std::invalid_argument(what_ + " holds " + (std::isinf(value) ? "an infinity" : Json(value).dump()) +
                                    place + "; every value must be finite, also when it is scaled: drop or fill it");
    throw std::invalid_argument(what_ + " holds " + Json(value).dump() + place + ", which has categories 0 to " +
                                std::to_string(categories.size() - 1));
}

double Rows::raw(int64_t i, int64_t column) const {
    switch (type) {
        case RowType::float32:
            return double{reinterpret_cast<const float*>(row(i))[column]};
        case RowType::float64:
            return reinterpret_cast<const double*>(row(i))[column];
        default: {  // types whose every value a float holds
            float value;
            fusedvae::backend().convert(&value, row(i) + column * value_bytes(type), type, 1, 1.0f);
            return double{value};
        }
    }
}

void Rows::check_all(const Backend& backend, int threads) const {
    // bytes and bools always convert to finite values; only a scale above 1/255 can leave [0, 1]
    if (!table && (type == RowType::boolean || (type == RowType::uint8 && 255.0f * factor <= high))) return;
    std::atomic<int64_t> first_bad{count};
    std::vector<std::vector<float>> scratch(static_cast<size_t>(threads));
    run_checked(threads, [&](const Team& team) {
        const Range mine = share(count, 1, team.thread, team.threads);
        std::vector<float>& row_of = scratch[static_cast<size_t>(team.thread)];
        if (!direct()) row_of.resize(static_cast<size_t>(width));
        for (int64_t i = mine.first; i < mine.last; ++i) {
            if (backend.find_bad(read(backend, i, row_of.data()), width, low, high) == width) continue;
            for (int64_t known = first_bad.load(); i < known && !first_bad.compare_exchange_weak(known, i);) {
            }
            break;
        }
    });
    std::vector<float> row_of(static_cast<size_t>(width));
    if (first_bad.load() < count) check_row(backend, first_bad.load(), row_of.data());
}

uint64_t Rows::fingerprint(const std::function<const void*(int64_t)>& row_at) const {
    uint64_t hash = 0x9e3779b97f4a7c15u;
    const auto add = [&](const void* bytes,
                         size_t n) {  // eight bytes at a time, mixed by splitmix64 (Steele et al. 2014)
        for (size_t i = 0; i < n; i += 8) {
            uint64_t word = 0;
            std::memcpy(&word, static_cast<const unsigned char*>(bytes) + i, std::min<size_t>(8, n - i));
            hash = (hash ^ word) * 0xbf58476d1ce4e5b9u;
            hash ^= hash >> 31;
        }
    };
    const int64_t numbers[3] = {count, columns, static_cast<int64_t>(type)};
    add(numbers, sizeof numbers);
    const int64_t sampled = std::min<int64_t>(count, 1024);
    for (int64_t i = 0; i < sampled; ++i)
        add(row_at(i * (count - 1) / std::max<int64_t>(1, sampled - 1)),
            static_cast<size_t>(columns * value_bytes(type)));
    return hash;
}

void check_noise(const Backend& backend, const float* noise, int64_t samples, int64_t rows, int64_t Z) {
    const int64_t count = samples * rows * Z, bad = backend.find_bad(noise, count, -FLT_MAX, FLT_MAX);
    if (bad == count) return;
    throw std::invalid_argument("noise holds NaN or an infinity in row " + std::to_string(bad / Z % rows) +
                                ", column " + std::to_string(bad % Z) +
                                (samples > 1 ? " of sample " + std::to_string(bad / Z / rows) : ""));
}

}  // namespace fusedvae
