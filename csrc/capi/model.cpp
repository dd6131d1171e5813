// SPDX-License-Identifier: MIT
//
// The C API of models.
#include "handles.h"
#include "model/names.h"
#include "model/on_device.h"

using namespace fusedvae;

namespace {

const Config kDefaultConfig;

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

// Without the decoder's widths, which a default mirrors, and the columns, which a handle holds.
fvae_config config_of(const Config& own) {
    fvae_config c{};
    c.struct_size = sizeof c;
    c.input_shape = own.input_shape.data();
    c.input_rank = own.input_shape.size();
    c.hidden = own.hidden.data();
    c.hidden_count = own.hidden.size();
    c.latent = own.latent;
    c.activation = own.activation;
    c.likelihood = own.likelihood;
    c.variance = own.variance;
    c.fixed_variance = own.fixed_variance;
    c.min_variance = own.min_variance;
    c.init = own.init;
    c.uint8_scale = own.uint8_scale;
    return c;
}

// Runs body(device) while nobody changes the model.
template <class Body>
void with_gpu_of(const fvae_model* model, Body body) {
    require(model, "model");
    const std::shared_lock lock(model->model->mutex);
    if (!model->model->place()) throw std::invalid_argument("the model is on the CPU, which has no streams");
    body(model->model->place()->device());
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

fvae_column fvae_column_default(void) {
    fvae_column column{};
    column.struct_size = sizeof column;
    column.scale = 1.0;
    column.fill = __builtin_nan("");
    return column;
}

fvae_config fvae_config_default(void) { return config_of(kDefaultConfig); }

fvae_status fvae_model_create(const fvae_config* config, uint64_t seed, fvae_model** model) {
    return guarded([&] {
        require(model, "model");
        const fvae_config c = read_struct(config, fvae_config_default(), "config");
        if (c.input_rank) require(c.input_shape, "config->input_shape");
        if (c.hidden_count) require(c.hidden, "config->hidden");
        *model = new fvae_model{std::make_shared<Model>(Config::from_c(c), seed)};
    });
}
fvae_status fvae_model_copy(const fvae_model* model, fvae_precision weights, fvae_model** copy) {
    return guarded([&] {
        require(model, "model");
        require(copy, "copy");
        name_of(weights);  // known before it is read
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
void fvae_model_free(fvae_model* model) { delete model; }

fvae_status fvae_model_to(fvae_model* model, const char* device) {
    return guarded([&] {
        require(model, "model");
        require(device, "device");
        model->model->to(device);
    });
}
const char* fvae_model_device(const fvae_model* model) { return model ? model->model->device() : "cpu"; }

fvae_status fvae_model_wait_for(const fvae_model* model, void* stream) {
    return guarded([&] { with_gpu_of(model, [&](Device& gpu) { gpu.wait_for(stream); }); });
}
fvae_status fvae_model_release_to(const fvae_model* model, void* stream) {
    return guarded([&] { with_gpu_of(model, [&](Device& gpu) { gpu.release_to(stream); }); });
}
fvae_status fvae_model_synchronize(const fvae_model* model) {
    return guarded([&] { with_gpu_of(model, [&](Device& gpu) { gpu.synchronize(); }); });
}

fvae_status fvae_model_config(const fvae_model* model, fvae_config* config) {
    return guarded([&] {
        require(model, "model");
        const Config& own = model->model->config;
        fvae_config c = config_of(own);
        static const int64_t no_widths = 0;  // NULL would stand for the encoder's mirror image
        c.decoder_hidden = own.decoder_hidden.empty() ? &no_widths : own.decoder_hidden.data();
        c.decoder_hidden_count = own.decoder_hidden.size();
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

fvae_status fvae_model_encoded_rows(const fvae_model* model, const fvae_array* x, float* encoded) {
    return guarded([&] {
        require(model, "model");
        require(encoded, "encoded");
        model->model->encoded_rows(array_of(x, "x"), encoded);
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
