/* SPDX-License-Identifier: MIT
 *
 * fusedvae for C++17: the C API of fusedvae.h with owning classes and exceptions instead of handles and status codes.
 * Header only; link the same library.
 *
 *     fusedvae::Model model = fusedvae::Model::load("model.safetensors");
 *     std::vector<double> scores(n);
 *     model.elbo(fusedvae::rows(x, n, 784), 1, 0, scores.data());   // x: const float*, (n, 784)
 *
 * Shapes, units and the rules for threads are those of fusedvae.h. Output pointers are the caller's memory.
 */
#ifndef FUSEDVAE_FUSEDVAE_HPP
#define FUSEDVAE_FUSEDVAE_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fusedvae/fusedvae.h"

namespace fusedvae {
// The symbols of this header carry `api`, so that they cannot meet the library's own classes in a static link.
inline namespace api {

// ---- errors: the caller's (invalid_argument) and the world's (runtime_error) ---------------------------------------

class type_error : public std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

class bad_file_error : public std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

class io_error : public std::runtime_error {
  public:
    io_error(fvae_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
    fvae_status status() const noexcept { return status_; }  // FVAE_IO_ERROR, FVAE_NOT_FOUND or FVAE_PERMISSION_DENIED

  private:
    fvae_status status_;
};

class non_finite_error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

class out_of_memory : public std::bad_alloc {
  public:
    explicit out_of_memory(const std::string& message) : message_(message) {}
    const char* what() const noexcept override { return message_.what(); }

  private:
    std::runtime_error message_;  // whose copies do not throw
};

// Throws what a status says, with the library's message.
inline void check(fvae_status status) {
    if (status == FVAE_OK) return;
    const std::string message = fvae_last_error();
    switch (status) {
        case FVAE_INVALID_ARGUMENT:
            throw std::invalid_argument(message);
        case FVAE_TYPE_ERROR:
            throw type_error(message);
        case FVAE_OUT_OF_MEMORY:
            throw out_of_memory(message);
        case FVAE_IO_ERROR:
        case FVAE_NOT_FOUND:
        case FVAE_PERMISSION_DENIED:
            throw io_error(status, message);
        case FVAE_BAD_FILE:
            throw bad_file_error(message);
        case FVAE_NON_FINITE:
            throw non_finite_error(message);
        default:
            throw std::runtime_error(message);
    }
}

// ---- data ----------------------------------------------------------------------------------------------------------

// A view of n dense rows; set row_stride, streamed or on_device on the result where they differ.
inline fvae_array rows(const void* data, fvae_dtype dtype, int64_t n, int64_t columns) {
    fvae_array array = fvae_array_default();
    array.data = data;
    array.dtype = dtype;
    array.rows = n;
    array.columns = columns;
    return array;
}
inline fvae_array rows(const float* data, int64_t n, int64_t columns) { return rows(data, FVAE_FLOAT32, n, columns); }
inline fvae_array rows(const double* data, int64_t n, int64_t columns) { return rows(data, FVAE_FLOAT64, n, columns); }
inline fvae_array rows(const uint8_t* data, int64_t n, int64_t columns) { return rows(data, FVAE_UINT8, n, columns); }

// ---- GPUs ----------------------------------------------------------------------------------------------------------

inline fvae_device_properties device_properties(const std::string& device) {
    fvae_device_properties properties = {};
    properties.struct_size = sizeof properties;
    check(fvae_device_get_properties(device.c_str(), &properties));
    return properties;
}

// Memory of a GPU, such as "cuda".
class DeviceMemory {
  public:
    DeviceMemory(const std::string& device, size_t bytes) : memory_(nullptr, Free{device}), bytes_(bytes) {
        void* memory = nullptr;
        check(fvae_device_allocate(device.c_str(), bytes, &memory));
        memory_.reset(memory);
    }
    void* data() const noexcept { return memory_.get(); }
    size_t size() const noexcept { return bytes_; }
    const std::string& device() const noexcept { return memory_.get_deleter().device; }
    // All of it, from and to the host.
    void upload(const void* host) { check(fvae_device_upload(device().c_str(), data(), host, bytes_)); }
    void download(void* host) const { check(fvae_device_download(device().c_str(), host, data(), bytes_)); }

  private:
    struct Free {
        std::string device;
        void operator()(void* memory) const noexcept { fvae_device_free(device.c_str(), memory); }
    };
    std::unique_ptr<void, Free> memory_;
    size_t bytes_;
};

// ---- model ---------------------------------------------------------------------------------------------------------

// fvae_column with its own memory.
struct Column {
    std::string name;
    double shift = 0.0;
    double scale = 1.0;
    double fill = std::numeric_limits<double>::quiet_NaN();  // NaN: missing values are refused
    std::vector<std::string> categories;                     // none: a number
};

// fvae_config with its own memory.
struct Config {
    std::vector<int64_t> input_shape;
    std::vector<int64_t> hidden;
    std::optional<std::vector<int64_t>> decoder_hidden;  // none: the encoder's in reverse
    int64_t latent;
    fvae_activation activation;
    fvae_likelihood likelihood;
    fvae_variance variance;
    double fixed_variance;
    double min_variance;
    fvae_init init;
    double uint8_scale;
    std::vector<Column> columns;  // none: rows are read as they are

    Config() : Config(fvae_config_default()) {}

    explicit Config(const fvae_config& c)
        : input_shape(c.input_shape, c.input_shape + c.input_rank),
          hidden(c.hidden, c.hidden + c.hidden_count),
          latent(c.latent),
          activation(c.activation),
          likelihood(c.likelihood),
          variance(c.variance),
          fixed_variance(c.fixed_variance),
          min_variance(c.min_variance),
          init(c.init),
          uint8_scale(c.uint8_scale) {
        if (c.decoder_hidden) decoder_hidden.emplace(c.decoder_hidden, c.decoder_hidden + c.decoder_hidden_count);
        for (size_t r = 0; r < c.column_count; ++r) {
            const fvae_column& column = c.columns[r];
            columns.push_back({column.name ? column.name : "", column.shift, column.scale, column.fill, {}});
            for (size_t k = 0; k < column.category_count; ++k)
                columns.back().categories.emplace_back(column.categories[k]);
        }
    }

    // Values of a row as the caller has it, and as the network reads it: one-hot where a column has categories.
    int64_t width() const {
        int64_t product = 1;
        for (const int64_t extent : input_shape) product *= extent;
        return product;
    }
    int64_t encoded_width() const {
        if (columns.empty()) return width();
        int64_t sum = 0;
        for (const Column& c : columns) sum += c.categories.empty() ? 1 : static_cast<int64_t>(c.categories.size());
        return sum;
    }

    // Calls use(const fvae_config&), whose pointers are valid meanwhile.
    template <class Use>
    void with_view(Use use) const {
        static const int64_t no_widths = 0;  // an empty vector's data() may be null, which would mean "mirror"
        fvae_config c = fvae_config_default();
        c.input_shape = input_shape.data();
        c.input_rank = input_shape.size();
        c.hidden = hidden.data();
        c.hidden_count = hidden.size();
        c.decoder_hidden = !decoder_hidden ? nullptr : decoder_hidden->empty() ? &no_widths : decoder_hidden->data();
        c.decoder_hidden_count = decoder_hidden ? decoder_hidden->size() : 0;
        c.latent = latent;
        c.activation = activation;
        c.likelihood = likelihood;
        c.variance = variance;
        c.fixed_variance = fixed_variance;
        c.min_variance = min_variance;
        c.init = init;
        c.uint8_scale = uint8_scale;
        std::vector<std::vector<const char*>> categories(columns.size());
        std::vector<fvae_column> views(columns.size(), fvae_column_default());
        for (size_t r = 0; r < columns.size(); ++r) {
            for (const std::string& category : columns[r].categories) categories[r].push_back(text(category));
            views[r].name = text(columns[r].name);
            views[r].shift = columns[r].shift;
            views[r].scale = columns[r].scale;
            views[r].fill = columns[r].fill;
            views[r].categories = categories[r].empty() ? nullptr : categories[r].data();
            views[r].category_count = categories[r].size();
        }
        c.columns = views.empty() ? nullptr : views.data();
        c.column_count = views.size();
        use(static_cast<const fvae_config&>(c));
    }

  private:
    // C would read a name up to its first NUL only.
    static const char* text(const std::string& name) {
        if (name.find('\0') != std::string::npos)
            throw std::invalid_argument("a column's name or category holds a NUL");
        return name.c_str();
    }
};

struct ParameterInfo {
    std::string name;
    std::vector<int64_t> shape;  // (out, in), or (n) for a vector

    int64_t size() const {
        int64_t product = 1;
        for (const int64_t extent : shape) product *= extent;
        return product;
    }
};

// Memory for the *_into calls of one thread; see Model::workspace.
class Workspace {
  public:
    explicit Workspace(size_t bytes) : bytes_(bytes), memory_(new unsigned char[bytes]) {}
    void* data() const noexcept { return memory_.get(); }
    size_t size() const noexcept { return bytes_; }

  private:
    size_t bytes_;
    std::unique_ptr<unsigned char[]> memory_;
};

class Model {
  public:
    explicit Model(const Config& config, uint64_t seed = 0) {
        fvae_model* model = nullptr;
        config.with_view([&](const fvae_config& view) { check(fvae_model_create(&view, seed, &model)); });
        handle_.reset(model);
    }

    // Takes over a handle of the C API.
    explicit Model(fvae_model* handle) noexcept : handle_(handle) {}

    static Model load(const std::string& path) {
        fvae_model* model = nullptr;
        check(fvae_model_load(path.c_str(), &model));
        return Model(model);
    }

    void save(const std::string& path) const { check(fvae_model_save(get(), path.c_str())); }

    Config config() const {
        fvae_config c = fvae_config_default();
        check(fvae_model_config(get(), &c));
        return Config(c);
    }

    std::vector<ParameterInfo> parameters() const {
        std::vector<ParameterInfo> infos(static_cast<size_t>(fvae_model_parameter_count(get())));
        for (size_t i = 0; i < infos.size(); ++i) {
            const char* name = nullptr;
            int32_t rank = 0;
            int64_t shape[2] = {0, 0};
            check(fvae_model_parameter_info(get(), static_cast<int64_t>(i), &name, &rank, shape));
            infos[i].name = name;
            infos[i].shape.assign(shape, shape + rank);
        }
        return infos;
    }

    void get_parameter(int64_t index, float* values) const { check(fvae_model_get_parameter(get(), index, values)); }
    void set_parameter(int64_t index, const float* values) { check(fvae_model_set_parameter(get(), index, values)); }
    void init_output_bias(const fvae_array& x) { check(fvae_model_init_output_bias(get(), &x)); }

    // Where it computes: "cpu", "cuda" or "cuda:1". Of one on a GPU: order among its work and that of CUDA streams.
    void to(const std::string& device) { check(fvae_model_to(get(), device.c_str())); }
    std::string device() const { return fvae_model_device(get()); }
    void wait_for(void* stream) const { check(fvae_model_wait_for(get(), stream)); }
    void release_to(void* stream) const { check(fvae_model_release_to(get(), stream)); }
    void synchronize() const { check(fvae_model_synchronize(get())); }

    // What the weights are held in; see fvae_model_copy.
    fvae_precision weights() const {
        fvae_precision held = FVAE_PRECISION_FLOAT32;
        check(fvae_model_weights(get(), &held));
        return held;
    }
    // A second model that shares nothing with this one; its weights are held in float32, or for serving in bfloat16.
    Model copy() const { return copy(weights()); }
    Model copy(fvae_precision weights) const {
        fvae_model* other = nullptr;
        check(fvae_model_copy(get(), weights, &other));
        return Model(other);
    }

    // encoded (n, config().encoded_width()): the rows as the network reads them.
    void encoded_rows(const fvae_array& x, float* encoded) const { check(fvae_model_encoded_rows(get(), &x, encoded)); }
    void encode(const fvae_array& x, float* mu, float* logvar) const {
        check(fvae_model_encode(get(), &x, mu, logvar));
    }
    void decode(const float* z, int64_t n, float* mean) const { check(fvae_model_decode(get(), z, n, mean)); }
    void reconstruct(const fvae_array& x, float* mean) const { check(fvae_model_reconstruct(get(), &x, mean)); }

    // Serving: on the calling thread alone, without allocation or lock; nobody may change the model meanwhile. A
    // workspace serves calls with up to `rows` rows, one at a time.
    size_t workspace_bytes(int64_t rows) const {
        size_t bytes = 0;
        check(fvae_model_workspace_bytes(get(), rows, &bytes));
        return bytes;
    }
    Workspace workspace(int64_t rows) const { return Workspace(workspace_bytes(rows)); }
    void encode_into(const float* x, int64_t n, float* mu, float* logvar, const Workspace& workspace) const {
        check(fvae_model_encode_into(get(), x, n, mu, logvar, workspace.data(), workspace.size()));
    }
    void decode_into(const float* z, int64_t n, float* mean, const Workspace& workspace) const {
        check(fvae_model_decode_into(get(), z, n, mean, workspace.data(), workspace.size()));
    }
    void reconstruct_into(const float* x, int64_t n, float* mean, const Workspace& workspace) const {
        check(fvae_model_reconstruct_into(get(), x, n, mean, workspace.data(), workspace.size()));
    }

    void elbo(const fvae_array& x, int64_t samples, uint64_t seed, double* out) const {
        check(fvae_model_elbo(get(), &x, samples, seed, out));
    }
    void log_likelihood(const fvae_array& x, int64_t samples, uint64_t seed, double* out) const {
        check(fvae_model_log_likelihood(get(), &x, samples, seed, out));
    }

    // The score and threshold that make it a detector of anomalies; kept in its file.
    bool has_detector() const { return fvae_model_has_detector(get()) != 0; }
    fvae_detector detector() const {
        fvae_detector detector = fvae_detector_default();
        check(fvae_model_detector(get(), &detector));
        return detector;
    }
    void set_detector(const fvae_detector* detector) { check(fvae_model_set_detector(get(), detector)); }
    // detector null: the model's own
    void score(const fvae_array& x, const fvae_detector* detector, double* scores) const {
        check(fvae_model_score(get(), &x, detector, scores));
    }
    void contributions(const fvae_array& x, double* out) const { check(fvae_model_contributions(get(), &x, out)); }

    fvae_losses gradients(const fvae_array& x, const float* noise, int64_t samples, uint64_t seed, double beta,
                          double free_bits, fvae_precision precision, float* const* gradients) const {
        fvae_losses losses = {};
        check(fvae_model_gradients(get(), &x, noise, samples, seed, beta, free_bits, precision, &losses, gradients));
        return losses;
    }

    fvae_model* get() const noexcept { return handle_.get(); }

  private:
    struct Free {
        void operator()(fvae_model* model) const noexcept { fvae_model_free(model); }
    };
    std::unique_ptr<fvae_model, Free> handle_;
};

// ---- training ------------------------------------------------------------------------------------------------------

// Returns FVAE_CALLBACK_CONTINUE or FVAE_CALLBACK_STOP; what it throws leaves fit, the training at a step's boundary.
using Callback = std::function<int32_t(fvae_event, const fvae_progress&)>;

// The same of one trainer of an ensemble, on the thread that trains it; index -1 and NULL: the caller's thread waits.
using EnsembleCallback = std::function<int32_t(int64_t index, fvae_event, const fvae_progress*)>;

// Fills the array with a batch of an epoch, both counted from 0; false: the epoch has no more. May throw like a callback.
using Source = std::function<bool(int64_t epoch, int64_t batch, fvae_array& rows)>;

constexpr uint32_t event_bit(fvae_event event) { return 1u << event; }
constexpr uint32_t kAllEvents = (event_bit(FVAE_TICK) << 1) - 1;

class Trainer {
  public:
    explicit Trainer(Model& model, const fvae_trainer_options& options = fvae_trainer_options_default()) {
        fvae_trainer* trainer = nullptr;
        check(fvae_trainer_create(model.get(), &options, &trainer));
        handle_.reset(trainer);
    }

    // Takes over a handle of the C API.
    explicit Trainer(fvae_trainer* handle) noexcept : handle_(handle) {}

    static Trainer resume(const std::string& path) {
        fvae_trainer* trainer = nullptr;
        check(fvae_trainer_resume(path.c_str(), &trainer));
        return Trainer(trainer);
    }

    void save(const std::string& path) const { check(fvae_trainer_save(get(), path.c_str())); }

    Model model() {
        fvae_model* model = nullptr;
        check(fvae_trainer_model(get(), &model));
        return Model(model);
    }

    fvae_trainer_options options() const {
        fvae_trainer_options options = fvae_trainer_options_default();
        check(fvae_trainer_get_options(get(), &options));
        return options;
    }

    void set_learning_rate(double learning_rate) { check(fvae_trainer_set_learning_rate(get(), learning_rate)); }

    void fit(const fvae_array& x, int64_t epochs, const fvae_array* validation = nullptr, const Callback& callback = {},
             uint32_t events = kAllEvents) {
        Calls calls{&callback, nullptr, nullptr};
        const fvae_status status =
            fvae_trainer_fit(get(), &x, epochs, validation, callback ? Calls::event : nullptr, events, &calls);
        calls.rethrow();
        check(status);
    }
    void fit_source(const Source& source, int64_t epochs, const fvae_array* validation = nullptr,
                    const Callback& callback = {}, uint32_t events = kAllEvents) {
        Calls calls{&callback, &source, nullptr};
        const fvae_status status = fvae_trainer_fit_source(get(), Calls::batch, epochs, validation,
                                                           callback ? Calls::event : nullptr, events, &calls);
        calls.rethrow();
        check(status);
    }

    fvae_losses step(const fvae_array& batch, const float* noise = nullptr) {
        fvae_losses losses = {};
        check(fvae_trainer_step(get(), &batch, noise, &losses));
        return losses;
    }

    fvae_losses evaluate(const fvae_array& x, uint64_t seed = 0) const {
        fvae_losses losses = {};
        check(fvae_trainer_evaluate(get(), &x, seed, &losses));
        return losses;
    }

    int64_t epochs() const { return fvae_trainer_epochs(get()); }
    int64_t steps() const { return fvae_trainer_steps(get()); }

    std::vector<fvae_epoch> history() const {
        fvae_epoch blank = {};
        blank.struct_size = sizeof blank;
        std::vector<fvae_epoch> records(static_cast<size_t>(epochs()), blank);
        for (size_t i = 0; i < records.size(); ++i) {
            check(fvae_trainer_history(get(), static_cast<int64_t>(i), &records[i]));
        }
        return records;
    }

    // What the trainer holds: name and bytes.
    std::vector<std::pair<std::string, int64_t>> memory() const {
        std::vector<std::pair<std::string, int64_t>> entries;
        const char* name = nullptr;
        int64_t bytes = 0;
        for (int64_t i = 0; i < fvae_trainer_memory(get(), i, &name, &bytes); ++i) entries.emplace_back(name, bytes);
        return entries;
    }

    // Why its last run in an ensemble became non-finite; "" where it did not.
    std::string failure() const {
        const char* const why = fvae_trainer_failure(get());
        return why ? why : "";
    }

    fvae_trainer* get() const noexcept { return handle_.get(); }

  private:
    // Exceptions must not cross C: kept here, thrown again behind it.
    struct Calls {
        const Callback* callback;
        const Source* source;
        std::exception_ptr thrown;

        template <class Call>
        static int32_t keep(void* user, Call call) noexcept {
            try {
                return call();
            } catch (...) {
                static_cast<Calls*>(user)->thrown = std::current_exception();
                return FVAE_CALLBACK_ERROR;
            }
        }
        static int32_t event(void* user, fvae_event event, const fvae_progress* progress) noexcept {
            return keep(user, [&] { return (*static_cast<Calls*>(user)->callback)(event, *progress); });
        }
        static int32_t batch(void* user, int64_t epoch, int64_t batch, fvae_array* rows) noexcept {
            return keep(user, [&]() -> int32_t {
                const bool more = (*static_cast<Calls*>(user)->source)(epoch, batch, *rows);
                return more ? FVAE_CALLBACK_CONTINUE : FVAE_CALLBACK_STOP;
            });
        }
        void rethrow() const {
            if (thrown) std::rethrow_exception(thrown);
        }
    };

    struct Free {
        void operator()(fvae_trainer* trainer) const noexcept { fvae_trainer_free(trainer); }
    };
    std::unique_ptr<fvae_trainer, Free> handle_;
};

// fit of many trainers at once, each on one thread; threads 0: num_threads(). See fvae_ensemble_fit.
inline void fit_ensemble(const std::vector<Trainer*>& trainers, const fvae_array& x, int64_t epochs,
                         const fvae_array* validation = nullptr, int threads = 0, const EnsembleCallback& callback = {},
                         uint32_t events = kAllEvents) {
    struct Call {
        const EnsembleCallback* callback;
        std::mutex guard;
        std::exception_ptr thrown;

        static int32_t event(void* user, int64_t index, fvae_event event, const fvae_progress* progress) noexcept {
            auto* const self = static_cast<Call*>(user);
            try {
                return (*self->callback)(index, event, progress);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(self->guard);
                if (!self->thrown) self->thrown = std::current_exception();
                return FVAE_CALLBACK_ERROR;
            }
        }
    } call{&callback, {}, {}};
    std::vector<fvae_trainer*> handles;
    for (const Trainer* trainer : trainers) handles.push_back(trainer->get());
    const fvae_status status = fvae_ensemble_fit(handles.data(), static_cast<int64_t>(handles.size()), &x, epochs,
                                                 validation, threads, callback ? Call::event : nullptr, events, &call);
    if (call.thrown) std::rethrow_exception(call.thrown);
    check(status);
}

}  // namespace api
}  // namespace fusedvae

#endif  // FUSEDVAE_FUSEDVAE_HPP
