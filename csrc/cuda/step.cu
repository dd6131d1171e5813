// SPDX-License-Identifier: MIT
#include "step.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "../backend/platform.h"
#include "losses.h"

namespace fusedvae::cuda {

namespace {

constexpr int kGraphSteps = 32;  // long enough that a graph's launch is nothing beside its steps

size_t z(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

StepOnDevice::StepOnDevice(ModelOnDevice& model, const fvae_trainer_options& options, Precision precision)
    : model_(model),
      context_(model.context()),
      options_(options),
      precision_(precision),
      pass_(model, precision, options.free_bits),
      m_(context_, has_m(options) ? model.layout().floats : 0, "the optimiser's first moments"),
      v_(context_, has_v(options) ? model.layout().floats : 0, "the optimiser's second moments"),
      scalars_(context_, kMostSteps, "the steps' scalars"),
      losses_(context_, kMostSteps, "the steps' losses"),
      progress_(context_, 1, "the steps' progress"),
      runner_(context_) {}

StepOnDevice::~StepOnDevice() {
    join(nullptr);
    forget_graphs();
}

// ---- in an ensemble --------------------------------------------------------------------------------------------------------

void StepOnDevice::join(std::shared_ptr<DeviceEnsemble> ensemble) {
    if (entered_) ensemble_->leave();
    entered_ = false;
    if (ensemble_) held_.reset(), x_ = nullptr;  // the others' too
    ensemble_ = std::static_pointer_cast<EnsembleOnDevice>(std::move(ensemble));
    if (ensemble_ && ensemble_->index() != context_->index()) ensemble_.reset();
}

bool StepOnDevice::in_company() const { return ensemble_ && held_ && fits_program() && !ways_.forced(Ways::graphs); }

void StepOnDevice::meet() {
    if (!in_company()) return;
    if (!entered_) ensemble_->enter();
    entered_ = true;
    ensemble_->meet();
    met_ = true;
}

void StepOnDevice::part() noexcept {
    if (met_) ensemble_->pass();  // without a run, which something has prevented
    met_ = false;
}

int64_t StepOnDevice::at_once(int64_t first_batch, int64_t left, int64_t most) const {
    if (!in_company()) return std::min(left, most);
    const int64_t count = std::min(left, ensemble_->most());
    const bool short_one = batch_rows(first_batch + count - 1) < batch_rows(first_batch);
    return short_one ? count - 1 : count;  // the last batch of an epoch is a run of its own
}

int64_t StepOnDevice::bytes() const {
    const size_t own = m_.bytes() + v_.bytes() + scalars_.bytes() + losses_.bytes() + staged_.bytes() + noise_.bytes() +
                       order_.bytes() + program_.bytes();
    return static_cast<int64_t>(own) + pass_.bytes() + (held_ ? held_->bytes() : 0) +
           (scoring_ ? scoring_->bytes() : 0) + (streamed_ ? streamed_->bytes() : 0);
}

void StepOnDevice::forget_graphs() {
    for (const auto& graph : graphs_) cudaGraphExecDestroy(graph.second);
    graphs_.clear();
}

int StepOnDevice::batch_rows(int64_t batch) const {
    const auto rows = static_cast<int64_t>(host_order_.size());
    return static_cast<int>(std::min(options_.batch_size, rows - batch * options_.batch_size));
}

// Of whole batches; a short one goes the same way.
bool StepOnDevice::fits_program() const {
    return cuda::fits_program(context_->chip(), model_.network(), batch_rows(0));
}

Pass::Goal StepOnDevice::goal(bool keep) const {
    return {update_epilogue(options_), keep, keep ? 0.0 : options_.clip_norm, m_.data(), v_.data()};
}

// ---- the data set --------------------------------------------------------------------------------------------------------

void StepOnDevice::hold(const Rows& x) {
    const std::lock_guard lock(model_.mutex());
    context_->use();
    forget_graphs();
    streamed_.reset();  // its buffers have the last data's size
    x_ = &x;
    held_.reset();
    const auto make = [&] { return hold_rows(model_, x, staged_); };
    held_ = ensemble_ ? ensemble_->held(x, make) : make();
}

void StepOnDevice::set_order(const uint32_t* index, int64_t count) {
    const std::lock_guard lock(model_.mutex());
    context_->use();
    host_order_.assign(index, index + count);
    if (order_.count() < count) {
        forget_graphs();
        order_ = Buffer<uint32_t>(context_, count, "the epoch's order");
    }
    order_.upload(index, count);
}

// ---- runs ----------------------------------------------------------------------------------------------------------------

void StepOnDevice::set_scalars(const StepScalars* scalars, int64_t first_batch, int64_t count) {
    std::vector<Scalars> all(z(count));
    for (int64_t i = 0; i < count; ++i) {
        const StepScalars& s = scalars[i];
        const int64_t first_row = (first_batch + i) * options_.batch_size;
        const int rows = host_order_.empty() ? 1 : batch_rows(first_batch + i);
        all[z(i)] = {s.update, s.noise, s.beta, static_cast<float>(s.beta / rows), first_row};
    }
    scalars_.upload(all.data(), count);
    const Progress start{0, 0};
    progress_.upload(&start, 1);
}

// Waits for `count` steps; returns how many were done, and the losses of those and of one that failed.
int64_t StepOnDevice::finish(int64_t count, fvae_losses* losses) {
    Progress progress;
    progress_.download(&progress, 1);
    std::vector<Losses> all(z(count));
    losses_.download(all.data(), count);
    const int64_t done = progress.failed ? progress.failed - 1 : count;
    for (int64_t i = 0; i < std::min(count, done + 1); ++i)
        losses[i] = {all[z(i)].loss, all[z(i)].reconstruction, all[z(i)].kl};
    return done;
}

int64_t StepOnDevice::run(int64_t first_batch, int64_t count, const StepScalars* scalars, fvae_losses* losses) {
    const std::lock_guard lock(model_.mutex());
    context_->use();
    if (!x_ || host_order_.empty()) throw std::logic_error("run needs hold and set_order before it");
    int64_t done = 0;
    while (done < count) {
        const int64_t n = std::min(kMostSteps, count - done);
        set_scalars(scalars + done, first_batch + done, n);
        const int64_t now =
            held_ ? run_held(first_batch + done, n, losses + done) : run_streamed(first_batch + done, n, losses + done);
        done += now;
        if (now < n) break;
    }
    return done;
}

// `steps` steps of the bound batch, captured once.
void StepOnDevice::replay(int steps) {
    if (graphs_of_ != pass_.generation()) {
        forget_graphs();
        graphs_of_ = pass_.generation();
    }
    const cudaStream_t stream = context_->stream();
    cudaGraphExec_t& ready = graphs_[steps];
    if (!ready) {
        cudaGraph_t graph = nullptr;
        // Relaxed: a kernel's code is loaded at its first launch, which drivers before CUDA 12.3 refuse in other modes.
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
        try {
            for (int at = 0; at < steps; ++at) pass_.enqueue(at);
            advance(clock(), steps, stream);
        } catch (...) {
            cudaStreamEndCapture(stream, &graph);
            if (graph) cudaGraphDestroy(graph);
            cudaGetLastError();
            throw;
        }
        check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
        const cudaError_t status = cudaGraphInstantiate(&ready, graph, 0);
        cudaGraphDestroy(graph);
        check(status, "cudaGraphInstantiate");
    }
    check(cudaGraphLaunch(ready, stream), "cudaGraphLaunch");
}

// The bound batch's program.
void StepOnDevice::run_program(int steps) {
    const std::vector<Stage>& stages = pass_.stages();
    const auto count = static_cast<int64_t>(stages.size());
    if (program_.count() < count) program_ = Buffer<Stage>(context_, count, "the steps' program");
    program_.upload(stages.data(), count);  // which also waits for all that went before
    const Run run = make_run(pass_.kernels(), stages, program_.data(), steps, progress_.data());
    if (!met_) return runner_.run({run});
    met_ = false;
    ensemble_->run(run);
}

// `steps` of the bound batch, at most kGraphSteps.
void StepOnDevice::run_graphs(int rows, int steps) {
    if (steps == kGraphSteps && rows == options_.batch_size) return replay(steps);
    for (int i = 0; i < steps; ++i) {
        if (rows == options_.batch_size) {
            replay(1);
        } else {  // the last batch of an epoch, which a graph would serve once
            pass_.enqueue(0);
            advance(clock(), 1, context_->stream());
        }
    }
}

// `count` steps of the bound batch.
void StepOnDevice::run_alike(int rows, int64_t count) {
    if (met_) return run_program(static_cast<int>(count));
    const bool fits = fits_program();
    const int64_t batches = static_cast<int64_t>(host_order_.size()) / options_.batch_size;
    const int64_t enough = std::clamp<int64_t>(batches, 1, kGraphSteps);  // steps to measure
    for (int64_t left = count; left > 0;) {
        const bool tries = fits && !ways_.decided() && left >= enough && rows == batch_rows(0);
        const Ways::Way way = fits ? ways_.next() : Ways::graphs;
        const bool whole = way == Ways::programs && !tries;
        const int piece = static_cast<int>(whole ? left : std::min<int64_t>(left, kGraphSteps));
        const double began = tries ? platform::seconds() : 0.0;
        if (way == Ways::programs)
            run_program(piece);
        else
            run_graphs(rows, piece);
        left -= piece;
        if (!tries) continue;
        context_->synchronize();
        ways_.measured(way, (platform::seconds() - began) / piece);
    }
}

int64_t StepOnDevice::run_held(int64_t first_batch, int64_t count, fvae_losses* losses) {
    Source gathered = held_->source;
    gathered.index = order_.data();
    const int whole = batch_rows(first_batch), last = batch_rows(first_batch + count - 1);
    const int64_t alike = last == whole ? count : count - 1;
    const auto run = [&](int rows, int64_t steps) {
        const Pass::Goal update = goal(false);
        pass_.bind({gathered, rows, {}, true}, clock(), &update, losses_.data());
        run_alike(rows, steps);
    };
    run(whole, alike);
    if (alike < count) run(last, 1);
    return finish(count, losses);
}

int64_t StepOnDevice::run_streamed(int64_t first_batch, int64_t count, fvae_losses* losses) {
    const int64_t ld = padded(x_->width), size = options_.batch_size * ld;
    if (!streamed_) streamed_ = std::make_unique<BatchStream>(context_, std::min<int64_t>(size, x_->count * ld));
    int64_t given = 0;
    for (; given < count; ++given) {
        const int rows = batch_rows(first_batch + given);
        const uint32_t* index = host_order_.data() + (first_batch + given) * options_.batch_size;
        const float* x;
        try {
            x = streamed_->next(rows * ld, [&](float* host) { stage_rows(*x_, index, 0, rows, host); });
        } catch (
            const std::invalid_argument&) {  // a bad row: the steps before it stand, and the next run meets it first
            if (given == 0) throw;
            break;
        }
        const Source source{x, RowType::float32, ld * static_cast<int64_t>(sizeof(float)), 1, 1.0f, nullptr, true};
        const Pass::Goal update = goal(false);
        pass_.bind({source, rows, {}, true}, clock(), &update, losses_.data());
        pass_.enqueue(0);
        advance(clock(), 1, context_->stream());
        streamed_->done();
    }
    return finish(given, losses);
}

// ---- single batches ------------------------------------------------------------------------------------------------------

bool StepOnDevice::one(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses,
                       bool keep) {
    context_->use();
    const int B = static_cast<int>(batch.count), Z = model_.network().Z;
    Noise given{};
    given.stream = scalars.noise;
    if (noise) {
        if (noise_.count() < int64_t{B} * Z) noise_ = Buffer<float>(context_, int64_t{B} * Z, "a batch's noise");
        noise_.upload(noise, int64_t{B} * Z);
        given.given = noise_.data();
        given.given_stride = Z;
    }
    const Scalars all{scalars.update, scalars.noise, scalars.beta, static_cast<float>(scalars.beta / B), 0};
    const Progress start{0, 0};
    scalars_.upload(&all, 1);
    progress_.upload(&start, 1);
    const Pass::Goal what = goal(keep);
    pass_.bind({model_.source(batch, 0, B, staged_), B, given, false}, clock(), &what, losses_.data());
    pass_.enqueue(0);
    return finish(1, losses) == 1;
}

bool StepOnDevice::step(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses) {
    const std::lock_guard lock(model_.mutex());
    return one(batch, noise, scalars, losses, false);
}

bool StepOnDevice::gradients(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses,
                             float* plain) {
    const std::lock_guard lock(model_.mutex());
    if (!one(batch, noise, scalars, losses, true)) return false;
    std::vector<float> flat(z(model_.layout().floats));
    pass_.gradient().download(flat.data(), model_.layout().floats);
    model_.layout().unpack(model_.network(), flat.data(), plain);
    return true;
}

fvae_losses StepOnDevice::evaluate(const Rows& rows, uint64_t seed, double beta) {
    const std::lock_guard lock(model_.mutex());
    context_->use();
    if (!scoring_) scoring_.emplace(model_, Precision::float32, options_.free_bits);
    const int64_t size = std::min<int64_t>(rows.count, options_.batch_size), batches = (rows.count + size - 1) / size;
    const std::vector<Scalars> scalars(z(std::min(batches, kMostSteps)), Scalars{{}, {}, beta, 0.0f, 0});
    const Progress start{0, 0};
    scalars_.upload(scalars.data(), static_cast<int64_t>(scalars.size()));
    progress_.upload(&start, 1);
    fvae_losses sum{0.0, 0.0, 0.0};
    for (int64_t batch = 0, n; batch < batches; batch += n) {
        n = std::min(kMostSteps, batches - batch);
        const auto rows_of = [&](int64_t i) { return std::min(size, rows.count - (batch + i) * size); };
        for (int64_t i = 0; i < n; ++i) {
            const int64_t first = (batch + i) * size;
            const Noise noise{nullptr, 0, make_stream(seed, 0, kEvaluate), static_cast<uint32_t>(first)};
            const Source source = model_.source(rows, first, rows_of(i), staged_);
            scoring_->bind({source, static_cast<int>(rows_of(i)), noise, false}, clock(), nullptr, losses_.data());
            scoring_->enqueue(static_cast<int>(i));
        }
        std::vector<Losses> all(z(n));
        losses_.download(all.data(), n);
        for (int64_t i = 0; i < n; ++i) {
            const double weight = static_cast<double>(rows_of(i)) / static_cast<double>(rows.count);
            sum.loss += all[z(i)].loss * weight;
            sum.reconstruction += all[z(i)].reconstruction * weight;
            sum.kl += all[z(i)].kl * weight;
        }
    }
    return sum;
}

// ---- moments -------------------------------------------------------------------------------------------------------------

void StepOnDevice::upload_moments(const float* m, const float* v) {
    const std::lock_guard lock(model_.mutex());
    context_->use();
    std::vector<float> flat(z(model_.layout().floats));
    const auto upload = [&](const float* plain, Buffer<float>& buffer) {
        if (!plain || buffer.count() == 0) return;
        model_.layout().pack(model_.network(), plain, flat.data());
        buffer.upload(flat.data(), buffer.count());
    };
    upload(m, m_);
    upload(v, v_);
}

void StepOnDevice::download_moments(float* m, float* v) const {
    const std::lock_guard lock(model_.mutex());
    context_->use();
    if (m && m_.count() > 0) model_.layout().unpack(model_.network(), m_.download().data(), m);
    if (v && v_.count() > 0) model_.layout().unpack(model_.network(), v_.download().data(), v);
}

}  // namespace fusedvae::cuda

namespace fusedvae {

std::unique_ptr<DeviceStep> DeviceStep::make(DeviceModel& model, const fvae_trainer_options& options,
                                             Precision precision) {
    auto& on_device = static_cast<cuda::ModelOnDevice&>(model);
    on_device.context()->use();
    return std::make_unique<cuda::StepOnDevice>(on_device, options, precision);
}

}  // namespace fusedvae
