// SPDX-License-Identifier: MIT
//
// Loss and gradients of one batch by the training kernels, for tests and custom loops.
#include <cmath>
#include <functional>
#include <stdexcept>

#include "copies.h"
#include "error.h"
#include "model.h"
#include "options.h"
#include "step.h"

namespace fusedvae {

namespace {

// The loss of one draw of the noise (B, Z), NULL: from `seed`, and its gradient in the network's order. False: not finite.
using OneDraw = std::function<bool(const float* noise, fvae_losses* losses, float* gradient)>;

OneDraw draws_on_cpu(const Model& model, const Rows& rows, uint64_t seed, double beta, double free_bits,
                     fvae_precision precision) {
    struct Work {
        Work(const Model& m, const Backend& backend) : copies(m.network, backend), step(m.config, m.network, backend) {}
        Copies copies;
        Step step;
    };
    auto work = std::make_shared<Work>(model, backend_in(precision));
    work->copies.refresh(model.network, model.host());
    return [=, &model, &rows](const float* noise, fvae_losses* losses, float* gradient) {
        Batch batch{};
        batch.x = &rows;
        batch.B = static_cast<int>(rows.count);
        batch.noise = Noise{noise, model.network.Z, make_stream(seed, 0, kTrain), 0};
        batch.beta = beta;
        batch.free_bits = free_bits;
        Destination destination{};
        destination.epilogue = Epilogue::store;
        destination.parameters = model.flat.data();
        destination.transposed = work->copies.transposed.data();
        destination.words = work->copies.words.data();
        destination.gradient = gradient;
        Lease lease(useful_threads(model.network, rows.count, default_threads()));
        return work->step.run(lease, batch, destination, losses);
    };
}

OneDraw draws_on_device(const Model& model, const Rows& rows, uint64_t seed, double beta, double free_bits,
                        fvae_precision precision) {
    fvae_trainer_options options = fvae_trainer_options_default();
    options.optimizer = FVAE_SGD;  // which has no moments to make room for
    options.batch_size = rows.count;
    options.free_bits = free_bits;
    const std::shared_ptr<DeviceStep> step =
        DeviceStep::make(*model.on_device(), options, device_precision(available(precision, true)));
    StepScalars scalars = scalars_at(options, 0);
    scalars.noise = make_stream(seed, 0, kTrain);
    scalars.beta = beta;
    return [=, &model, &rows](const float* noise, fvae_losses* losses, float* gradient) {
        std::vector<float> plain(static_cast<size_t>(plain_floats(model.network)));
        if (!step->gradients(rows, noise, scalars, losses, plain.data())) return false;
        from_plain(model.network, plain.data(), gradient);
        return true;
    };
}

}  // namespace

fvae_losses Model::gradients(const fvae_array& x, const float* noise, int64_t samples, uint64_t seed, double beta,
                             double free_bits, fvae_precision precision, float* const* result) const {
    check_trainable();
    const Rows rows(x, config, "x");
    if (samples < 1 || samples > 1'000'000 || (!noise && samples != 1))
        throw std::invalid_argument("samples must be between 1 and 1000000, and 1 where no noise is given; it is " +
                                    std::to_string(samples));
    if (!(beta >= 0.0 && beta <= 1e30) || !(free_bits >= 0.0 && free_bits <= 1e30))
        throw std::invalid_argument("beta and free_bits must be between 0 and 1e30");
    available(precision, place() != nullptr);
    if (rows.count > INT32_MAX / 2) throw std::invalid_argument("x has too many rows for one batch");
    if (noise) check_noise(backend, noise, samples, rows.count, network.Z);
    check(rows, default_threads());

    const std::shared_lock lock(mutex);
    const OneDraw draw = (place() ? draws_on_device : draws_on_cpu)(*this, rows, seed, beta, free_bits, precision);
    Buffer gradient(network.floats);
    std::vector<double> sums(network.floats, 0.0);
    fvae_losses total{0.0, 0.0, 0.0};
    const double share_of = 1.0 / static_cast<double>(samples);
    for (int64_t s = 0; s < samples; ++s) {
        fvae_losses one;
        if (!draw(noise ? noise + s * rows.count * network.Z : nullptr, &one, gradient.data()))
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
