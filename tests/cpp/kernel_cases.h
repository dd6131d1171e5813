// SPDX-License-Identifier: MIT
//
// What the kernel tests share: the backends and shapes to run, inputs and guarded outputs, and error bounds.
//
// Every bound is derived, in units of kEps = 2^-23, the distance from 1 to the next float. A product of K terms makes
// at most K + 1 roundings, each of at most kEps / 2 times the partial sum it rounds. With inputs of mixed sign a
// partial sum of k terms is about sqrt(k) / 3 * max|a| max|b|, and the roundings' signs are mixed too, so that the
// typical error is 0.07 kEps K max|a| max|b|: the bound used, kEps (K + 1) max|a| max|b|, is fourteen times that, and
// still hundreds of times below what one lost term or inputs rounded to bfloat16 would do. What follows the product
// multiplies that error by the function's largest slope and adds kFunction, the error of the function itself (a few
// roundings of a polynomial), relative to the size of the terms that it is made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "fusedvae/fusedvae.h"
#include "layer/reference.h"

namespace kernel_cases {

using fusedvae::reference::Matrix;

constexpr double kEps = 1.1920928955078125e-7;  // 2^-23
constexpr double kFunction = 4.0 * kEps;

inline std::vector<std::string> backends() {
    std::vector<std::string> names;
    std::stringstream list(fvae_available_backends());
    for (std::string name; std::getline(list, name, ',');) {
        name.erase(std::remove(name.begin(), name.end(), ' '), name.end());
        names.push_back(name);
    }
    return names;
}

struct Shape {
    int64_t B, K, N;
};

// Around every tile size and its tails. All triples with FUSEDVAE_LONG set; else each size three times in each place.
// Then batches around the pieces that dW is summed in, and the row blocks of the other passes.
inline std::vector<Shape> shapes() {
    static const std::vector<int64_t> sizes = {1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65, 100};
    std::vector<Shape> list = {{127, 9, 17},  {128, 40, 33},  {129, 33, 48},  {256, 31, 80},
                               {300, 65, 49}, {21, 8321, 49}, {130, 17, 4609}};  // the last two: deep panels
    if (std::getenv("FUSEDVAE_LONG")) {
        for (int64_t B : sizes)
            for (int64_t K : sizes)
                for (int64_t N : sizes) list.push_back({B, K, N});
        return list;
    }
    std::mt19937 engine(20240607);
    for (int round = 0; round < 3; ++round) {
        std::vector<int64_t> inner = sizes, columns = sizes;
        std::shuffle(inner.begin(), inner.end(), engine);
        std::shuffle(columns.begin(), columns.end(), engine);
        for (size_t i = 0; i < sizes.size(); ++i) list.push_back({sizes[i], inner[i], columns[i]});
    }
    return list;
}

// A float array between guard cells. Outputs start as NaN, so that a cell which is not written shows; the guards hold
// NaN of a payload of their own, so that an input read past its end spoils a result and an output written past it
// shows.
class Buffer {
  public:
    explicit Buffer(int64_t count)
        : count_(static_cast<size_t>(count)), cells_(count_ + 2 * kGuard, std::numeric_limits<float>::quiet_NaN()) {
        for (size_t i = 0; i < kGuard; ++i) set_guard(cells_[i]), set_guard(cells_[kGuard + count_ + i]);
    }

    float* data() { return cells_.data() + kGuard; }
    const float* data() const { return cells_.data() + kGuard; }
    int64_t size() const { return static_cast<int64_t>(count_); }
    float& operator[](int64_t i) { return data()[i]; }
    float operator[](int64_t i) const { return data()[i]; }

    bool guards_intact() const {
        for (size_t i = 0; i < kGuard; ++i)
            if (!is_guard(cells_[i]) || !is_guard(cells_[kGuard + count_ + i])) return false;
        return true;
    }

  private:
    static constexpr size_t kGuard = 80;  // more than the widest panel
    static constexpr uint32_t kPattern = 0x7fc0beef;

    static void set_guard(float& cell) { std::memcpy(&cell, &kPattern, sizeof cell); }
    static bool is_guard(const float& cell) { return std::memcmp(&cell, &kPattern, sizeof cell) == 0; }

    size_t count_;
    std::vector<float> cells_;
};

// Inputs, the same on every machine: std::mt19937's words are fixed by the standard, the distributions' are not.
class Random {
  public:
    explicit Random(uint32_t seed) : engine_(seed) {}

    float uniform(float low, float high) {
        return low + (high - low) * static_cast<float>(engine_() >> 8) * 5.9604644775390625e-8f;  // 24 bits
    }
    Buffer uniforms(int64_t count, float low, float high) {
        Buffer values(count);
        for (int64_t i = 0; i < count; ++i) values[i] = uniform(low, high);
        return values;
    }
    // Whole numbers in [-limit, limit]: their sums of products are exact in float while they stay below 2^24.
    Buffer integers(int64_t count, int limit) {
        Buffer values(count);
        for (int64_t i = 0; i < count; ++i)
            values[i] = static_cast<float>(static_cast<int>(engine_() % static_cast<uint32_t>(2 * limit + 1)) - limit);
        return values;
    }
    Buffer normals(int64_t count) {
        Buffer values(count);
        for (int64_t i = 0; i < count; ++i) {
            float sum = -6.0f;  // twelve uniforms have variance 1
            for (int term = 0; term < 12; ++term) sum += uniform(0.0f, 1.0f);
            values[i] = sum;
        }
        return values;
    }

  private:
    std::mt19937 engine_;
};

inline Matrix to_matrix(const float* values, int64_t rows, int64_t columns) {
    Matrix matrix(rows, columns);
    std::copy(values, values + rows * columns, matrix.values.begin());
    return matrix;
}
inline Matrix to_matrix(const Buffer& values, int64_t rows, int64_t columns) {
    return to_matrix(values.data(), rows, columns);
}

inline Matrix constant(int64_t rows, int64_t columns, double value) {
    Matrix matrix(rows, columns);
    std::fill(matrix.values.begin(), matrix.values.end(), value);
    return matrix;
}

inline Matrix row_sums(const Matrix& terms) {
    Matrix sums(terms.rows, 1);
    for (int64_t i = 0; i < terms.rows; ++i)
        for (int64_t j = 0; j < terms.columns; ++j) sums[i] += terms(i, j);
    return sums;
}

inline double largest(const Matrix& x) {
    double most = 0.0;
    for (double value : x.values) most = std::max(most, std::fabs(value));
    return most;
}

// The bound of this file's head for a product of `inner` terms, and a bias added to it.
inline double product_bound(const Matrix& a, const Matrix& b, int64_t inner) {
    return kEps * static_cast<double>(inner + 1) * largest(a) * largest(b);
}
inline double linear_bound(const Matrix& x, const Matrix& weight, const Matrix& bias) {
    return product_bound(x, weight, x.columns) + kEps * largest(bias);
}

// Where a case stands; the first line of every failure.
struct Where {
    std::string kernel, backend;
    Shape shape;

    std::string text() const {
        std::ostringstream out;
        out << kernel << " on " << backend << ", B=" << shape.B << " K=" << shape.K << " N=" << shape.N;
        return out.str();
    }
};

[[noreturn]] inline void fail(const Where& where, const std::string& message) {
    throw std::runtime_error(where.text() + ": " + message);
}

inline void expect_ok(fvae_status status, const Where& where) {
    if (status != FVAE_OK) fail(where, std::string("status is not OK: ") + fvae_last_error());
}

// |got - want| <= bound, element by element (bound of the same shape); a NaN or an infinity fails where want is finite.
inline void expect_near(const Buffer& got, const Matrix& want, const Matrix& bound, const Where& where,
                        const char* what) {
    if (!got.guards_intact()) fail(where, std::string("wrote outside ") + what);
    int64_t worst = -1;
    double excess = 1.0;
    for (int64_t i = 0; i < got.size(); ++i) {
        const double error = std::fabs(got[i] - want[i]);
        // A denormal's spacing is absolute: FLT_MIN * kEps.
        const double ratio = error / (bound[i] + 1.2e-38 * kEps);
        if (!(ratio <= excess)) worst = i, excess = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
    }
    if (worst < 0) return;
    std::ostringstream out;
    out.precision(10);
    out << what << '(' << worst / want.columns << ", " << worst % want.columns << ") is " << got[worst] << ", expected "
        << want[worst] << " within " << bound[worst];
    fail(where, out.str());
}

inline void expect_near(const Buffer& got, const Matrix& want, double bound, const Where& where, const char* what) {
    expect_near(got, want, constant(want.rows, want.columns, bound), where, what);
}

inline void expect_equal(const Buffer& got, const Matrix& want, const Where& where, const char* what) {
    if (!got.guards_intact()) fail(where, std::string("wrote outside ") + what);
    for (int64_t i = 0; i < got.size(); ++i)
        if (!(static_cast<double>(got[i]) == want[i])) {
            std::ostringstream out;
            out.precision(10);
            out << what << '[' << i << "] is " << got[i] << ", expected exactly " << want[i];
            fail(where, out.str());
        }
}

}  // namespace kernel_cases
