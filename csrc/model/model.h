// SPDX-License-Identifier: MIT
//
// A model: its configuration, its parameters, and what can be asked of it. Reading is safe from any number of threads; a
// training step takes the lock for itself.
#pragma once
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "buffer.h"
#include "network.h"
#include "rows.h"
#include "safetensors.h"

namespace fusedvae {

struct Model {
    Model(const Config& config, uint64_t seed);

    const Config config;
    const Backend& backend;
    const Network network;
    Buffer flat;           // all parameters, in the network's order
    uint64_t version = 0;  // changes when someone other than a trainer's step writes them
    mutable std::shared_mutex mutex;

    void get(const Parameter& p, float* values) const;
    void set(const Parameter& p, const float* values);
    void init_output_bias(const fvae_array& x);

    // inference.cpp
    void encode(const fvae_array& x, float* mu, float* logvar) const;
    void decode(const float* z, int64_t n, float* mean) const;
    void reconstruct(const fvae_array& x, float* mean) const;
    void elbo(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const;
    void log_likelihood(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const;

    // gradients.cpp
    fvae_losses gradients(const fvae_array& x, const float* noise, int64_t samples, uint64_t seed, double beta,
                          double free_bits, fvae_precision precision, float* const* result) const;

    // model_file.cpp
    void save(const std::string& path) const;
    static std::shared_ptr<Model> load(const std::string& path);
};

// Shared with checkpoints (model_file.cpp): the parameters as tensors to write, under `prefix` + name.
std::vector<TensorToWrite> to_tensors(const Network& network, const float* flat, const std::string& prefix);
// Reads them back into a flat buffer; a missing tensor or a wrong shape is Error(FVAE_BAD_FILE).
void from_tensors(const SafetensorsFile& file, const Network& network, const std::string& prefix, float* flat);
Config read_config(const SafetensorsFile& file);
// The JSON text under `key`, given to read(); whatever it finds wrong becomes Error(FVAE_BAD_FILE) with the file's path.
void read_metadata(const SafetensorsFile& file, const char* key, const std::function<void(const Json&)>& read);
constexpr const char* kModelFormat = "fusedvae.model";
constexpr const char* kCheckpointFormat = "fusedvae.checkpoint";
constexpr const char* kFormatVersion = "1";
// The metadata that models and checkpoints begin with.
Metadata file_metadata(const Config& config, const char* format);

}  // namespace fusedvae
