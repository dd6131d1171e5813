// SPDX-License-Identifier: MIT
//
// Scores by name, higher for what is more normal, and what each column adds to a row's surprise. All are functions of one
// row alone and draw nothing, except the two that are means over fixed draws (scoring.cpp).
#include <cmath>
#include <stdexcept>

#include "../layer/terms.h"
#include "on_threads.h"

namespace fusedvae {

namespace {

// -mean_d (x_d - decode(mu)_d)^2 over the encoded row
double minus_squared_error(const float* x, const float* parameters, int D, int stride) {
    double sum = 0.0;
    for (int d = 0; d < D; ++d) {
        const double difference = double{x[d]} - double{parameters[d * stride]};
        sum += difference * difference;
    }
    return -sum / D;
}

// -KL(q(z|x) || N(0, I))
double minus_kl(const float* pairs, int Z) {
    double sum = 0.0;
    for (int j = 0; j < Z; ++j) sum += terms::kl(double{pairs[2 * j]}, double{pairs[2 * j + 1]});
    return -sum;
}

// -(mu - m)^T P (mu - m)
double minus_mahalanobis(const float* pairs, int Z, const Detector& detector) {
    const double *mean = detector.latent_mean.data(), *precision = detector.latent_precision.data();
    double sum = 0.0;
    for (int i = 0; i < Z; ++i) {
        double along = 0.0;
        for (int j = 0; j < Z; ++j) along += precision[i * int64_t{Z} + j] * (double{pairs[2 * j]} - mean[j]);
        sum += along * (double{pairs[2 * i]} - mean[i]);
    }
    return -sum;
}

double half_squared_norm(const float* x, int D) {
    double sum = 0.0;
    for (int d = 0; d < D; ++d) sum += double{x[d]} * double{x[d]};
    return 0.5 * sum;
}

}  // namespace

// -log p(x_d | parameters) of one encoded column; parameters: logits, means, or pairs of mean and log-variance
double Model::surprise(const float* x, const float* parameters, int d) const {
    const double target = double{x[d]};
    if (config.likelihood == FVAE_BERNOULLI) return terms::bernoulli_nll(double{parameters[d]}, target);
    const bool element = config.variance == FVAE_ELEMENT;
    double variance = config.fixed_variance;
    if (element) variance = terms::learned_variance(double{parameters[2 * d + 1]}, config.min_variance);
    if (config.variance == FVAE_FEATURE)
        variance = terms::learned_variance(double{flat.data()[network.log_variance + static_cast<size_t>(d)]},
                                           config.min_variance);
    return terms::gaussian_nll(double{parameters[element ? 2 * d : d]}, target, variance);
}

void Model::contributions(const fvae_array& x, double* result) const {
    const Rows rows(x, config, "x");
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    const int D = network.D;
    const int64_t R = config.width(), ld = Matrix::leading_dimension(inference.parameters.stored);
    on_threads(*this, rows, network.flops_per_row() * static_cast<double>(rows.count), [&](Pass& pass, Range range) {
        Buffer y(static_cast<size_t>(std::min(Pass::kBlock, range.last - range.first) * ld));
        for (int64_t first = range.first, n; first < range.last; first += n) {
            n = pass.block(range, first);
            const float* const* const given = pass.read(rows, first, static_cast<int>(n));
            pass.output(pass.encode(given, static_cast<int>(n)), static_cast<int>(n), inference.parameters, y.data(),
                        ld);
            for (int64_t r = 0; r < n; ++r) {
                double* const row = result + (first + r) * R;
                for (int64_t c = 0; c < R; ++c) row[c] = 0.0;
                for (int d = 0; d < D; ++d)
                    row[rows.table ? rows.table->source(d) : d] += surprise(given[r], y.data() + r * ld, d);
                if (config.likelihood == FVAE_GAUSSIAN && rows.table)
                    for (int64_t c = 0; c < R; ++c) row[c] -= rows.table->log_jacobian(c);
            }
        }
    });
}

void Model::score(const fvae_array& x, const Detector& with, double* result) const {
    with.check(network.Z);
    const bool sampled = with.score == FVAE_SCORE_ELBO || with.score == FVAE_SCORE_LOG_LIKELIHOOD;
    if (with.score == FVAE_SCORE_ELBO) elbo(x, with.samples, with.seed, result);
    if (with.score == FVAE_SCORE_LOG_LIKELIHOOD) log_likelihood(x, with.samples, with.seed, result);
    if (sampled && with.distance == 0.0) return;
    const Rows rows(x, config, "x");
    if (!sampled) rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    const int Z = network.Z, D = network.D, stride = network.output().pairs() ? 2 : 1;
    const bool decodes = with.score == FVAE_SCORE_RECONSTRUCTION;
    const int64_t ld = decodes ? Matrix::leading_dimension(inference.layers.back().stored) : 0;
    const double work = sampled ? static_cast<double>(D) : network.flops_per_row();
    on_threads(*this, rows, work * static_cast<double>(rows.count), [&](Pass& pass, Range range) {
        Buffer y(static_cast<size_t>(std::min(Pass::kBlock, range.last - range.first) * ld));
        for (int64_t first = range.first, n; first < range.last; first += n) {
            n = pass.block(range, first);
            const float* const* const given = pass.read(rows, first, static_cast<int>(n));
            const float* const* head = sampled ? nullptr : pass.encode(given, static_cast<int>(n));
            if (decodes) pass.output(head, static_cast<int>(n), inference.layers.back(), y.data(), ld);
            for (int64_t r = 0; r < n; ++r) {
                double& score = result[first + r];
                if (decodes) score = minus_squared_error(given[r], y.data() + r * ld, D, stride);
                if (with.score == FVAE_SCORE_KL) score = minus_kl(head[r], Z);
                if (with.score == FVAE_SCORE_MAHALANOBIS) score = minus_mahalanobis(head[r], Z, with);
                if (with.distance > 0.0) score -= with.distance * half_squared_norm(given[r], D);
            }
        }
    });
}

}  // namespace fusedvae
