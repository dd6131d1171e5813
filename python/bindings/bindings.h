/* SPDX-License-Identifier: MIT
 *
 * What the parts of the extension module `fusedvae._core` share: views of NumPy rows, fresh result arrays, and the mark
 * of the thread that trains a model. Arguments are checked here only as far as memory safety needs; the library checks
 * the rest, and python/fusedvae says it in the user's words.
 */
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fusedvae/fusedvae.hpp"

namespace fusedvae::python {

namespace py = pybind11;

using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

// A fresh (n, columns) array.
inline Floats matrix(int64_t n, int64_t columns) { return Floats(std::vector<py::ssize_t>{n, columns}); }

// Rows of a NumPy array, or of memory of a GPU, in place, with a reference to it.
struct Rows {
    py::object array;
    fvae_array view;
    std::optional<void*> stream;  // in whose order a GPU's rows are made; none: they are there

    // bfloat16: the array holds the words of such values
    Rows(py::array source, bool streamed, bool bfloat16);
    // n rows of `columns` neighbouring values at an address; keeper holds them there
    Rows(uintptr_t address, const std::string& typestr, int64_t n, int64_t columns, std::optional<uintptr_t> stream,
         py::object keeper);
};

// A dense array of floats or doubles in a GPU's memory, which its copies share.
struct DeviceArray {
    std::shared_ptr<DeviceMemory> memory;
    std::vector<int64_t> shape;
    size_t itemsize;

    DeviceArray(const std::string& device, std::vector<int64_t> shape, size_t itemsize);
    int32_t index() const;  // of its GPU
};

// Which thread trains a model just now, shared by the model and its trainers. Interpreters without a GIL have no other
// order between threads, so that whoever reads says so first and asks for the owner then, and whoever owns the other way
// round: in the one order that all these operations have, at least one of two sees the other.
struct Training {
    std::atomic<std::thread::id> owner{};
    std::atomic<int> readers{0};
    std::mutex detector;  // held while the model's is copied or replaced, never over a call into Python
};

// Marks this thread as the one that trains; refuses while any thread does, this one (from a callback) included.
class Exclusive {
  public:
    explicit Exclusive(Training& training) : training_(training) {
        std::thread::id owner{};
        if (!training.owner.compare_exchange_strong(owner, std::this_thread::get_id())) {
            if (owner == std::this_thread::get_id()) {
                throw std::runtime_error(
                    "this model is being trained; a callback may read, save and score it, not change it");
            }
            throw std::runtime_error("this model is being trained in another thread; wait for that run or stop it");
        }
        while (training.readers > 0) {  // no further one begins
            const py::gil_scoped_release released;
            std::this_thread::yield();
        }
    }
    ~Exclusive() { training_.owner = std::thread::id{}; }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

  private:
    Training& training_;
};

// Holds off whoever wants to train the model, for as long as it or its trainer is read without the model's lock. Void
// where another thread trains it already; the training thread itself may read from its callbacks.
class Reading {
  public:
    explicit Reading(Training& training) : training_(training) {
        ++training.readers;
        const std::thread::id owner = training.owner;
        valid_ = owner == std::thread::id{} || owner == std::this_thread::get_id();
    }
    ~Reading() { --training_.readers; }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;

    bool valid() const { return valid_; }

  private:
    Training& training_;
    bool valid_;
};

struct BoundModel {
    Model model;
    std::shared_ptr<Training> training;
    std::vector<int64_t> input_shape;
    int64_t width;          // D, its product
    int64_t encoded_width;  // E
    int64_t latent;         // Z
    double row_work = 0.0;  // operations of one row through all layers

    explicit BoundModel(Model m, std::shared_ptr<Training> shared = std::make_shared<Training>());
};

// Orders a model's work on a GPU after what made the rows.
inline void wait_for(const Model& model, const Rows& rows) {
    if (rows.view.on_device && rows.stream && model.device() != "cpu") model.wait_for(*rows.stream);
}

inline py::tuple losses_tuple(const fvae_losses& losses) {
    return py::make_tuple(losses.loss, losses.reconstruction, losses.kl);
}

void bind_config(py::module_& m);
void bind_model(py::module_& m);
void bind_serving(py::class_<BoundModel>& model);
void bind_trainer(py::module_& m);
void bind_kernels(py::module_& m);
void bind_device(py::module_& m);

}  // namespace fusedvae::python
