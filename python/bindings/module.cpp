/* SPDX-License-Identifier: MIT
 *
 * The extension module `fusedvae._core`: errors, the functions that belong to no object, and the list of its parts.
 */
#include <array>
#include <cstring>

#include "bindings.h"

namespace fusedvae::python {
namespace {

// An exception of Python's own, as if defined in the package.
PyObject* new_error(py::module_& m, const char* name, PyObject* base, const char* doc) {
    PyObject* const type = PyErr_NewExceptionWithDoc((std::string("fusedvae.") + name).c_str(), doc, base, nullptr);
    if (!type) throw py::error_already_set();
    m.add_object(name, type);
    return type;
}

PyObject* bad_file_type = nullptr;
PyObject* non_finite_type = nullptr;

// Messages hold paths, which need not be UTF-8: what is not becomes what os.fsdecode would make of it.
void set_error(PyObject* type, const char* message) {
    PyObject* const text =
        PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "surrogateescape");
    if (!text) return;  // with the error that says why
    PyErr_SetObject(type, text);
    Py_DECREF(text);
}

// pybind11 already turns invalid_argument into ValueError, bad_alloc into MemoryError, runtime_error into RuntimeError.
void translate(std::exception_ptr thrown) {
    try {
        if (thrown) std::rethrow_exception(thrown);
    } catch (const type_error& error) {
        set_error(PyExc_TypeError, error.what());
    } catch (const bad_file_error& error) {
        set_error(bad_file_type, error.what());
    } catch (const non_finite_error& error) {
        set_error(non_finite_type, error.what());
    } catch (const io_error& error) {
        set_error(error.status() == FVAE_NOT_FOUND           ? PyExc_FileNotFoundError
                  : error.status() == FVAE_PERMISSION_DENIED ? PyExc_PermissionError
                                                             : PyExc_OSError,
                  error.what());
    }
}

Floats sample_latent(uint64_t seed, uint64_t first, int64_t n, int64_t latent, double temperature) {
    Floats z = matrix(n, latent);
    float* const data = z.mutable_data();
    const py::gil_scoped_release released;
    check(fvae_sample_latent(seed, first, n, latent, temperature, data));
    return z;
}

Floats score_noise(uint64_t seed, int64_t samples, int64_t latent) {
    Floats noise = matrix(samples, latent);
    float* const data = noise.mutable_data();
    const py::gil_scoped_release released;
    check(fvae_score_noise(seed, samples, latent, data));
    return noise;
}

py::array_t<uint32_t> philox(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) {
    py::array_t<uint32_t> words(4);
    fvae_philox(counter.data(), key.data(), words.mutable_data());
    return words;
}

std::string backend() {
    const char* name = nullptr;
    check(fvae_backend(&name));
    return name;
}

double measure_peak(int32_t threads, double seconds, int precision) {
    double gflops = 0;
    const py::gil_scoped_release released;
    check(fvae_measure_peak(threads, seconds, static_cast<fvae_precision>(precision), &gflops));
    return gflops;
}

}  // namespace

// No state of the module's own changes after this function, and what models and trainers keep has its own order between
// threads (Training), so that an interpreter without a GIL needs none for it.
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    if (fvae_abi_version() != FVAE_ABI_VERSION) {
        throw py::import_error("fusedvae._core and the fusedvae library beside it are of different versions");
    }
    bad_file_type = new_error(m, "BadFileError", PyExc_ValueError, "The file is truncated, corrupted or foreign.");
    non_finite_type = new_error(m, "NonFiniteError", PyExc_RuntimeError,
                                "The loss became infinite or NaN; the message names the step and what to try.");
    py::register_exception_translator(&translate);

    bind_config(m);
    bind_model(m);
    bind_trainer(m);
    bind_kernels(m);

    m.def("sample_latent", &sample_latent, py::arg("seed"), py::arg("first"), py::arg("n"), py::arg("latent"),
          py::arg("temperature"));
    m.def("score_noise", &score_noise, py::arg("seed"), py::arg("samples"), py::arg("latent"));
    m.def("philox", &philox, py::arg("counter"), py::arg("key"));
    m.def("num_threads", &fvae_num_threads);
    m.def(
        "set_num_threads", [](int32_t threads) { check(fvae_set_num_threads(threads)); }, py::arg("threads"));
    m.def("backend", &backend);
    m.def("available_backends", &fvae_available_backends);
    m.def("measure_peak", &measure_peak, py::arg("threads"), py::arg("seconds"),
          py::arg("precision") = static_cast<int>(FVAE_PRECISION_FLOAT32));
    m.def("has_bfloat16", [] { return fvae_has_bfloat16() != 0; });
    m.def("version", &fvae_version);
}

}  // namespace fusedvae::python
