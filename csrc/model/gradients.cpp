// SPDX-License-Identifier: MIT
//
// Loss and gradients of one batch by the training kernels, for tests and custom loops.
#include <cmath>
#include <stdexcept>

#include "copies.h"
#include "error.h"
#include "model.h"
#include "options.h"
#include "step.h"

namespace fusedvae {

fvae_losses Model::gradients(const fvae_array& x, const float* noise, int64_t samples, uint64_t seed, double beta,
                             double free_bits, fvae_precision precision, float* const* result) const {
    check_trainable();
    const Rows rows(x, config, "x");
    if (samples < 1 || samples > 1'000'000 || (!noise && samples != 1))
        throw std::invalid_argument("samples must be between 1 and 1000000, and 1 where no noise is given; it is " +
                                    std::to_string(samples));
    if (!(beta >= 0.0 && beta <= 1e30) || !(free_bits >= 0.0 && free_bits <= 1e30))
        throw std::invalid_argument("beta and free_bits must be between 0 and 1e30");
    const Backend& step_backend = backend_in(precision);
    if (rows.count > INT32_MAX / 2) throw std::invalid_argument("x has too many rows for one batch");
    if (noise) check_noise(backend, noise, samples, rows.count, network.Z);
    rows.check_all(backend, default_threads());

    const std::shared_lock lock(mutex);
    Copies copies(network, step_backend);
    copies.refresh(network, flat.data());
    Buffer gradient(network.floats);
    Step step(config, network, step_backend);
    Batch batch{};
    batch.x = &rows;
    batch.B = static_cast<int>(rows.count);
    batch.beta = beta;
    batch.free_bits = free_bits;
    Destination destination{};
    destination.epilogue = Epilogue::store;
    destination.parameters = flat.data();
    destination.transposed = copies.transposed.data();
    destination.words = copies.words.data();
    destination.gradient = gradient.data();

    std::vector<double> sums(network.floats, 0.0);
    fvae_losses total{0.0, 0.0, 0.0};
    Lease lease(useful_threads(network, rows.count, default_threads()));
    const double share_of = 1.0 / static_cast<double>(samples);
    for (int64_t s = 0; s < samples; ++s) {
        batch.noise =
            Noise{noise ? noise + s * rows.count * network.Z : nullptr, network.Z, make_stream(seed, 0, kTrain), 0};
        fvae_losses one;
        if (!step.run(lease, batch, destination, &one))
            throw Error(FVAE_NON_FINITE,
                        "the loss is not finite, so it has no gradient: lower the parameters' scale or the data's");
        total.loss += one.loss * share_of;
        total.reconstruction += one.reconstruction * share_of;
        total.kl += one.kl * share_of;
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += gradient.data()[i] * share_of;
    }
    for (size_t i = 0; i < sums.size(); ++i) gradient.data()[i] = static_cast<float>(sums[i]);
    for (size_t i = 0; i < network.parameters.size(); ++i)
        if (result && result[i]) network.unpack(gradient.data(), network.parameters[i], result[i]);
    return total;
}

}  // namespace fusedvae
