/* SPDX-License-Identifier: MIT
 *
 * Model.encode_into, decode_into and reconstruct_into: arrays that fit exactly are passed on as pointers, which costs a
 * fraction of a microsecond; nothing is converted or allocated (each thread keeps a workspace). Arguments are plain handles
 * and NumPy's struct is read in place, since pybind11's array casters cost more than a small model.
 */
#include "bindings.h"

namespace fusedvae::python {
namespace {

constexpr double kShortWork = 2e5;  // operations, about 3 us: shorter calls keep the GIL, which costs more to hand over

// One argument: float32 rows of `width` values in C order.
struct Argument {
    const char* name;
    float* data;
    int64_t rows;
    int64_t width;

    const char* begin() const { return reinterpret_cast<const char*>(data); }
    const char* end() const { return begin() + rows * width * static_cast<int64_t>(sizeof(float)); }
};

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

std::string shape_text(const py::array& array) { return py::str(array.attr("shape")).cast<std::string>(); }

// Trailing dimensions of an image's rows: (n, *shape) beside (n, width).
bool has_shape(const py::array& array, const std::vector<int64_t>& shape) {
    if (array.ndim() != static_cast<py::ssize_t>(shape.size()) + 1) return false;
    for (size_t i = 0; i < shape.size(); ++i)
        if (array.shape(static_cast<py::ssize_t>(i) + 1) != shape[i]) return false;
    return true;
}

Argument argument(const char* name, py::handle object, int64_t width, const std::vector<int64_t>* shape, bool written) {
    if (!py::isinstance<py::array>(object)) {
        throw py::type_error(std::string(name) + " must be a NumPy array, not " + type_name(object));
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    const py::dtype dtype = array.dtype();
    if (dtype.char_() != 'f' || dtype.byteorder() == '>') {
        throw py::type_error(std::string(name) + " has dtype " + py::str(dtype).cast<std::string>() +
                             "; it must hold native float32, because nothing is converted here");
    }
    if (!py::detail::check_flags(object.ptr(), py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
        throw std::invalid_argument(std::string(name) + " must be C-contiguous and aligned; np.array(" + name +
                                    ", order=\"C\") is");
    }
    if (written && !array.writeable()) throw std::invalid_argument(std::string(name) + " is read-only");
    if (!(array.ndim() == 2 && array.shape(1) == width) && !(shape && has_shape(array, *shape))) {
        std::string expected = "(n, " + std::to_string(width) + ")";
        if (shape && shape->size() > 1) expected += " or (n, *input_shape)";
        throw std::invalid_argument(std::string(name) + " has shape " + shape_text(array) + "; expected " + expected);
    }
    return {name, const_cast<float*>(static_cast<const float*>(array.data())), array.shape(0), width};
}

void check_rows(const Argument& in, const Argument& out) {
    if (in.rows != out.rows) {
        throw std::invalid_argument(std::string(out.name) + " has " + std::to_string(out.rows) + " rows, " + in.name +
                                    " has " + std::to_string(in.rows));
    }
}
void check_apart(const Argument& a, const Argument& b) {
    if (a.begin() < b.end() && b.begin() < a.end()) {
        throw std::invalid_argument(std::string(a.name) + " and " + b.name + " share memory");
    }
}

// This thread's workspace, grown to what the model needs for so many rows.
struct Scratch {
    std::unique_ptr<unsigned char[]> bytes;
    size_t size = 0;
};
Scratch& scratch(const Model& model, int64_t rows) {
    static thread_local Scratch own;
    const size_t needed = model.workspace_bytes(rows);
    if (needed > own.size) {
        own.bytes.reset(new unsigned char[needed]);
        own.size = needed;
    }
    return own;
}

// Runs serve(workspace) without a lock, or locked() where another thread trains the model just now.
template <class Serve, class Locked>
void serve_rows(const BoundModel& self, int64_t rows, Serve serve, Locked locked) {
    if (const Reading reading(*self.training); reading.valid()) {
        Scratch& own = scratch(self.model, rows);
        if (self.row_work * static_cast<double>(rows) < kShortWork) return check(serve(own.bytes.get(), own.size));
        const py::gil_scoped_release released;
        return check(serve(own.bytes.get(), own.size));
    }
    const py::gil_scoped_release released;
    locked();
}

py::handle encode_into(const BoundModel& self, py::handle x, py::handle mu, py::handle logvar) {
    const Argument in = argument("x", x, self.width, &self.input_shape, false);
    const Argument mean = argument("mu", mu, self.latent, nullptr, true);
    check_rows(in, mean);
    check_apart(in, mean);
    float* second = nullptr;
    if (!logvar.is_none()) {
        const Argument variance = argument("logvar", logvar, self.latent, nullptr, true);
        check_rows(in, variance);
        check_apart(in, variance);
        check_apart(mean, variance);
        second = variance.data;
    }
    serve_rows(
        self, in.rows,
        [&](void* workspace, size_t bytes) {
            return fvae_model_encode_into(self.model.get(), in.data, in.rows, mean.data, second, workspace, bytes);
        },
        [&] { self.model.encode(rows(in.data, in.rows, in.width), mean.data, second); });
    return mu;
}

py::handle decode_into(const BoundModel& self, py::handle z, py::handle out) {
    const Argument in = argument("z", z, self.latent, nullptr, false);
    const Argument mean = argument("out", out, self.width, &self.input_shape, true);
    check_rows(in, mean);
    check_apart(in, mean);
    serve_rows(
        self, in.rows,
        [&](void* workspace, size_t bytes) {
            return fvae_model_decode_into(self.model.get(), in.data, in.rows, mean.data, workspace, bytes);
        },
        [&] { self.model.decode(in.data, in.rows, mean.data); });
    return out;
}

py::handle reconstruct_into(const BoundModel& self, py::handle x, py::handle out) {
    const Argument in = argument("x", x, self.width, &self.input_shape, false);
    const Argument mean = argument("out", out, self.width, &self.input_shape, true);
    check_rows(in, mean);
    if (in.data != mean.data) check_apart(in, mean);
    serve_rows(
        self, in.rows,
        [&](void* workspace, size_t bytes) {
            return fvae_model_reconstruct_into(self.model.get(), in.data, in.rows, mean.data, workspace, bytes);
        },
        [&] { self.model.reconstruct(rows(in.data, in.rows, in.width), mean.data); });
    return out;
}

}  // namespace

void bind_serving(py::class_<BoundModel>& model) {
    model.def("encode_into", &encode_into, py::arg("x"), py::arg("mu"), py::arg("logvar"))
        .def("decode_into", &decode_into, py::arg("z"), py::arg("out"))
        .def("reconstruct_into", &reconstruct_into, py::arg("x"), py::arg("out"));
}

}  // namespace fusedvae::python
