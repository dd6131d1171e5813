// SPDX-License-Identifier: MIT
//
// Encoding, decoding and scoring. Each thread takes blocks of rows through the layers by itself; a row's result is a
// function of that row alone, whatever block or thread it falls to.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "../cpu/threads.h"
#include "model.h"

namespace fusedvae {

namespace {

constexpr int64_t kBlock = 128;  // rows of a block: weights are read from the cache once for so many
constexpr int64_t kGrain = 32;   // rows below which a second thread is not worth waking

size_t z(int64_t i) { return static_cast<size_t>(i); }

// One thread's passes over blocks of up to `rows` rows.
class Runner {
  public:
    Runner(const Model& model, int64_t rows) : model_(model), net_(model.network), rows_(rows) {
        for (const Layer& layer : net_.layers) y_.emplace_back(&layer == &net_.output() ? 0 : rows, layer.padded());
        partial_.resize(z(rows * net_.output().count()));
    }

    // Through the encoder to the head's pairs: row r has mu_j at [2j], logvar_j at [2j + 1].
    const Matrix& encode(const float* const* x, int n) {
        for (int l = 0; l <= net_.head; ++l) x = hidden(l, x, n);
        return y_[z(net_.head)];
    }
    // Through the decoder's hidden layers; the rows that the output layer reads.
    const float* const* hidden_of(const float* const* codes, int n) {
        for (size_t l = z(net_.head) + 1; l + 1 < net_.layers.size(); ++l)
            codes = hidden(static_cast<int>(l), codes, n);
        return codes;
    }
    // mean of p(x|z): (n, D)
    void decode(const float* const* codes, int n, float* mean) {
        const Layer& output = net_.output();
        Forward f = job(output, hidden_of(codes, n));
        f.epilogue = Epilogue::linear_act;
        f.activation = model_.config.likelihood == FVAE_BERNOULLI ? Activation::sigmoid : Activation::identity;
        if (output.pairs() && pairs_.bytes() == 0) pairs_ = Matrix(rows_, output.padded());
        f.y = output.pairs() ? pairs_.data() : mean;
        f.ld = output.pairs() ? pairs_.ld() : output.N;
        f.stored = output.N;
        model_.backend.forward(f, 0, n, 0, f.panels.count);
        if (output.pairs())
            for (int r = 0; r < n; ++r)
                for (int j = 0; j < net_.D; ++j) mean[int64_t{r} * net_.D + j] = pairs_.row(r)[2 * j];
    }
    // -log p(target | code) of each row, in double
    void nll(const float* const* codes, const float* const* target, int n, double* result) {
        const Config& config = model_.config;
        Forward f = job(net_.output(), hidden_of(codes, n));
        f.epilogue = net_.likelihood;
        f.target = target;
        f.scale = 1.0f;
        f.fixed_variance = static_cast<float>(config.fixed_variance);
        f.min_variance = static_cast<float>(config.min_variance);
        if (net_.has_log_variance) f.log_variance = model_.flat.data() + net_.log_variance;
        f.partial = partial_.data();
        model_.backend.forward(f, 0, n, 0, f.panels.count);
        for (int r = 0; r < n; ++r) {
            result[r] = 0.0;
            for (int p = 0; p < f.panels.count; ++p) result[r] += partial_[z(int64_t{r} * f.panels.count + p)];
        }
    }

  private:
    Forward job(const Layer& layer, const float* const* rows) const {
        Forward f{};
        f.rows = rows;
        f.weight = model_.flat.data() + layer.weight;
        f.bias = model_.flat.data() + layer.bias;
        f.panels = layer.panels();
        f.K = layer.K;
        f.N = layer.N;
        return f;
    }
    const float* const* hidden(int l, const float* const* rows, int n) {
        const Layer& layer = net_.layers[z(l)];
        Forward f = job(layer, rows);
        f.epilogue = Epilogue::linear_act;
        f.activation = layer.activation;
        f.y = y_[z(l)].data();
        f.ld = y_[z(l)].ld();
        f.stored = layer.padded();
        model_.backend.forward(f, 0, n, 0, f.panels.count);
        return y_[z(l)].rows();
    }

    const Model& model_;
    const Network& net_;
    const int64_t rows_;
    std::vector<Matrix> y_;
    Matrix pairs_;
    std::vector<float> partial_;
};

// Float rows of a block, converted where needed.
class Reader {
  public:
    Reader(const Rows& rows, const Backend& backend, int64_t block)
        : rows_(rows), backend_(backend), pointers_(z(block)), converted_(rows.direct() ? 0 : block, rows.columns) {}
    const float* const* block(int64_t first, int64_t n) {
        for (int64_t r = 0; r < n; ++r)
            pointers_[z(r)] = rows_.read(backend_, first + r, rows_.direct() ? nullptr : converted_.row(r));
        return pointers_.data();
    }

  private:
    const Rows& rows_;
    const Backend& backend_;
    std::vector<const float*> pointers_;
    Matrix converted_;
};

// Runs work(first, n, runner) over blocks of all rows, on as many threads as they are worth.
template <class MakeWork>
void for_each_block(const Model& model, int64_t rows, double flops, MakeWork make_work) {
    const int64_t by_rows = (rows + kGrain - 1) / kGrain, by_work = static_cast<int64_t>(flops / 1e6) + 1;
    const int threads = static_cast<int>(std::min<int64_t>({default_threads(), by_rows, by_work}));
    run_checked(threads, [&](const Team& team) {
        const Range mine = share(rows, 1, team.thread, team.threads);
        if (mine.first == mine.last) return;
        const int64_t block = std::min(kBlock, mine.last - mine.first);
        Runner runner(model, block);
        auto work = make_work(block);
        for (int64_t first = mine.first; first < mine.last; first += block)
            work(runner, first, std::min(block, mine.last - first));
    });
}

// The same noise for every row: (samples, Z) at (seed, sample, index).
Buffer score_noise(const Model& model, int64_t samples, uint64_t seed) {
    if (samples < 1 || samples > 1'000'000)
        throw std::invalid_argument("samples must be between 1 and 1000000, it is " + std::to_string(samples));
    const int Z = model.network.Z;
    Buffer noise(z(samples) * z(Z));
    model.backend.normals(noise.data(), Z, make_stream(seed, 0, kScore), 0, static_cast<int>(samples), Z);
    return noise;
}

double kl_of(const float* head, int Z) {
    double kl = 0.0;
    for (int j = 0; j < Z; ++j) {
        const double mu = head[2 * j], logvar = head[2 * j + 1];
        kl += 0.5 * (mu * mu + std::exp(logvar) - 1.0 - logvar);
    }
    return kl;
}

void draw_code(const float* head, const float* noise, int Z, float* code) {
    for (int j = 0; j < Z; ++j) code[j] = head[2 * j] + std::exp(0.5f * head[2 * j + 1]) * noise[j];
}

}  // namespace

void Model::encode(const fvae_array& x, float* mu, float* logvar) const {
    const Rows rows(x, config, "x");
    rows.check_all(backend, default_threads());
    if (!mu && !logvar) return;
    const std::shared_lock lock(mutex);
    const int64_t Z = network.Z;
    for_each_block(
        *this, rows.count, network.flops_per_row() * static_cast<double>(rows.count) / 2, [&](int64_t block) {
            return [&, reader = std::make_shared<Reader>(rows, backend, block)](Runner& run, int64_t first, int64_t n) {
                const Matrix& head = run.encode(reader->block(first, n), static_cast<int>(n));
                for (int64_t r = 0; r < n; ++r)
                    for (int64_t j = 0; j < Z; ++j) {
                        if (mu) mu[(first + r) * Z + j] = head.row(r)[2 * j];
                        if (logvar) logvar[(first + r) * Z + j] = head.row(r)[2 * j + 1];
                    }
            };
        });
}

void Model::decode(const float* codes, int64_t n, float* mean) const {
    if (n <= 0 || !codes) throw std::invalid_argument("z is empty: it has " + std::to_string(n) + " rows");
    if (n > UINT32_MAX) throw std::invalid_argument("z has " + std::to_string(n) + " rows; at most 2^32 - 1 are read");
    const Rows rows(codes, n, network.Z);
    const int64_t bad = backend.find_bad(codes, n * network.Z, rows.low, rows.high);
    if (bad < n * network.Z)
        throw std::invalid_argument("z holds NaN or an infinity in row " + std::to_string(bad / network.Z) +
                                    ", column " + std::to_string(bad % network.Z));
    const std::shared_lock lock(mutex);
    for_each_block(*this, n, network.flops_per_row() * static_cast<double>(n) / 2, [&](int64_t block) {
        return [&, reader = std::make_shared<Reader>(rows, backend, block)](Runner& run, int64_t first, int64_t count) {
            run.decode(reader->block(first, count), static_cast<int>(count), mean + first * network.D);
        };
    });
}

void Model::reconstruct(const fvae_array& x, float* mean) const {
    const Rows rows(x, config, "x");
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    for_each_block(*this, rows.count, network.flops_per_row() * static_cast<double>(rows.count), [&](int64_t block) {
        return [&, reader = std::make_shared<Reader>(rows, backend, block),
                codes = std::make_shared<Matrix>(block, network.Z)](Runner& run, int64_t first, int64_t n) {
            const Matrix& head = run.encode(reader->block(first, n), static_cast<int>(n));
            for (int64_t r = 0; r < n; ++r)
                for (int j = 0; j < network.Z; ++j) codes->row(r)[j] = head.row(r)[2 * j];
            run.decode(codes->rows(), static_cast<int>(n), mean + first * network.D);
        };
    });
}

void Model::elbo(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const {
    const Rows rows(x, config, "x");
    const Buffer noise = score_noise(*this, samples, seed);
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    const double flops = network.flops_per_row() * static_cast<double>(rows.count) * static_cast<double>(samples);
    for_each_block(*this, rows.count, flops, [&](int64_t block) {
        return [&, reader = std::make_shared<Reader>(rows, backend, block),
                codes = std::make_shared<Matrix>(block, network.Z),
                nll = std::vector<double>(z(block))](Runner& run, int64_t first, int64_t n) mutable {
            const float* const* input = reader->block(first, n);
            const Matrix& head = run.encode(input, static_cast<int>(n));
            for (int64_t r = 0; r < n; ++r) result[first + r] = 0.0;
            for (int64_t s = 0; s < samples; ++s) {
                for (int64_t r = 0; r < n; ++r)
                    draw_code(head.row(r), noise.data() + s * network.Z, network.Z, codes->row(r));
                run.nll(codes->rows(), input, static_cast<int>(n), nll.data());
                for (int64_t r = 0; r < n; ++r) result[first + r] -= nll[z(r)];
            }
            for (int64_t r = 0; r < n; ++r)
                result[first + r] = result[first + r] / static_cast<double>(samples) - kl_of(head.row(r), network.Z);
        };
    });
}

// log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x), z_s ~ q (Burda et al. 2015, eq. 8); with z = mu + sigma eps,
// log p(z) - log q(z|x) = sum_j (eps^2 + logvar - z^2) / 2. Samples go through the decoder as rows of a block, and the
// sum keeps its running maximum, so nothing of size samples x width exists.
void Model::log_likelihood(const fvae_array& x, int64_t samples, uint64_t seed, double* result) const {
    const Rows rows(x, config, "x");
    const Buffer noise = score_noise(*this, samples, seed);
    rows.check_all(backend, default_threads());
    const std::shared_lock lock(mutex);
    const int Z = network.Z;
    const int64_t threads = default_threads();
    run_checked(static_cast<int>(std::min(threads, rows.count)), [&](const Team& team) {
        const Range mine = share(rows.count, 1, team.thread, team.threads);
        const int64_t block = std::min(kBlock, samples);
        Runner run(*this, block);
        Reader reader(rows, backend, 1);
        Matrix codes(block, Z);
        std::vector<const float*> target(z(block));
        std::vector<double> nll(z(block));
        for (int64_t i = mine.first; i < mine.last; ++i) {
            const float* const* input = reader.block(i, 1);
            const float* head = run.encode(input, 1).row(0);
            std::fill(target.begin(), target.end(), input[0]);
            double largest = -INFINITY, sum = 0.0;  // log sum of weights = largest + log(sum)
            for (int64_t s = 0; s < samples; s += block) {
                const int64_t n = std::min(block, samples - s);
                for (int64_t r = 0; r < n; ++r) draw_code(head, noise.data() + (s + r) * Z, Z, codes.row(r));
                run.nll(codes.rows(), target.data(), static_cast<int>(n), nll.data());
                for (int64_t r = 0; r < n; ++r) {
                    const float *eps = noise.data() + (s + r) * Z, *code = codes.row(r);
                    double weight = -nll[z(r)];
                    for (int j = 0; j < Z; ++j)
                        weight += 0.5 * (double{eps[j]} * eps[j] + head[2 * j + 1] - double{code[j]} * code[j]);
                    if (weight > largest) {
                        sum = sum * std::exp(largest - weight) + 1.0;
                        largest = weight;
                    } else {
                        sum += std::exp(weight - largest);
                    }
                }
            }
            result[i] = largest + std::log(sum / static_cast<double>(samples));
        }
    });
}

}  // namespace fusedvae
