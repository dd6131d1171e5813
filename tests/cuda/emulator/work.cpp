// SPDX-License-Identifier: MIT
//
// What streams are given: copies and kernels.
#include <algorithm>
#include <cstring>

#include "errors.h"
#include "launch.h"
#include "memory.h"
#include "settings.h"
#include "streams.h"

namespace emulator {

namespace {

// "" or why the bytes at p cannot be one end of a copy.
std::string check_end(const void* p, size_t bytes, bool on_device, const char* end) {
    const Allocation* allocation = allocations().find(p, bytes);
    const bool fits = on_device ? allocation && allocation->kind == Kind::kDevice : !allocations().in_device_memory(p);
    if (fits) return "";
    return std::to_string(bytes) + " bytes " + end + " " + (on_device ? "the device" : "the host") + ", given " +
           describe(p);
}

cudaError_t copy(Call* call, void* to, const void* from, size_t bytes, cudaMemcpyKind kind, EmulatedStream* stream) {
    if (call->failed()) return call->status();
    if (!stream) return no_stream(call);
    if (bytes == 0) return cudaSuccess;
    auto& memory = allocations();
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault) to_device = memory.in_device_memory(to), from_device = memory.in_device_memory(from);
    for (const std::string& problem :
         {check_end(to, bytes, to_device, "to"), check_end(from, bytes, from_device, "from")})
        if (!problem.empty()) return call->fail(cudaErrorInvalidValue, problem);
    if (!stream->capture) {
        // Memory that is not pinned: a source is read before the call returns, a result is there when it does.
        if (!from_device && !memory.find(from, bytes)) {
            const auto* bytes_of = static_cast<const unsigned char*>(from);
            submit(stream, [to, staged = std::vector<unsigned char>(bytes_of, bytes_of + bytes)] {
                const Allocations::Access access;
                std::memcpy(to, staged.data(), staged.size());
            });
            return finish("cudaMemcpyAsync");
        }
    }
    submit(stream, [to, from, bytes] {
        const Allocations::Access access;
        std::memmove(to, from, bytes);
    });
    if (!stream->capture && !to_device && !memory.find(to, bytes)) stream->queue->run();
    return finish("cudaMemcpyAsync");
}

// Runs the kernel once; "" or what went wrong.
std::string run_once(const Launch& launch, const Operation& body, Order order) {
    const std::string problem = run_grid(launch.grid, launch.block, launch.together, launch.shared_bytes, body, order);
    return problem.empty() ? allocations().check_guards() : problem;
}

std::string run_both_orders(const Launch& launch, const Operation& body) {
    auto& memory = allocations();
    const auto before = memory.contents();
    std::string problem = run_once(launch, body, Order::kForward);
    if (!problem.empty()) return problem;
    const auto forward = memory.contents();
    memory.set_contents(before);
    problem = run_once(launch, body, Order::kBackward);
    if (!problem.empty()) return problem;
    for (const auto& [start, bytes] : memory.contents()) {
        const auto& other = forward.at(start);
        for (size_t i = 0; i < bytes.size(); ++i)
            if (bytes[i] != other[i])
                return "the order of its threads changes byte " + std::to_string(i) + " of an allocation of " +
                       std::to_string(bytes.size());
    }
    return "";
}

void run_kernel(const Launch& launch, const Operation& body) {
    const Allocations::Access access;
    const Settings& now = settings();
    const std::string problem = now.races ? run_both_orders(launch, body) : run_once(launch, body, now.order);
    if (!problem.empty()) set_fault(std::string(launch.name) + ": " + problem);
}

}  // namespace

cudaError_t launch(const Launch& launch, cudaStream_t handle, std::function<void()> body) {
    Call call(launch.name);
    if (call.failed()) return call.status();
    EmulatedStream* stream = resolve(handle);
    if (!stream) return no_stream(&call);
    if (stream->device != current_device())
        return call.fail(cudaErrorInvalidResourceHandle, "the stream is of another device than the current one");
    const dim3 &g = launch.grid, &b = launch.block;
    const bool grid_fits = g.x > 0 && g.y > 0 && g.z > 0 && g.x < 1u << 31 && g.y < 1u << 16 && g.z < 1u << 16;
    const uint64_t threads = uint64_t{b.x} * b.y * b.z;
    if (!grid_fits || threads == 0 || threads > 1024 || b.z > 64)
        return call.fail(cudaErrorInvalidConfiguration, "a grid of " + std::to_string(g.x) + " x " +
                                                            std::to_string(g.y) + " x " + std::to_string(g.z) +
                                                            " blocks of " + std::to_string(threads) + " threads");
    if (launch.together == 0 || uint64_t{g.x} * g.y * g.z % launch.together != 0)
        return call.fail(cudaErrorInvalidConfiguration,
                         "a grid that is not made of " + std::to_string(launch.together) + " blocks at a time");
    if (launch.shared_bytes > shared_limit())
        return call.fail(cudaErrorInvalidValue, std::to_string(launch.shared_bytes) + " bytes of shared memory");
    if (launch.parameter_bytes > 4096)  // what every architecture and driver takes
        return call.fail(cudaErrorInvalidValue, std::to_string(launch.parameter_bytes) + " bytes of parameters");
    submit(stream, [launch, body = std::move(body)] { run_kernel(launch, body); });
    return finish(launch.name);
}

int blocks_per_multiprocessor(int threads, size_t shared_bytes) {
    const size_t each = shared_bytes + 1024;  // the system's own part
    return std::min(2048 / threads, static_cast<int>((shared_limit() + 1024) / each));
}

cudaError_t launch_groups(const Launch& launch, bool clusters, cudaStream_t stream, std::function<void()> body) {
    Call call(launch.name);
    if (call.failed()) return call.status();
    if (clusters && settings().architecture < 90)
        return call.fail(cudaErrorNotSupported, "clusters need compute capability 9.0");
    if (clusters && launch.together > 8)
        return call.fail(cudaErrorInvalidConfiguration, "a cluster of " + std::to_string(launch.together) + " blocks");
    const int room =
        kMultiprocessors * blocks_per_multiprocessor(static_cast<int>(launch.block.x), launch.shared_bytes);
    if (!clusters && launch.grid.x > static_cast<unsigned>(room))
        return call.fail(cudaErrorCooperativeLaunchTooLarge, std::to_string(launch.grid.x) + " blocks at once, where " +
                                                                 std::to_string(room) + " have room");
    return emulator::launch(launch, stream, std::move(body));
}

}  // namespace emulator

using namespace emulator;

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    Call call("cudaMemcpy");
    if (!call.failed() && capture_forbids_calls())
        return call.fail(cudaErrorStreamCaptureUnsupported, "a stream is captured");
    return copy(&call, to, from, bytes, kind, default_stream());
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    Call call("cudaMemcpyAsync");
    return copy(&call, to, from, bytes, kind, resolve(stream));
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t handle) {
    Call call("cudaMemsetAsync");
    if (call.failed()) return call.status();
    EmulatedStream* stream = resolve(handle);
    if (!stream) return no_stream(&call);
    if (bytes == 0) return cudaSuccess;
    const std::string problem = check_end(to, bytes, true, "on");
    if (!problem.empty()) return call.fail(cudaErrorInvalidValue, problem);
    submit(stream, [to, value, bytes] {
        const Allocations::Access access;
        std::memset(to, value, bytes);
    });
    return finish("cudaMemsetAsync");
}
