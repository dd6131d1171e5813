// SPDX-License-Identifier: MIT
//
// The fused kernels one by one, on plain row-major matrices: each call packs its weights, runs one entry of
// layer/pairs.inc over all rows and panels on this thread, and unpacks what it wrote.
#include <algorithm>
#include <cmath>

#include "handles.h"
#include "model/names.h"
#include "model/options.h"

using namespace fusedvae;

namespace {

size_t z(int64_t i) { return static_cast<size_t>(i); }

void check_sizes(int64_t B, int64_t K, int64_t N) {
    for (int64_t size : {B, K, N})
        if (size < 1 || size > (1 << 24))
            throw std::invalid_argument("sizes must be between 1 and 16777216, one is " + std::to_string(size));
}
// The same where a product has two columns for each of N: checked before it is doubled.
void check_pair_sizes(int64_t B, int64_t K, int64_t N) {
    check_sizes(B, K, N);
    check_sizes(B, K, 2 * N);
}
void check_variances(double fixed_variance, double min_variance) {
    if (!(fixed_variance >= 1e-30 && fixed_variance <= 1e30) || !(min_variance >= 0.0 && min_variance <= 1e30))
        throw std::invalid_argument("fixed_variance must be positive (1e-30 to 1e30), min_variance not negative");
}
Activation activation_of(const fvae_activation& a) {
    name_of(a);
    return static_cast<Activation>(a);
}
std::vector<const float*> row_pointers(const float* values, int64_t rows, int64_t columns) {
    std::vector<const float*> pointers(z(rows));
    for (int64_t r = 0; r < rows; ++r) pointers[z(r)] = values + r * columns;
    return pointers;
}

// One layer's parameters as a backend wants them. Row `o` of the outside is column column_of(o); of a pair, the first
// half of the rows are the even columns.
struct PackedLayer {
    PackedLayer(const Backend& b, int64_t inputs, int64_t outputs, bool pairs)
        : backend(b),
          K(static_cast<int>(inputs)),
          N(static_cast<int>(outputs)),
          halves(pairs ? 2 : 1),
          starts(make_cut(N)),
          starts_t(make_cut(K)),
          weight(z(K) * z(padded())),
          bias(z(padded())) {}

    std::vector<int32_t> make_cut(int columns) const { return cut(columns, backend.groups_per_panel); }
    int padded() const { return starts.back(); }
    Panels panels() const { return {starts.data(), static_cast<int32_t>(starts.size()) - 1}; }
    Panels panels_t() const { return {starts_t.data(), static_cast<int32_t>(starts_t.size()) - 1}; }
    int column_of(int64_t o) const {
        const int64_t half = N / halves;
        return static_cast<int>(o % half * halves + o / half);
    }
    float& element(float* packed, int64_t o, int64_t k) const { return packed_at(packed, starts, K, column_of(o), k); }
    static float& packed_at(float* packed, const std::vector<int32_t>& cuts, int64_t depth, int n, int64_t k) {
        const auto next = std::upper_bound(cuts.begin(), cuts.end(), n);
        const int64_t start = next[-1], width = next[0] - start;
        return packed[start * depth + k * width + (n - start)];
    }
    void pack(const float* w, const float* b) {
        for (int64_t o = 0; o < N; ++o) {
            for (int64_t k = 0; k < K; ++k) element(weight.data(), o, k) = w[o * K + k];
            if (b) bias.data()[column_of(o)] = b[o];
        }
    }
    void pack_transposed(const float* w) {
        weight_t = Buffer(z(N) * z(starts_t.back()));
        for (int64_t o = 0; o < N; ++o)
            for (int64_t k = 0; k < K; ++k)
                packed_at(weight_t.data(), starts_t, N, static_cast<int>(k), column_of(o)) = w[o * K + k];
    }
    void unpack(float* packed, float* out) const {
        for (int64_t o = 0; o < N; ++o)
            for (int64_t k = 0; k < K; ++k) out[o * K + k] = element(packed, o, k);
    }

    Forward forward(const std::vector<const float*>& rows, Epilogue epilogue) const {
        Forward f{};
        f.rows = rows.data();
        f.weight = weight.data();
        f.bias = bias.data();
        f.panels = panels();
        f.K = K;
        f.N = N;
        f.epilogue = epilogue;
        return f;
    }

    const Backend& backend;
    const int K, N, halves;
    const std::vector<int32_t> starts, starts_t;
    Buffer weight, bias, weight_t;
};

const Backend& choose(const char* name) { return name ? backend(name) : backend(); }

// Rows times panels of partial sums to one number per row.
void sum_parts(const std::vector<float>& parts, int64_t B, int count, float* out) {
    for (int64_t b = 0; b < B; ++b) {
        double sum = 0.0;
        for (int p = 0; p < count; ++p) sum += parts[z(b * count + p)];
        out[b] = static_cast<float>(sum);
    }
}

// Columns first, first + step, .. of a padded matrix.
void take_columns(const Matrix& from, int64_t B, int64_t columns, int first, int step, float* out) {
    if (!out) return;
    for (int64_t b = 0; b < B; ++b)
        for (int64_t j = 0; j < columns; ++j) out[b * columns + j] = from.row(b)[first + step * j];
}

// A likelihood of D features over a layer: nll and its gradient by each of the layer's columns.
void run_likelihood(PackedLayer& layer, Epilogue epilogue, const float* x, const float* target, int64_t D, int64_t B,
                    const float* log_variance, double fixed_variance, double min_variance, float* nll, Matrix& dy) {
    check_variances(fixed_variance, min_variance);
    const auto rows = row_pointers(x, B, layer.K), targets = row_pointers(target, B, D);
    std::vector<float> parts(z(B * layer.panels().count)), padded_variance(z(layer.padded()), 0.0f);
    dy = Matrix(B, layer.padded());
    Forward f = layer.forward(rows, epilogue);
    f.target = targets.data();
    f.dy = dy.data();
    f.ld = dy.ld();
    f.scale = 1.0f;
    f.fixed_variance = static_cast<float>(fixed_variance);
    f.min_variance = static_cast<float>(min_variance);
    if (log_variance) {
        std::copy_n(log_variance, D, padded_variance.begin());
        f.log_variance = padded_variance.data();
    }
    f.partial = parts.data();
    layer.backend.forward(f, 0, static_cast<int>(B), 0, f.panels.count);
    if (nll) sum_parts(parts, B, f.panels.count, nll);
}

// dW, packed, by one of wgrad's epilogues; slots point at packed arrays.
void run_wgrad(PackedLayer& layer, Epilogue epilogue, const float* x, const float* dy, int64_t B, const Update& update,
               const Slot& weight, const Slot& bias) {
    const auto rows = row_pointers(x, B, layer.K);
    Matrix padded(B, layer.padded());
    for (int64_t b = 0; b < B; ++b) std::copy_n(dy + b * layer.N, layer.N, padded.row(b));
    Wgrad g{};
    g.rows = rows.data();
    g.dy = padded.data();
    g.ld = padded.ld();
    g.B = g.depth = static_cast<int>(B);
    g.K = layer.K;
    g.N = layer.N;
    g.panels = layer.panels();
    g.panels_t = layer.panels_t();
    g.epilogue = epilogue;
    g.update = update;
    g.weight = weight;
    g.bias = bias;
    for (int p = 0; p < g.panels.count; ++p) layer.backend.wgrad(g, p, 0, layer.K);
}

// An optimiser step in place: values and moments (NULL where there are none) go in packed and come back plain.
void run_optimizer(const Backend& b, Epilogue epilogue, const float* x, const float* dy, int64_t B, int64_t K,
                   int64_t N, const Update& update, float* const weights[3], float* const biases[3]) {
    check_sizes(B, K, N);
    PackedLayer layer(b, K, N, false);
    Buffer packed[3], padded[3];
    for (int i = 0; i < 3; ++i) {
        if (!weights[i]) continue;
        require(biases[i], "a bias array");
        packed[i] = Buffer(layer.weight.size());
        padded[i] = Buffer(layer.bias.size());
        for (int64_t o = 0; o < N; ++o) {
            for (int64_t k = 0; k < K; ++k) layer.element(packed[i].data(), o, k) = weights[i][o * K + k];
            padded[i].data()[o] = biases[i][o];
        }
    }
    const Slot weight{packed[0].data(), packed[1].data(), packed[2].data(), nullptr};
    const Slot bias{padded[0].data(), padded[1].data(), padded[2].data(), nullptr};
    run_wgrad(layer, epilogue, x, dy, B, update, weight, bias);
    for (int i = 0; i < 3; ++i)
        if (weights[i]) {
            layer.unpack(packed[i].data(), weights[i]);
            std::copy_n(padded[i].data(), N, biases[i]);
        }
}

// (B, Z) noise: what is given, or drawn into `drawn`.
const float* noise_of(const Backend& backend, const float* given, uint64_t seed, uint64_t step, int64_t B, int64_t Z,
                      std::vector<float>& drawn) {
    if (given) return given;
    drawn.resize(z(B * Z));
    backend.normals(drawn.data(), Z, make_stream(seed, step, kTrain), 0, static_cast<int>(B), static_cast<int>(Z));
    return drawn.data();
}

fvae_trainer_options options_of(const fvae_trainer_options* given, fvae_optimizer family) {
    fvae_trainer_options o = read_struct(given, fvae_trainer_options_default(), "options");
    if (family == FVAE_SGD || o.optimizer == FVAE_SGD) o.optimizer = family;
    check(o);
    return o;
}

}  // namespace

fvae_status fvae_kernel_linear_act(const char* backend_name, const float* x, const float* weight, const float* bias,
                                   int64_t B, int64_t K, int64_t N, fvae_activation activation, float* y,
                                   float* slope) {
    return guarded([&] {
        require(x, "x"), require(weight, "weight"), require(y, "y");
        check_sizes(B, K, N);
        PackedLayer layer(choose(backend_name), K, N, false);
        layer.pack(weight, bias);
        const auto rows = row_pointers(x, B, K);
        Forward f = layer.forward(rows, Epilogue::linear_act);
        f.activation = activation_of(activation);
        f.y = y;
        f.slope = saves_slope(f.activation) ? slope : nullptr;
        f.ld = N;
        f.stored = layer.N;
        layer.backend.forward(f, 0, static_cast<int>(B), 0, f.panels.count);
        if (!slope || f.slope) return;
        // act' from y, as act_grad computes it: the gradient of a layer whose dy W is one
        const std::vector<float> ones(z(B), 1.0f), row_of_ones(z(N), 1.0f);
        const fvae_status status =
            fvae_kernel_act_grad(backend_name, ones.data(), row_of_ones.data(), y, B, 1, N, activation, slope);
        if (status != FVAE_OK) throw Error(status, fvae_last_error());
    });
}

fvae_status fvae_kernel_reparameterize_kl(const char* backend_name, const float* x, const float* weight,
                                          const float* bias, const float* noise, uint64_t seed, uint64_t step,
                                          int64_t B, int64_t K, int64_t Z, float* mu, float* logvar, float* z_out,
                                          float* kl) {
    return guarded([&] {
        require(x, "x"), require(weight, "weight"), require(z_out, "z");
        check_pair_sizes(B, K, Z);
        PackedLayer layer(choose(backend_name), K, 2 * Z, true);
        layer.pack(weight, bias);
        const auto rows = row_pointers(x, B, K);
        Matrix head(B, layer.padded());
        std::vector<float> parts(z(B * layer.panels().count));
        Forward f = layer.forward(rows, Epilogue::reparameterize_kl);
        f.head = head.data();
        f.ld = head.ld();
        f.z = z_out;
        f.ld_z = Z;
        std::vector<float> drawn;
        f.eps = noise_of(layer.backend, noise, seed, step, B, Z, drawn);
        f.ld_eps = Z;
        f.partial = parts.data();
        layer.backend.forward(f, 0, static_cast<int>(B), 0, f.panels.count);
        take_columns(head, B, Z, 0, 2, mu);
        take_columns(head, B, Z, 1, 2, logvar);
        if (kl) sum_parts(parts, B, f.panels.count, kl);
    });
}

fvae_status fvae_kernel_bernoulli_nll(const char* backend_name, const float* x, const float* weight, const float* bias,
                                      const float* target, int64_t B, int64_t K, int64_t N, float* nll,
                                      float* dlogits) {
    return guarded([&] {
        require(x, "x"), require(weight, "weight"), require(target, "target");
        check_sizes(B, K, N);
        PackedLayer layer(choose(backend_name), K, N, false);
        layer.pack(weight, bias);
        Matrix dy;
        run_likelihood(layer, Epilogue::bernoulli_nll, x, target, N, B, nullptr, 1.0, 1.0, nll, dy);
        take_columns(dy, B, N, 0, 1, dlogits);
    });
}

fvae_status fvae_kernel_gaussian_nll(const char* backend_name, const float* x, const float* weight, const float* bias,
                                     const float* target, const float* log_variance, double fixed_variance,
                                     double min_variance, int64_t B, int64_t K, int64_t N, float* nll, float* dmean) {
    return guarded([&] {
        require(x, "x"), require(weight, "weight"), require(target, "target");
        check_sizes(B, K, N);
        PackedLayer layer(choose(backend_name), K, N, false);
        layer.pack(weight, bias);
        Matrix dy;
        run_likelihood(layer, Epilogue::gaussian_nll, x, target, N, B, log_variance, fixed_variance, min_variance, nll,
                       dy);
        take_columns(dy, B, N, 0, 1, dmean);
    });
}

fvae_status fvae_kernel_gaussian_element_nll(const char* backend_name, const float* x, const float* weight,
                                             const float* bias, const float* target, double min_variance, int64_t B,
                                             int64_t K, int64_t N, float* nll, float* dmean, float* dlogvar) {
    return guarded([&] {
        require(x, "x"), require(weight, "weight"), require(target, "target");
        check_pair_sizes(B, K, N);
        PackedLayer layer(choose(backend_name), K, 2 * N, true);
        layer.pack(weight, bias);
        Matrix dy;
        run_likelihood(layer, Epilogue::gaussian_element_nll, x, target, N, B, nullptr, 1.0, min_variance, nll, dy);
        take_columns(dy, B, N, 0, 2, dmean);
        take_columns(dy, B, N, 1, 2, dlogvar);
    });
}

fvae_status fvae_kernel_act_grad(const char* backend_name, const float* dy, const float* weight, const float* saved,
                                 int64_t B, int64_t N, int64_t K, fvae_activation activation, float* dx) {
    return guarded([&] {
        require(dy, "dy"), require(weight, "weight"), require(saved, "saved"), require(dx, "dx");
        check_sizes(B, K, N);
        PackedLayer layer(choose(backend_name), K, N, false);
        layer.pack_transposed(weight);
        const auto rows = row_pointers(dy, B, N);
        Matrix padded_saved(B, layer.starts_t.back()), padded_dx(B, layer.starts_t.back());
        for (int64_t b = 0; b < B; ++b) std::copy_n(saved + b * K, K, padded_saved.row(b));
        Dgrad g{};
        g.rows = rows.data();
        g.weight_t = layer.weight_t.data();
        g.panels = layer.panels_t();
        g.N = layer.N;
        g.K = layer.K;
        g.epilogue = Epilogue::act_grad;
        g.activation = activation_of(activation);
        g.saved = padded_saved.data();
        g.dx = padded_dx.data();
        g.ld = padded_dx.ld();
        layer.backend.dgrad(g, 0, static_cast<int>(B), 0, g.panels.count);
        take_columns(padded_dx, B, K, 0, 1, dx);
    });
}

fvae_status fvae_kernel_reparameterize_grad(const char* backend_name, const float* dy, const float* weight,
                                            const float* mu, const float* logvar, const float* noise, uint64_t seed,
                                            uint64_t step, double kl_weight, int64_t B, int64_t N, int64_t Z,
                                            float* dmu, float* dlogvar) {
    return guarded([&] {
        require(dy, "dy"), require(weight, "weight"), require(mu, "mu"), require(logvar, "logvar");
        check_pair_sizes(B, N, Z);
        PackedLayer layer(choose(backend_name), Z, N, false);
        layer.pack_transposed(weight);
        const auto rows = row_pointers(dy, B, N);
        const int width = layer.make_cut(static_cast<int>(2 * Z)).back();
        Matrix head(B, width), pairs(B, width);
        for (int64_t b = 0; b < B; ++b)
            for (int64_t j = 0; j < Z; ++j) {
                head.row(b)[2 * j] = mu[b * Z + j];
                head.row(b)[2 * j + 1] = logvar[b * Z + j];
            }
        Dgrad g{};
        g.rows = rows.data();
        g.weight_t = layer.weight_t.data();
        g.panels = layer.panels_t();
        g.N = layer.N;
        g.K = layer.K;
        g.epilogue = Epilogue::reparameterize_grad;
        g.head = head.data();
        g.dx = pairs.data();
        g.ld = pairs.ld();
        std::vector<float> drawn;
        g.eps = noise_of(layer.backend, noise, seed, step, B, Z, drawn);
        g.ld_eps = Z;
        g.kl_weight = static_cast<float>(kl_weight);
        layer.backend.dgrad(g, 0, static_cast<int>(B), 0, g.panels.count);
        take_columns(pairs, B, Z, 0, 2, dmu);
        take_columns(pairs, B, Z, 1, 2, dlogvar);
    });
}

fvae_status fvae_kernel_store(const char* backend_name, const float* x, const float* dy, int64_t B, int64_t K,
                              int64_t N, float* dweight, float* dbias) {
    return guarded([&] {
        require(x, "x"), require(dy, "dy"), require(dweight, "dweight"), require(dbias, "dbias");
        check_sizes(B, K, N);
        PackedLayer layer(choose(backend_name), K, N, false);
        Buffer gradient(layer.weight.size()), columns(layer.bias.size());
        const Slot weight{layer.weight.data(), nullptr, nullptr, gradient.data()};
        const Slot bias{layer.bias.data(), nullptr, nullptr, columns.data()};
        run_wgrad(layer, Epilogue::store, x, dy, B, Update{}, weight, bias);
        layer.unpack(gradient.data(), dweight);
        std::copy_n(columns.data(), N, dbias);
    });
}

fvae_status fvae_kernel_sgd(const char* backend_name, const float* x, const float* dy, int64_t B, int64_t K, int64_t N,
                            const fvae_trainer_options* options, float* weight, float* bias, float* weight_m,
                            float* bias_m) {
    return guarded([&] {
        require(x, "x"), require(dy, "dy"), require(weight, "weight"), require(bias, "bias");
        const fvae_trainer_options o = options_of(options, FVAE_SGD);
        if (o.momentum != 0.0) require(weight_m, "weight_m");
        float* const weights[3] = {weight, weight_m, nullptr};
        float* const biases[3] = {bias, bias_m, nullptr};
        run_optimizer(choose(backend_name), Epilogue::sgd, x, dy, B, K, N, update_at(o, 0), weights, biases);
    });
}

fvae_status fvae_kernel_adam(const char* backend_name, const float* x, const float* dy, int64_t B, int64_t K, int64_t N,
                             const fvae_trainer_options* options, int64_t step, float* weight, float* bias,
                             float* weight_m, float* bias_m, float* weight_v, float* bias_v) {
    return guarded([&] {
        require(x, "x"), require(dy, "dy"), require(weight, "weight"), require(bias, "bias");
        require(weight_m, "weight_m"), require(weight_v, "weight_v");
        if (step < 1) throw std::invalid_argument("step counts from 1, it is " + std::to_string(step));
        const fvae_trainer_options o = options_of(options, FVAE_ADAM);
        float* const weights[3] = {weight, weight_m, weight_v};
        float* const biases[3] = {bias, bias_m, bias_v};
        run_optimizer(choose(backend_name), Epilogue::adam, x, dy, B, K, N, update_at(o, step - 1), weights, biases);
    });
}
