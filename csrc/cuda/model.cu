// SPDX-License-Identifier: MIT
#include "model.h"

#include <cstring>

#include "../cpu/threads.h"

namespace fusedvae::cuda {

bool reads_in_place(const Source& source, int columns, bool bfloat16) {
    const int piece = bfloat16 ? 8 : 4;  // values of 16 bytes
    return source.type == (bfloat16 ? RowType::bfloat16 : RowType::float32) && source.step == 1 &&
           source.factor == 1.0f && source.stride % 16 == 0 && reinterpret_cast<uintptr_t>(source.data) % 16 == 0 &&
           (source.padded || columns % piece == 0);
}

void stage_rows(const Rows& rows, const uint32_t* index, int64_t first, int64_t count, float* out) {
    const Backend& cpu = backend();
    const int64_t width = rows.width, ld = padded(width);
    for (int64_t r = 0; r < count; ++r, out += ld) {
        const int64_t i = index ? index[r] : first + r;
        if (rows.streamed) rows.check_row(cpu, i, rows.direct() ? nullptr : out);
        const float* row = rows.read(cpu, i, out);
        if (row != out) std::memcpy(out, row, static_cast<size_t>(width) * sizeof(float));
        std::memset(out + width, 0, static_cast<size_t>(ld - width) * sizeof(float));
    }
}

ModelOnDevice::ModelOnDevice(std::shared_ptr<Context> context, const Config& config, const Network& network)
    : context_(std::move(context)),
      device_(context_),
      config_(config),
      network_(network),
      layout_(network),
      values_(context_, layout_.floats, "the parameters (make the layers narrower)") {}

void ModelOnDevice::upload(const float* plain) {
    const std::lock_guard lock(mutex_);
    context_->use();
    std::vector<float> flat(static_cast<size_t>(layout_.floats), 0.0f);
    layout_.pack(network_, plain, flat.data());
    values_.upload(flat.data(), layout_.floats);
    if (half_.count() > 0) make_half(values_.data(), half_.data(), layout_.floats, context_->stream());
}

void ModelOnDevice::download(float* plain) const {
    const std::lock_guard lock(mutex_);
    context_->use();
    layout_.unpack(network_, values_.download().data(), plain);
}

void ModelOnDevice::need_half() {
    if (half_.count() > 0) return;
    half_ = Buffer<uint16_t>(context_, layout_.floats, "the parameters' bfloat16 copy (make the layers narrower)");
    make_half(values_.data(), half_.data(), layout_.floats, context_->stream());
}

const void* ModelOnDevice::weight(int layer, bool bfloat16) const {
    const int64_t at = layout_.layers[static_cast<size_t>(layer)].weight;
    return bfloat16 ? static_cast<const void*>(half_.data() + at) : values_.data() + at;
}
const float* ModelOnDevice::bias(int layer) const {
    return values_.data() + layout_.layers[static_cast<size_t>(layer)].bias;
}

Source ModelOnDevice::source(const Rows& rows, int64_t first, int64_t count, Buffer<float>& staged) const {
    if (rows.on_device && !rows.table)
        return {rows.data + first * rows.stride, rows.type, rows.stride, 1, rows.factor, nullptr, false};
    const int64_t ld = padded(rows.width);
    std::vector<float> host(static_cast<size_t>(count * ld));
    if (rows.on_device) {  // columns' tables are read on the host
        std::vector<unsigned char> copy(static_cast<size_t>(count * rows.stride));
        context_->download(copy.data(), rows.data + first * rows.stride, copy.size());
        Rows here = rows;
        here.data = copy.data();
        here.count = count;
        here.on_device = false;
        stage_rows(here, nullptr, 0, count, host.data());
    } else {
        stage_rows(rows, nullptr, first, count, host.data());
    }
    if (staged.count() < count * ld)
        staged = Buffer<float>(context_, count * ld, "a block of rows (use a smaller batch_size)");
    staged.upload(host.data(), count * ld);
    return {staged.data(), RowType::float32, ld * static_cast<int64_t>(sizeof(float)), 1, 1.0f, nullptr, true};
}

}  // namespace fusedvae::cuda

namespace fusedvae {

std::unique_ptr<DeviceModel> DeviceModel::make(std::shared_ptr<Device> device, const Config& config,
                                               const Network& network) {
    auto context = std::static_pointer_cast<cuda::Context>(device);
    context->use();
    return std::make_unique<cuda::ModelOnDevice>(std::move(context), config, network);
}

}  // namespace fusedvae
