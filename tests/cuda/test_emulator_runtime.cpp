// SPDX-License-Identifier: MIT
//
// The emulated GPU's runtime: streams, graphs, memory, the limits of a launch, and the failures that tests ask for.
#include "emulator/settings.h"
#include "emulator_cases.h"

using namespace emulator_cases;

namespace {

__global__ void add(float* p, float x) { p[threadIdx.x] += x; }

TEST(a_graph_replays_what_was_captured) {
    for (const char* setting : {"", "streams=late"}) {
        const Setting set(setting);
        OnDevice<float> values(std::vector<float>{1, 2, 3});
        float* pinned;
        ok(cudaMallocHost(&pinned, 3 * sizeof(float)));
        cudaStream_t stream, other;
        ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        cudaEvent_t fork, join;
        ok(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
        ok(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));

        ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        ok(start(add, 1, 3, 0, stream, values.p, 10.0f));
        ok(cudaEventRecord(fork, stream));
        ok(cudaStreamWaitEvent(other, fork));
        ok(cudaMemcpyAsync(pinned, values.p, 12, cudaMemcpyDeviceToHost, other));
        ok(cudaEventRecord(join, other));
        ok(cudaStreamWaitEvent(stream, join));
        cudaGraph_t graph;
        ok(cudaStreamEndCapture(stream, &graph));
        CHECK_EQUAL(values.get()[0], 1.0f);  // nothing has run

        cudaGraphExec_t exec;
        ok(cudaGraphInstantiate(&exec, graph));
        ok(cudaGraphDestroy(graph));
        ok(cudaGraphLaunch(exec, stream));
        ok(cudaGraphLaunch(exec, stream));
        ok(cudaStreamSynchronize(stream));
        for (int i = 0; i < 3; ++i) CHECK_EQUAL(pinned[i], 21.0f + static_cast<float>(i));
        ok(cudaGraphExecDestroy(exec));
        ok(cudaFreeHost(pinned));
        for (const cudaEvent_t event : {fork, join}) ok(cudaEventDestroy(event));
        for (const cudaStream_t one : {stream, other}) ok(cudaStreamDestroy(one));
    }
}

TEST(wrong_captures_are_errors) {
    cudaStream_t stream, other;
    ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    cudaEvent_t event;
    ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    cudaGraph_t graph;
    void* p;
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK_EQUAL(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
    CHECK_EQUAL(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    CHECK_EQUAL(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    CHECK_EQUAL(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    ok(cudaEventRecord(event, stream));
    ok(cudaStreamWaitEvent(other, event));
    OnDevice<float> one(1);
    ok(cudaMemsetAsync(one.p, 0, 4, other));
    CHECK_EQUAL(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnjoined);
    ok(cudaEventDestroy(event));
    for (const cudaStream_t each : {stream, other}) ok(cudaStreamDestroy(each));
}

TEST(late_streams_run_when_waited_for) {
    const Setting set("streams=late");
    OnDevice<float> values(std::vector<float>{1});
    float* pinned;
    ok(cudaMallocHost(&pinned, sizeof(float)));
    *pinned = 0;
    cudaStream_t first, second;
    ok(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    cudaEvent_t event;
    ok(cudaEventCreateWithFlags(&event, cudaEventDefault));
    ok(start(add, 1, 1, 0, first, values.p, 10.0f));
    ok(cudaEventRecord(event, first));
    ok(start(add, 1, 1, 0, first, values.p, 100.0f));
    ok(cudaStreamWaitEvent(second, event));
    ok(cudaMemcpyAsync(pinned, values.p, 4, cudaMemcpyDeviceToHost, second));
    CHECK_EQUAL(*pinned, 0.0f);
    float milliseconds;
    CHECK_EQUAL(cudaEventElapsedTime(&milliseconds, event, event), cudaErrorNotReady);
    ok(cudaStreamSynchronize(second));
    CHECK_EQUAL(*pinned, 11.0f);  // what the event stands for, and no more
    ok(cudaEventElapsedTime(&milliseconds, event, event));
    CHECK_EQUAL(milliseconds, 0.0f);
    ok(cudaDeviceSynchronize());
    CHECK_EQUAL(values.get()[0], 111.0f);
    ok(cudaFreeHost(pinned));
    ok(cudaEventDestroy(event));
    for (const cudaStream_t stream : {first, second}) ok(cudaStreamDestroy(stream));
}

TEST(copies_know_both_ends) {
    OnDevice<float> values(4);
    float host[8] = {};
    const auto copy = [](void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
        return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    };
    CHECK_EQUAL(copy(values.p, host, 20, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    CHECK_EQUAL(
        std::string(cudaGetErrorString(cudaErrorInvalidValue)),
        "invalid argument (cudaMemcpyAsync: 20 bytes to the device, given device memory, 0 bytes into an allocation "
        "of 16)");
    CHECK_EQUAL(copy(host, values.p, 16, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    CHECK_EQUAL(copy(values.p, host, 16, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
    CHECK_EQUAL(cudaGetLastError(), cudaErrorInvalidValue);
    CHECK_EQUAL(cudaGetLastError(), cudaSuccess);
    ok(copy(values.p, host, 16, cudaMemcpyDefault));
    ok(copy(host, values.p, 16, cudaMemcpyDefault));
    CHECK_EQUAL(cudaFree(host), cudaErrorInvalidValue);
    CHECK_EQUAL(cudaFree(values.p + 1), cudaErrorInvalidValue);
    cudaPointerAttributes attributes;
    ok(cudaPointerGetAttributes(&attributes, values.p + 2));
    CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
    ok(cudaPointerGetAttributes(&attributes, host));
    CHECK(attributes.type == cudaMemoryTypeUnregistered);
    ok(cudaHostRegister(host, sizeof host, cudaHostRegisterReadOnly));
    CHECK_EQUAL(cudaHostRegister(host + 1, 4, 0), cudaErrorHostMemoryAlreadyRegistered);
    ok(cudaPointerGetAttributes(&attributes, host));
    CHECK(attributes.type == cudaMemoryTypeHost);
    ok(cudaHostUnregister(host));
    CHECK_EQUAL(cudaHostUnregister(host), cudaErrorHostMemoryNotRegistered);
}

__global__ void nothing() {}

TEST(launches_have_limits) {
    CHECK_EQUAL(start(nothing, 1, 1025, 0, nullptr), cudaErrorInvalidConfiguration);
    CHECK_EQUAL(start(nothing, dim3(1, 65536), 32, 0, nullptr), cudaErrorInvalidConfiguration);
    CHECK_EQUAL(start(nothing, 0, 32, 0, nullptr), cudaErrorInvalidConfiguration);
    ok(start(nothing, 1, 32, 227 * 1024, nullptr));
    CHECK_EQUAL(start(nothing, 1, 32, 227 * 1024 + 1, nullptr), cudaErrorInvalidValue);
    const Setting set("architecture=80");
    CHECK_EQUAL(start(nothing, 1, 32, 164 * 1024, nullptr), cudaErrorInvalidValue);
}

TEST(the_environment_chooses_devices_and_failures) {
    int count = 0;
    void* p = nullptr;
    {
        const Setting set("devices=0");
        CHECK_EQUAL(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    }
    {
        const Setting set("driver=12040");
        CHECK_EQUAL(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
        ok(cudaDriverGetVersion(&count));
        CHECK_EQUAL(count, 12040);
    }
    {
        const Setting set("devices=2,architecture=75,memory=1M");
        ok(cudaGetDeviceCount(&count));
        CHECK_EQUAL(count, 2);
        cudaDeviceProp properties;
        ok(cudaGetDeviceProperties(&properties, 1));
        CHECK(properties.major == 7 && properties.minor == 5 && properties.totalGlobalMem == 1 << 20);
        CHECK_EQUAL(cudaSetDevice(2), cudaErrorInvalidDevice);
        ok(cudaMalloc(&p, 1 << 19));
        void* more = nullptr;
        CHECK_EQUAL(cudaMalloc(&more, (1 << 19) + 1), cudaErrorMemoryAllocation);
        size_t free_bytes, total;
        ok(cudaMemGetInfo(&free_bytes, &total));
        CHECK(free_bytes == 1 << 19 && total == 1 << 20);
        ok(cudaSetDevice(1));  // whose memory is its own
        ok(cudaMalloc(&more, 1 << 20));
        ok(cudaFree(more));
        ok(cudaSetDevice(0));
        ok(cudaFree(p));
    }
    {
        const Setting set("fail=cudaMalloc:2");
        ok(cudaMalloc(&p, 4));
        void* more = nullptr;
        CHECK_EQUAL(cudaMalloc(&more, 4), cudaErrorMemoryAllocation);
        ok(cudaMalloc(&more, 4));
        ok(cudaFree(more));
        ok(cudaFree(p));
    }
    CHECK_THROWS(emulator::parse("order=sideways"), std::invalid_argument, "it is forward or backward");
    CHECK_THROWS(emulator::parse("colour=red"), std::invalid_argument, "colour=red");
}

}  // namespace
