// SPDX-License-Identifier: MIT
#include "step.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>

#include "../backend/platform.h"

namespace fusedvae {

namespace {

constexpr int64_t kNormChunk = 16384;  // floats per partial sum of the gradient's norm: fixed, whatever the threads

size_t z(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

Step::Step(const Config& config, const Network& network, const Backend& backend, Sharing sharing)
    : config_(config), network_(network), backend_(backend), sharing_(sharing) {
    const size_t count = network.layers.size();
    results_.resize(count);
    forward_.resize(count);
    dgrad_.resize(count);
    wgrad_.resize(count);
    dim_weight_.assign(z(network.Z), 1.0f);
    dim_kl_.assign(z(network.Z), 0.0);
    norm_parts_.assign((network.floats + kNormChunk - 1) / kNormChunk, 0.0);
}

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
    for (const Results& r : results_) {
        total += r.y.bytes() + r.slope.bytes() + r.dy.bytes();
        total += r.y_words.bytes() + r.slope_words.bytes() + r.dy_words.bytes();
    }
    total += static_cast<int64_t>((nll_parts_.size() + kl_parts_.size()) * sizeof(float));
    total += static_cast<int64_t>((nll_.size() + kl_.size() + norm_parts_.size()) * sizeof(double));
    return total + static_cast<int64_t>(x_.size() * sizeof(float*));
}

// ---- jobs ------------------------------------------------------------------------------------------------------------

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
    const size_t head = z(network_.head);
    forward_[head].noise.stream = batch.noise.stream;
    forward_[head].noise.first_row = batch.noise.first_row;
    if (!destination) return;
    dgrad_[head + 1].kl_weight = static_cast<float>(batch.beta / batch.B);
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
            f.eps = destination && !batch.noise.given ? eps_.data() : nullptr;
            f.ld_z = eps_.ld();
            f.z_words = z_words_.words();
            f.noise = batch.noise;
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
                g.noise = batch.noise;
                if (!g.noise.given) g.noise.given = eps_.data(), g.noise.given_stride = eps_.ld();
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
        w.scale = scale;
        w.min_variance = static_cast<float>(config_.min_variance);
        wgrad_[z(l)] = w;
    }
}

// The copies of the weights that an optimiser's epilogue keeps.
void Step::bind_copies(Wgrad& w, int l, const Destination& d) const {
    const Layer& layer = network_.layers[z(l)];
    if (w.epilogue == Epilogue::store) return;
    if (l > 0) w.weight_t = d.transposed + (backend_.bfloat16 ? layer.words_t : layer.weight_t);
    if (backend_.bfloat16) w.words = d.words + layer.words;
}

// ---- the step --------------------------------------------------------------------------------------------------------

void Step::read_rows(const Team& team, const Batch& batch) {
    const Range mine = plan_->rows[z(team.thread)];
    if (batch.x->direct() && !batch.check) return to_words(mine);
    for (int64_t b = mine.first; b < mine.last; ++b) {
        const int64_t i = batch.index ? batch.index[b] : batch.first + b;
        if (batch.check)
            batch.x->check_row(backend_, i, batch.x->direct() ? nullptr : converted_.row(b));
        else
            batch.x->read(backend_, i, converted_.row(b));
    }
    to_words(mine);
}

void Step::to_words(Range rows) {
    backend_.to_words(x_words_.words(), x_.data(), static_cast<int>(rows.first), static_cast<int>(rows.last),
                      network_.D);
}

void Step::forward(const Team& team) {
    for (size_t l = 0; l < forward_.size(); ++l) {
        for (const Plan::Block& k : plan_->forward[l][z(team.thread)])
            backend_.forward(forward_[l], k.b0, k.b1, k.p0, k.p1);
        if (plan_->by_columns) team.meet();
    }
}

void Step::sum_rows(const Team& team) {
    const Range mine = plan_->rows[z(team.thread)];
    const auto total = [](const std::vector<float>& parts, int64_t row, int count) {
        double sum = 0.0;
        for (int p = 0; p < count; ++p) sum += parts[z(row * count + p)];
        return sum;
    };
    for (int64_t b = mine.first; b < mine.last; ++b) {
        nll_[z(b)] = total(nll_parts_, b, network_.output().count());
        kl_[z(b)] = total(kl_parts_, b, network_.layers[z(network_.head)].count());
    }
}

// Free bits act on each latent dimension's KL averaged over the batch, so the whole forward pass comes first.
void Step::weigh_dimensions(const Team& team, const Batch& batch) {
    team.meet();
    const Matrix& head = results_[z(network_.head)].y;
    const Range mine = share(network_.Z, 1, team.thread, team.threads);
    for (int64_t j = mine.first; j < mine.last; ++j) {
        double sum = 0.0;
        for (int b = 0; b < batch.B; ++b) {
            const double mu = head.row(b)[2 * j], logvar = head.row(b)[2 * j + 1];
            sum += 0.5 * (mu * mu + std::exp(logvar) - 1.0 - logvar);
        }
        dim_kl_[z(j)] = sum / batch.B;
        dim_weight_[z(j)] = dim_kl_[z(j)] > batch.free_bits ? 1.0f : 0.0f;
    }
    team.meet();
}

void Step::backward(const Team& team) {
    for (size_t l = dgrad_.size() - 1; l > 0; --l) {
        for (const Plan::Block& k : plan_->dgrad[l][z(team.thread)]) backend_.dgrad(dgrad_[l], k.b0, k.b1, k.p0, k.p1);
        if (plan_->by_columns) team.meet();
    }
    if (!plan_->by_columns) team.meet();
}

// Row sums are added in the order of the rows, by whoever asks: every thread gets the same bits.
fvae_losses Step::losses(const Batch& batch) const {
    double nll = 0.0, kl = 0.0;
    for (int b = 0; b < batch.B; ++b) nll += nll_[z(b)], kl += kl_[z(b)];
    fvae_losses result{0.0, nll / batch.B - config_.log_jacobian(), kl / batch.B};
    double optimised = result.kl;
    if (batch.free_bits > 0.0) {
        optimised = 0.0;
        for (double dim : dim_kl_) optimised += dim > batch.free_bits ? dim : batch.free_bits;
        if (std::isnan(result.kl)) optimised = result.kl;
    }
    result.loss = result.reconstruction + batch.beta * optimised;
    return result;
}

void Step::update(const Team& team, const Destination& d) {
    for (const Plan::Tiles& t : plan_->tiles[z(team.thread)]) backend_.wgrad(wgrad_[z(t.layer)], t.panel, t.k0, t.k1);
    if (d.clip_norm > 0.0) apply_clipped(team, d);
}

void Step::apply_clipped(const Team& team, const Destination& d) {
    team.meet();
    const int64_t chunks = static_cast<int64_t>(norm_parts_.size()), floats = static_cast<int64_t>(network_.floats);
    const Range mine = share(chunks, 1, team.thread, team.threads);
    for (int64_t c = mine.first; c < mine.last; ++c)
        norm_parts_[z(c)] =
            backend_.sum_squares(d.gradient + c * kNormChunk, std::min(kNormChunk, floats - c * kNormChunk));
    team.meet();
    double sum = 0.0;
    for (double part : norm_parts_) sum += part;
    const double norm = std::sqrt(sum);
    if (team.thread == 0) finite_ = std::isfinite(norm);
    if (!std::isfinite(norm)) return;
    for (const Plan::Tiles& t : plan_->tiles[z(team.thread)]) {
        Wgrad w = wgrad_[z(t.layer)];
        w.epilogue = d.epilogue;
        w.from_gradient = 1;
        bind_copies(w, t.layer, d);
        // torch.nn.utils.clip_grad_norm_: max_norm / (norm + 1e-6), never above 1
        w.update.gradient_scale = static_cast<float>(std::min(1.0, d.clip_norm / (norm + 1e-6)));
        backend_.wgrad(w, t.panel, t.k0, t.k1);
    }
}

// NULL where there is nothing to choose, or for the rows that are left at an epoch's end.
Tuner* Step::tuner(int threads, int B) {
    if (sharing_ != Sharing::by_measure || threads == 1) return nullptr;
    if (threads != tuned_threads_ || B > tuned_B_) {
        // One thread may be faster than several only where a step is short.
        const int ways = worth_threads(network_, B) < 64.0 ? 3 : 2;
        tuner_.emplace(ways, way_by_shape(network_, B));
        tuned_threads_ = threads;
        tuned_B_ = B;
    }
    return B == tuned_B_ ? &*tuner_ : nullptr;
}

Way Step::chosen(int B) const {
    if (sharing_ == Sharing::by_rows) return kRows;
    if (sharing_ == Sharing::by_columns) return kColumns;
    return way_by_shape(network_, B);
}

bool Step::pass(Lease& lease, Way way, const Batch& batch, const float* parameters, const Destination* destination) {
    reserve(batch.B);
    if (!batch.x->direct() && converted_.bytes() == 0) converted_ = Matrix(capacity_, network_.D);
    for (int b = 0; b < batch.B; ++b) {
        const int64_t i = batch.index ? batch.index[b] : batch.first + b;
        x_[z(b)] = batch.x->direct() ? reinterpret_cast<const float*>(batch.x->row(i)) : converted_.row(b);
    }
    bind(batch, parameters, destination);
    Plan& plan = plans_[z(way)];
    if (plan.threads != (way == kAlone ? 1 : lease.threads()) || plan.B != batch.B)
        plan = make_plan(network_, way, lease.threads(), batch.B);
    plan_ = &plan;

    std::exception_ptr bad_value;
    std::mutex guard;
    const auto work = [&](const Team& team) {
        try {
            read_rows(team, batch);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            bad_value = std::current_exception();
        }
        if (batch.check || (plan_->by_columns && (backend_.bfloat16 || !batch.x->direct()))) team.meet();
        if (bad_value) return;
        forward(team);
        sum_rows(team);
        if (batch.free_bits > 0.0) weigh_dimensions(team, batch);
        if (!destination) return;
        backward(team);
        const bool finite = std::isfinite(losses(batch).loss);
        if (team.thread == 0) finite_ = finite;
        if (finite) update(team, *destination);
    };
    if (plan.threads > 1)
        lease.run(work);
    else
        work(Team{0, 1, nullptr});
    if (bad_value) std::rethrow_exception(bad_value);
    return finite_;
}

bool Step::run(Lease& lease, const Batch& batch, const Destination& destination, fvae_losses* result) {
    Tuner* const measured = tuner(lease.threads(), batch.B);
    const Way way = measured ? static_cast<Way>(measured->way()) : chosen(batch.B);
    const double start = measured && measured->trying() ? platform::seconds() : 0.0;
    const bool updated = pass(lease, way, batch, destination.parameters, &destination);
    if (measured) measured->took(measured->trying() ? platform::seconds() - start : 0.0);
    *result = losses(batch);
    return updated;
}

fvae_losses Step::evaluate(Lease& lease, const Batch& batch, const float* parameters) {
    pass(lease, chosen(batch.B), batch, parameters, nullptr);
    return losses(batch);
}

}  // namespace fusedvae
