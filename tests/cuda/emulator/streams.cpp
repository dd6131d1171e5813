// SPDX-License-Identifier: MIT
//
// Streams, events and graphs.
#include "streams.h"

#include <set>

#include "settings.h"

namespace emulator {

namespace {
std::set<EmulatedStream*> streams;  // all but the default one
}

void Queue::run_until(int64_t position) {
    while (done < position && !waiting.empty()) {
        const Operation operation = std::move(waiting.front());
        waiting.pop_front();
        if (!faulted()) operation();
        ++done;
    }
}

EmulatedStream* default_stream() {
    static auto* const one = new EmulatedStream{0, false};
    one->device = current_device();
    return one;
}

EmulatedStream* resolve(cudaStream_t handle) {
    if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) return default_stream();
    return streams.count(handle) ? handle : nullptr;
}

void submit(EmulatedStream* stream, Operation operation) {
    stream->joined = false;
    if (stream->capture) {
        stream->capture->operations.push_back(std::move(operation));
        return;
    }
    const bool is_default = streams.count(stream) == 0;
    if (is_default)
        for (EmulatedStream* other : streams)
            if (other->blocking) other->queue->run();
    stream->queue->waiting.push_back(std::move(operation));
    ++stream->queue->submitted;
    if (is_default || !settings().late_streams) stream->queue->run();
}

cudaError_t finish(const char* name) { return faulted() ? Call(name).status() : cudaSuccess; }

cudaError_t no_stream(Call* call) { return call->fail(cudaErrorInvalidResourceHandle, "no such stream"); }

void run_all_streams() {
    for (EmulatedStream* stream : streams) stream->queue->run();
    default_stream()->queue->run();
}

bool capture_forbids_calls() {
    for (EmulatedStream* stream : streams) {
        if (!stream->capture) continue;
        const bool global = stream->capture->mode == cudaStreamCaptureModeGlobal;
        const bool own = stream->capture->mode == cudaStreamCaptureModeThreadLocal &&
                         stream->capture->thread == std::this_thread::get_id();
        if (!global && !own) continue;
        stream->capture->invalid = true;
        return true;
    }
    return false;
}

}  // namespace emulator

using namespace emulator;

cudaError_t cudaDeviceSynchronize() {
    Call call("cudaDeviceSynchronize");
    if (call.failed()) return call.status();
    if (capture_forbids_calls()) return call.fail(cudaErrorStreamCaptureUnsupported, "a stream is captured");
    run_all_streams();
    return finish("cudaDeviceSynchronize");
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    Call call("cudaStreamCreateWithFlags");
    if (call.failed()) return call.status();
    *stream = new EmulatedStream{current_device(), flags != cudaStreamNonBlocking};
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    Call call("cudaStreamDestroy");
    if (call.failed()) return call.status();
    if (!streams.count(stream)) return no_stream(&call);
    stream->queue->run();  // events may go on waiting for it
    streams.erase(stream);
    delete stream;
    return finish("cudaStreamDestroy");
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    Call call("cudaStreamSynchronize");
    if (call.failed()) return call.status();
    EmulatedStream* stream = resolve(handle);
    if (!stream) return no_stream(&call);
    if (stream->capture) {
        stream->capture->invalid = true;
        return call.fail(cudaErrorStreamCaptureUnsupported, "the stream is being captured");
    }
    stream->queue->run();
    return finish("cudaStreamSynchronize");
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    Call call("cudaEventCreateWithFlags");
    if (call.failed()) return call.status();
    *event = new EmulatedEvent{(flags & cudaEventDisableTiming) == 0};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    Call call("cudaEventDestroy");
    delete event;
    return call.status();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    Call call("cudaEventRecord");
    if (call.failed()) return call.status();
    EmulatedStream* stream = resolve(handle);
    if (!stream) return no_stream(&call);
    event->capture = stream->capture;
    event->stream = stream;
    if (stream->capture) return cudaSuccess;
    event->time = std::make_shared<std::chrono::steady_clock::time_point>();
    submit(stream, [time = event->time] { *time = std::chrono::steady_clock::now(); });
    event->queue = stream->queue;
    event->position = stream->queue->submitted;
    return finish("cudaEventRecord");
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned /*flags*/) {
    Call call("cudaStreamWaitEvent");
    if (call.failed()) return call.status();
    EmulatedStream* stream = resolve(handle);
    if (!stream) return no_stream(&call);
    if (event->capture) {
        if (stream->capture && stream->capture != event->capture)
            return call.fail(cudaErrorStreamCaptureIsolation, "the event is of another capture");
        stream->capture = event->capture;  // the stream's work belongs to the capture from here on
        event->stream->joined = true;
        return cudaSuccess;
    }
    if (stream->capture)
        return call.fail(cudaErrorStreamCaptureIsolation, "the event was recorded outside the capture");
    if (!event->queue) return cudaSuccess;
    submit(stream, [queue = event->queue, position = event->position] { queue->run_until(position); });
    return finish("cudaStreamWaitEvent");
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Call call("cudaEventSynchronize");
    if (call.failed()) return call.status();
    if (event->capture) return call.fail(cudaErrorStreamCaptureUnsupported, "the event is of a capture");
    if (event->queue) event->queue->run_until(event->position);
    return finish("cudaEventSynchronize");
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    Call call("cudaEventElapsedTime");
    if (call.failed()) return call.status();
    for (const cudaEvent_t event : {start, end}) {
        if (!event->timed || !event->queue) return call.fail(cudaErrorInvalidResourceHandle, "an event has no time");
        if (event->queue->done < event->position) return call.fail(cudaErrorNotReady, "an event has not happened");
    }
    *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    Call call("cudaStreamBeginCapture");
    if (call.failed()) return call.status();
    if (!streams.count(handle) || handle->capture)
        return call.fail(cudaErrorStreamCaptureUnsupported, "the default stream, or one that is being captured");
    handle->capture = std::make_shared<Capture>();
    handle->capture->origin = handle;
    handle->capture->mode = mode;
    handle->capture->thread = std::this_thread::get_id();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    Call call("cudaStreamEndCapture");
    *graph = nullptr;
    if (!streams.count(handle) || !handle->capture || handle->capture->origin != handle)
        return call.fail(cudaErrorInvalidValue, "no capture began on this stream");
    const std::shared_ptr<Capture> capture = handle->capture;
    bool joined = true;
    for (EmulatedStream* stream : streams) {
        if (stream->capture != capture) continue;
        joined = joined && (stream == handle || stream->joined);
        stream->capture = nullptr;
    }
    if (call.failed()) return call.status();
    if (capture->invalid)
        return call.fail(cudaErrorStreamCaptureInvalidated, "a call that may not be captured was made");
    if (!joined)
        return call.fail(cudaErrorStreamCaptureUnjoined, "no event of the other stream's last work was waited for");
    *graph = new EmulatedGraph{std::make_shared<const std::vector<Operation>>(std::move(capture->operations))};
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long /*flags*/) {
    Call call("cudaGraphInstantiate");
    *exec = nullptr;
    if (call.failed()) return call.status();
    *exec = new EmulatedGraph{graph->operations};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
    Call call("cudaGraphLaunch");
    if (call.failed()) return call.status();
    EmulatedStream* stream = resolve(handle);
    if (!stream) return no_stream(&call);
    submit(stream, [operations = exec->operations] {
        for (const Operation& operation : *operations)
            if (!faulted()) operation();
    });
    return finish("cudaGraphLaunch");
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    Call call("cudaGraphExecDestroy");
    delete exec;
    return call.status();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    Call call("cudaGraphDestroy");
    delete graph;
    return call.status();
}
