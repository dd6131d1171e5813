// SPDX-License-Identifier: MIT
//
// Where each parameter lies in the device's flat buffers: layer by layer, weights (N, padded K) as outside (a pair's two
// layers row by row in turn), then the bias (padded N); a learned variance per feature at the end. Moments, gradients and
// the bfloat16 copy have the same order.
#pragma once
#include "../model/network.h"
#include "jobs.h"

namespace fusedvae::cuda {

struct Layout {
    struct Place {
        int64_t weight, bias, ld;
    };
    std::vector<Place> layers;
    int64_t log_variance = -1;
    int64_t floats = 0;

    explicit Layout(const Network& network) {
        const auto take = [this](int64_t count) {
            const int64_t at = floats;
            floats += padded(count);
            return at;
        };
        for (const Layer& layer : network.layers) {
            const int64_t ld = padded(layer.K), weight = take(ld * layer.N);
            layers.push_back({weight, take(layer.N), ld});
        }
        if (network.has_log_variance) log_variance = take(network.D);
    }

    // Calls move(flat element, plain element) for every value of every parameter, plain in network.parameters' order.
    template <class Flat, class Plain, class Move>
    void for_each(const Network& network, Flat* flat, Plain* plain, Move move) const {
        for (const Parameter& p : network.parameters) {
            const Place& place = layers[static_cast<size_t>(p.layer)];
            const int64_t step = network.layers[static_cast<size_t>(p.layer)].pairs() ? 2 : 1;
            const int64_t ld = p.kind == Parameter::weight ? place.ld : 1;
            Flat* base = flat + (p.kind == Parameter::weight ? place.weight
                                 : p.kind == Parameter::bias ? place.bias
                                                             : log_variance);
            for (int64_t r = 0; r < p.rows; ++r)
                for (int64_t c = 0; c < p.columns; ++c) move(base[(step * r + p.part) * ld + c], *plain++);
        }
    }
    void pack(const Network& network, const float* plain, float* flat) const {
        for_each(network, flat, plain, [](float& inside, const float& outside) { inside = outside; });
    }
    void unpack(const Network& network, const float* flat, float* plain) const {
        for_each(network, flat, plain, [](const float& inside, float& outside) { outside = inside; });
    }
};

}  // namespace fusedvae::cuda
