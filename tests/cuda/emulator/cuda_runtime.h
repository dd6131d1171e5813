// SPDX-License-Identifier: MIT
//
// The part of CUDA's runtime that this project uses, as a machine without GPU can give it: for tests only. Device memory
// is host memory set apart (memory.h), kernels run as fibers (block.h), streams are queues (streams.cpp), and
// FUSEDVAE_EMULATED_GPU (settings.h) chooses orders and failures. Values of the enumerations are CUDA's.
//
// A wrong call returns an error, as CUDA's does; cudaGetErrorString adds in parentheses what was wrong. A fault in a
// kernel (a barrier that a thread never reaches, a write outside an allocation, ...) is cudaErrorLaunchFailure from then
// on, with the fault's sentence.
#pragma once
#include <cstddef>

#include "device_code.h"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorHostMemoryAlreadyRegistered = 712,
    cudaErrorHostMemoryNotRegistered = 713,
    cudaErrorLaunchFailure = 719,
    cudaErrorCooperativeLaunchTooLarge = 720,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
    cudaErrorUnknown = 999,
};

enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4,
};
enum cudaMemoryType {
    cudaMemoryTypeUnregistered = 0,
    cudaMemoryTypeHost = 1,
    cudaMemoryTypeDevice = 2,
    cudaMemoryTypeManaged = 3,
};
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal = 0,
    cudaStreamCaptureModeThreadLocal = 1,
    cudaStreamCaptureModeRelaxed = 2,
};
enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2;
constexpr unsigned cudaHostRegisterDefault = 0, cudaHostRegisterPortable = 1, cudaHostRegisterReadOnly = 8;
constexpr unsigned cudaHostAllocDefault = 0, cudaHostAllocPortable = 1;

using cudaStream_t = struct EmulatedStream*;
using cudaEvent_t = struct EmulatedEvent*;
using cudaGraph_t = struct EmulatedGraph*;
using cudaGraphExec_t = struct EmulatedGraph*;

#define cudaStreamLegacy (reinterpret_cast<cudaStream_t>(1))
#define cudaStreamPerThread (reinterpret_cast<cudaStream_t>(2))

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, l2CacheSize, cooperativeLaunch;
};
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};

// Visible from outside the library: tests of its Python face bring memory and streams of their own.
#define EMULATED __attribute__((visibility("default")))
extern "C" {
EMULATED cudaError_t cudaGetDeviceCount(int* count);
EMULATED cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
EMULATED cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
EMULATED cudaError_t cudaDriverGetVersion(int* version);
EMULATED cudaError_t cudaRuntimeGetVersion(int* version);
EMULATED cudaError_t cudaSetDevice(int device);
EMULATED cudaError_t cudaGetDevice(int* device);
EMULATED cudaError_t cudaDeviceSynchronize();
EMULATED cudaError_t cudaMemGetInfo(size_t* free, size_t* total);

EMULATED cudaError_t cudaMalloc(void** p, size_t bytes);
EMULATED cudaError_t cudaFree(void* p);
EMULATED cudaError_t cudaMallocHost(void** p, size_t bytes);
EMULATED cudaError_t cudaFreeHost(void* p);
EMULATED cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned flags);
EMULATED cudaError_t cudaHostUnregister(void* p);
EMULATED cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p);

EMULATED cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
EMULATED cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                     cudaStream_t stream);
EMULATED cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream);

EMULATED cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
EMULATED cudaError_t cudaStreamDestroy(cudaStream_t stream);
EMULATED cudaError_t cudaStreamSynchronize(cudaStream_t stream);
EMULATED cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
EMULATED cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
EMULATED cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
EMULATED cudaError_t cudaEventSynchronize(cudaEvent_t event);
EMULATED cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
EMULATED cudaError_t cudaEventDestroy(cudaEvent_t event);

EMULATED cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
EMULATED cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
EMULATED cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags);
EMULATED cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
EMULATED cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
EMULATED cudaError_t cudaGraphDestroy(cudaGraph_t graph);

EMULATED const char* cudaGetErrorName(cudaError_t error);
EMULATED const char* cudaGetErrorString(cudaError_t error);
EMULATED cudaError_t cudaGetLastError();
EMULATED cudaError_t cudaPeekAtLastError();
}
#undef EMULATED

// CUDA has these for pointers of any type too.
template <class T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
    return cudaMalloc(reinterpret_cast<void**>(p), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** p, size_t bytes) {
    return cudaMallocHost(reinterpret_cast<void**>(p), bytes);
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event) {
    return cudaStreamWaitEvent(stream, event, 0);
}
inline cudaError_t cudaEventRecord(cudaEvent_t event) { return cudaEventRecord(event, nullptr); }
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph) {
    return cudaGraphInstantiate(exec, graph, 0);
}
// Blocks may have as much shared memory as the device has, asked for or not.
template <class T>
cudaError_t cudaFuncSetAttribute(T*, cudaFuncAttribute, int) {
    return cudaSuccess;
}
