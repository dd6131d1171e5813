// SPDX-License-Identifier: MIT
//
// Scores: the ELBO of rows and the importance-weighted estimate of log p(x). Rows are encoded once; then the pairs (row,
// sample) pass through the decoder in blocks, shared evenly among the threads however many rows there are; then each
// row's pairs are reduced in the order of the samples. Of every pair only its log-weight is kept, and of those only a
// strip of rows at a time: nothing of size samples x rows x width exists. A row's score is a function of that row alone.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "pass.h"

namespace fusedvae {

namespace {

constexpr int64_t kGrain = 32;  // pairs below which a second thread is not worth waking
constexpr int64_t kStripPairs = int64_t{1} << 18, kStripRows = 4096;  // 2 MB of log-weights; about as much of heads

size_t z(int64_t i) { return static_cast<size_t>(i); }

void check_samples(int64_t samples) {
    if (samples < 1 || samples > 1'000'000)
        throw std::invalid_argument("samples must be between 1 and 1000000, it is " + std::to_string(samples));
}

Buffer noise_of(const Model& model, int64_t samples, uint64_t seed) {
    check_samples(samples);
    Buffer noise(z(samples) * z(model.network.Z));
    score_noise(model.backend, seed, samples, model.network.Z, noise.data());
    return noise;
}

class Scorer {
  public:
    Scorer(const Model& model, const Rows& rows, const Buffer& noise, int64_t samples)
        : model_(model),
          rows_(rows),
          noise_(noise),
          samples_(samples),
          Z_(model.network.Z),
          strip_(std::clamp<int64_t>(kStripPairs / samples, 1, std::min(rows.count, kStripRows))),
          posterior_(z(strip_) * 2 * z(Z_)),
          kl_(z(strip_)),
          sum_logvar_(z(strip_)),
          nll_(z(strip_ * samples)),
          log_ratio_(z(strip_ * samples)) {
        const double flops = model.network.flops_per_row() * static_cast<double>(rows.count * samples);
        const int64_t by_pairs = (strip_ * samples + kGrain - 1) / kGrain, by_work = static_cast<int64_t>(flops / 1e6);
        threads_ = static_cast<int>(std::min<int64_t>({default_threads(), by_pairs, by_work + 1}));
        for (int t = 0; t < threads_; ++t) workspaces_.emplace_back(model, Pass::kBlock, !rows.direct());
    }

    // result[row] = reduce(nll of its samples, log p(z) - log q(z|x) of its samples, KL)
    template <class Reduce>
    void run(double* result, Reduce reduce) {
        for (int64_t first = 0; first < rows_.count; first += strip_) {
            const int64_t count = std::min(strip_, rows_.count - first);
            run_checked(threads_, [&](const Team& team) {  // nothing here throws, so that all threads meet
                Pass pass(model_, Pass::kBlock, !rows_.direct(), workspaces_[z(team.thread)].data());
                encode(pass, first, share(count, 1, team.thread, team.threads));
                team.meet();
                decode(pass, first, share(count * samples_, 1, team.thread, team.threads));
                team.meet();
                const Range mine = share(count, 1, team.thread, team.threads);
                for (int64_t r = mine.first; r < mine.last; ++r)
                    result[first + r] = reduce(&nll_[z(r * samples_)], &log_ratio_[z(r * samples_)], double{kl_[z(r)]});
            });
        }
    }

  private:
    float* mu(int64_t r) const { return posterior_.data() + 2 * r * Z_; }
    float* sigma(int64_t r) const { return mu(r) + Z_; }

    void encode(Pass& pass, int64_t first, Range mine) {
        for (int64_t r = mine.first; r < mine.last;) {
            const int n = pass.block(mine, r);
            const float* const* head = pass.encode(pass.read(rows_, first + r, n), n);
            for (int i = 0; i < n; ++i, ++r)
                kl_[z(r)] = model_.backend.split_head(head[i], Z_, mu(r), sigma(r), &sum_logvar_[z(r)]);
        }
    }

    // Pairs [first, last) of the strip: pair p is row p / samples, sample p % samples.
    void decode(Pass& pass, int64_t strip_first, Range mine) {
        for (int64_t p = mine.first; p < mine.last;) {
            const int n = pass.block(mine, p);
            float* codes = pass.codes(n);
            const float** target = pass.pointers();
            for (int i = 0; i < n;) {  // one row's samples within the block
                const int64_t r = (p + i) / samples_, s = (p + i) % samples_;
                const int count = static_cast<int>(std::min<int64_t>(n - i, samples_ - s));
                float* const scratch = rows_.direct() ? nullptr : pass.converted(i);
                const float* const row = rows_.read(model_.backend, strip_first + r, scratch);
                std::fill(target + i, target + i + count, row);
                float ratio[Pass::kBlock];
                model_.backend.draw_codes(codes + i * Z_, noise_.data() + s * Z_, mu(r), sigma(r), count, Z_, ratio);
                for (int c = 0; c < count; ++c)
                    log_ratio_[z(p + i + c)] = 0.5 * (double{ratio[c]} + double{sum_logvar_[z(r)]});
                i += count;
            }
            pass.nll(pass.code_rows(), target, n, &nll_[z(p)]);
            p += n;
        }
    }

    const Model& model_;
    const Rows& rows_;
    const Buffer& noise_;
    const int64_t samples_;
    const int Z_;
    const int64_t strip_;            // rows
    Buffer posterior_;               // (strip, 2 Z): mu, sigma
    std::vector<float> kl_;          // (strip)
    std::vector<float> sum_logvar_;  // (strip)
    std::vector<double> nll_;        // (strip, samples)
    std::vector<double> log_ratio_;  // (strip, samples): log p(z) - log q(z|x)
    int threads_;
    std::vector<Workspace> workspaces_;  // [thread]
};

}  // namespace

void score_noise(const Backend& backend, uint64_t seed, int64_t samples, int Z, float* noise) {
    check_samples(samples);
    const Stream stream = make_stream(seed, 0, kScore);
    run_checked(static_cast<int>(std::min<int64_t>(default_threads(), samples / 1000 + 1)), [&](const Team& team) {
        const Range mine = share(samples, 1, team.thread, team.threads);
        backend.normals(noise + mine.first * Z, Z, stream, static_cast<uint32_t>(mine.first),
                        static_cast<int>(mine.last - mine.first), Z);
    });
}

void Model::elbo(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const {
    const Rows rows(x, config, "x");
    const Buffer noise = noise_of(*this, samples, seed);
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    Scorer(*this, rows, noise, samples)
        .run(result, [samples, jacobian = config.log_jacobian()](const double* nll, const double*, double kl) {
            double sum = 0.0;
            for (int64_t s = 0; s < samples; ++s) sum += nll[s];
            return jacobian - sum / static_cast<double>(samples) - kl;
        });
}

// log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x), z_s ~ q (Burda et al. 2015, eq. 8); with z = mu + sigma eps,
// log p(z) - log q(z|x) = sum_j (eps^2 + logvar - z^2) / 2. The largest weight is taken out, so that none overflows.
void Model::log_likelihood(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const {
    const Rows rows(x, config, "x");
    const Buffer noise = noise_of(*this, samples, seed);
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    Scorer(*this, rows, noise, samples)
        .run(result, [samples, jacobian = config.log_jacobian()](const double* nll, const double* log_ratio, double) {
            double largest = -INFINITY, sum = 0.0;
            for (int64_t s = 0; s < samples; ++s) {
                const double weight = log_ratio[s] - nll[s];
                if (!(weight <= largest)) largest = weight;  // NaN stays
            }
            if (!std::isfinite(largest)) return largest;
            for (int64_t s = 0; s < samples; ++s) sum += std::exp(log_ratio[s] - nll[s] - largest);
            return jacobian + largest + std::log(sum / static_cast<double>(samples));
        });
}

}  // namespace fusedvae
