// SPDX-License-Identifier: MIT
#include "network.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "../layer/scalar_normals.h"
#include "names.h"

namespace fusedvae {

std::vector<int32_t> cut(int columns, int widest) {
    const int groups = (columns + kGroup - 1) / kGroup;
    std::vector<int32_t> starts{0};
    const auto cut_until = [&](int end) {
        for (int done = starts.back() / kGroup; done < end;) {
            const int rest = end - done;
            done += rest == widest + 1 ? (rest + 1) / 2 : std::min(rest, widest);
            starts.push_back(done * kGroup);
        }
    };
    if (groups > widest) cut_until(groups / 2);  // the first thread has the step to lead, too
    cut_until(groups);
    return starts;
}

namespace {

Layer make_layer(std::vector<std::string> names, int64_t K, int64_t N, Activation activation, const Backend& backend) {
    Layer layer;
    layer.names = std::move(names);
    layer.K = static_cast<int>(K);
    layer.N = static_cast<int>(N);
    layer.activation = activation;
    layer.starts = cut(layer.N, backend.groups_per_panel);
    layer.starts_t = cut(layer.K, backend.groups_per_panel);
    return layer;
}

}  // namespace

Network::Network(const Config& config, const Backend& backend, bool bfloat16)
    : bfloat16_weights(bfloat16), D(static_cast<int>(config.encoded_width())), Z(static_cast<int>(config.latent)) {
    const auto activation = static_cast<Activation>(config.activation);
    int64_t width = D;
    for (size_t i = 0; i < config.hidden.size(); width = config.hidden[i++])
        layers.push_back(make_layer({"encoder." + std::to_string(i)}, width, config.hidden[i], activation, backend));
    head = static_cast<int>(layers.size());
    layers.push_back(
        make_layer({"encoder_mean", "encoder_logvar"}, width, 2 * config.latent, Activation::identity, backend));
    width = Z;
    for (size_t i = 0; i < config.decoder_hidden.size(); width = config.decoder_hidden[i++])
        layers.push_back(
            make_layer({"decoder." + std::to_string(i)}, width, config.decoder_hidden[i], activation, backend));
    const bool gaussian = config.likelihood == FVAE_GAUSSIAN, element = gaussian && config.variance == FVAE_ELEMENT;
    std::vector<std::string> names{gaussian ? "decoder_mean" : "decoder_logits"};
    if (element) names.push_back("decoder_logvar");
    likelihood = element ? Epilogue::gaussian_element_nll : gaussian ? Epilogue::gaussian_nll : Epilogue::bernoulli_nll;
    layers.push_back(make_layer(names, width, element ? 2 * int64_t{D} : D, Activation::identity, backend));

    floats = floats_t = words = words_t = 0;
    for (size_t l = 0; l < layers.size(); ++l) {
        Layer& layer = layers[l];
        layer.weight = floats;
        floats += static_cast<size_t>(depth(layer)) * static_cast<size_t>(layer.padded());
        layer.bias = floats;
        floats += static_cast<size_t>(layer.padded());
        layer.weight_t = floats_t;
        layer.words = words;
        words += static_cast<size_t>(words_of(layer.K)) * static_cast<size_t>(layer.padded());
        layer.words_t = words_t;
        if (l > 0) {
            floats_t += static_cast<size_t>(layer.N) * static_cast<size_t>(layer.starts_t.back());
            words_t += static_cast<size_t>(words_of(layer.N)) * static_cast<size_t>(layer.starts_t.back());
        }
        const int64_t rows = layer.pairs() ? layer.N / 2 : layer.N;
        for (size_t part = 0; part < layer.names.size(); ++part) {
            const int index = static_cast<int>(l), which = static_cast<int>(part);
            parameters.push_back({layer.names[part] + ".weight", 2, rows, layer.K, index, which, Parameter::weight});
            parameters.push_back({layer.names[part] + ".bias", 1, rows, 1, index, which, Parameter::bias});
        }
    }
    has_log_variance = gaussian && config.variance == FVAE_FEATURE;
    log_variance = floats;
    if (has_log_variance) {
        floats += static_cast<size_t>(output().padded());
        parameters.push_back(
            {"log_variance", 1, D, 1, static_cast<int>(layers.size()) - 1, 0, Parameter::log_variance});
    }
}

double Network::flops_per_row() const {
    double flops = 0.0;
    for (const Layer& layer : layers) flops += 2.0 * layer.K * layer.N;
    return flops;
}

namespace {

// Nearest bfloat16, ties to even, subnormals to zero: what the vector conversion gives.
uint32_t to_bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7F800000u) == 0) return (bits >> 16) & 0x8000u;
    return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
}
float join(float low, float high) {
    const uint32_t bits = to_bfloat16(low) | (to_bfloat16(high) << 16);
    float word;
    std::memcpy(&word, &bits, sizeof word);
    return word;
}

// Calls move(place in the flat buffer, outside element) for each value of a parameter; move_bfloat16 where the place is
// counted in halves of words.
template <class Outside, class Move, class MoveBfloat16>
void for_each_value(const Network& net, const Parameter& p, Outside* values, Move move, MoveBfloat16 move_bfloat16) {
    const Layer& layer = net.layers[static_cast<size_t>(p.layer)];
    const size_t step = layer.pairs() ? 2 : 1, part = static_cast<size_t>(p.part);
    if (p.kind != Parameter::weight) {
        const size_t base = (p.kind == Parameter::bias ? layer.bias : net.log_variance) + part;
        for (size_t o = 0; o < static_cast<size_t>(p.rows); ++o) move(base + step * o, values[o]);
        return;
    }
    const auto K = static_cast<size_t>(layer.K), depth = static_cast<size_t>(net.depth(layer));
    for (size_t panel = 0; panel + 1 < layer.starts.size(); ++panel) {
        const auto start = static_cast<size_t>(layer.starts[panel]),
                   next = static_cast<size_t>(layer.starts[panel + 1]);
        const size_t w = next - start, base = layer.weight + start * depth;
        for (size_t n = start; n < std::min(next, static_cast<size_t>(layer.N)); ++n) {
            if (n % step != part) continue;
            Outside* row = values + n / step * K;
            if (net.bfloat16_weights)
                for (size_t k = 0; k < K; ++k) move_bfloat16(2 * (base + k / 2 * w + (n - start)) + k % 2, row[k]);
            else
                for (size_t k = 0; k < K; ++k) move(base + k * w + (n - start), row[k]);
        }
    }
}

}  // namespace

void Network::unpack(const float* flat, const Parameter& p, float* values) const {
    for_each_value(
        *this, p, values, [flat](size_t at, float& outside) { outside = flat[at]; },
        [flat](size_t at, float& outside) {
            uint16_t half;
            std::memcpy(&half, reinterpret_cast<const unsigned char*>(flat) + at * sizeof half, sizeof half);
            const uint32_t bits = uint32_t{half} << 16;
            std::memcpy(&outside, &bits, sizeof bits);
        });
}

void Network::pack(const float* values, const Parameter& p, float* flat) const {
    for_each_value(
        *this, p, values, [flat](size_t at, const float& outside) { flat[at] = outside; },
        [flat](size_t at, const float& outside) {
            const auto half = static_cast<uint16_t>(to_bfloat16(outside));
            std::memcpy(reinterpret_cast<unsigned char*>(flat) + at * sizeof half, &half, sizeof half);
        });
}

void Network::transpose(const float* flat, float* transposed) const {
    for (size_t l = 1; l < layers.size(); ++l) {
        const Layer& layer = layers[l];
        for (size_t p = 0; p + 1 < layer.starts_t.size(); ++p) {
            const int k0 = layer.starts_t[p], w = layer.starts_t[p + 1] - k0, k1 = std::min(layer.K, k0 + w);
            float* out = transposed + layer.weight_t + static_cast<size_t>(k0) * static_cast<size_t>(layer.N);
            for (int q = 0; q < layer.count(); ++q) {
                const int n0 = layer.starts[static_cast<size_t>(q)],
                          width = layer.starts[static_cast<size_t>(q) + 1] - n0;
                const float* in = flat + layer.weight + static_cast<size_t>(n0) * static_cast<size_t>(layer.K);
                for (int n = n0; n < std::min(layer.N, n0 + width); ++n)
                    for (int k = k0; k < k1; ++k)
                        out[static_cast<ptrdiff_t>(n) * w + (k - k0)] =
                            in[static_cast<ptrdiff_t>(k) * width + (n - n0)];
            }
        }
    }
}

void Network::make_words(const float* flat, float* all_words, float* all_words_t) const {
    for (size_t l = 0; l < layers.size(); ++l) {
        const Layer& layer = layers[l];
        // element (k, n) of the packed weights; zero past the last row
        const auto weight = [&](int q, int k, int n) {
            const int start = layer.starts[static_cast<size_t>(q)],
                      width = layer.starts[static_cast<size_t>(q) + 1] - start;
            if (k >= layer.K) return 0.0f;
            return flat[layer.weight + static_cast<size_t>(start) * static_cast<size_t>(layer.K) +
                        static_cast<size_t>(k) * static_cast<size_t>(width) + static_cast<size_t>(n - start)];
        };
        for (int q = 0; q < layer.count(); ++q) {
            const int n0 = layer.starts[static_cast<size_t>(q)], n1 = layer.starts[static_cast<size_t>(q) + 1];
            float* out = all_words + layer.words + static_cast<ptrdiff_t>(n0) * words_of(layer.K);
            for (int k = 0; k < layer.K; k += 2)
                for (int n = n0; n < n1; ++n) *out++ = join(weight(q, k, n), weight(q, k + 1, n));
            if (l == 0) continue;
            for (size_t p = 0; p + 1 < layer.starts_t.size(); ++p) {
                const int k0 = layer.starts_t[p], w = layer.starts_t[p + 1] - k0, k1 = std::min(layer.K, k0 + w);
                float* out_t = all_words_t + layer.words_t + static_cast<ptrdiff_t>(k0) * words_of(layer.N);
                for (int n = n0; n < std::min(layer.N, n1); n += 2)
                    for (int k = k0; k < k1; ++k)
                        out_t[static_cast<ptrdiff_t>(n / 2) * w + (k - k0)] =
                            join(weight(q, k, n), weight(q, k, n + 1));  // columns past N are zero
            }
        }
    }
}

void Network::initialize(const Config& config, uint64_t seed, float* flat) const {
    std::vector<float> values;
    for (size_t i = 0; i < parameters.size(); ++i) {
        const Parameter& p = parameters[i];
        const Layer& layer = layers[static_cast<size_t>(p.layer)];
        values.assign(static_cast<size_t>(p.size()), 0.0f);
        const double fan_in = layer.K, fan_out = static_cast<double>(p.rows);
        const Stream stream = make_stream(seed, 0, kInit);
        if (p.kind == Parameter::log_variance) {
            // zeros: a variance of one
        } else if (config.init == FVAE_INIT_HE) {
            if (p.kind == Parameter::weight) {
                const int64_t block = 4096;  // rows of the stream hold 32-bit indices; ours are blocks of one parameter
                Stream own = stream;
                own.step = static_cast<uint32_t>(i);
                for (int64_t start = 0, row = 0; start < p.size(); start += block, ++row)
                    scalar_normals(values.data() + start, own, static_cast<uint32_t>(row),
                                   static_cast<int>(std::min(block, p.size() - start)));
                for (float& v : values) v *= static_cast<float>(std::sqrt(2.0 / fan_in));
            }
        } else if (config.init == FVAE_INIT_PYTORCH || p.kind == Parameter::weight) {
            const double limit =
                config.init == FVAE_INIT_PYTORCH ? 1.0 / std::sqrt(fan_in) : std::sqrt(6.0 / (fan_in + fan_out));
            for (uint64_t j = 0; j < values.size(); j += 4) {
                const uint32_t counter[4] = {static_cast<uint32_t>(j / 4), static_cast<uint32_t>((j / 4) >> 32),
                                             static_cast<uint32_t>(i), stream.step_purpose};
                uint32_t random[4];
                philox4x32(counter, stream.key, random);
                for (size_t t = 0; t < 4 && j + t < values.size(); ++t)
                    values[static_cast<size_t>(j) + t] =
                        static_cast<float>(limit * ((random[t] + 0.5) * 0x1p-31 - 1.0));
            }
        }
        pack(values.data(), p, flat);
    }
}

}  // namespace fusedvae
