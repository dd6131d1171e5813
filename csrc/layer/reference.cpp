// SPDX-License-Identifier: MIT
//
// reference.h's bodies. Each formula is written the way a textbook prints it, one element at a time, with the standard
// library's functions in double; only where the printed form overflows does a comment say what replaces it.
#include "reference.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace fusedvae::reference {

namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kLeakySlope = 0.01;

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// log(1 + e^x), written so that e^x cannot overflow.
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

// The normal distribution's cumulative function and density.
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double normal_pdf(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * kPi); }

Matrix activate_all(fvae_activation activation, const Matrix& x) {
    Matrix y(x.rows, x.columns);
    for (size_t i = 0; i < x.values.size(); ++i) y.values[i] = activate(activation, x.values[i]);
    return y;
}

// dx = dy * act'(pre), element by element; in bfloat16 act' is made of what the forward pass saved.
Matrix times_slope(const Vae& vae, const Matrix& dy, const Matrix& pre) {
    const fvae_activation activation = vae.activation;
    const bool saves_slope = activation == FVAE_GELU || activation == FVAE_SILU;
    Matrix dx(dy.rows, dy.columns);
    for (size_t i = 0; i < dy.values.size(); ++i) {
        const double x = pre.values[i];
        const double saved = saves_slope ? activation_slope(activation, x) : activate(activation, x);
        dx.values[i] = dy.values[i] * (vae.bfloat16 ? slope_from_saved(activation, to_bfloat16(saved))
                                                    : activation_slope(activation, x));
    }
    return dx;
}

Nll gaussian_elements(const Matrix& mean, const Matrix& target, const Matrix& variance, const Matrix& dvariance) {
    Nll nll{Matrix(mean.rows, mean.columns), Matrix(mean.rows, mean.columns), Matrix(mean.rows, mean.columns)};
    for (size_t i = 0; i < mean.values.size(); ++i) {
        const double v = variance.values[i];
        const double difference = mean.values[i] - target.values[i];
        nll.value.values[i] = 0.5 * std::log(2.0 * kPi * v) + 0.5 * difference * difference / v;
        nll.dmean.values[i] = difference / v;
        // d nll / dv = 1/2 (1/v - difference^2 / v^2), times dv / dlogvar
        nll.dlogvar.values[i] = 0.5 * (1.0 - difference * difference / v) / v * dvariance.values[i];
    }
    return nll;
}

const Matrix& find(const Parameters& parameters, const std::string& name) {
    for (const auto& entry : parameters)
        if (entry.first == name) return entry.second;
    throw std::invalid_argument("the reference model has no parameter " + name);
}

bool has(const Parameters& parameters, const std::string& name) {
    return std::any_of(parameters.begin(), parameters.end(), [&](const auto& entry) { return entry.first == name; });
}

void add(Matrix& sum, const Matrix& term) {
    for (size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += term.values[i];
}

double total(const Matrix& x) {
    double sum = 0.0;
    for (double value : x.values) sum += value;
    return sum;
}

// A matrix as products read it.
Matrix factor(const Vae& vae, Matrix x) {
    for (double& value : x.values) {
        if (vae.bfloat16) value = to_bfloat16(value);
        if (vae.tf32) value = to_tf32(value);
    }
    return x;
}

// Gradients by name; layers add to them as the backward pass meets them.
struct GradientSink {
    Parameters* gradients;

    void add_to(const std::string& name, const Matrix& term) {
        for (auto& entry : *gradients)
            if (entry.first == name) add(entry.second, term);
    }

    // Through one Linear layer: adds dW and db, returns dx.
    Matrix through_linear(const Vae& vae, const std::string& layer, const Matrix& x, const Matrix& dy) {
        const Matrix rounded = factor(vae, dy);
        const LinearGradient gradient = linear_wgrad(factor(vae, x), rounded);
        add_to(layer + ".weight", gradient.weight);
        add_to(layer + ".bias", vae.tf32 ? linear_wgrad(x, dy).bias : gradient.bias);
        return linear_dgrad(rounded, factor(vae, find(vae.parameters, layer + ".weight")));
    }
};

Matrix apply_linear(const Vae& vae, const std::string& layer, const Matrix& x) {
    return linear(factor(vae, x), factor(vae, find(vae.parameters, layer + ".weight")),
                  find(vae.parameters, layer + ".bias"));
}

// The hidden layers of encoder or decoder, with what their backward pass needs.
struct Tower {
    std::string prefix;
    std::vector<Matrix> inputs;  // what layer i reads; the last entry is the tower's output
    std::vector<Matrix> pre;     // layer i before its activation

    Tower(const Vae& vae, const std::string& prefix_, const Matrix& x) : prefix(prefix_), inputs{x} {
        while (has(vae.parameters, layer_name(pre.size()) + ".weight")) {
            pre.push_back(apply_linear(vae, layer_name(pre.size()), inputs.back()));
            inputs.push_back(activate_all(vae.activation, pre.back()));
        }
    }

    std::string layer_name(size_t i) const { return prefix + "." + std::to_string(i); }

    // dy with respect to the output -> dx with respect to the input.
    Matrix backward(const Vae& vae, Matrix dy, GradientSink& sink) const {
        for (size_t i = pre.size(); i-- > 0;)
            dy = sink.through_linear(vae, layer_name(i), inputs[i], times_slope(vae, dy, pre[i]));
        return dy;
    }
};

// The decoder's last layer and the likelihood; returns the gradient with respect to h, scaled by `weight`.
Matrix output_layer(const Vae& vae, const Matrix& h, const Matrix& x, double weight, double& reconstruction,
                    GradientSink& sink) {
    const bool bernoulli = vae.likelihood == FVAE_BERNOULLI;
    const std::string mean_layer = bernoulli ? "decoder_logits" : "decoder_mean";
    const Matrix mean = apply_linear(vae, mean_layer, h);
    const bool per_element = !bernoulli && vae.variance == FVAE_ELEMENT;
    const bool per_feature = !bernoulli && vae.variance == FVAE_FEATURE;

    Nll nll;
    if (bernoulli)
        nll = bernoulli_nll(mean, x);
    else if (per_element)
        nll = gaussian_nll(mean, x, apply_linear(vae, "decoder_logvar", h), vae.min_variance);
    else if (per_feature)
        nll = gaussian_nll(mean, x, find(vae.parameters, "log_variance"), vae.min_variance);
    else
        nll = gaussian_nll(mean, x, vae.fixed_variance);

    reconstruction += weight * total(nll.value);
    for (double& value : nll.dmean.values) value *= weight;
    for (double& value : nll.dlogvar.values) value *= weight;
    Matrix dh = sink.through_linear(vae, mean_layer, h, nll.dmean);
    if (per_element) add(dh, sink.through_linear(vae, "decoder_logvar", h, nll.dlogvar));
    if (per_feature && vae.bfloat16) {
        // made of the rounded gradient: (x - m)^2 / var = var (dmean / weight)^2
        const Matrix& logvar = find(vae.parameters, "log_variance");
        const Matrix dmean = factor(vae, nll.dmean);
        for (int64_t b = 0; b < x.rows; ++b)
            for (int64_t j = 0; j < x.columns; ++j) {
                const double e = std::exp(logvar[j]), variance = vae.min_variance + e, d = dmean(b, j) / weight;
                nll.dlogvar(b, j) = weight * 0.5 * (1.0 - variance * d * d) * e / variance;
            }
    }
    if (per_feature) sink.add_to("log_variance", linear_wgrad(h, nll.dlogvar).bias);
    return dh;
}

Matrix rows_of(const Matrix& x, int64_t first, int64_t count) {
    Matrix part(count, x.columns);
    for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < x.columns; ++j) part(i, j) = x(first + i, j);
    return part;
}

}  // namespace

double to_bfloat16(double x) {
    if (x == 0.0 || !std::isfinite(x)) return x;
    const double unit = std::ldexp(1.0, std::ilogb(x) - 7);  // eight significant bits
    return std::nearbyint(x / unit) * unit;
}

double to_tf32(double x) {
    if (x == 0.0 || !std::isfinite(x)) return x;
    const double unit = std::ldexp(1.0, std::ilogb(x) - 10);
    return std::round(x / unit) * unit;
}

Matrix linear(const Matrix& x, const Matrix& weight, const Matrix& bias) {
    Matrix y(x.rows, weight.rows);
    for (int64_t b = 0; b < x.rows; ++b)
        for (int64_t n = 0; n < weight.rows; ++n) {
            double sum = bias.values.empty() ? 0.0 : bias[n];
            for (int64_t k = 0; k < x.columns; ++k) sum += x(b, k) * weight(n, k);
            y(b, n) = sum;
        }
    return y;
}

Matrix linear_dgrad(const Matrix& dy, const Matrix& weight) {
    Matrix dx(dy.rows, weight.columns);
    for (int64_t b = 0; b < dy.rows; ++b)
        for (int64_t k = 0; k < weight.columns; ++k)
            for (int64_t n = 0; n < dy.columns; ++n) dx(b, k) += dy(b, n) * weight(n, k);
    return dx;
}

LinearGradient linear_wgrad(const Matrix& x, const Matrix& dy) {
    LinearGradient gradient{Matrix(dy.columns, x.columns), Matrix(dy.columns, 1)};
    for (int64_t n = 0; n < dy.columns; ++n)
        for (int64_t b = 0; b < dy.rows; ++b) {
            for (int64_t k = 0; k < x.columns; ++k) gradient.weight(n, k) += dy(b, n) * x(b, k);
            gradient.bias[n] += dy(b, n);
        }
    return gradient;
}

double activate(fvae_activation activation, double x) {
    switch (activation) {
        case FVAE_IDENTITY:
            return x;
        case FVAE_RELU:
            return x > 0.0 ? x : 0.0;
        case FVAE_LEAKY_RELU:
            return x > 0.0 ? x : kLeakySlope * x;
        case FVAE_ELU:
            return x > 0.0 ? x : std::expm1(x);
        case FVAE_GELU:
            return x * normal_cdf(x);
        case FVAE_SILU:
            return x * sigmoid(x);
        case FVAE_TANH:
            return std::tanh(x);
        case FVAE_SIGMOID:
            return sigmoid(x);
        case FVAE_SOFTPLUS:
            return softplus(x);
    }
    throw std::invalid_argument("unknown activation");
}

double activation_slope(fvae_activation activation, double x) {
    switch (activation) {
        case FVAE_IDENTITY:
            return 1.0;
        case FVAE_RELU:
            return x > 0.0 ? 1.0 : 0.0;
        case FVAE_LEAKY_RELU:
            return x > 0.0 ? 1.0 : kLeakySlope;
        case FVAE_ELU:
            return x > 0.0 ? 1.0 : std::exp(x);
        case FVAE_GELU:
            return normal_cdf(x) + x * normal_pdf(x);
        case FVAE_SILU:
            return sigmoid(x) * (1.0 + x * sigmoid(-x));
        case FVAE_TANH:
            return 1.0 - std::tanh(x) * std::tanh(x);
        case FVAE_SIGMOID:
            return sigmoid(x) * sigmoid(-x);
        case FVAE_SOFTPLUS:
            return sigmoid(x);
    }
    throw std::invalid_argument("unknown activation");
}

double slope_from_saved(fvae_activation activation, double saved) {
    switch (activation) {
        case FVAE_IDENTITY:
            return 1.0;
        case FVAE_RELU:
            return saved > 0.0 ? 1.0 : 0.0;
        case FVAE_LEAKY_RELU:
            return saved > 0.0 ? 1.0 : kLeakySlope;
        case FVAE_ELU:
            return saved > 0.0 ? 1.0 : saved + 1.0;
        case FVAE_GELU:
        case FVAE_SILU:
            return saved;
        case FVAE_TANH:
            return 1.0 - saved * saved;
        case FVAE_SIGMOID:
            return saved * (1.0 - saved);
        case FVAE_SOFTPLUS:
            return -std::expm1(-saved);
    }
    throw std::invalid_argument("unknown activation");
}

Latent reparameterize_kl(const Matrix& mu, const Matrix& logvar, const Matrix& noise) {
    Latent latent{Matrix(mu.rows, mu.columns), Matrix(mu.rows, mu.columns)};
    for (size_t i = 0; i < mu.values.size(); ++i) {
        const double m = mu.values[i];
        const double l = logvar.values[i];
        latent.z.values[i] = m + std::exp(0.5 * l) * noise.values[i];
        latent.kl.values[i] = 0.5 * (m * m + (std::expm1(l) - l));
    }
    return latent;
}

LatentGradient reparameterize_grad(const Matrix& dz, const Matrix& mu, const Matrix& logvar, const Matrix& noise,
                                   const Matrix& kl_weight) {
    LatentGradient gradient{Matrix(mu.rows, mu.columns), Matrix(mu.rows, mu.columns)};
    for (int64_t b = 0; b < mu.rows; ++b)
        for (int64_t j = 0; j < mu.columns; ++j) {
            gradient.mu(b, j) = dz(b, j) + kl_weight[j] * mu(b, j);
            gradient.logvar(b, j) = 0.5 * dz(b, j) * noise(b, j) * std::exp(0.5 * logvar(b, j)) +
                                    0.5 * kl_weight[j] * std::expm1(logvar(b, j));
        }
    return gradient;
}

Nll bernoulli_nll(const Matrix& logits, const Matrix& target) {
    Nll nll{Matrix(logits.rows, logits.columns), Matrix(logits.rows, logits.columns), Matrix()};
    for (size_t i = 0; i < logits.values.size(); ++i) {
        // -t log sigmoid(l) - (1 - t) log(1 - sigmoid(l)) = softplus(l) - t l
        nll.value.values[i] = softplus(logits.values[i]) - target.values[i] * logits.values[i];
        nll.dmean.values[i] = sigmoid(logits.values[i]) - target.values[i];
    }
    return nll;
}

Nll gaussian_nll(const Matrix& mean, const Matrix& target, double fixed_variance) {
    Matrix variance(mean.rows, mean.columns);
    std::fill(variance.values.begin(), variance.values.end(), fixed_variance);
    Nll nll = gaussian_elements(mean, target, variance, Matrix(mean.rows, mean.columns));
    nll.dlogvar = Matrix();
    return nll;
}

Nll gaussian_nll(const Matrix& mean, const Matrix& target, const Matrix& logvar, double min_variance) {
    const bool shared = logvar.rows != mean.rows || logvar.columns != mean.columns;
    Matrix variance(mean.rows, mean.columns);
    Matrix dvariance(mean.rows, mean.columns);
    for (int64_t b = 0; b < mean.rows; ++b)
        for (int64_t n = 0; n < mean.columns; ++n) {
            dvariance(b, n) = std::exp(shared ? logvar[n] : logvar(b, n));
            variance(b, n) = min_variance + dvariance(b, n);
        }
    return gaussian_elements(mean, target, variance, dvariance);
}

void sgd(const OptimizerConstants& constants, const Matrix& gradient, Matrix& weight, Matrix& m) {
    for (size_t i = 0; i < weight.values.size(); ++i) {
        const double g = gradient.values[i] + constants.weight_decay * weight.values[i];
        m.values[i] = constants.momentum * m.values[i] + g;
        const double step = constants.nesterov ? g + constants.momentum * m.values[i] : m.values[i];
        weight.values[i] -= constants.learning_rate * step;
    }
}

void adam(const OptimizerConstants& constants, int64_t step, const Matrix& gradient, Matrix& weight, Matrix& m,
          Matrix& v) {
    const double correction1 = 1.0 - std::pow(constants.beta1, static_cast<double>(step));
    const double correction2 = 1.0 - std::pow(constants.beta2, static_cast<double>(step));
    for (size_t i = 0; i < weight.values.size(); ++i) {
        const double g = gradient.values[i] + constants.weight_decay * weight.values[i];
        m.values[i] = constants.beta1 * m.values[i] + (1.0 - constants.beta1) * g;
        v.values[i] = constants.beta2 * v.values[i] + (1.0 - constants.beta2) * g * g;
        const double denominator = std::sqrt(v.values[i] / correction2) + constants.epsilon;
        weight.values[i] -= constants.learning_rate * (m.values[i] / correction1) / denominator;
    }
}

void adamw(const OptimizerConstants& constants, int64_t step, const Matrix& gradient, Matrix& weight, Matrix& m,
           Matrix& v) {
    for (double& w : weight.values) w *= 1.0 - constants.learning_rate * constants.weight_decay;
    OptimizerConstants undecayed = constants;
    undecayed.weight_decay = 0.0;
    adam(undecayed, step, gradient, weight, m, v);
}

Losses Vae::evaluate(const Matrix& x, const Matrix& noise, double beta, double free_bits, Parameters* gradients) const {
    const int64_t batch = x.rows;
    const int64_t samples = noise.rows / batch;
    Parameters discarded;
    GradientSink sink{gradients ? gradients : &discarded};
    sink.gradients->clear();
    if (gradients)
        for (const auto& entry : parameters)
            gradients->emplace_back(entry.first, Matrix(entry.second.rows, entry.second.columns));

    const Tower encoder(*this, "encoder", x);
    const Matrix mu = apply_linear(*this, "encoder_mean", encoder.inputs.back());
    const Matrix logvar = apply_linear(*this, "encoder_logvar", encoder.inputs.back());
    const int64_t latent = mu.columns;

    // Reconstruction, one sample after the other; kl_weight zero here, as the KL enters once, below.
    Losses losses;
    Matrix dmu(batch, latent);
    Matrix dlogvar(batch, latent);
    Matrix kl;  // the same for every sample
    const double weight = 1.0 / static_cast<double>(batch * samples);
    for (int64_t s = 0; s < samples; ++s) {
        const Matrix noise_s = rows_of(noise, s * batch, batch);
        const Latent sampled = reparameterize_kl(mu, logvar, noise_s);
        kl = sampled.kl;
        const Tower decoder(*this, "decoder", sampled.z);
        const Matrix dh = output_layer(*this, decoder.inputs.back(), x, weight, losses.reconstruction, sink);
        const Matrix dz = decoder.backward(*this, dh, sink);
        const LatentGradient gradient = reparameterize_grad(dz, mu, logvar, noise_s, Matrix(latent, 1));
        add(dmu, gradient.mu);
        add(dlogvar, gradient.logvar);
    }

    double optimised_kl = 0.0;
    Matrix kl_weight(latent, 1);
    for (int64_t j = 0; j < latent; ++j) {
        double mean_kl = 0.0;
        for (int64_t b = 0; b < batch; ++b) mean_kl += kl(b, j) / static_cast<double>(batch);
        losses.kl += mean_kl;
        optimised_kl += std::max(free_bits, mean_kl);
        kl_weight[j] = mean_kl > free_bits ? beta / static_cast<double>(batch) : 0.0;
    }
    losses.loss = losses.reconstruction + beta * optimised_kl;
    const LatentGradient kl_gradient =
        reparameterize_grad(Matrix(batch, latent), mu, logvar, Matrix(batch, latent), kl_weight);
    add(dmu, kl_gradient.mu);
    add(dlogvar, kl_gradient.logvar);

    const Matrix& h = encoder.inputs.back();
    Matrix dh = sink.through_linear(*this, "encoder_mean", h, dmu);
    add(dh, sink.through_linear(*this, "encoder_logvar", h, dlogvar));
    encoder.backward(*this, dh, sink);
    return losses;
}

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
        const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
                   static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
        key[0] += 0x9E3779B9;  // the golden ratio
        key[1] += 0xBB67AE85;  // the square root of 3, less one
    }
    return counter;
}

double normal(uint64_t seed, uint64_t step, uint32_t purpose, uint32_t row, int64_t index) {
    const std::array<uint32_t, 4> words = philox({static_cast<uint32_t>(index / 4), row, static_cast<uint32_t>(step),
                                                  static_cast<uint32_t>(step >> 32 << 8) | purpose},
                                                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    const size_t pair = index % 4 < 2 ? 0 : 2;
    // u is a float by definition (philox.h): near 1 its rounding is all that r = sqrt(-2 ln u) is made of.
    const double uniform = static_cast<float>(std::ldexp(static_cast<float>(words[pair] >> 1), -31) + 0x1p-32);
    const double radius = std::sqrt(-2.0 * std::log(uniform));
    // Whole quarter turns from the top two bits; the other thirty, read as a signed number, are a part of one.
    const auto part = static_cast<int32_t>(words[pair + 1] << 2);
    const double quarters = (words[pair + 1] >> 30) + std::ldexp(part, -32);
    const double angle = quarters * kPi / 2.0;
    return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

}  // namespace fusedvae::reference
