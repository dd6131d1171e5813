// SPDX-License-Identifier: MIT
//
// A model: its configuration, its parameters, and what can be asked of it. Reading is safe from any number of threads; a
// training step takes the lock for itself.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>

#include "buffer.h"
#include "detector.h"
#include "network.h"
#include "on_device.h"
#include "rows.h"
#include "safetensors.h"

namespace fusedvae {

class Pass;

// The layers as inference reads them (pass.h): linear_act each, the last one with the activation of p(x|z)'s mean. Rows and
// outputs are left open.
struct Inference {
    Inference(const Config& config, const Network& network, const float* flat);

    std::vector<Forward> layers;
    Forward parameters{};  // the output layer as what the likelihood takes: logits, means, or means and log-variances
    Forward scoring{};     // the output layer with its likelihood, without a gradient
    int widest = 0;        // columns of what passes from layer to layer, or waits to be summed or split
    int longest = 0;       // columns of any layer
};

struct Model {
    Model(const Config& config, uint64_t seed);
    // All parameters are 0. Weights in bfloat16 are for inference alone: it reads each as the float that it stands for.
    explicit Model(const Config& config, fvae_precision weights = FVAE_PRECISION_FLOAT32);

    const Config config;
    const Backend& backend;
    const Network network;
    Buffer flat;  // all parameters, in the network's order, as the host has them: see host()
    const Inference inference;
    uint64_t version = 0;  // changes whenever they do
    std::optional<Detector> detector;
    Metadata other_metadata;  // of the file it was read from: fields this version does not know
    mutable std::shared_mutex mutex;

    void get(const Parameter& p, float* values) const;
    void set(const Parameter& p, const float* values);
    void init_output_bias(const fvae_array& x);
    fvae_precision weights() const {
        return network.bfloat16_weights ? FVAE_PRECISION_BFLOAT16 : FVAE_PRECISION_FLOAT32;
    }
    // Throws where they are not those that a training step updates.
    void check_trainable() const;
    std::shared_ptr<Model> copy(fvae_precision weights) const;

    // on_device.cpp. "cpu" or "cuda:0", where the model computes; what has no form there works on the host's copy.
    void to(const std::string& device);
    const char* device() const;
    const std::shared_ptr<OnDevice>& place() const { return on_device_; }  // NULL: the CPU
    // For who holds the lock. The host's parameters as they are now; the same to write to; the GPU's as they are now,
    // NULL on the CPU; a word that a training step there has changed them.
    const float* host() const;
    float* change();
    DeviceModel* on_device() const;
    void changed_on_device();
    // Whether a result or codes lie in the GPU's memory, not the host's; throws where they are on another GPU.
    bool is_there(const void* pointer) const;
    // Rows::check_all and Rows::fingerprint, of rows on the model's GPU too.
    void check(const Rows& rows, int threads) const;
    uint64_t fingerprint(const Rows& rows) const;

    // inference.cpp
    void encoded_rows(const fvae_array& x, float* encoded) const;  // (n, D)
    void encode(const fvae_array& x, float* mu, float* logvar) const;
    void decode(const float* z, int64_t n, float* mean) const;
    void reconstruct(const fvae_array& x, float* mean) const;
    // The same on the calling thread alone, in the caller's workspace: nothing is allocated or locked, so nobody may
    // change the parameters meanwhile. x (n, width) and z (n, Z) are dense float32.
    size_t workspace_bytes(int64_t rows) const;
    void encode_into(const float* x, int64_t n, float* mu, float* logvar, void* workspace, size_t bytes) const;
    void decode_into(const float* z, int64_t n, float* mean, void* workspace, size_t bytes) const;
    void reconstruct_into(const float* x, int64_t n, float* mean, void* workspace, size_t bytes) const;

    // scoring.cpp
    void elbo(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const;
    void log_likelihood(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const;

    // detection.cpp
    void score(const fvae_array& x, const Detector& with, double* result) const;
    void contributions(const fvae_array& x, double* result) const;  // (n, width)

    // gradients.cpp
    fvae_losses gradients(const fvae_array& x, const float* noise, int64_t samples, uint64_t seed, double beta,
                          double free_bits, fvae_precision precision, float* const* result) const;

    // model_file.cpp
    void save(const std::string& path) const;
    static std::shared_ptr<Model> load(const std::string& path);

  private:
    std::shared_ptr<OnDevice> on_device_;

    void check_place(const Rows& rows) const;  // of rows on a device: the model's?
    void check_codes(const Rows& z) const;
    void means_on_device(bool decodes, const Rows& rows, float* mean) const;
    void score_on_device(const Rows& rows, const Detector& with, double* result) const;
    Pass pass(int64_t rows, void* workspace, size_t bytes) const;
    double surprise(const float* x, const float* parameters, int d) const;
};

// noise (samples, Z) at (seed, sample, index): the same for every row that is scored (scoring.cpp).
void score_noise(const Backend& backend, uint64_t seed, int64_t samples, int Z, float* noise);
// Rows where the host can read them: themselves, or copied from the model's GPU, for who holds the model's lock.
class HostRows {
  public:
    HostRows(const Model& model, const Rows& rows);
    HostRows(const HostRows&) = delete;
    const Rows& rows() const { return rows_; }

  private:
    Rows rows_;
    std::vector<unsigned char> values_;
};

// Shared with checkpoints (model_file.cpp): the parameters as tensors to write, under `prefix` + name.
std::vector<TensorToWrite> to_tensors(const Network& network, const float* flat, const std::string& prefix);
// Reads them back into a flat buffer; a missing tensor or a wrong shape is Error(FVAE_BAD_FILE).
void from_tensors(const SafetensorsFile& file, const Network& network, const std::string& prefix, float* flat);
// The JSON text under `key`, given to read(); whatever it finds wrong becomes Error(FVAE_BAD_FILE) with the file's path.
void read_metadata(const SafetensorsFile& file, const char* key, const std::function<void(const Json&)>& read);
constexpr const char* kModelFormat = "fusedvae.model";
constexpr const char* kCheckpointFormat = "fusedvae.checkpoint";
constexpr const char* kFormatVersion = "1";
// The metadata that models and checkpoints begin with.
Metadata file_metadata(const Model& model, const char* format);
// A model with what a file of either format holds.
std::shared_ptr<Model> read_model(const SafetensorsFile& file);

}  // namespace fusedvae
