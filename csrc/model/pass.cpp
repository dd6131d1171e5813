// SPDX-License-Identifier: MIT
#include "pass.h"

#include <algorithm>

namespace fusedvae {

namespace {

constexpr size_t kLine = 64;

Forward layer_job(const Network& network, const Layer& layer, const float* flat) {
    Forward f{};
    f.weight = flat + layer.weight;
    f.widens = network.bfloat16_weights;
    f.fetches = gains_from_fetching();
    f.bias = flat + layer.bias;
    f.panels = layer.panels();
    f.K = layer.K;
    f.N = layer.N;
    return f;
}

struct Layout {
    size_t pointers, area, sums, converted;  // bytes of each part

    Layout(const Model& model, int64_t rows, bool converts) {
        const auto block = static_cast<size_t>(std::min(rows, Pass::kBlock));
        const auto lines = [](size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; };
        pointers = lines(block * sizeof(float*));
        area = lines(block * static_cast<size_t>(Matrix::leading_dimension(model.inference.widest)) * sizeof(float));
        sums = lines(static_cast<size_t>(model.inference.longest) * sizeof(float));
        converted = converts ? lines(block * static_cast<size_t>(model.network.D) * sizeof(float)) : 0;
    }
};

}  // namespace

Inference::Inference(const Config& config, const Network& network, const float* flat) {
    for (const Layer& layer : network.layers) {
        Forward f = layer_job(network, layer, flat);
        f.epilogue = Epilogue::linear_act;
        f.activation = layer.activation;
        f.stored = layer.padded();
        layers.push_back(f);
        longest = std::max(longest, layer.padded());
        if (&layer != &network.output() || layer.pairs() || !config.columns.empty())
            widest = std::max(widest, layer.padded());
    }
    widest = std::max({widest, network.Z, network.output().count()});
    Forward& output = layers.back();
    if (!network.output().pairs()) output.stored = output.N;

    parameters = output;
    parameters.activation = Activation::identity;
    if (config.likelihood == FVAE_BERNOULLI) output.activation = Activation::sigmoid;

    scoring = layer_job(network, network.output(), flat);
    scoring.epilogue = network.likelihood;
    scoring.scale = 1.0f;
    scoring.fixed_variance = static_cast<float>(config.fixed_variance);
    scoring.min_variance = static_cast<float>(config.min_variance);
    if (network.has_log_variance) scoring.log_variance = flat + network.log_variance;
}

size_t Pass::bytes(const Model& model, int64_t rows, bool converts) {
    const Layout part(model, rows, converts);
    return kLine + 3 * part.pointers + 2 * part.area + part.sums + part.converted;
}

Pass::Pass(const Model& model, int64_t rows, bool converts, void* workspace)
    : model_(model), rows_(std::min(rows, kBlock)) {
    const Layout part(model, rows, converts);
    auto* at = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(workspace) + kLine - 1) / kLine * kLine);
    const auto take = [&at](size_t bytes) {
        unsigned char* const here = at;
        at += bytes;
        return here;
    };
    for (const float**& p : pointers_) p = reinterpret_cast<const float**>(take(part.pointers));
    for (float*& a : area_) a = reinterpret_cast<float*>(take(part.area));
    sums_ = reinterpret_cast<float*>(take(part.sums));
    converted_ = reinterpret_cast<float*>(take(part.converted));
}

const float* const* Pass::read(const Rows& rows, int64_t first, int n) {
    for (int r = 0; r < n; ++r)
        pointers_[2][r] = rows.read(model_.backend, first + r, rows.direct() ? nullptr : converted(r));
    return pointers_[2];
}

float* Pass::codes(int n) {
    float* const values = area_[turn_];
    for (int r = 0; r < n; ++r) pointers_[turn_][r] = values + r * int64_t{model_.network.Z};
    turn_ ^= 1;
    return values;
}

void Pass::layer(const Forward& job, const float* const* x, int n, float* y, ptrdiff_t ld) {
    if (n == 1) return model_.backend.forward_row(job, x[0], sums_, y);
    Forward f = job;
    f.rows = x;
    f.y = y;
    f.ld = ld;
    model_.backend.forward(f, 0, n, 0, f.panels.count);
}

const float* const* Pass::layers(int first, int last, const float* const* x, int n) {
    for (int l = first; l < last; ++l) {
        const Forward& job = model_.inference.layers[static_cast<size_t>(l)];
        float* const y = area_[turn_];
        const float** const rows = pointers_[turn_];
        const ptrdiff_t ld = Matrix::leading_dimension(job.stored);
        for (int r = 0; r < n; ++r) rows[r] = y + r * ld;
        layer(job, x, n, y, ld);
        x = rows;
        turn_ ^= 1;
    }
    return x;
}

void Pass::output(const float* const* head, int n, const Forward& job, float* y, ptrdiff_t ld) {
    const int64_t Z = model_.network.Z;
    float* const mean_codes = codes(n);
    for (int r = 0; r < n; ++r)
        for (int64_t j = 0; j < Z; ++j) mean_codes[r * Z + j] = head[r][2 * j];
    layer(job, hidden(code_rows(), n), n, y, ld);
}

void Pass::decode(const float* const* codes, int n, float* mean) {
    const float* const* x = hidden(codes, n);
    const Forward& output = model_.inference.layers.back();
    const Columns& columns = model_.config.columns;
    const int D = model_.network.D;
    const bool pairs = model_.network.output().pairs(), direct = !pairs && columns.empty();
    float* const y = direct ? mean : area_[turn_];
    const ptrdiff_t ld = direct ? D : Matrix::leading_dimension(output.stored);
    layer(output, x, n, y, ld);
    if (direct) return;
    const int64_t width = model_.config.width();
    for (int64_t r = 0; r < n; ++r) {
        if (!columns.empty())
            columns.decode(mean + r * width, y + r * ld, pairs ? 2 : 1);
        else
            for (int j = 0; j < D; ++j) mean[r * D + j] = y[r * ld + 2 * j];
    }
}

void Pass::nll(const float* const* codes, const float* const* target, int n, double* result) {
    Forward f = model_.inference.scoring;
    f.rows = hidden(codes, n);
    f.target = target;
    f.partial = area_[turn_];
    model_.backend.forward(f, 0, n, 0, f.panels.count);
    for (int r = 0; r < n; ++r) {
        const float* const parts = f.partial + int64_t{r} * f.panels.count;
        result[r] = 0.0;
        for (int p = 0; p < f.panels.count; ++p) result[r] += parts[p];
    }
}

}  // namespace fusedvae
