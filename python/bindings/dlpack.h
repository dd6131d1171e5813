/* SPDX-License-Identifier: MIT
 *
 * DLPack's structs (dmlc/dlpack, version 0.8 of its ABI), by which Python libraries hand arrays to one another in capsules.
 */
#pragma once

#include <stdint.h>

namespace fusedvae::python::dlpack {

constexpr const char* kName = "dltensor";
constexpr const char* kUsedName = "used_dltensor";

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Device {
    DeviceType type;
    int32_t index;
};

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;    // (ndim)
    int64_t* strides;  // (ndim) in elements; NULL: dense, row-major
    uint64_t byte_offset;
};

// The producer's; whoever has taken the tensor calls deleter once, when it is done with it.
struct ManagedTensor {
    Tensor tensor;
    void* context;
    void (*deleter)(ManagedTensor* self);
};

}  // namespace fusedvae::python::dlpack
