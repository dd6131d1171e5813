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
constexpr int64_t kLineBytes = 64, kFetchedBytes = 256;  // of a row: what follows the processor fetches by itself

size_t z(int64_t i) { return static_cast<size_t>(i); }

// dW from gradients that are stored already, the sums of `count` of them, `floats` apart.
Wgrad sum_of_stored(Wgrad w, int count, ptrdiff_t floats) {
    w.splits = count;
    w.split_floats = floats;
    for (Slot* each : {&w.weight, &w.bias, &w.log_variance}) each->stored = each->gradient;
    return w;
}

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

void Step::draw_noise(const Team& team, const Noise& noise) {
    if (noise.given) return;
    const Range mine = plan_->rows[z(team.thread)];
    backend_.normals(eps_.row(mine.first), eps_.ld(), noise.stream, noise.first_row + static_cast<uint32_t>(mine.first),
                     static_cast<int>(mine.last - mine.first), network_.Z);
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

void Step::backward(const Team& team, const Batch& batch) {
    for (size_t l = dgrad_.size() - 1; l > 0; --l) {
        fetch_next(team, batch, l);
        multiply_own_splits(team, l);
        for (const Plan::Block& k : plan_->dgrad[l][z(team.thread)]) backend_.dgrad(dgrad_[l], k.b0, k.b1, k.p0, k.p1);
        if (plan_->by_columns) team.meet();
    }
    fetch_next(team, batch, 0);
    multiply_own_splits(team, 0);
    if (!plan_->by_columns) team.meet();
}

// Rows in random order are nowhere near, and nobody but the caller knows which come next: a layer's share of those that
// this thread will read.
void Step::fetch_next(const Team& team, const Batch& batch, size_t l) const {
    if (!batch.next) return;
    const bool reads_all = plan_->by_columns && batch.x->direct() && !backend_.bfloat16;
    const Range mine = reads_all ? Range{0, batch.next_B} : plan_->rows[z(team.thread)];
    const int64_t first = mine.first, count = std::min<int64_t>(mine.last, batch.next_B) - first;
    const int64_t bytes = std::min(batch.x->columns * value_bytes(batch.x->type), kFetchedBytes);
    if (count <= 0) return;
    const Range now = share(count, 1, static_cast<int>(l), static_cast<int>(forward_.size()));
    for (int64_t b = first + now.first; b < first + now.last; ++b) {
        const unsigned char* row = batch.x->row(batch.next[b]);
        for (int64_t i = 0; i < bytes; i += kLineBytes) __builtin_prefetch(row + i, 0, 2);
        __builtin_prefetch(row + bytes - 1, 0, 2);  // in one line more, where the row begins within one
    }
}

// dW's products over a thread's own parts of the batch, and their sum in the place of the first.
void Step::multiply_own_splits(const Team& team, size_t l) {
    const int count = plan_->own_splits, first = team.thread * count;
    if (count == 0) return;
    for (int s = first; s < first + count; ++s) {
        const Wgrad& part = split_wgrad(s, l);
        for (int p = 0; p < part.panels.count; ++p) backend_.wgrad(part, p, 0, part.K);
    }
    if (count == 1) return;
    const Wgrad sum = sum_of_stored(split_wgrad(first, l), count, static_cast<ptrdiff_t>(network_.floats));
    for (int p = 0; p < sum.panels.count; ++p) backend_.wgrad(sum, p, 0, sum.K);
}

// How many sums dW's jobs find: one of each thread's own parts, or one of each part.
void Step::count_split_sums() {
    if (plan_->splits == 1) return;
    for (Wgrad& w : wgrad_) {
        w.splits = plan_->own_splits ? plan_->threads : plan_->splits;
        w.split_floats = static_cast<ptrdiff_t>(network_.floats) * (plan_->splits / w.splits);
    }
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
    const int splits = plan_->splits > 1 && !plan_->own_splits ? plan_->splits : 0;
    for (const Plan::Tiles& t : plan_->tiles[z(team.thread)]) {
        for (int s = 0; s < splits; ++s) backend_.wgrad(split_wgrad(s, z(t.layer)), t.panel, t.k0, t.k1);
        backend_.wgrad(wgrad_[z(t.layer)], t.panel, t.k0, t.k1);
    }
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
        Wgrad w = sum_of_stored(wgrad_[z(t.layer)], 1, 0);
        w.epilogue = d.epilogue;
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
    if (destination) count_split_sums();

    std::exception_ptr bad_value;
    std::mutex guard;
    const auto work = [&](const Team& team) {
        try {
            read_rows(team, batch);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            bad_value = std::current_exception();
        }
        draw_noise(team, batch.noise);
        // By columns the first layer reads all threads' rows: where the batch was converted, and where this layer is the
        // head, which takes the noise. A later head has waited after the layer before.
        const bool reads_made = backend_.bfloat16 || !batch.x->direct() || network_.head == 0;
        if (batch.check || (plan_->by_columns && reads_made)) team.meet();
        if (bad_value) return;
        forward(team);
        sum_rows(team);
        if (batch.free_bits > 0.0) weigh_dimensions(team, batch);
        if (!destination) return;
        backward(team, batch);
        const fvae_losses found = losses(batch);
        const bool finite = std::isfinite(found.loss);
        if (team.thread == 0) losses_ = found, finite_ = finite;
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
    *result = losses_;
    return updated;
}

fvae_losses Step::evaluate(Lease& lease, const Batch& batch, const float* parameters) {
    pass(lease, chosen(batch.B), batch, parameters, nullptr);
    return losses(batch);
}

}  // namespace fusedvae
