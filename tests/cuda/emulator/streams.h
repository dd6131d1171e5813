// SPDX-License-Identifier: MIT
//
// A stream is a queue of closures: its work runs when it is given, or with streams=late only when somebody waits for it,
// so that a missing wait shows. A capture collects the same closures, and a graph runs them again.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "errors.h"

namespace emulator {

using Operation = std::function<void()>;

struct Queue {
    std::deque<Operation> waiting;
    int64_t submitted = 0, done = 0;

    void run_until(int64_t position);
    void run() { run_until(submitted); }
};

struct Capture {
    std::vector<Operation> operations;
    EmulatedStream* origin;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false;
};

EmulatedStream* default_stream();
// The stream of a handle, or null.
EmulatedStream* resolve(cudaStream_t handle);
// Gives the stream, or its capture, an operation.
void submit(EmulatedStream* stream, Operation operation);
void run_all_streams();
// What a call returns that may have run operations: a kernel's fault.
cudaError_t finish(const char* name);
cudaError_t no_stream(Call* call);
// Whether a capture is on that forbids the calling thread what may not be captured; such a call invalidates it.
bool capture_forbids_calls();

int current_device();                // the calling thread's
constexpr int kMultiprocessors = 4;  // few: blocks run one after another
size_t shared_limit();               // bytes of a block's shared memory that the architecture has

}  // namespace emulator

struct EmulatedStream {
    int device;
    bool blocking;  // the default stream waits for it
    std::shared_ptr<emulator::Queue> queue = std::make_shared<emulator::Queue>();
    std::shared_ptr<emulator::Capture> capture{};  // null: none
    bool joined = false;                           // its captured work has been waited for
};

struct EmulatedEvent {
    bool timed;
    std::shared_ptr<emulator::Queue> queue{};  // null: never recorded
    int64_t position = 0;                      // of that queue: what it stands for is done
    std::shared_ptr<emulator::Capture> capture{};
    EmulatedStream* stream = nullptr;  // of the capture
    std::shared_ptr<std::chrono::steady_clock::time_point> time{};
};

struct EmulatedGraph {
    std::shared_ptr<const std::vector<emulator::Operation>> operations;
};
