// SPDX-License-Identifier: MIT
//
// The C API over the engine: checks pointers, calls, nothing else. Kernels are in kernels.cpp.
#include <algorithm>
#include <cmath>

#include "cpu/threads.h"
#include "handles.h"
#include "model/names.h"
#include "model/options.h"

using namespace fusedvae;

namespace {

thread_local std::string last_error;

const Config kDefaultConfig;

fvae_array array_of(const fvae_array* given, const char* name) {
    return read_struct(given, fvae_array_default(), name);
}

const Parameter& parameter_at(const Model& model, int64_t index) {
    const auto& list = model.network.parameters;
    if (index < 0 || index >= static_cast<int64_t>(list.size()))
        throw std::invalid_argument("parameter index " + std::to_string(index) + " is not below " +
                                    std::to_string(list.size()));
    return list[static_cast<size_t>(index)];
}

Detector detector_of(const Model& model, const fvae_detector* given) {
    return Detector::from_c(read_struct(given, fvae_detector_default(), "detector"), model.network.Z);
}

const double* data_of(const std::vector<double>& values) { return values.empty() ? nullptr : values.data(); }

}  // namespace

fvae_model::fvae_model(std::shared_ptr<Model> owned) : model(std::move(owned)) {
    const std::vector<Column>& list = model->config.columns.list();
    for (const Column& c : list) {
        categories.emplace_back();
        for (const std::string& category : c.categories) categories.back().push_back(category.c_str());
    }
    for (size_t r = 0; r < list.size(); ++r) {
        const Column& c = list[r];
        columns.push_back({sizeof(fvae_column), c.name.c_str(), c.shift, c.scale, c.fill,
                           c.categories.empty() ? nullptr : categories[r].data(), c.categories.size()});
    }
}

fvae_status fusedvae::fail(fvae_status status, const char* message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();
    }
    return status;
}

const char* fvae_last_error(void) { return last_error.c_str(); }
const char* fvae_version(void) { return FUSEDVAE_VERSION; }
uint32_t fvae_abi_version(void) { return FVAE_ABI_VERSION; }

fvae_status fvae_backend(const char** name) {
    return guarded([&] {
        require(name, "name");
        *name = backend().name;
    });
}
const char* fvae_available_backends(void) { return available_backends(); }
int32_t fvae_num_threads(void) { return default_threads(); }
fvae_status fvae_set_num_threads(int32_t threads) {
    return guarded([&] { set_default_threads(threads); });
}

int32_t fvae_has_bfloat16(void) {
    int32_t answer = 0;
    guarded([&] { answer = bfloat16_backend() != nullptr; });
    return answer;
}

fvae_status fvae_measure_peak(int32_t threads, double seconds, fvae_precision precision, double* gflops) {
    return guarded([&] {
        require(gflops, "gflops");
        if (threads < 1 || threads > 1024 || !(seconds > 0.0 && seconds <= 60.0))
            throw std::invalid_argument("threads must be between 1 and 1024, seconds above 0 and at most 60");
        name_of(precision);  // known before it is read
        const Backend& b = backend_in(precision);
        std::vector<double> rate(static_cast<size_t>(threads), 0.0);
        run_checked(threads, [&](const Team& team) {
            double flops = 0.0;
            float sink = 0.0f;
            team.meet();
            const double start = platform::seconds();
            double now = start;
            while (now - start < seconds) {
                flops += b.fma_loop(20000, &sink);
                now = platform::seconds();
            }
            rate[static_cast<size_t>(team.thread)] = std::isfinite(sink) ? flops / (now - start) : 0.0;
        });
        *gflops = 0.0;
        for (double r : rate) *gflops += r * 1e-9;
    });
}

fvae_array fvae_array_default(void) {
    fvae_array array{};
    array.struct_size = sizeof array;
    return array;
}

fvae_column fvae_column_default(void) {
    fvae_column column{};
    column.struct_size = sizeof column;
    column.scale = 1.0;
    column.fill = __builtin_nan("");
    return column;
}

fvae_config fvae_config_default(void) {
    const Config& d = kDefaultConfig;
    fvae_config c{};
    c.struct_size = sizeof c;
    c.input_shape = d.input_shape.data();
    c.input_rank = d.input_shape.size();
    c.hidden = d.hidden.data();
    c.hidden_count = d.hidden.size();
    c.latent = d.latent;
    c.activation = d.activation;
    c.likelihood = d.likelihood;
    c.variance = d.variance;
    c.fixed_variance = d.fixed_variance;
    c.min_variance = d.min_variance;
    c.init = d.init;
    c.uint8_scale = d.uint8_scale;
    return c;
}

// ---- model -----------------------------------------------------------------------------------------------------------

fvae_status fvae_model_create(const fvae_config* config, uint64_t seed, fvae_model** model) {
    return guarded([&] {
        require(model, "model");
        const fvae_config c = read_struct(config, fvae_config_default(), "config");
        if (c.input_rank) require(c.input_shape, "config->input_shape");
        if (c.hidden_count) require(c.hidden, "config->hidden");
        *model = new fvae_model{std::make_shared<Model>(Config::from_c(c), seed)};
    });
}
void fvae_model_free(fvae_model* model) { delete model; }

fvae_status fvae_model_copy(const fvae_model* model, fvae_precision weights, fvae_model** copy) {
    return guarded([&] {
        require(model, "model");
        require(copy, "copy");
        *copy = new fvae_model{model->model->copy(weights)};
    });
}
fvae_status fvae_model_weights(const fvae_model* model, fvae_precision* weights) {
    return guarded([&] {
        require(model, "model");
        require(weights, "weights");
        *weights = model->model->weights();
    });
}

fvae_status fvae_model_config(const fvae_model* model, fvae_config* config) {
    return guarded([&] {
        require(model, "model");
        const Config& own = model->model->config;
        fvae_config c = fvae_config_default();
        c.input_shape = own.input_shape.data();
        c.input_rank = own.input_shape.size();
        c.hidden = own.hidden.data();
        c.hidden_count = own.hidden.size();
        static const int64_t no_widths = 0;  // NULL would stand for the encoder's mirror image
        c.decoder_hidden = own.decoder_hidden.empty() ? &no_widths : own.decoder_hidden.data();
        c.decoder_hidden_count = own.decoder_hidden.size();
        c.latent = own.latent;
        c.activation = own.activation;
        c.likelihood = own.likelihood;
        c.variance = own.variance;
        c.fixed_variance = own.fixed_variance;
        c.min_variance = own.min_variance;
        c.init = own.init;
        c.uint8_scale = own.uint8_scale;
        c.columns = model->columns.empty() ? nullptr : model->columns.data();
        c.column_count = model->columns.size();
        write_struct(config, c, "config");
    });
}

int64_t fvae_model_parameter_count(const fvae_model* model) {
    return model ? static_cast<int64_t>(model->model->network.parameters.size()) : 0;
}
fvae_status fvae_model_parameter_info(const fvae_model* model, int64_t index, const char** name, int32_t* rank,
                                      int64_t shape[2]) {
    return guarded([&] {
        require(model, "model");
        const Parameter& p = parameter_at(*model->model, index);
        if (name) *name = p.name.c_str();
        if (rank) *rank = p.rank;
        if (shape) shape[0] = p.rows, shape[1] = p.columns;
    });
}
fvae_status fvae_model_get_parameter(const fvae_model* model, int64_t index, float* values) {
    return guarded([&] {
        require(model, "model");
        require(values, "values");
        model->model->get(parameter_at(*model->model, index), values);
    });
}
fvae_status fvae_model_set_parameter(fvae_model* model, int64_t index, const float* values) {
    return guarded([&] {
        require(model, "model");
        require(values, "values");
        model->model->set(parameter_at(*model->model, index), values);
    });
}
fvae_status fvae_model_init_output_bias(fvae_model* model, const fvae_array* x) {
    return guarded([&] {
        require(model, "model");
        model->model->init_output_bias(array_of(x, "x"));
    });
}

fvae_status fvae_model_save(const fvae_model* model, const char* path) {
    return guarded([&] {
        require(model, "model");
        require(path, "path");
        model->model->save(path);
    });
}
fvae_status fvae_model_load(const char* path, fvae_model** model) {
    return guarded([&] {
        require(path, "path");
        require(model, "model");
        *model = new fvae_model{Model::load(path)};
    });
}

fvae_status fvae_model_encode(const fvae_model* model, const fvae_array* x, float* mu, float* logvar) {
    return guarded([&] {
        require(model, "model");
        model->model->encode(array_of(x, "x"), mu, logvar);
    });
}
fvae_status fvae_model_decode(const fvae_model* model, const float* z, int64_t n, float* mean) {
    return guarded([&] {
        require(model, "model");
        require(mean, "mean");
        model->model->decode(z, n, mean);
    });
}
fvae_status fvae_model_reconstruct(const fvae_model* model, const fvae_array* x, float* mean) {
    return guarded([&] {
        require(model, "model");
        require(mean, "mean");
        model->model->reconstruct(array_of(x, "x"), mean);
    });
}
fvae_status fvae_model_workspace_bytes(const fvae_model* model, int64_t rows, size_t* bytes) {
    return guarded([&] {
        require(model, "model");
        require(bytes, "bytes");
        *bytes = model->model->workspace_bytes(rows);
    });
}
fvae_status fvae_model_encode_into(const fvae_model* model, const float* x, int64_t n, float* mu, float* logvar,
                                   void* workspace, size_t workspace_bytes) {
    return guarded([&] {
        require(model, "model");
        model->model->encode_into(x, n, mu, logvar, workspace, workspace_bytes);
    });
}
fvae_status fvae_model_decode_into(const fvae_model* model, const float* z, int64_t n, float* mean, void* workspace,
                                   size_t workspace_bytes) {
    return guarded([&] {
        require(model, "model");
        require(mean, "mean");
        model->model->decode_into(z, n, mean, workspace, workspace_bytes);
    });
}
fvae_status fvae_model_reconstruct_into(const fvae_model* model, const float* x, int64_t n, float* mean,
                                        void* workspace, size_t workspace_bytes) {
    return guarded([&] {
        require(model, "model");
        require(mean, "mean");
        model->model->reconstruct_into(x, n, mean, workspace, workspace_bytes);
    });
}
fvae_status fvae_model_elbo(const fvae_model* model, const fvae_array* x, int64_t samples, uint64_t seed,
                            double* elbo) {
    return guarded([&] {
        require(model, "model");
        require(elbo, "elbo");
        model->model->elbo(array_of(x, "x"), samples, seed, elbo);
    });
}
fvae_status fvae_model_log_likelihood(const fvae_model* model, const fvae_array* x, int64_t samples, uint64_t seed,
                                      double* log_likelihood) {
    return guarded([&] {
        require(model, "model");
        require(log_likelihood, "log_likelihood");
        model->model->log_likelihood(array_of(x, "x"), samples, seed, log_likelihood);
    });
}
fvae_detector fvae_detector_default(void) {
    const Detector d;
    return {sizeof(fvae_detector), d.score, d.samples, d.seed, d.threshold, d.distance, nullptr, nullptr};
}
int32_t fvae_model_has_detector(const fvae_model* model) { return model && model->model->detector ? 1 : 0; }
fvae_status fvae_model_detector(const fvae_model* model, fvae_detector* detector) {
    return guarded([&] {
        require(model, "model");
        fvae_detector d = fvae_detector_default();
        if (const std::optional<Detector>& own = model->model->detector)
            d = {sizeof d,
                 own->score,
                 own->samples,
                 own->seed,
                 own->threshold,
                 own->distance,
                 data_of(own->latent_mean),
                 data_of(own->latent_precision)};
        write_struct(detector, d, "detector");
    });
}
fvae_status fvae_model_set_detector(fvae_model* model, const fvae_detector* detector) {
    return guarded([&] {
        require(model, "model");
        std::optional<Detector> d;
        if (detector) d = detector_of(*model->model, detector);
        const std::unique_lock lock(model->model->mutex);
        model->model->detector = std::move(d);
    });
}
fvae_status fvae_model_score(const fvae_model* model, const fvae_array* x, const fvae_detector* detector,
                             double* scores) {
    return guarded([&] {
        require(model, "model");
        require(scores, "scores");
        if (!detector && !model->model->detector)
            throw std::invalid_argument("the model has no detector: set one, or name the score to compute");
        const fvae_array rows = array_of(x, "x");
        if (detector)
            model->model->score(rows, detector_of(*model->model, detector), scores);
        else
            model->model->score(rows, *model->model->detector, scores);
    });
}
fvae_status fvae_model_contributions(const fvae_model* model, const fvae_array* x, double* contributions) {
    return guarded([&] {
        require(model, "model");
        require(contributions, "contributions");
        model->model->contributions(array_of(x, "x"), contributions);
    });
}

fvae_status fvae_model_gradients(const fvae_model* model, const fvae_array* x, const float* noise, int64_t samples,
                                 uint64_t seed, double beta, double free_bits, fvae_precision precision,
                                 fvae_losses* losses, float* const* gradients) {
    return guarded([&] {
        require(model, "model");
        name_of(precision);  // known before it is read
        const fvae_losses result =
            model->model->gradients(array_of(x, "x"), noise, samples, seed, beta, free_bits, precision, gradients);
        if (losses) *losses = result;
    });
}

fvae_status fvae_sample_latent(uint64_t seed, uint64_t first, int64_t n, int64_t latent, double temperature, float* z) {
    return guarded([&] {
        require(z, "z");
        if (n < 0 || latent < 1 || latent > (1 << 24) || !(temperature >= 0.0 && std::isfinite(temperature)))
            throw std::invalid_argument(
                "n must not be negative, latent between 1 and 16777216, temperature finite and "
                "not negative");
        if (n > INT64_MAX / latent) throw std::invalid_argument("n times latent must fit 64 bits");
        for (int64_t done = 0; done < n;) {  // pieces within which the row's low word does not wrap
            const uint64_t row = first + static_cast<uint64_t>(done), left = (uint64_t{1} << 32) - (row & 0xffffffffu);
            const int count = static_cast<int>(std::min<uint64_t>({left, static_cast<uint64_t>(n - done), 4096}));
            Stream stream = make_stream(seed, 0, kSample);
            stream.step = static_cast<uint32_t>(row >> 32);
            backend().normals(z + done * latent, latent, stream, static_cast<uint32_t>(row), count,
                              static_cast<int>(latent));
            done += count;
        }
        for (int64_t i = 0; i < n * latent; ++i) z[i] *= static_cast<float>(temperature);
    });
}
void fvae_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]) {
    philox4x32(counter, key, words);
}

// ---- training --------------------------------------------------------------------------------------------------------

fvae_trainer_options fvae_trainer_options_default(void) {
    fvae_trainer_options o{};
    o.struct_size = sizeof o;
    o.optimizer = FVAE_ADAM;
    o.learning_rate = 1e-3;
    o.beta1 = 0.9;
    o.beta2 = 0.999;
    o.epsilon = 1e-8;
    o.schedule_factor = 0.1;
    o.batch_size = 128;
    o.beta = 1.0;
    o.beta_ratio = 0.5;
    o.shuffle = 1;
    return o;
}

fvae_status fvae_trainer_create(fvae_model* model, const fvae_trainer_options* options, fvae_trainer** trainer) {
    return guarded([&] {
        require(model, "model");
        require(trainer, "trainer");
        const fvae_trainer_options o = read_struct(options, fvae_trainer_options_default(), "options");
        *trainer = new fvae_trainer{std::make_shared<Trainer>(model->model, o)};
    });
}
void fvae_trainer_free(fvae_trainer* trainer) { delete trainer; }

fvae_status fvae_trainer_get_options(const fvae_trainer* trainer, fvae_trainer_options* options) {
    return guarded([&] {
        require(trainer, "trainer");
        fvae_trainer_options o = trainer->trainer->options();
        write_struct(options, o, "options");
    });
}
fvae_status fvae_trainer_model(fvae_trainer* trainer, fvae_model** model) {
    return guarded([&] {
        require(trainer, "trainer");
        require(model, "model");
        *model = new fvae_model{trainer->trainer->model()};
    });
}

fvae_status fvae_trainer_fit(fvae_trainer* trainer, const fvae_array* x, int64_t epochs, const fvae_array* validation,
                             fvae_callback callback, uint32_t events, void* user) {
    return guarded([&] {
        require(trainer, "trainer");
        const fvae_array rows = array_of(x, "x");
        fvae_array held_out = fvae_array_default();
        if (validation) held_out = array_of(validation, "validation");
        const std::shared_ptr<Trainer> running = trainer->trainer;  // a callback may free the handle
        running->fit(rows, epochs, validation ? &held_out : nullptr, callback, events, user);
    });
}
fvae_status fvae_trainer_fit_source(fvae_trainer* trainer, fvae_source source, int64_t epochs,
                                    const fvae_array* validation, fvae_callback callback, uint32_t events, void* user) {
    return guarded([&] {
        require(trainer, "trainer");
        if (!source) throw std::invalid_argument("source is NULL");
        fvae_array held_out = fvae_array_default();
        if (validation) held_out = array_of(validation, "validation");
        const std::shared_ptr<Trainer> running = trainer->trainer;  // a callback may free the handle
        running->fit_source(source, epochs, validation ? &held_out : nullptr, callback, events, user);
    });
}
fvae_status fvae_trainer_step(fvae_trainer* trainer, const fvae_array* batch, const float* noise, fvae_losses* losses) {
    return guarded([&] {
        require(trainer, "trainer");
        const fvae_losses result = trainer->trainer->step(array_of(batch, "batch"), noise);
        if (losses) *losses = result;
    });
}
fvae_status fvae_trainer_evaluate(const fvae_trainer* trainer, const fvae_array* x, uint64_t seed,
                                  fvae_losses* losses) {
    return guarded([&] {
        require(trainer, "trainer");
        require(losses, "losses");
        *losses = trainer->trainer->evaluate(array_of(x, "x"), seed);
    });
}

int64_t fvae_trainer_epochs(const fvae_trainer* trainer) {
    return trainer ? static_cast<int64_t>(trainer->trainer->history().size()) : 0;
}
int64_t fvae_trainer_steps(const fvae_trainer* trainer) { return trainer ? trainer->trainer->steps() : 0; }
fvae_status fvae_trainer_history(const fvae_trainer* trainer, int64_t index, fvae_epoch* epoch) {
    return guarded([&] {
        require(trainer, "trainer");
        const auto& history = trainer->trainer->history();
        if (index < 0 || index >= static_cast<int64_t>(history.size()))
            throw std::invalid_argument("history index " + std::to_string(index) + " is not below " +
                                        std::to_string(history.size()));
        write_struct(epoch, history[static_cast<size_t>(index)], "epoch");
    });
}
fvae_status fvae_trainer_set_learning_rate(fvae_trainer* trainer, double learning_rate) {
    return guarded([&] {
        require(trainer, "trainer");
        trainer->trainer->set_learning_rate(learning_rate);
    });
}
int64_t fvae_trainer_memory(const fvae_trainer* trainer, int64_t index, const char** name, int64_t* bytes) {
    if (!trainer) return 0;
    const auto list = trainer->trainer->memory();
    if (index >= 0 && index < static_cast<int64_t>(list.size())) {
        if (name) *name = list[static_cast<size_t>(index)].name;
        if (bytes) *bytes = list[static_cast<size_t>(index)].bytes;
    }
    return static_cast<int64_t>(list.size());
}

fvae_status fvae_trainer_save(const fvae_trainer* trainer, const char* path) {
    return guarded([&] {
        require(trainer, "trainer");
        require(path, "path");
        trainer->trainer->save(path);
    });
}
fvae_status fvae_trainer_resume(const char* path, fvae_trainer** trainer) {
    return guarded([&] {
        require(path, "path");
        require(trainer, "trainer");
        *trainer = new fvae_trainer{Trainer::resume(path)};
    });
}
