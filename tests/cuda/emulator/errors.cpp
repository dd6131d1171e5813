// SPDX-License-Identifier: MIT
#include "errors.h"

#include <cstring>

#include "launch.h"
#include "settings.h"

namespace emulator {

namespace {

std::recursive_mutex& mutex() {
    static auto* const one = new std::recursive_mutex;
    return *one;
}

std::string fault_sentence;
std::string counted_setting;  // the settings that `calls_left` counts for
int calls_left = 0;

thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaError_t explained = cudaSuccess;  // the error which `explanation` explains
thread_local std::string explanation;
thread_local std::string text;  // what cudaGetErrorString returned

void explain(cudaError_t error, const std::string& why) {
    explained = error;
    explanation = why;
}

struct Known {
    cudaError_t error;
    const char *name, *meaning;
};
#define KNOWN(error, meaning) \
    { error, #error, meaning }
constexpr Known kKnown[] = {
    KNOWN(cudaSuccess, "no error"),
    KNOWN(cudaErrorInvalidValue, "invalid argument"),
    KNOWN(cudaErrorMemoryAllocation, "out of memory"),
    KNOWN(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    KNOWN(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    KNOWN(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    KNOWN(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    KNOWN(cudaErrorInvalidDevice, "invalid device ordinal"),
    KNOWN(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    KNOWN(cudaErrorNotReady, "device not ready"),
    KNOWN(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    KNOWN(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped"),
    KNOWN(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    KNOWN(cudaErrorLaunchFailure, "unspecified launch failure"),
    KNOWN(cudaErrorNotSupported, "operation not supported"),
    KNOWN(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    KNOWN(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    KNOWN(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    KNOWN(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    KNOWN(cudaErrorUnknown, "unknown error"),
};
#undef KNOWN

const Known* known(cudaError_t error) {
    for (const Known& one : kKnown)
        if (one.error == error) return &one;
    return nullptr;
}

bool must_fail(const char* name) {
    const Settings& now = settings();
    if (counted_setting != now.source) {
        counted_setting = now.source;
        calls_left = now.fail_call;
    }
    return now.fail == name && --calls_left == 0;
}

}  // namespace

Call::Call(const char* name) : lock_(lock_runtime()), name_(name) {
    if (!fault_sentence.empty()) {
        status_ = last_error = cudaErrorLaunchFailure;
        explain(status_, fault_sentence);
    } else if (must_fail(name)) {
        status_ = fail(static_cast<cudaError_t>(settings().fail_code), "as FUSEDVAE_EMULATED_GPU asks");
    }
}

cudaError_t Call::fail(cudaError_t error, const std::string& why) {
    last_error = error;
    explain(error, std::string(name_) + ": " + why);
    return error;
}

std::unique_lock<std::recursive_mutex> lock_runtime() { return std::unique_lock<std::recursive_mutex>(mutex()); }

void set_fault(const std::string& sentence) {
    if (fault_sentence.empty()) fault_sentence = sentence;
}
bool faulted() { return !fault_sentence.empty(); }

void forget_fault() {
    const auto lock = lock_runtime();
    fault_sentence.clear();
    last_error = cudaSuccess;
}

}  // namespace emulator

using namespace emulator;

const char* cudaGetErrorName(cudaError_t error) {
    const Known* one = known(error);
    return one ? one->name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
    const Known* one = known(error);
    text = one ? one->meaning : "unrecognized error code";
    if (error == explained && error != cudaSuccess) text += " (" + explanation + ")";
    return text.c_str();
}

cudaError_t cudaPeekAtLastError() {
    const auto lock = lock_runtime();
    return faulted() ? cudaErrorLaunchFailure : last_error;
}

cudaError_t cudaGetLastError() {
    const cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}
