// SPDX-License-Identifier: MIT
#include "pass.h"

#include <algorithm>
#include <cstring>

namespace fusedvae::cuda {

namespace {

constexpr const char* kBatchAdvice = "a batch's activations and gradients (lower batch_size)";
constexpr const char* kGradientAdvice = "stored gradients (make the layers narrower, or train without clip_norm)";

size_t z(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

Pass::Pass(ModelOnDevice& model, Precision precision, double free_bits)
    : model_(model),
      network_(model.network()),
      context_(model.context()),
      kernels_(kernels_of(precision)),
      free_bits_(free_bits),
      results_(network_.layers.size()),
      forward_(network_.layers.size()),
      dgrad_(network_.layers.size()),
      forward_size_(network_.layers.size()),
      dgrad_size_(network_.layers.size()) {
    if (kernels_.bfloat16) model_.need_half();
}

template <class T>
void Pass::resize(Buffer<T>& buffer, int64_t count, const char* what) {
    if (buffer.count() >= count) return;
    bytes_ -= static_cast<int64_t>(buffer.bytes());
    buffer = Buffer<T>();  // both at once may not fit
    buffer = Buffer<T>(context_, count, what);
    bytes_ += static_cast<int64_t>(buffer.bytes());
    ++generation_;
}

void Pass::reserve(int64_t B, bool training) {
    if (B <= capacity_ && (trains_ || !training)) return;
    const int64_t rows = std::max(B, capacity_);
    capacity_ = 0;  // a failed allocation leaves a pass that allocates again
    for (size_t l = 0; l < results_.size(); ++l) {
        const Layer& layer = network_.layers[l];
        const bool last = l + 1 == results_.size(), head = l == z(network_.head);
        const int64_t count = rows * padded(layer.N);
        if (head) resize(results_[l].head, count, kBatchAdvice);
        if (!head && !last) resize(results_[l].y, elements(count), kBatchAdvice);
        if (training && !head && saves_slope(layer.activation))
            resize(results_[l].slope, elements(count), kBatchAdvice);
        if (training) resize(results_[l].dy, elements(count), kBatchAdvice);
    }
    resize(z_, elements(rows * padded(network_.Z)), kBatchAdvice);
    resize(nll_, rows * segments(network_.output().N), kBatchAdvice);
    resize(kl_, rows * segments(2 * network_.Z), kBatchAdvice);
    resize(loss_parts_, loss_parts(rows), kBatchAdvice);
    resize(dim_kl_, network_.Z, kBatchAdvice);
    resize(dim_weight_, network_.Z, kBatchAdvice);
    resize(norm_parts_, norm_parts(model_.layout().floats), kBatchAdvice);
    resize(clip_factor_, 1, kBatchAdvice);
    resize(table_, static_cast<int64_t>(results_.size()), kBatchAdvice);
    capacity_ = rows;
    trains_ = trains_ || training;
}

void Pass::bind(const Batch& batch, const Clock& clock, const Goal* goal, Losses* losses) {
    reserve(batch.B, goal != nullptr);
    B_ = batch.B;
    source_ = batch.source;
    source_.clock = clock;
    read_floats_ = !reads_in_place(batch.source, network_.D, false);
    read_half_ = kernels_.bfloat16 && !reads_in_place(batch.source, network_.D, true);
    if (read_floats_) resize(x_floats_, capacity_ * padded(network_.D), kBatchAdvice);
    if (read_half_) resize(x_half_, capacity_ * padded(network_.D), kBatchAdvice);
    loss_ = {clock,
             nll_.data(),
             kl_.data(),
             segments(network_.output().N),
             segments(2 * network_.Z),
             B_,
             model_.config().log_jacobian(),
             free_bits_,
             dim_kl_.data(),
             network_.Z,
             loss_parts_.data(),
             losses};
    bind_forward(batch);
    goal_ = goal ? *goal : Goal{};
    group_.count = 0;
    if (goal) bind_backward(batch, *goal);
}

void Pass::bind_forward(const Batch& batch) {
    const int last = static_cast<int>(network_.layers.size()) - 1;
    const Chip& chip = context_->chip();
    const int64_t ld = padded(network_.D);
    const auto rows = [&](bool read, const void* copy, int64_t item) {
        return read ? Factor{copy, ld, nullptr, 1, 0}
                    : Factor{batch.source.data, batch.source.stride / item, batch.source.index, 1, 0};
    };
    const Factor target = rows(read_floats_, x_floats_.data(), 4);
    Factor x = kernels_.bfloat16 ? rows(read_half_, x_half_.data(), 2) : target;
    for (int l = 0; l <= last; ++l) {
        const Layer& layer = network_.layers[z(l)];
        const Results& r = results_[z(l)];
        Forward f{};
        f.clock = loss_.clock;
        f.x = x;
        f.weight = model_.weight(l, kernels_.bfloat16);
        f.ld_weight = model_.layout().layers[z(l)].ld;
        f.bias = model_.bias(l);
        f.B = B_;
        f.K = layer.K;
        f.N = layer.N;
        f.ld = padded(layer.N);
        if (l == network_.head) {
            f.epilogue = Epilogue::reparameterize_kl;
            f.head = r.head.data();
            f.z = z_.data();
            f.ld_z = padded(network_.Z);
            f.noise = batch.noise;
            f.noise_of_clock = batch.noise_of_clock;
            f.partial = kl_.data();
            x = {z_.data(), f.ld_z, nullptr, 1, 0};
        } else if (l < last) {
            f.epilogue = Epilogue::linear_act;
            f.activation = layer.activation;
            f.y = r.y.data();
            f.slope = r.slope.data();
            x = {r.y.data(), f.ld, nullptr, 1, 0};
        } else {
            f.epilogue = network_.likelihood;
            f.target = target;
            f.dy = r.dy.data();
            f.scale = static_cast<float>(1.0 / B_);
            f.fixed_variance = static_cast<float>(model_.config().fixed_variance);
            f.min_variance = static_cast<float>(model_.config().min_variance);
            f.log_variance = model_.log_variance();
            f.partial = nll_.data();
        }
        forward_[z(l)] = f;
        forward_size_[z(l)] = choose(chip, B_, layer.N);
    }
}

void Pass::bind_backward(const Batch& batch, const Goal& goal) {
    const int last = static_cast<int>(network_.layers.size()) - 1;
    const Chip& chip = context_->chip();
    std::vector<Wgrad> table(results_.size());
    for (int l = 0; l <= last; ++l) {
        const Layer& layer = network_.layers[z(l)];
        const Factor dy{results_[z(l)].dy.data(), padded(layer.N), nullptr, 1, 0};
        const Layout::Place& place = model_.layout().layers[z(l)];
        const bool varies = l == last && network_.has_log_variance;
        table[z(l)] = {forward_[z(l)].x,
                       dy,
                       B_,
                       layer.K,
                       layer.N,
                       place.weight,
                       place.ld,
                       place.bias,
                       varies ? model_.layout().log_variance : -1,
                       static_cast<float>(model_.config().min_variance),
                       0,
                       0};
        if (l == 0) continue;
        const Results& from = results_[z(l - 1)];
        Dgrad g{};
        g.clock = loss_.clock;
        g.dy = dy;
        g.weight = forward_[z(l)].weight;
        g.ld_weight = place.ld;
        g.B = B_;
        g.N = layer.N;
        g.K = layer.K;
        g.dx = from.dy.data();
        g.ld = padded(network_.layers[z(l - 1)].N);
        if (l - 1 == network_.head) {
            g.epilogue = Epilogue::reparameterize_grad;
            g.head = from.head.data();
            g.noise = batch.noise;
            g.noise_of_clock = batch.noise_of_clock;
            g.dim_weight = free_bits_ > 0.0 ? dim_weight_.data() : nullptr;
        } else {
            g.epilogue = Epilogue::act_grad;
            g.activation = network_.layers[z(l - 1)].activation;
            g.saved = saves_slope(g.activation) ? from.slope.data() : from.y.data();
        }
        dgrad_[z(l)] = g;
        dgrad_size_[z(l)] = choose(chip, B_, layer.K);
    }

    const auto count = [&](TileSize size) {
        int64_t sum = 0;
        for (const Layer& layer : network_.layers) sum += tiles(size, layer.N, layer.K);
        return sum;
    };
    group_size_ = choose(chip, count);
    group_.clock = loss_.clock;
    group_.tiles = 0;
    for (Wgrad& g : table) {
        g.first_tile = group_.tiles;
        g.tiles_k = static_cast<int>(tiles(group_size_, 1, g.K));
        group_.tiles += static_cast<int>(tiles(group_size_, g.N, g.K));
    }
    // Few tiles and a long batch: pieces of at least 1024 rows, added afterwards in their order.
    const int64_t pieces = std::min<int64_t>({chip.multiprocessors / std::max(group_.tiles, 1), B_ / 1024, 64});
    group_.splits = static_cast<int>(std::max<int64_t>(pieces, 1));
    group_.rows_per_split = (B_ + group_.splits - 1) / group_.splits;
    const bool stores = goal.keep || goal.clip_norm > 0.0 || group_.splits > 1;
    group_.epilogue = stores ? Epilogue::store : goal.epilogue;
    if (stores) resize(gradient_, group_.splits * model_.layout().floats, kGradientAdvice);
    group_.flat = {model_.values(), goal.m, goal.v, model_.half(), gradient_.data(), model_.layout().floats};
    if (group_.flat.half != bound_half_) bound_half_ = group_.flat.half, ++generation_;
    group_.scale = static_cast<float>(1.0 / B_);
    group_.count = static_cast<int>(table.size());
    group_.table = table_.data();
    if (bound_table_.size() != table.size() ||
        std::memcmp(bound_table_.data(), table.data(), table.size() * sizeof(Wgrad)) != 0) {
        table_.upload(table.data(), static_cast<int64_t>(table.size()));
        bound_table_ = table;
    }
}

void Pass::enqueue(int at) {
    const cudaStream_t stream = context_->stream();
    const bool trains = group_.count > 0;
    if (read_floats_ || read_half_) {
        source_.clock.at = at;
        const int64_t ld = padded(network_.D);
        read_rows(source_, B_, network_.D, read_floats_ ? x_floats_.data() : nullptr, ld,
                  read_half_ ? x_half_.data() : nullptr, ld, stream);
    }
    for (size_t l = 0; l < forward_.size(); ++l) {
        forward_[l].clock.at = at;
        kernels_.forward(forward_[l], forward_size_[l], stream);
    }
    if (free_bits_ > 0.0) {
        const Forward& head = forward_[z(network_.head)];
        weigh_dimensions(head.head, head.ld, B_, network_.Z, free_bits_, dim_kl_.data(), dim_weight_.data(), stream);
    }
    loss_.clock.at = at;
    reduce_losses(loss_, trains ? context_->fork() : stream);
    if (!trains) return;
    for (size_t l = dgrad_.size() - 1; l > 0; --l) {
        dgrad_[l].clock.at = at;
        kernels_.dgrad(dgrad_[l], dgrad_size_[l], stream);
    }
    context_->join();
    group_.clock.at = at;
    kernels_.wgrad(group_, group_size_, stream);
    if (group_.epilogue != Epilogue::store) return;
    const bool clips = goal_.clip_norm > 0.0;
    if (clips || goal_.keep) gather_gradient(group_.flat, group_.splits, norm_parts_.data(), stream);
    if (goal_.keep) return;
    if (clips) clip(group_.clock, norm_parts_.data(), group_.flat.floats, goal_.clip_norm, clip_factor_.data(), stream);
    apply(group_.clock, group_.flat, clips ? 1 : group_.splits, goal_.epilogue, clips ? clip_factor_.data() : nullptr,
          stream);
}

}  // namespace fusedvae::cuda
