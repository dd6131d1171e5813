// SPDX-License-Identifier: MIT
#include "pass.h"

#include <algorithm>
#include <cstring>

#include "losses.h"

namespace fusedvae::cuda {

namespace {

constexpr int64_t kMostPieces = 64;  // of a batch, each with a gradient of its own
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
      results_(network_.layers.size()) {
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
    clock_ = clock;
    stages_.clear();
    x_.clear();
    bind_rows(batch);
    bind_forward(batch);
    bind_losses(goal != nullptr, losses);
    if (!goal) return;
    bind_backward(batch);
    bind_table();
    bind_update(*goal);
}

template <class Job, class Count>
void Pass::add(Kind kind, Job Stage::*member, Job job, Count count) {
    Stage stage{};
    stage.kind = kind;
    stage.size = choose(context_->chip(), count);
    for (const TileSize size : {TileSize::small, TileSize::medium, TileSize::large})
        stage.tiles[static_cast<int>(size)] = static_cast<int>(count(size));
    job.clock = clock_;
    stage.*member = job;
    stages_.push_back(stage);
}
template <class Job>
void Pass::add(Kind kind, Job Stage::*member, const Job& job) {
    add(kind, member, job, [&](TileSize size) { return tiles_of(job, size); });
}

void Pass::bind_rows(const Batch& batch) {
    const bool floats = !reads_in_place(batch.source, network_.D, false);
    const bool half = kernels_.bfloat16 && !reads_in_place(batch.source, network_.D, true);
    const int64_t ld = padded(network_.D);
    if (floats) resize(x_floats_, capacity_ * ld, kBatchAdvice);
    if (half) resize(x_half_, capacity_ * ld, kBatchAdvice);
    const auto rows = [&](bool read, const void* copy, int64_t item) {
        return read ? Factor{copy, ld, nullptr, 1, 0}
                    : Factor{batch.source.data, batch.source.stride / item, batch.source.index, 1, 0};
    };
    target_ = rows(floats, x_floats_.data(), 4);
    x_.push_back(kernels_.bfloat16 ? rows(half, x_half_.data(), 2) : target_);
    if (!floats && !half) return;
    add(Kind::read_rows, &Stage::read_rows,
        ReadRows{{},
                 batch.source,
                 B_,
                 network_.D,
                 floats ? x_floats_.data() : nullptr,
                 ld,
                 half ? x_half_.data() : nullptr,
                 ld});
}

void Pass::bind_forward(const Batch& batch) {
    const int last = static_cast<int>(network_.layers.size()) - 1;
    for (int l = 0; l <= last; ++l) {
        const Layer& layer = network_.layers[z(l)];
        const Results& r = results_[z(l)];
        Forward f{};
        f.x = x_.back();
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
            x_.push_back({z_.data(), f.ld_z, nullptr, 1, 0});
        } else if (l < last) {
            f.epilogue = Epilogue::linear_act;
            f.activation = layer.activation;
            f.y = r.y.data();
            f.slope = r.slope.data();
            x_.push_back({r.y.data(), f.ld, nullptr, 1, 0});
        } else {
            f.epilogue = network_.likelihood;
            f.target = target_;
            f.dy = r.dy.data();
            f.scale = static_cast<float>(1.0 / B_);
            f.fixed_variance = static_cast<float>(model_.config().fixed_variance);
            f.min_variance = static_cast<float>(model_.config().min_variance);
            f.log_variance = model_.log_variance();
            f.partial = nll_.data();
        }
        add(Kind::forward, &Stage::forward, f);
    }
}

void Pass::bind_losses(bool trains, Losses* losses) {
    const Buffer<float>& head = results_[z(network_.head)].head;
    if (free_bits_ > 0.0)
        add(Kind::weigh_dimensions, &Stage::dimensions,
            Dimensions{{},
                       head.data(),
                       padded(2 * int64_t{network_.Z}),
                       B_,
                       network_.Z,
                       free_bits_,
                       dim_kl_.data(),
                       dim_weight_.data()});
    add(Kind::sum_losses, &Stage::losses,
        SumLosses{{},
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
                  losses});
    stages_.back().beside = trains;
}

void Pass::bind_backward(const Batch& batch) {
    for (int l = static_cast<int>(network_.layers.size()) - 1; l > 0; --l) {
        const Layer& layer = network_.layers[z(l)];
        const Results& from = results_[z(l - 1)];
        Dgrad g{};
        g.dy = dy_of(l);
        g.weight = model_.weight(l, kernels_.bfloat16);
        g.ld_weight = model_.layout().layers[z(l)].ld;
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
        add(Kind::dgrad, &Stage::dgrad, g);
    }
}

Factor Pass::dy_of(int layer) const {
    return {results_[z(layer)].dy.data(), padded(network_.layers[z(layer)].N), nullptr, 1, 0};
}

void Pass::bind_table() {
    std::vector<Wgrad> table;
    for (int l = 0; l < static_cast<int>(network_.layers.size()); ++l) {
        const Layer& layer = network_.layers[z(l)];
        const Layout::Place& place = model_.layout().layers[z(l)];
        const bool varies = z(l) + 1 == results_.size() && network_.has_log_variance;
        table.push_back({x_[z(l)], dy_of(l), B_, layer.K, layer.N, place.weight, place.ld, place.bias,
                         varies ? model_.layout().log_variance : -1, static_cast<float>(model_.config().min_variance)});
    }
    if (bound_table_.size() == table.size() &&
        std::memcmp(bound_table_.data(), table.data(), table.size() * sizeof(Wgrad)) == 0)
        return;
    table_.upload(table.data(), static_cast<int64_t>(table.size()));
    bound_table_ = table;
}

void Pass::bind_update(const Goal& goal) {
    const int64_t floats = model_.layout().floats;
    const int multiprocessors = context_->chip().multiprocessors;
    const auto count = [&](TileSize size) {
        int64_t sum = 0;
        for (const Layer& layer : network_.layers) sum += tiles(size, layer.N, layer.K);
        return sum;
    };
    const int64_t tiles_of_all = count(choose(context_->chip(), count));
    // Few tiles and a long batch: pieces of at least 1024 rows, added afterwards in their order.
    const int64_t pieces = std::min<int64_t>({multiprocessors / tiles_of_all, B_ / 1024, kMostPieces});
    const int splits = static_cast<int>(std::max<int64_t>(pieces, 1));
    const bool clips = goal.clip_norm > 0.0, stores = goal.keep || clips || splits > 1;
    if (stores) resize(gradient_, splits * floats, kGradientAdvice);
    const Flat flat{model_.values(), goal.m, goal.v, model_.half(), gradient_.data(), floats};
    if (flat.half != bound_half_) bound_half_ = flat.half, ++generation_;
    const Group group{{},
                      table_.data(),
                      static_cast<int>(network_.layers.size()),
                      splits,
                      (B_ + splits - 1) / splits,
                      stores ? Epilogue::store : goal.epilogue,
                      flat,
                      static_cast<float>(1.0 / B_)};
    add(Kind::wgrad, &Stage::group, group, count);
    if (clips || goal.keep) add(Kind::gather_gradient, &Stage::gather, Gather{{}, flat, splits, norm_parts_.data()});
    if (!stores || goal.keep) return;
    if (clips) add(Kind::clip, &Stage::clip, Clip{{}, norm_parts_.data(), floats, goal.clip_norm, clip_factor_.data()});
    add(Kind::apply, &Stage::apply,
        Apply{{}, flat, clips ? 1 : splits, goal.epilogue, clips ? clip_factor_.data() : nullptr});
}

void Pass::enqueue(int at) {
    const cudaStream_t stream = context_->stream();
    bool forked = false;
    for (Stage& stage : stages_) {
        stage.clock.at = at;
        if (stage.kind == Kind::wgrad && forked) context_->join();
        const cudaStream_t own = stage.beside ? context_->fork() : stream;
        forked |= stage.beside != 0;
        switch (stage.kind) {
            case Kind::read_rows:
                read_rows(stage.read_rows, own);
                break;
            case Kind::forward:
                kernels_.forward(stage.forward, stage.size, own);
                break;
            case Kind::weigh_dimensions:
                weigh_dimensions(stage.dimensions, own);
                break;
            case Kind::sum_losses:
                sum_losses(stage.losses, own);
                break;
            case Kind::dgrad:
                kernels_.dgrad(stage.dgrad, stage.size, own);
                break;
            case Kind::wgrad:
                kernels_.wgrad(stage.group, stage.tiles[static_cast<int>(stage.size)], stage.size, own);
                break;
            case Kind::gather_gradient:
                gather_gradient(stage.gather, own);
                break;
            case Kind::clip:
                clip(stage.clip, own);
                break;
            case Kind::apply:
                apply(stage.apply, own);
                break;
        }
    }
}

}  // namespace fusedvae::cuda
