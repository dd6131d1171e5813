// SPDX-License-Identifier: MIT
//
// Models as safetensors files: float32 parameters under their names, the configuration as JSON in the metadata. Fields
// this version does not know are left alone. A checkpoint is such a file with more in it, and loads as a model too.
#include <cfloat>

#include "error.h"
#include "model.h"

namespace fusedvae {

namespace {

[[noreturn]] void refuse(const SafetensorsFile& file, const std::string& reason) {
    throw Error(FVAE_BAD_FILE, "'" + file.path() + "' is not a fusedvae model: " + reason);
}

std::vector<int64_t> shape_of(const Parameter& p) {
    return p.rank == 2 ? std::vector<int64_t>{p.rows, p.columns} : std::vector<int64_t>{p.rows};
}

// What this version writes; all else is kept as it was found, for those who know it.
bool known_key(const std::string& key) {
    for (const char* known : {"format", "version", "config", "detector", "options", "state", "history"})
        if (key == known) return true;
    return false;
}

// What the configuration's parameters would take, without building anything: a few bytes of JSON can ask for terabytes.
bool fits(const SafetensorsFile& file, const Config& config) {
    double floats = 0.0, width = static_cast<double>(config.encoded_width());
    for (int64_t h : config.hidden) floats += width * static_cast<double>(h), width = static_cast<double>(h);
    floats += width * 2.0 * static_cast<double>(config.latent);
    width = static_cast<double>(config.latent);
    for (int64_t h : config.decoder_hidden) floats += width * static_cast<double>(h), width = static_cast<double>(h);
    floats += width * static_cast<double>(config.encoded_width());
    double stored = 0.0;
    for (const auto& tensor : file.tensors()) stored += static_cast<double>(tensor.elements);
    return floats <= stored;
}

}  // namespace

Metadata file_metadata(const Model& model, const char* format) {
    Metadata metadata{{"format", format}, {"version", kFormatVersion}, {"config", model.config.to_json().dump()}};
    if (model.detector) metadata.emplace_back("detector", model.detector->to_json().dump());
    metadata.insert(metadata.end(), model.other_metadata.begin(), model.other_metadata.end());
    return metadata;
}

std::vector<TensorToWrite> to_tensors(const Network& network, const float* flat, const std::string& prefix) {
    std::vector<TensorToWrite> tensors;
    for (const Parameter& p : network.parameters)
        tensors.push_back(
            {prefix + p.name, shape_of(p), [&network, &p, flat](float* values) { network.unpack(flat, p, values); }});
    return tensors;
}

void from_tensors(const SafetensorsFile& file, const Network& network, const std::string& prefix, float* flat) {
    std::vector<float> converted;
    for (const Parameter& p : network.parameters) {
        const SafetensorsFile::Tensor* tensor = file.find(prefix + p.name);
        if (!tensor) refuse(file, "tensor '" + prefix + p.name + "' is missing");
        if (tensor->shape != shape_of(p))
            refuse(file, "tensor '" + prefix + p.name + "' has another shape than the configuration says");
        const auto* values = reinterpret_cast<const float*>(tensor->data);  // read where the file is mapped
        if (tensor->dtype != "F32" || reinterpret_cast<uintptr_t>(values) % alignof(float) != 0) {
            converted.resize(static_cast<size_t>(p.size()));
            file.read_float32(*tensor, converted.data());
            values = converted.data();
        }
        if (backend().find_bad(values, p.size(), -FLT_MAX, FLT_MAX) < p.size())
            refuse(file, "tensor '" + prefix + p.name + "' holds NaN or an infinity");
        network.pack(values, p, flat);
    }
}

void read_metadata(const SafetensorsFile& file, const char* key, const std::function<void(const Json&)>& read) {
    const std::string* text = file.find_metadata(key);
    if (!text) refuse(file, std::string("its metadata has no '") + key + "'");
    try {
        read(Json::parse(*text));
    } catch (const std::invalid_argument& e) {
        refuse(file, std::string("in the metadata's '") + key + "': " + e.what());
    }
}

namespace {

Config read_config(const SafetensorsFile& file) {
    const std::string *format = file.find_metadata("format"), *version = file.find_metadata("version");
    if (!format || (*format != kModelFormat && *format != kCheckpointFormat))
        refuse(file, "its metadata names no fusedvae format");
    if (!version || *version != kFormatVersion)
        refuse(file, "it has format version " + (version ? shown(*version) : "none") + ", this library reads version " +
                         kFormatVersion);
    Config config;
    bool holds = false;
    read_metadata(file, "config", [&](const Json& json) {
        config = Config::without_columns(json);
        holds = fits(file, config);  // asked before columns of that width are read, and again of what they encode to
        if (holds) config.add_columns(json);
    });
    if (!holds || !fits(file, config)) refuse(file, "its configuration asks for more parameters than the file holds");
    return config;
}

}  // namespace

std::shared_ptr<Model> read_model(const SafetensorsFile& file) {
    auto model = std::make_shared<Model>(read_config(file));
    from_tensors(file, model->network, "", model->flat.data());
    if (file.find_metadata("detector"))
        read_metadata(file, "detector",
                      [&](const Json& json) { model->detector = Detector::from_json(json, model->network.Z); });
    for (const auto& [key, value] : file.metadata())
        if (!known_key(key)) model->other_metadata.emplace_back(key, value);
    return model;
}

void Model::save(const std::string& path) const {
    const std::shared_lock lock(mutex);
    write_safetensors(path, to_tensors(network, flat.data(), ""), file_metadata(*this, kModelFormat));
}

std::shared_ptr<Model> Model::load(const std::string& path) { return read_model(SafetensorsFile::open(path)); }

}  // namespace fusedvae
