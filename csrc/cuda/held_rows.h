// SPDX-License-Identifier: MIT
//
// A data set that stays on the device, as it is where its values are shorter than floats.
#pragma once
#include <memory>

#include "model.h"

namespace fusedvae::cuda {

struct HeldRows {
    Source source;
    Buffer<float> floats;  // padded
    Buffer<unsigned char> values;

    int64_t bytes() const { return static_cast<int64_t>(floats.bytes() + values.bytes()); }
};

// NULL where the rows are to be streamed: they say so, or there is no room. `staged` is for a table's rows on the device.
std::shared_ptr<const HeldRows> hold_rows(const ModelOnDevice& model, const Rows& x, Buffer<float>& staged);

}  // namespace fusedvae::cuda
