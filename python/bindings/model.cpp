/* SPDX-License-Identifier: MIT
 *
 * Rows and Model. Pointers are taken, then the GIL is released around every call that computes.
 */
#include <algorithm>
#include <tuple>

#include "bindings.h"

namespace fusedvae::python {
namespace {

// What a method computes from rows: beside them on a GPU, else a NumPy array.
template <class T>
struct Result {
    T* data;
    py::object object;

    Result(const BoundModel& model, bool on_device, const std::vector<int64_t>& shape) {
        if (on_device) {
            if (model.model.device() == "cpu")
                throw std::invalid_argument(
                    "the rows are in a GPU's memory, the model is on the CPU: move one of them");
            DeviceArray array(model.model.device(), shape, sizeof(T));
            data = static_cast<T*>(array.memory->data());
            object = py::cast(std::move(array));
        } else {
            py::array_t<T, py::array::c_style> array(shape);
            data = array.mutable_data();
            object = std::move(array);
        }
    }
};

// Runs work() without the GIL, after what made the rows; results on a GPU are there when it returns.
template <class Work>
void run(const BoundModel& self, const Rows& x, Work work) {
    const py::gil_scoped_release released;
    wait_for(self.model, x);
    work();
    if (x.view.on_device) self.model.synchronize();
}

fvae_dtype dtype_code(const py::dtype& dtype) {
    if (dtype.byteorder() != '>') {
        switch (dtype.char_()) {
            case 'f':
                return FVAE_FLOAT32;
            case 'd':
                return FVAE_FLOAT64;
            case 'e':
                return FVAE_FLOAT16;
            case 'B':
                return FVAE_UINT8;
            case '?':
                return FVAE_BOOL;
        }
    }
    throw py::type_error("rows must be native float32, float64, float16, bfloat16, uint8 or bool, not " +
                         py::str(dtype).cast<std::string>());
}

void check_index(const std::vector<ParameterInfo>& infos, int64_t index) {
    if (index < 0 || index >= static_cast<int64_t>(infos.size())) throw std::out_of_range("no such parameter");
}

Floats get_parameter(const BoundModel& self, int64_t index) {
    const std::vector<ParameterInfo> infos = self.model.parameters();
    check_index(infos, index);
    Floats values(infos[static_cast<size_t>(index)].shape);
    float* const out = values.mutable_data();
    const py::gil_scoped_release released;  // a training may hold the model for a while
    self.model.get_parameter(index, out);
    return values;
}

void set_parameter(BoundModel& self, int64_t index, const Floats& values) {
    const std::vector<ParameterInfo> infos = self.model.parameters();
    check_index(infos, index);
    if (values.size() != infos[static_cast<size_t>(index)].size()) throw std::invalid_argument("wrong parameter size");
    const Exclusive exclusive(*self.training);
    self.model.set_parameter(index, values.data());
}

void init_output_bias(BoundModel& self, const Rows& x) {
    const Exclusive exclusive(*self.training);
    run(self, x, [&] { self.model.init_output_bias(x.view); });
}

void to(BoundModel& self, const std::string& device) {
    const Exclusive exclusive(*self.training);
    const py::gil_scoped_release released;
    self.model.to(device);
}

void save(const BoundModel& self, const std::string& path) {
    const py::gil_scoped_release released;
    self.model.save(path);
}

Floats encoded_rows(const BoundModel& self, const Rows& x) {
    Floats encoded = matrix(x.view.rows, self.encoded_width);
    float* const data = encoded.mutable_data();
    const py::gil_scoped_release released;
    self.model.encoded_rows(x.view, data);
    return encoded;
}

py::tuple encode(const BoundModel& self, const Rows& x) {
    const bool there = x.view.on_device;
    const Result<float> mu(self, there, {x.view.rows, self.latent}), logvar(self, there, {x.view.rows, self.latent});
    run(self, x, [&] { self.model.encode(x.view, mu.data, logvar.data); });
    return py::make_tuple(mu.object, logvar.object);
}

Floats decode(const BoundModel& self, const Floats& z) {
    if (z.ndim() != 2 || z.shape(1) != self.latent) throw std::invalid_argument("z must have shape (n, latent)");
    Floats mean = matrix(z.shape(0), self.width);
    const float* const z_data = z.data();
    float* const mean_data = mean.mutable_data();
    const py::gil_scoped_release released;
    self.model.decode(z_data, z.shape(0), mean_data);
    return mean;
}

// Of codes in a GPU's memory.
py::object decode_on_device(const BoundModel& self, const Rows& z) {
    if (!z.view.on_device || z.view.dtype != FVAE_FLOAT32 || z.view.columns != self.latent)
        throw std::invalid_argument("z must be float32 rows of `latent` values on a GPU");
    const Result<float> mean(self, true, {z.view.rows, self.width});
    run(self, z, [&] { self.model.decode(static_cast<const float*>(z.view.data), z.view.rows, mean.data); });
    return mean.object;
}

py::object reconstruct(const BoundModel& self, const Rows& x) {
    const Result<float> mean(self, x.view.on_device, {x.view.rows, self.width});
    run(self, x, [&] { self.model.reconstruct(x.view, mean.data); });
    return mean.object;
}

// one(part, scores) for all rows: (n) scores. All rows are checked first, so that errors name them; then they are scored
// in blocks of about a fifth of a second, so that Ctrl-C is seen in between. A row's score has the same bits in any block.
template <class One>
py::object in_blocks(const BoundModel& self, const Rows& x, int64_t samples, One one) {
    constexpr double kBlockWork = 2e10;  // operations; and fewer than 64 rows would leave the cores idle
    const Result<double> scores(self, x.view.on_device, {x.view.rows});
    const double row_work = self.row_work * static_cast<double>(std::max<int64_t>(1, samples));
    const int64_t block = std::max<int64_t>(64, static_cast<int64_t>(kBlockWork / row_work));
    run(self, x, [&] {
        self.model.encode(x.view, nullptr, nullptr);  // checks the rows, computes nothing
        for (int64_t first = 0; first < x.view.rows; first += block) {
            fvae_array part = x.view;
            part.data = static_cast<const char*>(x.view.data) + first * x.view.row_stride;
            part.rows = std::min(block, x.view.rows - first);
            one(part, scores.data + first);
            const py::gil_scoped_acquire acquired;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        }
    });
    return scores.object;
}

template <void (Model::*method)(const fvae_array&, int64_t, uint64_t, double*) const>
py::object sampled(const BoundModel& self, const Rows& x, int64_t samples, uint64_t seed) {
    return in_blocks(self, x, samples, [&](const fvae_array& part, double* scores) {
        (self.model.*method)(part, samples, seed, scores);
    });
}

// (score, samples, seed, threshold, distance, latent_mean or None, latent_precision or None)
using DetectorFields =
    std::tuple<int, int64_t, uint64_t, double, double, std::optional<Doubles>, std::optional<Doubles>>;

fvae_detector detector_of(const BoundModel& self, const DetectorFields& fields) {
    fvae_detector d = fvae_detector_default();
    const auto& [score, samples, seed, threshold, distance, mean, precision] = fields;
    if ((mean && mean->size() != self.latent) || (precision && precision->size() != self.latent * self.latent)) {
        throw std::invalid_argument("latent_mean must have shape (latent), latent_precision (latent, latent)");
    }
    d.score = static_cast<fvae_score>(score);
    d.samples = samples;
    d.seed = seed;
    d.threshold = threshold;
    d.distance = distance;
    d.latent_mean = mean ? mean->data() : nullptr;
    d.latent_precision = precision ? precision->data() : nullptr;
    return d;
}

py::object score(const BoundModel& self, const Rows& x, const DetectorFields& fields) {
    const fvae_detector d = detector_of(self, fields);
    const bool samples = d.score == FVAE_SCORE_ELBO || d.score == FVAE_SCORE_LOG_LIKELIHOOD;
    return in_blocks(self, x, samples ? d.samples : 1,
                     [&](const fvae_array& part, double* scores) { self.model.score(part, &d, scores); });
}

std::optional<DetectorFields> get_detector(const BoundModel& self) {
    const int64_t Z = self.latent;
    fvae_detector d;
    std::vector<double> own_mean, own_precision;
    {
        const std::lock_guard lock(self.training->detector);
        if (!self.model.has_detector()) return std::nullopt;
        d = self.model.detector();
        if (d.latent_mean) own_mean.assign(d.latent_mean, d.latent_mean + Z);
        if (d.latent_precision) own_precision.assign(d.latent_precision, d.latent_precision + Z * Z);
    }
    std::optional<Doubles> mean, precision;
    if (!own_mean.empty()) mean.emplace(Doubles(std::vector<py::ssize_t>{Z}, own_mean.data()));
    if (!own_precision.empty()) precision.emplace(Doubles(std::vector<py::ssize_t>{Z, Z}, own_precision.data()));
    return DetectorFields(static_cast<int>(d.score), d.samples, d.seed, d.threshold, d.distance, mean, precision);
}

void set_detector(BoundModel& self, const std::optional<DetectorFields>& fields) {
    const Exclusive exclusive(*self.training);
    fvae_detector d;
    if (fields) d = detector_of(self, *fields);
    const std::lock_guard lock(self.training->detector);
    self.model.set_detector(fields ? &d : nullptr);
}

Doubles contributions(const BoundModel& self, const Rows& x) {
    Doubles values(std::vector<py::ssize_t>{x.view.rows, self.width});
    double* const data = values.mutable_data();
    run(self, x, [&] { self.model.contributions(x.view, data); });
    return values;
}

// noise (S, n, Z) -> losses, one array for each parameter.
py::tuple gradients(const BoundModel& self, const Rows& x, const std::optional<Floats>& noise, uint64_t seed,
                    double beta, double free_bits, int precision) {
    if (noise && (noise->ndim() != 3 || noise->shape(1) != x.view.rows || noise->shape(2) != self.latent)) {
        throw std::invalid_argument("noise must have shape (samples, n, latent)");
    }
    py::list arrays;
    std::vector<float*> pointers;
    for (const ParameterInfo& info : self.model.parameters()) {
        Floats array(info.shape);
        pointers.push_back(array.mutable_data());
        arrays.append(std::move(array));
    }
    const float* const noise_data = noise ? noise->data() : nullptr;
    const int64_t samples = noise ? noise->shape(0) : 1;
    fvae_losses losses;
    run(self, x, [&] {
        losses = self.model.gradients(x.view, noise_data, samples, seed, beta, free_bits,
                                      static_cast<fvae_precision>(precision), pointers.data());
    });
    return py::make_tuple(losses_tuple(losses), arrays);
}

}  // namespace

Rows::Rows(uintptr_t address, const std::string& typestr, int64_t n, int64_t columns, std::optional<uintptr_t> from,
           py::object keeper)
    : array(std::move(keeper)), view(rows(reinterpret_cast<const void*>(address), FVAE_FLOAT32, n, columns)) {
    const bool bfloat16 = typestr == "bfloat16";  // which NumPy has no word for
    const py::dtype dtype(bfloat16 ? "<u2" : typestr);
    view.dtype = bfloat16 ? FVAE_BFLOAT16 : dtype_code(dtype);
    view.row_stride = columns * dtype.itemsize();
    view.on_device = 1;
    // Both protocols call the default stream 1, which CUDA's functions call NULL.
    if (from) stream = *from == 1 ? nullptr : reinterpret_cast<void*>(*from);
}

Rows::Rows(py::array source, bool streamed, bool bfloat16) : array(source), view(fvae_array_default()) {
    if (bfloat16 && source.dtype().char_() != 'H') throw py::type_error("the words of bfloat16 are uint16");
    view.dtype = bfloat16 ? FVAE_BFLOAT16 : dtype_code(source.dtype());
    if (source.ndim() != 2) throw std::invalid_argument("rows must be a matrix");
    if (source.shape(1) > 1 && source.strides(1) != source.itemsize()) {
        throw std::invalid_argument("the columns of a row must be neighbours in memory");
    }
    if (source.shape(0) > 1 && source.strides(0) == 0) throw std::invalid_argument("rows must not share their memory");
    view.data = source.data();
    view.rows = source.shape(0);
    view.columns = source.shape(1);
    view.row_stride = source.shape(0) > 1 ? source.strides(0) : 0;
    view.streamed = streamed;
}

BoundModel::BoundModel(Model m, std::shared_ptr<Training> shared) : model(std::move(m)), training(std::move(shared)) {
    const Config config = model.config();
    input_shape = config.input_shape;
    width = config.width();
    encoded_width = config.encoded_width();
    latent = config.latent;
    for (const ParameterInfo& info : model.parameters()) row_work += 2.0 * static_cast<double>(info.size());
}

void bind_model(py::module_& m) {
    py::class_<Rows>(m, "Rows")
        .def(py::init<py::array, bool, bool>(), py::arg("array"), py::arg("streamed") = false,
             py::arg("bfloat16") = false)
        .def_static(
            "on_gpu",
            [](uintptr_t address, const std::string& typestr, int64_t n, int64_t columns,
               std::optional<uintptr_t> stream,
               py::object keeper) { return Rows(address, typestr, n, columns, stream, std::move(keeper)); },
            py::arg("address"), py::arg("typestr"), py::arg("n"), py::arg("columns"), py::arg("stream"),
            py::arg("keeper"))
        .def_property_readonly("count", [](const Rows& rows) { return rows.view.rows; })
        .def_property_readonly("on_device", [](const Rows& rows) { return rows.view.on_device != 0; })
        .def_readonly("array", &Rows::array);

    py::class_<BoundModel> model(m, "Model");
    model
        .def(py::init([](const Config& config, uint64_t seed) { return BoundModel(Model(config, seed)); }),
             py::arg("config"), py::arg("seed"))
        .def_static(
            "load",
            [](const std::string& path) {
                const py::gil_scoped_release released;
                return BoundModel(Model::load(path));
            },
            py::arg("path"))
        .def(
            "copy",
            [](const BoundModel& self, int weights) {
                const py::gil_scoped_release released;
                return BoundModel(self.model.copy(static_cast<fvae_precision>(weights)));
            },
            py::arg("weights"))
        .def("weights", [](const BoundModel& self) { return static_cast<int>(self.model.weights()); })
        .def("to", &to, py::arg("device"))
        .def("device", [](const BoundModel& self) { return self.model.device(); })
        .def("config", [](const BoundModel& self) { return self.model.config(); })
        .def("parameter_info",
             [](const BoundModel& self) {
                 py::list infos;
                 for (const ParameterInfo& info : self.model.parameters()) {
                     infos.append(py::make_tuple(info.name, py::tuple(py::cast(info.shape))));
                 }
                 return infos;
             })
        .def("get_parameter", &get_parameter, py::arg("index"))
        .def("set_parameter", &set_parameter, py::arg("index"), py::arg("values"))
        .def("init_output_bias", &init_output_bias, py::arg("x"))
        .def("save", &save, py::arg("path"))
        .def("encoded_rows", &encoded_rows, py::arg("x"))
        .def("encode", &encode, py::arg("x"))
        .def("decode", &decode, py::arg("z"))
        .def("decode_on_device", &decode_on_device, py::arg("z"))
        .def("reconstruct", &reconstruct, py::arg("x"))
        .def("elbo", &sampled<&Model::elbo>, py::arg("x"), py::arg("samples"), py::arg("seed"))
        .def("log_likelihood", &sampled<&Model::log_likelihood>, py::arg("x"), py::arg("samples"), py::arg("seed"))
        .def("score", &score, py::arg("x"), py::arg("detector"))
        .def("detector", &get_detector)
        .def("set_detector", &set_detector, py::arg("detector"))
        .def("contributions", &contributions, py::arg("x"))
        .def("gradients", &gradients, py::arg("x"), py::arg("noise"), py::arg("seed"), py::arg("beta"),
             py::arg("free_bits"), py::arg("precision"));
    bind_serving(model);
}

}  // namespace fusedvae::python
