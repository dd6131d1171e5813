// SPDX-License-Identifier: MIT
//
// A GPU, a model's parameters on it, and training steps there. csrc/cuda implements these classes; csrc/no_cuda has the
// same static functions, which say that the library was built without CUDA. No CUDA header is needed to use them.
//
// Rows and results lie on the host, or on the model's device where a flag says so (Rows::on_device beside Rows::data). Host
// results are there on return; device results are ordered before whatever Device::release_to is told of. Callers check
// host rows (Rows::check_all) and device rows (Device::find_bad) first. Every call may be made from any thread; calls on
// one device model wait for each other.
//
// What fails throws std::invalid_argument (the caller's fault) or Error, with one sentence: no driver, a driver too old,
// no such index, compute capability below 8.0, out of memory (what was wanted, what is free, what to lower: the process
// stays usable), and failures of earlier work, which name the kernel that was launched.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "../layer/gemm.h"
#include "../model/config.h"
#include "../model/network.h"
#include "../model/options.h"
#include "../model/rows.h"

namespace fusedvae {

// What products on a device compute in; sums, parameters, moments and losses are float32 in all of them.
enum class Precision {
    float32,   // fused multiply-adds on floats
    tf32,      // tensor cores: factors rounded to 11 significant bits
    bfloat16,  // tensor cores: factors rounded to 8
};

class Device {
  public:
    // Devices that can be opened by index; 0 without CUDA, driver or GPU (open then says which).
    static int count();
    static std::shared_ptr<Device> open(int index);
    virtual ~Device() = default;

    virtual int index() const = 0;
    virtual std::string name() const = 0;
    virtual int capability() const = 0;  // 80, 90, ..
    virtual int64_t bytes() const = 0;   // of its memory
    virtual int64_t free_bytes() const = 0;

    // `stream` is a cudaStream_t of the caller's (NULL: the default stream). What is asked of this device next begins after
    // what the stream holds now; or what the stream is given next begins after what was asked.
    virtual void wait_for(void* stream) = 0;
    virtual void release_to(void* stream) = 0;
    virtual void synchronize() = 0;

    // Memory on the device for results that stay there. Copies are done on return.
    virtual void* allocate(size_t bytes) = 0;
    virtual void free(void* memory) noexcept = 0;
    virtual void upload(void* device, const void* host, size_t bytes) = 0;
    virtual void download(void* host, const void* device, size_t bytes) = 0;
    // The device that a pointer belongs to; -1: host memory.
    static int device_of(const void* pointer);

    // Rows::check_row for rows on the device: row * columns + column of the first value that is not finite or lies outside
    // [low, high], -1 where all are well.
    virtual int64_t find_bad(const Rows& rows) = 0;
};

// Plain parameters are all of them as outside, (out, in) row-major, one after another in network.parameters' order.
int64_t plain_floats(const Network& network);

class DeviceModel {
  public:
    // config and network must outlive it.
    static std::unique_ptr<DeviceModel> make(std::shared_ptr<Device> device, const Config& config,
                                             const Network& network);
    virtual ~DeviceModel() = default;
    virtual const std::shared_ptr<Device>& device() const = 0;
    virtual int64_t bytes() const = 0;  // of device memory, workspaces included

    virtual void upload(const float* plain) = 0;
    virtual void download(float* plain) const = 0;

    // In float32 unless told otherwise. Either of mu and logvar (n, Z) may be NULL.
    virtual void set_precision(Precision precision) = 0;
    virtual void encode(const Rows& x, float* mu, float* logvar, bool on_device) = 0;
    // z (n, Z): `rows` dense rows -> mean (n, D). Columns' tables are not applied: mean is what the network puts out.
    virtual void decode(const Rows& z, float* mean, bool on_device) = 0;
    virtual void reconstruct(const Rows& x, float* mean, bool on_device) = 0;
    // (n) nats each, as Model's of the same names, Jacobian included.
    virtual void elbo(const Rows& x, int64_t samples, uint64_t seed, double* result, bool on_device) = 0;
    virtual void log_likelihood(const Rows& x, int64_t samples, uint64_t seed, double* result, bool on_device) = 0;
};

// What one training step needs beside its rows.
struct StepScalars {
    Update update;
    Stream noise;  // kTrain at (seed, step)
    double beta;
};
// The step that follows `done` earlier ones.
inline StepScalars scalars_at(const fvae_trainer_options& options, int64_t done) {
    return {update_at(options, done), make_stream(options.seed, static_cast<uint64_t>(done), kTrain),
            beta_at(options, done)};
}

// Trainings on one device at the same time, each on a thread of its own: those of their runs that come together are one
// launch of many steps of all, and rows that several hold are there once.
class DeviceEnsemble {
  public:
    static std::shared_ptr<DeviceEnsemble> make(int device);
    virtual ~DeviceEnsemble() = default;
};

// Training steps on a device model: moments, batches, graphs. Of the options it reads optimizer, momentum (whether there is
// one), clip_norm, free_bits and batch_size; the rest travels in StepScalars.
class DeviceStep {
  public:
    static std::unique_ptr<DeviceStep> make(DeviceModel& model, const fvae_trainer_options& options,
                                            Precision precision);
    virtual ~DeviceStep() = default;
    virtual int64_t bytes() const = 0;
    // The following runs are an ensemble's; NULL: no more, and the rows are given up. The bits are the same.
    virtual void join(std::shared_ptr<DeviceEnsemble> ensemble) = 0;
    // In an ensemble a run lies between these. meet waits, not for long, for the others to come to theirs: the caller
    // holds no lock meanwhile that they could need. Any thread's run then waits for all that have met.
    virtual void meet() = 0;
    virtual void part() noexcept = 0;
    // Steps for the next run, of `left` from first_batch on: as many as the ensemble runs at once, else `most`.
    virtual int64_t at_once(int64_t first_batch, int64_t left, int64_t most) const = 0;

    // The data set of the following epochs: kept on the device where it fits, else read from `x` batch by batch through
    // pinned memory while the batch before computes. `x` must outlive the use; rows with `streamed` are checked as they
    // are read.
    virtual void hold(const Rows& x) = 0;
    // The epoch's rows (count): batch i takes index[i * batch_size ..]. Copied.
    virtual void set_order(const uint32_t* index, int64_t count) = 0;
    // `count` consecutive batches from first_batch on. Returns the steps done: fewer than count where a loss (or, with
    // clipping, a gradient's norm) is not finite; nothing is updated from that step on. losses (count): those of the steps
    // done, and of the one that failed.
    virtual int64_t run(int64_t first_batch, int64_t count, const StepScalars* scalars, fvae_losses* losses) = 0;
    // One step on rows of any number. noise (B, Z) on the host, or NULL: drawn from the scalars' stream. False: not updated.
    virtual bool step(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses) = 0;
    // Row-weighted losses, Trainer::evaluate's, in batches of batch_size at stream (seed, kEvaluate); float32 products.
    virtual fvae_losses evaluate(const Rows& rows, uint64_t seed, double beta) = 0;
    // Loss and gradients (plain floats) of one batch: nothing is updated.
    virtual bool gradients(const Rows& batch, const float* noise, const StepScalars& scalars, fvae_losses* losses,
                           float* plain) = 0;

    // In plain parameters' order; v or m may be NULL where the optimiser has none.
    virtual void upload_moments(const float* m, const float* v) = 0;
    virtual void download_moments(float* m, float* v) const = 0;
};

}  // namespace fusedvae
