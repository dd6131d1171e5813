// SPDX-License-Identifier: MIT
//
// What a step's kernels read and write: room for a batch, and the jobs that point there.
#include "step.h"

namespace fusedvae {

namespace {

size_t z(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

void Step::reserve(int64_t B) {
    if (B <= capacity_) return;
    capacity_ = 0;  // a failed allocation leaves a step that allocates again
    bound_.reset();
    for (size_t l = 0; l < network_.layers.size(); ++l) {
        const Layer& layer = network_.layers[l];
        const bool last = l + 1 == network_.layers.size(), head = l == z(network_.head);
        Results& r = results_[l];
        if (backend_.bfloat16) {
            if (head) r.y = Matrix(B, layer.padded());
            if (!last && !head) r.y_words = WordMatrix(B, layer.padded());
            if (saves_slope(layer.activation)) r.slope_words = WordMatrix(B, layer.padded(), false);
            r.dy_words = WordMatrix(B, layer.padded());
        } else {
            if (!last) r.y = Matrix(B, layer.padded());
            if (saves_slope(layer.activation)) r.slope = Matrix(B, layer.padded());
            r.dy = Matrix(B, layer.padded());
        }
    }
    eps_ = Matrix(B, network_.Z);
    if (backend_.bfloat16) {
        x_words_ = WordMatrix(B, network_.D);
        z_words_ = WordMatrix(B, network_.Z);
    } else {
        z_ = Matrix(B, network_.Z);
    }
    nll_parts_.resize(z(B) * z(network_.output().count()));
    kl_parts_.resize(z(B) * z(network_.layers[z(network_.head)].count()));
    nll_.resize(z(B));
    kl_.resize(z(B));
    x_.resize(z(B));
    converted_ = Matrix();
    capacity_ = B;
}

int64_t Step::bytes() const {
    int64_t total = z_.bytes() + eps_.bytes() + converted_.bytes() + x_words_.bytes() + z_words_.bytes();
    total += split_gradients_.bytes();
    for (const Results& r : results_) {
        total += r.y.bytes() + r.slope.bytes() + r.dy.bytes();
        total += r.y_words.bytes() + r.slope_words.bytes() + r.dy_words.bytes();
    }
    total += static_cast<int64_t>((nll_parts_.size() + kl_parts_.size()) * sizeof(float));
    total += static_cast<int64_t>((nll_.size() + kl_.size() + norm_parts_.size()) * sizeof(double));
    return total + static_cast<int64_t>(x_.size() * sizeof(float*));
}

bool Step::Bound::operator==(const Bound& o) const {
    const Destination &a = places, &b = o.places;
    return B == o.B && parameters == o.parameters && noise == o.noise && noise_stride == o.noise_stride &&
           weighs == o.weighs && trains == o.trains && a.epilogue == b.epilogue && a.clip_norm == b.clip_norm &&
           a.parameters == b.parameters && a.transposed == b.transposed && a.words == b.words && a.m == b.m &&
           a.v == b.v && a.gradient == b.gradient;
}

// Most steps are like the one before: a `tiny` one would spend a twelfth of its time on binding anew.
void Step::bind(const Batch& batch, const float* parameters, const Destination* destination) {
    const Bound bound{batch.B,
                      parameters,
                      batch.noise.given,
                      batch.noise.given_stride,
                      batch.free_bits > 0.0,
                      destination ? *destination : Destination{},
                      destination != nullptr};
    if (!bound_ || !(*bound_ == bound)) {
        bound_.reset();
        bind_anew(batch, parameters, destination);
        bound_ = bound;
    }
    if (!destination) return;
    dgrad_[z(network_.head) + 1].kl_weight = static_cast<float>(batch.beta / batch.B);
    for (Wgrad& w : wgrad_) w.update = destination->update;
}

void Step::bind_anew(const Batch& batch, const float* parameters, const Destination* destination) {
    const int head = network_.head, last = static_cast<int>(network_.layers.size()) - 1;
    const float scale = static_cast<float>(1.0 / batch.B);
    const bool words = backend_.bfloat16;
    // What a layer reads: rows of the batch, and for dW the same, or its words across.
    struct Input {
        const float* const* rows;
        const float* const* transposed;
    };
    Input input = words ? Input{x_words_.along(), x_words_.across()} : Input{x_.data(), x_.data()};
    for (int l = 0; l <= last; ++l) {
        const Layer& layer = network_.layers[z(l)];
        const Results& r = results_[z(l)];
        Forward f{};
        f.rows = input.rows;
        f.weight = words ? destination->words + layer.words : parameters + layer.weight;
        f.bias = parameters + layer.bias;
        f.panels = layer.panels();
        f.K = words ? words_of(layer.K) : layer.K;
        f.N = layer.N;
        const Input before = input;
        if (l == head) {
            f.epilogue = Epilogue::reparameterize_kl;
            f.head = r.y.data();
            f.ld = r.y.ld();
            f.z = z_.data();
            f.eps = batch.noise.given ? batch.noise.given : eps_.data();
            f.ld_eps = batch.noise.given ? batch.noise.given_stride : eps_.ld();
            f.ld_z = z_.ld();
            f.z_words = z_words_.words();
            f.partial = kl_parts_.data();
            input = words ? Input{z_words_.along(), z_words_.across()} : Input{z_.rows(), z_.rows()};
        } else if (l < last) {
            f.epilogue = Epilogue::linear_act;
            f.activation = layer.activation;
            f.y = r.y.data();
            f.slope = r.slope.data();
            f.ld = r.y.ld();
            f.y_words = r.y_words.words();
            f.slope_words = r.slope_words.words();
            f.stored = layer.padded();
            input = words ? Input{r.y_words.along(), r.y_words.across()} : Input{r.y.rows(), r.y.rows()};
        } else {
            f.epilogue = network_.likelihood;
            f.target = x_.data();
            f.dy = r.dy.data();
            f.ld = r.dy.ld();
            f.dy_words = r.dy_words.words();
            f.scale = scale;
            f.fixed_variance = static_cast<float>(config_.fixed_variance);
            f.min_variance = static_cast<float>(config_.min_variance);
            if (network_.has_log_variance) f.log_variance = parameters + network_.log_variance;
            f.partial = nll_parts_.data();
        }
        forward_[z(l)] = f;
        if (!destination) continue;
        const Destination& d = *destination;

        if (l > 0) {
            const Layer& from = network_.layers[z(l - 1)];
            const Results& out = results_[z(l - 1)];
            Dgrad g{};
            g.rows = words ? r.dy_words.along() : r.dy.rows();
            g.weight_t = d.transposed + (words ? layer.words_t : layer.weight_t);
            g.panels = layer.panels_t();
            g.N = words ? words_of(layer.N) : layer.N;
            g.K = layer.K;
            g.dx = out.dy.data();
            g.dx_words = out.dy_words.words();
            if (l - 1 == head) {
                g.epilogue = Epilogue::reparameterize_grad;
                g.head = out.y.data();
                g.ld = out.y.ld();
                g.eps = forward_[z(head)].eps;
                g.ld_eps = forward_[z(head)].ld_eps;
                g.dim_weight = batch.free_bits > 0.0 ? dim_weight_.data() : nullptr;
            } else {
                g.epilogue = Epilogue::act_grad;
                g.activation = from.activation;
                g.saved = saves_slope(from.activation) ? out.slope.data() : out.y.data();
                g.ld = out.y.ld();
                g.saved_words = saves_slope(from.activation) ? out.slope_words.words() : out.y_words.words();
            }
            dgrad_[z(l)] = g;
        }

        Wgrad w{};
        w.rows = before.transposed;
        w.dy = words ? r.dy_words.words().across : r.dy.data();
        w.ld = words ? r.dy_words.words().ld_across : r.dy.ld();
        w.depth = words ? words_of(batch.B) : batch.B;
        w.B = batch.B;
        w.K = layer.K;
        w.N = layer.N;
        w.panels = layer.panels();
        w.panels_t = layer.panels_t();
        w.epilogue = d.clip_norm > 0.0 ? Epilogue::store : d.epilogue;
        const auto slot = [&](size_t offset) {
            return Slot{d.parameters + offset, d.m ? d.m + offset : nullptr, d.v ? d.v + offset : nullptr,
                        d.gradient ? d.gradient + offset : nullptr};
        };
        w.weight = slot(layer.weight);
        bind_copies(w, l, d);
        w.bias = slot(layer.bias);
        if (l == last && network_.has_log_variance) w.log_variance = slot(network_.log_variance);
        w.fetches = gains_from_fetching();
        w.scale = scale;
        w.min_variance = static_cast<float>(config_.min_variance);
        wgrad_[z(l)] = w;
    }
    if (destination) bind_splits(batch.B, destination->parameters);
}

// Jobs that store dW's product over each part of the batch; the whole ones then finish their sum.
void Step::bind_splits(int B, const float* parameters) {
    const int splits = splits_of(network_, B);
    if (splits == 1) return;
    const size_t floats = network_.floats;
    if (split_gradients_.size() < z(splits) * floats) split_gradients_ = Buffer(z(splits) * floats);
    split_wgrad_.resize(z(splits) * wgrad_.size());
    for (size_t l = 0; l < wgrad_.size(); ++l) {
        Wgrad& whole = wgrad_[l];
        for (Slot* each : {&whole.weight, &whole.bias, &whole.log_variance})
            if (each->value) each->stored = split_gradients_.data() + (each->value - parameters);
        for (int s = 0; s < splits; ++s) {
            const Range rows = split_rows(s, splits, B);
            Wgrad& part = split_wgrad(s, l);
            part = whole;
            part.epilogue = Epilogue::store;
            part.weight_t = part.words = nullptr;
            part.B = static_cast<int>(rows.last - rows.first);
            part.depth = backend_.bfloat16 ? words_of(part.B) : part.B;
            const ptrdiff_t first = backend_.bfloat16 ? rows.first / 2 : rows.first;
            part.rows += first;
            part.dy += first * part.ld;
            for (Slot* each : {&part.weight, &part.bias, &part.log_variance})
                if (each->value) each->gradient = split_gradients_.data() + z(s) * floats + (each->value - parameters);
        }
    }
}

// The copies of the weights that an optimiser's epilogue keeps.
void Step::bind_copies(Wgrad& w, int l, const Destination& d) const {
    const Layer& layer = network_.layers[z(l)];
    if (w.epilogue == Epilogue::store) return;
    if (l > 0) w.weight_t = d.transposed + (backend_.bfloat16 ? layer.words_t : layer.weight_t);
    if (backend_.bfloat16) w.words = d.words + layer.words;
}

}  // namespace fusedvae
