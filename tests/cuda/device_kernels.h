// SPDX-License-Identifier: MIT
//
// Every pair of pairs.inc, in every precision and tile size, around the tiles' edges, against the double-precision
// reference. Factors are eighths between -1 and 1, which every precision holds exactly, and sums of their products are
// exact in float32 while they stay below 2^24 sixty-fourths: so the products must be exact, and what is left is the
// epilogue's own error (kernel_cases.h) and, in bfloat16, the rounding of what it stores.
#pragma once

#include <cstring>

#include "check.h"
#include "cuda/context.h"
#include "cuda/kernels.h"
#include "device_cases.h"

namespace device_kernels {

using namespace device_cases;
namespace cuda = fusedvae::cuda;
using fusedvae::Activation;
using fusedvae::Epilogue;
using kernel_cases::kEps;
using kernel_cases::kFunction;
using kernel_cases::Random;
using kernel_cases::Shape;
using kernel_cases::to_matrix;

const std::vector<Shape> kShapes = {{1, 1, 1},     {17, 33, 129},  {129, 17, 33},
                                    {33, 129, 17}, {31, 1000, 31}, {130, 8, 64}};
constexpr cuda::TileSize kSizes[] = {cuda::TileSize::small, cuda::TileSize::medium, cuda::TileSize::large};

inline std::shared_ptr<cuda::Context> context() { return std::static_pointer_cast<cuda::Context>(gpu()); }

inline float from_half(uint16_t h) {
    const uint32_t bits = static_cast<uint32_t>(h) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline uint16_t to_half(float x) {  // exact for what the tests give it
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>(bits >> 16);
}

// A matrix on the device in elements that products read, as our own are: padded with zeros.
class OnDevice {
  public:
    OnDevice(int64_t rows, int64_t columns, bool half) : rows_(rows), columns_(columns), half_(half) {
        const int64_t count = rows * cuda::padded(columns);
        if (half)
            halves_ = cuda::Buffer<uint16_t>(context(), count, "a test");
        else
            floats_ = cuda::Buffer<float>(context(), count, "a test");
    }
    OnDevice(const Matrix& x, bool half) : OnDevice(x.rows, x.columns, half) {
        const int64_t ld = cuda::padded(columns_);
        std::vector<float> values(static_cast<size_t>(rows_ * ld), 0.0f);
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t c = 0; c < columns_; ++c)
                values[static_cast<size_t>(r * ld + c)] = static_cast<float>(x(r, c));
        std::vector<uint16_t> halves;
        for (const float value : values) halves.push_back(to_half(value));
        if (half)
            halves_.upload(halves.data(), rows_ * ld);
        else
            floats_.upload(values.data(), rows_ * ld);
    }
    void* data() const { return half_ ? static_cast<void*>(halves_.data()) : floats_.data(); }
    float* floats() const { return floats_.data(); }
    int64_t ld() const { return cuda::padded(columns_); }
    cuda::Factor factor() const { return {data(), ld(), nullptr, 1, 0}; }
    // What it holds; padding must be zero.
    Matrix read() const {
        std::vector<float> values;
        if (half_)
            for (const uint16_t h : halves_.download()) values.push_back(from_half(h));
        else
            values = floats_.download();
        Matrix x(rows_, columns_);
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t c = 0; c < ld(); ++c) {
                const float value = values[static_cast<size_t>(r * ld() + c)];
                if (c < columns_)
                    x(r, c) = value;
                else
                    CHECK(value == 0.0f);
            }
        return x;
    }

  private:
    int64_t rows_, columns_;
    bool half_;
    cuda::Buffer<float> floats_;
    cuda::Buffer<uint16_t> halves_;
};

inline Matrix eighths(Random& random, int64_t rows, int64_t columns) {
    Matrix x = to_matrix(random.integers(rows * columns, 8), rows, columns);
    for (double& value : x.values) value /= 8.0;
    return x;
}
inline Matrix uniforms(Random& random, int64_t rows, int64_t columns, float low, float high) {
    return to_matrix(random.uniforms(rows * columns, low, high), rows, columns);
}
// Every second column, from `first` on.
inline Matrix every_second(const Matrix& x, int64_t first) {
    Matrix half(x.rows, x.columns / 2);
    for (int64_t r = 0; r < half.rows; ++r)
        for (int64_t c = 0; c < half.columns; ++c) half(r, c) = x(r, 2 * c + first);
    return half;
}

inline void expect_near(const Matrix& got, const Matrix& want, const Matrix& bound, const std::string& what) {
    CHECK(got.values.size() == want.values.size());
    for (size_t i = 0; i < got.values.size(); ++i)
        if (!(std::fabs(got.values[i] - want.values[i]) <= bound.values[i]))
            throw std::runtime_error(what + "[" + std::to_string(i) + "] is " + std::to_string(got.values[i]) +
                                     ", expected " + std::to_string(want.values[i]) + " within " +
                                     std::to_string(bound.values[i] * 1e6) + "e-6");
}
// |want| * relative + absolute, and what storing in bfloat16 rounds.
inline Matrix bound_of(const Matrix& want, double relative, double absolute, bool half) {
    Matrix bound = want;
    for (double& value : bound.values) value = std::fabs(value) * (relative + (half ? 0x1p-8 : 0.0)) + absolute;
    return bound;
}

struct Case {
    Precision precision;
    cuda::TileSize size;
    Shape shape;
    std::string name;
    const cuda::Kernels& kernels() const { return cuda::kernels_of(precision); }
    bool half() const { return precision == Precision::bfloat16; }
};
template <class Run>
void for_each_case(const char* kernel, Run run) {
    if (!gpu()) return;
    context()->use();
    uint32_t seed = 1;
    for (const Precision precision : kPrecisions)
        for (const cuda::TileSize size : kSizes)
            for (const Shape& shape : kShapes) {
                std::ostringstream name;
                name << kernel << ", " << name_of(precision) << ", tiles of " << cuda::side_of(size)
                     << ", B=" << shape.B << " K=" << shape.K << " N=" << shape.N << ": ";
                Random random(++seed);
                run(Case{precision, size, shape, name.str()}, random);
            }
}

}  // namespace device_kernels
