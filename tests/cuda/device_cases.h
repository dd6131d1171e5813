// SPDX-License-Identifier: MIT
//
// What the tests of csrc/cuda share: the GPU, or the reason why there is none, and models in the three forms that are
// compared: on the device, on the CPU, and in the reference's double.
#pragma once

#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "backend/device.h"
#include "kernel_cases.h"
#include "layer/reference.h"
#include "model/model.h"
#include "outputs.h"

namespace device_cases {

using fusedvae::Config;
using fusedvae::Precision;
using fusedvae::reference::Matrix;
namespace reference = fusedvae::reference;

// The first GPU; NULL, with a printed reason, where there is none. A test then returns.
inline std::shared_ptr<fusedvae::Device> gpu() {
    static std::shared_ptr<fusedvae::Device> device = []() -> std::shared_ptr<fusedvae::Device> {
        try {
            return fusedvae::Device::open(0);
        } catch (const std::exception& reason) {
            std::printf("skipped: %s\n", reason.what());
            return nullptr;
        }
    }();
    return device;
}

constexpr Precision kPrecisions[] = {Precision::float32, Precision::tf32, Precision::bfloat16};
inline const char* name_of(Precision p) {
    return p == Precision::float32 ? "float32" : p == Precision::tf32 ? "tf32" : "bfloat16";
}

struct Net {
    std::vector<int64_t> hidden, decoder_hidden;
    int64_t D, Z;
};

inline Config config_of(const Net& net, const Output& output, fvae_activation activation) {
    Config config;
    config.input_shape = {net.D};
    config.hidden = net.hidden;
    config.decoder_hidden = net.decoder_hidden;
    config.latent = net.Z;
    config.activation = activation;
    config.likelihood = output.likelihood;
    config.variance = output.variance;
    config.fixed_variance = 0.4;
    config.min_variance = 0.05;
    return config;
}

// All parameters as the outside has them, one after another.
inline std::vector<float> plain_of(const fusedvae::Model& model) {
    std::vector<float> plain(static_cast<size_t>(fusedvae::plain_floats(model.network)));
    float* at = plain.data();
    for (const fusedvae::Parameter& p : model.network.parameters) model.get(p, at), at += p.size();
    return plain;
}

// A model on the CPU, log-variances set to something telling, and its copy on the device.
struct Models {
    fusedvae::Model host;
    std::unique_ptr<fusedvae::DeviceModel> device;

    Models(const Config& config, uint64_t seed) : host(config, seed) {
        for (const fusedvae::Parameter& p : host.network.parameters)
            if (p.kind == fusedvae::Parameter::log_variance)
                host.set(p, kernel_cases::Random(12).uniforms(p.size(), -2.0f, 1.0f).data());
        device = fusedvae::DeviceModel::make(gpu(), host.config, host.network);
        device->upload(plain_of(host).data());
    }
    reference::Vae to_reference(Precision precision) const {
        reference::Vae vae;
        vae.activation = host.config.activation;
        vae.likelihood = host.config.likelihood;
        vae.variance = host.config.variance;
        vae.fixed_variance = host.config.fixed_variance;
        vae.min_variance = host.config.min_variance;
        vae.bfloat16 = precision == Precision::bfloat16;
        vae.tf32 = precision == Precision::tf32;
        const std::vector<float> plain = plain_of(host);
        const float* at = plain.data();
        for (const fusedvae::Parameter& p : host.network.parameters) {
            vae.parameters.emplace_back(p.name, kernel_cases::to_matrix(at, p.rows, p.columns));
            at += p.size();
        }
        return vae;
    }
};

inline double norm(const Matrix& x) {
    double sum = 0.0;
    for (double value : x.values) sum += value * value;
    return std::sqrt(sum);
}

}  // namespace device_cases
