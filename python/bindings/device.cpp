/* SPDX-License-Identifier: MIT
 *
 * Arrays in a GPU's memory: those that the library makes, and the rows of others', which come as DLPack capsules or by the
 * address that __cuda_array_interface__ tells.
 */
#include "bindings.h"
#include "dlpack.h"

namespace fusedvae::python {
namespace {

// A capsule's tensor, given back to its producer when nobody reads it any more.
using Taken = std::shared_ptr<dlpack::ManagedTensor>;

Taken take(const py::capsule& capsule) {
    auto* const managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kName));
    if (!managed) throw py::error_already_set();
    if (PyCapsule_SetName(capsule.ptr(), dlpack::kUsedName) != 0) throw py::error_already_set();
    return Taken(managed, [](dlpack::ManagedTensor* tensor) {
        if (!tensor->deleter) return;
        const py::gil_scoped_acquire acquired;
        tensor->deleter(tensor);
    });
}

// The type in NumPy's words, such as "<f4"; or "bfloat16", for which it has none.
std::string typestr(const dlpack::DataType& type) {
    const char* const kinds = type.code == dlpack::kFloat  ? "<f"
                              : type.code == dlpack::kUInt ? "|u"
                              : type.code == dlpack::kBool ? "|b"
                                                           : "<i";
    if (type.code == dlpack::kBfloat && type.bits == 16 && type.lanes == 1) return "bfloat16";
    if (type.lanes != 1 || (type.code > dlpack::kFloat && type.code != dlpack::kBool))
        throw py::type_error("the array holds values of a type that the library does not read");
    return kinds + std::to_string(type.bits / 8);
}

// (address, shape, strides in bytes, typestr, device index, keeper) of a capsule's tensor.
py::tuple open_dlpack(const py::capsule& capsule) {
    const Taken taken = take(capsule);
    const dlpack::Tensor& t = taken->tensor;
    const int64_t item = t.dtype.bits / 8;
    py::list shape, strides;
    int64_t dense = item;
    for (int32_t i = t.ndim - 1; i >= 0; --i) {
        shape.insert(0, t.shape[i]);
        strides.insert(0, t.strides ? t.strides[i] * item : dense);
        dense *= t.shape[i];
    }
    const auto address = reinterpret_cast<uintptr_t>(t.data) + t.byte_offset;
    py::capsule keeper(new Taken(taken), [](void* held) { delete static_cast<Taken*>(held); });
    return py::make_tuple(address, py::tuple(shape), py::tuple(strides), typestr(t.dtype), t.device.index, keeper);
}

py::capsule to_dlpack(const DeviceArray& array, std::vector<int64_t> shape) {
    struct Export {
        dlpack::ManagedTensor managed;
        std::vector<int64_t> shape;
        std::shared_ptr<DeviceMemory> memory;
    };
    auto* const exported = new Export{{}, std::move(shape), array.memory};
    const auto bits = static_cast<uint8_t>(8 * array.itemsize);
    exported->managed.tensor = {array.memory->data(),
                                {dlpack::kCuda, array.index()},
                                static_cast<int32_t>(exported->shape.size()),
                                {dlpack::kFloat, bits, 1},
                                exported->shape.data(),
                                nullptr,
                                0};
    exported->managed.context = exported;
    exported->managed.deleter = [](dlpack::ManagedTensor* self) { delete static_cast<Export*>(self->context); };
    return py::capsule(&exported->managed, dlpack::kName, [](PyObject* capsule) {
        if (!PyCapsule_IsValid(capsule, dlpack::kName)) return;  // taken: its deleter is called by who took it
        auto* const managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, dlpack::kName));
        managed->deleter(managed);
    });
}

py::array download(const DeviceArray& array) {
    py::array values(array.itemsize == 4 ? py::dtype::of<float>() : py::dtype::of<double>(), array.shape);
    void* const data = values.mutable_data();
    const py::gil_scoped_release released;
    array.memory->download(data);
    return values;
}

DeviceArray upload(const std::string& device, const Floats& values) {
    DeviceArray array(device, std::vector<int64_t>(values.shape(), values.shape() + values.ndim()), sizeof(float));
    const float* const data = values.data();
    const py::gil_scoped_release released;
    array.memory->upload(data);
    return array;
}

py::dict properties(const std::string& device) {
    const fvae_device_properties p = device_properties(device);
    return py::dict(py::arg("name") = p.name, py::arg("capability") = py::make_tuple(p.major, p.minor),
                    py::arg("total_bytes") = p.total_bytes, py::arg("free_bytes") = p.free_bytes);
}

}  // namespace

DeviceArray::DeviceArray(const std::string& device, std::vector<int64_t> extents, size_t bytes_each)
    : shape(std::move(extents)), itemsize(bytes_each) {
    size_t bytes = itemsize;
    for (const int64_t extent : shape) bytes *= static_cast<size_t>(extent);
    memory = std::make_shared<DeviceMemory>(device, bytes);
}

int32_t DeviceArray::index() const {
    const std::string& device = memory->device();  // "cuda" or "cuda:0"
    return device == "cuda" ? 0 : std::stoi(device.substr(5));
}

void bind_device(py::module_& m) {
    py::class_<DeviceArray>(m, "DeviceArray")
        .def(py::init(&upload), py::arg("device"), py::arg("values"))
        .def("download", &download)
        .def("to_dlpack", &to_dlpack, py::arg("shape"))
        .def_property_readonly("address",
                               [](const DeviceArray& self) { return reinterpret_cast<uintptr_t>(self.memory->data()); })
        .def_property_readonly("shape", [](const DeviceArray& self) { return py::tuple(py::cast(self.shape)); })
        .def_property_readonly("itemsize", [](const DeviceArray& self) { return self.itemsize; })
        .def_property_readonly("index", &DeviceArray::index);
    m.def("open_dlpack", &open_dlpack, py::arg("capsule"));
    m.def("device_count", &fvae_device_count);
    m.def("device_properties", &properties, py::arg("device"));
}

}  // namespace fusedvae::python
