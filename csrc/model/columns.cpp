// SPDX-License-Identifier: MIT
#include "columns.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <stdexcept>
#include <string_view>
#include <unordered_set>

#include "../backend/backend.h"

namespace fusedvae {

namespace {

template <class T>
bool distinct(const std::vector<T>& names) {
    std::unordered_set<T> seen;
    for (const T& name : names)
        if (!seen.insert(name).second) return false;
    return true;
}

std::string text(double value) { return std::isfinite(value) ? Json(value).dump() : "not finite"; }

}  // namespace

Columns::Columns(std::vector<Column> columns) : columns_(std::move(columns)) {
    std::vector<std::string_view> names;
    for (std::vector<double>* each : {&shift_, &scale_, &inverse_, &fill_}) each->reserve(columns_.size());
    for (size_t r = 0; r < columns_.size(); ++r) {
        Column& c = columns_[r];
        const std::string here = place(static_cast<int64_t>(r));
        if (c.name.find('\0') != std::string::npos) throw std::invalid_argument(here + ": its name holds a NUL");
        if (!c.name.empty()) names.push_back(c.name);
        if (!(std::fabs(c.shift) <= 1e30))
            throw std::invalid_argument(here + ": shift must be within 1e30, it is " + text(c.shift));
        if (!(c.scale >= 1e-30 && c.scale <= 1e30))
            throw std::invalid_argument(here + ": scale must be a positive number (1e-30 to 1e30), it is " +
                                        text(c.scale) + "; a constant column takes 1");
        if (std::isinf(c.fill)) throw std::invalid_argument(here + ": fill must be finite, or NaN for none");
        const int64_t k = static_cast<int64_t>(c.categories.size());
        if (k > 0) {
            if (!distinct(c.categories)) throw std::invalid_argument(here + ": two of its categories are the same");
            for (const std::string& category : c.categories)
                if (category.find('\0') != std::string::npos)
                    throw std::invalid_argument(here + ": a category holds a NUL");
            if (!std::isnan(c.fill) &&
                !(c.fill >= 0.0 && c.fill < static_cast<double>(k) && c.fill == std::floor(c.fill)))
                throw std::invalid_argument(here + ": fill must be the index of one of its " + std::to_string(k) +
                                            " categories, it is " + text(c.fill));
            c.shift = 0.0, c.scale = 1.0;  // which are of numbers alone: a file does not keep them
        } else {
            // otherwise each missing value would be refused although it has a fill
            if (std::fabs((c.fill - c.shift) / c.scale) > double{FLT_MAX})
                throw std::invalid_argument(here + ": fill " + text(c.fill) + " is infinite when it is scaled");
            log_jacobian_ -= std::log(c.scale);
        }
        if (k == 0 && !runs_.empty() && runs_.back().categories == 0)
            ++runs_.back().count;
        else
            runs_.push_back({static_cast<int64_t>(r), encoded_width_, 1, k});
        encoded_width_ += c.width();
        if (encoded_width_ > kMaxWidth)
            throw std::invalid_argument("the columns take more than " + std::to_string(kMaxWidth) + " values");
        shift_.push_back(c.shift);
        scale_.push_back(c.scale);
        inverse_.push_back(1.0 / c.scale);
        fill_.push_back(c.fill);
    }
    if (!distinct(names)) throw std::invalid_argument("two columns have the same name");
}

Columns Columns::from_c(const fvae_column* columns, size_t count) {
    std::vector<Column> list;
    for (size_t r = 0; r < count; ++r) {
        const fvae_column& c = columns[r];
        if (c.struct_size != sizeof c)
            throw std::invalid_argument("columns[" + std::to_string(r) + "].struct_size is " +
                                        std::to_string(c.struct_size) + "; begin with fvae_column_default()");
        if (c.category_count && !c.categories)
            throw std::invalid_argument("columns[" + std::to_string(r) + "].categories is NULL");
        Column column{c.name ? c.name : "", c.shift, c.scale, c.fill, {}};
        for (size_t k = 0; k < c.category_count; ++k) {
            if (!c.categories[k])
                throw std::invalid_argument("columns[" + std::to_string(r) + "].categories[" + std::to_string(k) +
                                            "] is NULL");
            column.categories.emplace_back(c.categories[k]);
        }
        list.push_back(std::move(column));
    }
    Columns checked(std::move(list));
    checked.to_json().dump();  // refuses what is not UTF-8 now, not when a trained model is to be saved
    return checked;
}

Json Columns::to_json() const {
    Json::Array array;
    for (const Column& c : columns_) {
        Json json{Json::Object{}};
        if (!c.name.empty()) json.set("name", c.name);
        if (c.categories.empty()) {
            json.set("shift", c.shift);
            json.set("scale", c.scale);
        } else {
            json.set("categories", Json(Json::Array(c.categories.begin(), c.categories.end())));
        }
        if (!std::isnan(c.fill)) json.set("fill", c.fill);
        array.push_back(std::move(json));
    }
    return Json(std::move(array));
}

Columns Columns::from_json(const Json& json) {
    std::vector<Column> list;
    list.reserve(json.as_array("columns").size());
    for (const Json& entry : json.as_array("columns")) {
        entry.as_object("columns");  // find() would see nothing wrong
        Column column;
        if (entry.find("name")) column.name = entry.string("name");
        if (entry.find("shift")) column.shift = entry.number("shift");
        if (entry.find("scale")) column.scale = entry.number("scale");
        if (entry.find("fill")) column.fill = entry.number("fill");
        if (entry.find("categories"))
            for (const Json& category : entry.array("categories"))
                column.categories.push_back(category.as_string("categories"));
        list.push_back(std::move(column));
    }
    return Columns(std::move(list));
}

template <class T>
void Columns::encode_from(float* encoded, const T* raw) const {
    for (const Run& run : runs_) {
        float* const to = encoded + run.encoded;
        if (run.categories == 0) {
            const T* const from = raw + run.raw;
            const double *shift = &shift_[static_cast<size_t>(run.raw)],
                         *inverse = &inverse_[static_cast<size_t>(run.raw)],
                         *fill = &fill_[static_cast<size_t>(run.raw)];
            for (int64_t j = 0; j < run.count; ++j) {
                const double given = static_cast<double>(from[j]), value = given == given ? given : fill[j];
                to[j] = static_cast<float>((value - shift[j]) * inverse[j]);
            }
        } else {
            const double given = static_cast<double>(raw[run.raw]);
            const double value = given == given ? given : fill_[static_cast<size_t>(run.raw)];
            const bool known =
                value >= 0.0 && value < static_cast<double>(run.categories) && value == std::floor(value);
            std::fill(to, to + run.categories, known ? 0.0f : __builtin_nanf(""));
            if (known) to[static_cast<int64_t>(value)] = 1.0f;
        }
    }
}

void Columns::encode(float* encoded, const void* raw, RowType type, const Backend& backend) const {
    if (type == RowType::float32) return encode_from(encoded, static_cast<const float*>(raw));
    if (type == RowType::float64) return encode_from(encoded, static_cast<const double*>(raw));
    // Floats of the raw row at the end of its place: no encoded value is written before the raw ones under it are read.
    const int64_t R = static_cast<int64_t>(columns_.size());
    float* const floats = encoded + (encoded_width_ - R);
    backend.convert(floats, raw, type, R, 1.0f);
    encode_from(encoded, static_cast<const float*>(floats));
}

void Columns::decode(float* raw, const float* encoded, ptrdiff_t stride) const {
    for (const Run& run : runs_) {
        const float* const from = encoded + run.encoded * stride;
        if (run.categories == 0) {
            for (int64_t j = 0; j < run.count; ++j) {
                const auto r = static_cast<size_t>(run.raw + j);
                raw[run.raw + j] = static_cast<float>(double{from[j * stride]} * scale_[r] + shift_[r]);
            }
        } else {
            int64_t largest = 0;
            for (int64_t k = 1; k < run.categories; ++k)
                if (from[k * stride] > from[largest * stride]) largest = k;
            raw[run.raw] = static_cast<float>(largest);
        }
    }
}

double Columns::log_jacobian(int64_t raw) const {
    const Column& c = columns_[static_cast<size_t>(raw)];
    return c.categories.empty() ? -std::log(c.scale) : 0.0;
}

int64_t Columns::source(int64_t encoded) const {
    const auto after = std::upper_bound(runs_.begin(), runs_.end(), encoded,
                                        [](int64_t value, const Run& run) { return value < run.encoded; });
    const Run& run = *(after - 1);
    return run.raw + (run.categories ? 0 : encoded - run.encoded);
}

std::string Columns::place(int64_t raw) const {
    const std::string number = "column " + std::to_string(raw);
    if (raw >= static_cast<int64_t>(columns_.size())) return number;
    const std::string& name = columns_[static_cast<size_t>(raw)].name;
    return name.empty() ? number : number + " (" + shown(name) + ")";
}

}  // namespace fusedvae
