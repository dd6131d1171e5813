// SPDX-License-Identifier: MIT
#include "held_rows.h"

#include <algorithm>
#include <cstring>

namespace fusedvae::cuda {

namespace {

constexpr int64_t kChunkFloats = int64_t{1} << 24, kChunkBytes = 4 * kChunkFloats;  // of the copies that fill them
constexpr const char* kAdvice = "the data set";
constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

// As they are.
void hold_values(const std::shared_ptr<Context>& context, const Rows& x, HeldRows* held) {
    const int64_t row = x.width * value_bytes(x.type);
    held->values = Buffer<unsigned char>(context, x.count * row, kAdvice);
    const int64_t rows = x.stride == row ? x.count : std::max<int64_t>(1, std::min(x.count, kChunkBytes / row));
    std::vector<unsigned char> chunk(x.stride == row ? 0 : static_cast<size_t>(rows * row));
    for (int64_t first = 0; first < x.count; first += rows) {
        const int64_t n = std::min(rows, x.count - first);
        for (int64_t i = 0; !chunk.empty() && i < n; ++i)
            std::memcpy(&chunk[static_cast<size_t>(i * row)], x.row(first + i), static_cast<size_t>(row));
        held->values.upload(chunk.empty() ? x.data : chunk.data(), n * row, first * row);
    }
    held->source = {held->values.data(), x.type, row, 1, x.factor, nullptr, false};
}

void hold_floats(const ModelOnDevice& model, const Rows& x, Buffer<float>& staged, HeldRows* held) {
    const int64_t ld = padded(x.width);
    held->floats = Buffer<float>(model.context(), x.count * ld, kAdvice);
    const int64_t rows = std::max<int64_t>(1, std::min(x.count, kChunkFloats / ld));
    std::vector<float> chunk(static_cast<size_t>(rows * ld));
    for (int64_t first = 0; first < x.count; first += rows) {
        const int64_t n = std::min(rows, x.count - first);
        float* const to = held->floats.data() + first * ld;
        if (x.on_device) {  // through the host and back
            read_rows({{}, model.source(x, first, n, staged), n, model.network().D, to, ld, nullptr, 0},
                      model.context()->stream());
            continue;
        }
        stage_rows(x, nullptr, first, n, chunk.data());
        held->floats.upload(chunk.data(), n * ld, first * ld);
    }
    held->source = {held->floats.data(), RowType::float32, ld * kFloatBytes, 1, 1.0f, nullptr, true};
}

}  // namespace

std::shared_ptr<const HeldRows> hold_rows(const ModelOnDevice& model, const Rows& x, Buffer<float>& staged) {
    auto held = std::make_shared<HeldRows>();
    if (x.on_device && !x.table) {  // read where they lie
        held->source = model.source(x, 0, x.count, staged);
        return held;
    }
    const bool narrow = !x.table && value_bytes(x.type) < kFloatBytes;
    // A tenth is left to the batch's own buffers and to others. A table's rows on the device do not come back to be streamed.
    const int64_t row = narrow ? x.width * value_bytes(x.type) : padded(x.width) * kFloatBytes;
    if (x.streamed || (!x.on_device && x.count * row > model.context()->free_bytes() / 10 * 9)) return nullptr;
    if (narrow)
        hold_values(model.context(), x, held.get());
    else
        hold_floats(model, x, staged, held.get());
    return held;
}

}  // namespace fusedvae::cuda
