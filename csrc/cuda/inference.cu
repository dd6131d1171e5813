// SPDX-License-Identifier: MIT
//
// Encoding, decoding and scores: blocks of rows go from layer to layer between two areas. Of importance samples only a
// block of pairs (row, sample) exists at a time, and of a pair only its log-weight is kept.
#include "inference.h"

#include <algorithm>
#include <stdexcept>

#include "model.h"

namespace fusedvae::cuda {

namespace {

constexpr int64_t kAreaElements = int64_t{1} << 25;  // of the widest layer's block: enough rows to fill any GPU
constexpr int64_t kMostRows = 65536;
constexpr int64_t kStripPairs = int64_t{1} << 22;  // log-weights kept at a time
constexpr const char* kAdvice = "a block of rows in inference (make the layers narrower)";

size_t z(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

// Buffers that grow as calls need them.
struct ModelOnDevice::Areas {
    explicit Areas(std::shared_ptr<Context> shared) : context(std::move(shared)) {}

    template <class T>
    T* need(Buffer<T>& buffer, int64_t count) {
        if (buffer.count() < count) {
            buffer = Buffer<T>();
            buffer = Buffer<T>(context, count, kAdvice);
        }
        return buffer.data();
    }
    int64_t bytes() const {
        size_t sum = area[0].bytes() + area[1].bytes() + head.bytes() + pairs.bytes() + out.bytes() + staged.bytes();
        sum += x.bytes() + x_half.bytes() + noise.bytes() + mu.bytes() + sigma.bytes() + nll.bytes();
        sum += sum_logvar.bytes() + kl.bytes() + log_ratio.bytes() + values.bytes() + scores.bytes();
        return static_cast<int64_t>(sum);
    }

    std::shared_ptr<Context> context;
    Buffer<unsigned char> area[2];
    Buffer<float> head, pairs, out, staged, x, noise, mu, sigma, nll;
    Buffer<uint16_t> x_half;
    Buffer<double> sum_logvar, kl, log_ratio, values, scores;
};

namespace {

// A block's way through the layers.
class Blocks {
  public:
    Blocks(ModelOnDevice& model, ModelOnDevice::Areas& areas, Precision precision)
        : model_(model), network_(model.network()), areas_(areas), kernels_(kernels_of(precision)) {
        if (kernels_.bfloat16) model.need_half();
        for (const Layer& layer : network_.layers) widest_ = std::max(widest_, padded(layer.N));
        widest_ = std::max({widest_, padded(network_.D), padded(network_.Z)});
    }
    int64_t rows() const { return std::clamp<int64_t>(kAreaElements / widest_, 128, kMostRows); }
    cudaStream_t stream() const { return model_.context()->stream(); }
    bool bfloat16() const { return kernels_.bfloat16; }

    // Rows as a product reads them; float_rows also as a likelihood does.
    Factor read(const Source& source, int64_t n, int columns) {
        if (!bfloat16()) return float_rows(source, n, columns);
        if (reads_in_place(source, columns, true)) return {source.data, source.stride / 2, nullptr, 1, 0};
        const int64_t ld = padded(columns);
        uint16_t* const half = areas_.need(areas_.x_half, n * ld);
        read_rows({{}, source, n, columns, nullptr, 0, half, ld}, stream());
        return {half, ld, nullptr, 1, 0};
    }
    Factor float_rows(const Source& source, int64_t n, int columns) {
        if (reads_in_place(source, columns, false)) return {source.data, source.stride / 4, nullptr, 1, 0};
        const int64_t ld = padded(columns);
        float* const x = areas_.need(areas_.x, n * ld);
        read_rows({{}, source, n, columns, x, ld, nullptr, 0}, stream());
        return {x, ld, nullptr, 1, 0};
    }
    // The head's pairs (n, padded(2 Z)).
    const float* encode(const Source& source, int64_t n) {
        Factor x = read(source, n, network_.D);
        for (int l = 0; l < network_.head; ++l) x = hidden(l, x, n);
        const int64_t ld = padded(2 * int64_t{network_.Z});
        Forward f = job(network_.head, x, n);
        f.floats = areas_.need(areas_.head, n * ld);
        f.ld_floats = ld;
        run(f);
        return f.floats;
    }
    Factor to_output(Factor codes, int64_t n) {
        const int last = static_cast<int>(network_.layers.size()) - 1;
        for (int l = network_.head + 1; l < last; ++l) codes = hidden(l, codes, n);
        return codes;
    }
    // Mean of p(x|z): mean (n, D)
    void decode(Factor codes, int64_t n, float* mean) {
        const int last = static_cast<int>(network_.layers.size()) - 1;
        const bool pairs = network_.output().pairs();
        Forward f = job(last, to_output(codes, n), n);
        if (model_.config().likelihood == FVAE_BERNOULLI) f.activation = Activation::sigmoid;
        f.floats = pairs ? areas_.need(areas_.pairs, n * f.N) : mean;
        f.ld_floats = f.N;
        run(f);
        if (pairs) take_columns(f.floats, f.N, 0, 2, n, network_.D, mean, stream());
    }
    // -log p(target|z): nll (n, segments)
    void nll(Factor codes, const Factor& target, int64_t n, float* nll) {
        Forward f = job(static_cast<int>(network_.layers.size()) - 1, to_output(codes, n), n);
        f.epilogue = network_.likelihood;
        f.target = target;
        f.scale = 1.0f;
        f.fixed_variance = static_cast<float>(model_.config().fixed_variance);
        f.min_variance = static_cast<float>(model_.config().min_variance);
        f.log_variance = model_.log_variance();
        f.partial = nll;
        run(f);
    }
    // The area that is written next, for n rows of `columns`.
    void* area(int64_t n, int columns) {
        return areas_.need(areas_.area[turn_], n * padded(columns) * (bfloat16() ? 2 : 4));
    }
    Factor written(const void* data, int columns) {
        turn_ ^= 1;
        return {data, padded(columns), nullptr, 1, 0};
    }

  private:
    Forward job(int l, const Factor& x, int64_t n) const {
        const Layer& layer = network_.layers[z(l)];
        Forward f{};
        f.x = x;
        f.weight = model_.weight(l, bfloat16());
        f.ld_weight = model_.layout().layers[z(l)].ld;
        f.bias = model_.bias(l);
        f.B = static_cast<int>(n);
        f.K = layer.K;
        f.N = layer.N;
        f.epilogue = Epilogue::linear_act;
        f.activation = layer.activation;
        f.ld = padded(layer.N);
        return f;
    }
    void run(const Forward& f) const {
        kernels_.forward(f, choose(model_.context()->chip(), [&](TileSize size) { return tiles_of(f, size); }),
                         stream());
    }
    Factor hidden(int l, const Factor& x, int64_t n) {
        Forward f = job(l, x, n);
        f.y = area(n, f.N);
        run(f);
        return written(f.y, f.N);
    }

    ModelOnDevice& model_;
    const Network& network_;
    ModelOnDevice::Areas& areas_;
    const Kernels& kernels_;
    int64_t widest_ = 1;
    int turn_ = 0;
};

}  // namespace

int64_t ModelOnDevice::bytes() const {
    return static_cast<int64_t>(values_.bytes() + half_.bytes()) + (areas_ ? areas_->bytes() : 0);
}

ModelOnDevice::Areas& ModelOnDevice::areas() {
    context_->use();
    if (!areas_) areas_ = std::make_shared<Areas>(context_);
    return *areas_;
}

namespace {

// Calls block(first row, rows) for blocks of rows.
template <class Block>
void for_each_block(int64_t count, int64_t rows, Block block) {
    for (int64_t first = 0; first < count; first += rows) block(first, std::min(rows, count - first));
}

}  // namespace

void ModelOnDevice::encode(const Rows& x, float* mu, float* logvar, bool on_device) {
    const std::lock_guard lock(mutex_);
    Areas& areas = this->areas();
    Blocks blocks(*this, areas, precision_);
    const int Z = network_.Z;
    for_each_block(x.count, blocks.rows(), [&](int64_t first, int64_t n) {
        const float* head = blocks.encode(source(x, first, n, areas.staged), n);
        float* const results[2] = {mu, logvar};
        for (int part = 0; part < 2; ++part) {
            if (!results[part]) continue;
            float* const out = on_device ? results[part] + first * Z : areas.need(areas.out, n * Z);
            take_columns(head, padded(2 * int64_t{Z}), part, 2, n, Z, out, blocks.stream());
            if (!on_device) areas.out.download(results[part] + first * Z, n * Z);
        }
    });
}

void ModelOnDevice::decode(const Rows& codes, float* mean, bool on_device) {
    const std::lock_guard lock(mutex_);
    Areas& areas = this->areas();
    Blocks blocks(*this, areas, precision_);
    const int64_t D = network_.D;
    for_each_block(codes.count, blocks.rows(), [&](int64_t first, int64_t n) {
        float* const out = on_device ? mean + first * D : areas.need(areas.out, n * D);
        blocks.decode(blocks.read(source(codes, first, n, areas.staged), n, network_.Z), n, out);
        if (!on_device) areas.out.download(mean + first * D, n * D);
    });
}

void ModelOnDevice::reconstruct(const Rows& x, float* mean, bool on_device) {
    const std::lock_guard lock(mutex_);
    Areas& areas = this->areas();
    Blocks blocks(*this, areas, precision_);
    const int64_t D = network_.D, ld_head = padded(2 * int64_t{network_.Z}), ld_z = padded(network_.Z);
    for_each_block(x.count, blocks.rows(), [&](int64_t first, int64_t n) {
        const float* head = blocks.encode(source(x, first, n, areas.staged), n);
        const Source means{head, RowType::float32, ld_head * 4, 2, 1.0f, nullptr, false};
        void* const codes = blocks.area(n, network_.Z);
        const bool half = blocks.bfloat16();
        read_rows({{},
                   means,
                   n,
                   network_.Z,
                   half ? nullptr : static_cast<float*>(codes),
                   ld_z,
                   half ? static_cast<uint16_t*>(codes) : nullptr,
                   ld_z},
                  blocks.stream());
        float* const out = on_device ? mean + first * D : areas.need(areas.out, n * D);
        blocks.decode(blocks.written(codes, network_.Z), n, out);
        if (!on_device) areas.out.download(mean + first * D, n * D);
    });
}

void ModelOnDevice::score(const Rows& x, int64_t samples, uint64_t seed, bool importance, double* result,
                          bool on_device) {
    if (samples < 1 || samples > 1'000'000)
        throw std::invalid_argument("samples must be between 1 and 1000000, it is " + std::to_string(samples));
    const std::lock_guard lock(mutex_);
    Areas& areas = this->areas();
    Blocks blocks(*this, areas, precision_);
    const cudaStream_t stream = blocks.stream();
    const int Z = network_.Z, parts = segments(network_.output().N);
    draw_normals(make_stream(seed, 0, kScore), samples, Z, areas.need(areas.noise, samples * Z), stream);
    const int64_t strip = std::clamp<int64_t>(kStripPairs / samples, 1, std::min(x.count, blocks.rows()));
    const Posterior posterior{areas.need(areas.mu, strip * Z), areas.need(areas.sigma, strip * Z),
                              areas.need(areas.sum_logvar, strip), areas.need(areas.kl, strip)};
    double* const values = areas.need(areas.values, strip * samples);
    for_each_block(x.count, strip, [&](int64_t first, int64_t count) {
        const Source rows = source(x, first, count, areas.staged);
        read_posterior(blocks.encode(rows, count), padded(2 * int64_t{Z}), count, Z, posterior, stream);
        Factor target = blocks.float_rows(rows, count, network_.D);
        target.repeat = static_cast<int>(samples);
        for_each_block(count * samples, blocks.rows(), [&](int64_t pair, int64_t n) {
            double* const log_ratio = areas.need(areas.log_ratio, n);
            float* const nll = areas.need(areas.nll, n * parts);
            void* const codes = blocks.area(n, Z);
            const bool half = blocks.bfloat16();
            draw_codes(posterior, areas.noise.data(), samples, Z, pair, n, half ? nullptr : static_cast<float*>(codes),
                       half ? static_cast<uint16_t*>(codes) : nullptr, padded(Z), log_ratio, stream);
            target.offset = static_cast<int>(pair);
            blocks.nll(blocks.written(codes, Z), target, n, nll);
            weigh_pairs(nll, parts, log_ratio, n, importance, values + pair, stream);
        });
        double* const out = on_device ? result + first : areas.need(areas.scores, count);
        score_rows(values, count, samples, posterior.kl, config_.log_jacobian(), importance, out, stream);
        if (!on_device) areas.scores.download(result + first, count);
    });
}

void ModelOnDevice::elbo(const Rows& x, int64_t samples, uint64_t seed, double* result, bool on_device) {
    score(x, samples, seed, false, result, on_device);
}
void ModelOnDevice::log_likelihood(const Rows& x, int64_t samples, uint64_t seed, double* result, bool on_device) {
    score(x, samples, seed, true, result, on_device);
}

}  // namespace fusedvae::cuda
