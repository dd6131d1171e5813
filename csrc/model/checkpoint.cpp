// SPDX-License-Identifier: MIT
//
// Checkpoints: a model file with the optimiser's moments ("optimizer.m/" and "optimizer.v/" before each parameter's name)
// and the run's options, state and history in its metadata.
#include <cmath>

#include "error.h"
#include "trainer.h"

namespace fusedvae {

namespace {

Json losses_to_json(const fvae_losses& l) {
    const auto number = [](double v) { return std::isfinite(v) ? Json(v) : Json(); };
    return Json(Json::Array{number(l.loss), number(l.reconstruction), number(l.kl)});
}

fvae_losses losses_from_json(const Json& json, const char* what) {
    const Json::Array& a = json.as_array(what);
    if (a.size() != 3) throw std::invalid_argument(std::string("'") + what + "' must hold three numbers");
    const auto number = [&](const Json& v) { return v.is_null() ? __builtin_nan("") : v.as_number(what); };
    return {number(a[0]), number(a[1]), number(a[2])};
}

int64_t count(const Json& json, const char* name) {
    const int64_t value = json.integer(name);
    if (value < 0 || value > (int64_t{1} << 53))
        throw std::invalid_argument(std::string("'") + name + "' is out of range");
    return value;
}

}  // namespace

void Trainer::save(const std::string& path) const {
    Json state{Json::Object{}};
    state.set("steps", state_.steps);
    state.set("epoch", state_.epoch);
    state.set("batch", state_.batch);
    state.set("sums", Json(Json::Array{state_.rows, state_.loss, state_.reconstruction, state_.kl}));
    state.set("data", std::to_string(state_.fingerprint));
    Json::Array epochs;
    for (const fvae_epoch& e : history_) {
        Json entry{Json::Object{}};
        entry.set("epoch", e.epoch);
        entry.set("step", e.step);
        entry.set("train", losses_to_json(e.train));
        entry.set("validation", losses_to_json(e.validation));
        entry.set("learning_rate", e.learning_rate);
        entry.set("beta", e.beta);
        epochs.push_back(std::move(entry));
    }
    moments();
    const std::shared_lock lock(model_->mutex);
    Metadata metadata = file_metadata(*model_, kCheckpointFormat);
    metadata.emplace_back("options", to_json(options_).dump());
    metadata.emplace_back("state", state.dump());
    metadata.emplace_back("history", Json(std::move(epochs)).dump());

    const Network& network = model_->network;
    std::vector<TensorToWrite> tensors = to_tensors(network, model_->host(), "");
    const auto add = [&](const Buffer& buffer, const char* prefix) {
        if (buffer.size() == 0) return;
        for (TensorToWrite& t : to_tensors(network, buffer.data(), prefix)) tensors.push_back(std::move(t));
    };
    add(moments_.m, "optimizer.m/");
    add(moments_.v, "optimizer.v/");
    write_safetensors(path, tensors, metadata);
}

std::shared_ptr<Trainer> Trainer::resume(const std::string& path) { return resume(SafetensorsFile::open(path)); }

std::shared_ptr<Trainer> Trainer::resume(const SafetensorsFile& file) {
    const std::shared_ptr<Model> model = read_model(file);
    if (*file.find_metadata("format") != kCheckpointFormat)
        throw Error(FVAE_BAD_FILE,
                    "'" + file.path() + "' is a model without a training run; load it and make a new trainer");

    fvae_trainer_options options{};
    read_metadata(file, "options", [&](const Json& json) { options = options_from_json(json); });
    const fvae_precision precision = options.precision;
    options.precision = FVAE_PRECISION_FLOAT32;
    auto trainer = std::make_shared<Trainer>(model, options);
    trainer->options_.precision = precision;  // where it is not to be had the next step says so: the model may move
    const Moments& moments = trainer->moments_;
    if (moments.m.size()) from_tensors(file, model->network, "optimizer.m/", moments.m.data());
    if (moments.v.size()) from_tensors(file, model->network, "optimizer.v/", moments.v.data());
    read_metadata(file, "state", [&](const Json& json) {
        State& s = trainer->state_;
        s.steps = count(json, "steps");
        s.epoch = count(json, "epoch");
        s.batch = count(json, "batch");
        const Json::Array& sums = json.array("sums");
        if (sums.size() != 4) throw std::invalid_argument("'sums' must hold four numbers");
        s.rows = sums[0].as_number("sums");
        s.loss = sums[1].as_number("sums");
        s.reconstruction = sums[2].as_number("sums");
        s.kl = sums[3].as_number("sums");
        s.fingerprint = json.unsigned64("data");
    });
    read_metadata(file, "history", [&](const Json& json) {
        for (const Json& e : json.as_array("history")) {
            fvae_epoch entry{};
            entry.struct_size = sizeof entry;
            entry.epoch = count(e, "epoch");
            entry.step = count(e, "step");
            entry.train = losses_from_json(e.at("train"), "train");
            entry.validation = losses_from_json(e.at("validation"), "validation");
            entry.learning_rate = e.number("learning_rate");
            entry.beta = e.number("beta");
            trainer->history_.push_back(entry);
        }
        if (static_cast<int64_t>(trainer->history_.size()) != trainer->state_.epoch)
            throw std::invalid_argument("it has another number of epochs than the state says");
    });
    trainer->resumed_ = trainer->state_.fingerprint != 0;
    return trainer;
}

}  // namespace fusedvae
