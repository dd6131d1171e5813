// SPDX-License-Identifier: MIT
//
// The runtime's calls about devices and their memory.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "errors.h"
#include "memory.h"
#include "settings.h"
#include "streams.h"

namespace emulator {

namespace {

constexpr int kRuntime = 13000;
thread_local int current = 0;

// What a call that needs a device finds first; cudaSuccess where there is one.
cudaError_t find_devices(Call* call) {
    if (call->failed()) return call->status();
    if (settings().driver < kRuntime)
        return call->fail(cudaErrorInsufficientDriver, "the driver is of " + std::to_string(settings().driver));
    if (settings().devices == 0) return call->fail(cudaErrorNoDevice, "there are no devices");
    return cudaSuccess;
}

cudaError_t find_device(Call* call, int device) {
    if (const cudaError_t error = find_devices(call)) return error;
    if (device < 0 || device >= settings().devices)
        return call->fail(cudaErrorInvalidDevice, "there is no device " + std::to_string(device));
    return cudaSuccess;
}

// For calls that a capture does not allow.
cudaError_t find_devices_uncaptured(Call* call) {
    if (const cudaError_t error = find_devices(call)) return error;
    if (capture_forbids_calls()) return call->fail(cudaErrorStreamCaptureUnsupported, "a stream is being captured");
    return cudaSuccess;
}

}  // namespace

int current_device() { return current; }

size_t shared_limit() {
    switch (settings().architecture) {
        case 80:
        case 87:
            return 163 * 1024;
        case 86:
        case 89:
            return 99 * 1024;
        default:
            return kSharedBytes;
    }
}

}  // namespace emulator

using namespace emulator;

cudaError_t cudaGetDeviceCount(int* count) {
    Call call("cudaGetDeviceCount");
    *count = 0;
    if (const cudaError_t error = find_devices(&call)) return error;
    *count = settings().devices;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    Call call("cudaGetDeviceProperties");
    if (const cudaError_t error = find_device(&call, device)) return error;
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "Emulated GPU");
    properties->totalGlobalMem = settings().memory;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = shared_limit();
    properties->major = settings().architecture / 10;
    properties->minor = settings().architecture % 10;
    properties->multiProcessorCount = kMultiprocessors;
    properties->warpSize = kWarp;
    properties->maxThreadsPerBlock = 1024;
    properties->l2CacheSize = 50 << 20;
    properties->cooperativeLaunch = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    Call call("cudaDeviceGetAttribute");
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, device)) return error;
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock:
            *value = properties.maxThreadsPerBlock;
            break;
        case cudaDevAttrMultiProcessorCount:
            *value = properties.multiProcessorCount;
            break;
        case cudaDevAttrL2CacheSize:
            *value = properties.l2CacheSize;
            break;
        case cudaDevAttrComputeCapabilityMajor:
            *value = properties.major;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = properties.minor;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = static_cast<int>(properties.sharedMemPerBlockOptin);
            break;
    }
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    Call call("cudaDriverGetVersion");
    *version = settings().driver;
    return call.status();
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    Call call("cudaRuntimeGetVersion");
    *version = kRuntime;
    return call.status();
}

cudaError_t cudaSetDevice(int device) {
    Call call("cudaSetDevice");
    if (const cudaError_t error = find_device(&call, device)) return error;
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    Call call("cudaGetDevice");
    if (const cudaError_t error = find_devices(&call)) return error;
    *device = current;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    Call call("cudaMemGetInfo");
    if (const cudaError_t error = find_devices(&call)) return error;
    *total = settings().memory;
    *free = settings().memory - std::min(settings().memory, allocations().used(current));
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
    Call call("cudaMalloc");
    *p = nullptr;
    if (const cudaError_t error = find_devices_uncaptured(&call)) return error;
    if (bytes == 0) return cudaSuccess;
    *p = allocations().allocate(bytes, current);
    if (!*p) return call.fail(cudaErrorMemoryAllocation, std::to_string(bytes) + " bytes asked for");
    return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
    Call call("cudaFree");
    if (!p) return cudaSuccess;
    if (const cudaError_t error = find_devices_uncaptured(&call)) return error;
    run_all_streams();  // it waits for the device
    if (!allocations().release(p, Kind::kDevice)) return call.fail(cudaErrorInvalidValue, "given " + describe(p));
    return call.status();
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
    Call call("cudaMallocHost");
    *p = nullptr;
    if (const cudaError_t error = find_devices_uncaptured(&call)) return error;
    *p = allocations().allocate_pinned(bytes, current);
    if (!*p) return call.fail(cudaErrorMemoryAllocation, std::to_string(bytes) + " bytes asked for");
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void* p) {
    Call call("cudaFreeHost");
    if (!p) return cudaSuccess;
    if (const cudaError_t error = find_devices_uncaptured(&call)) return error;
    run_all_streams();
    if (!allocations().release(p, Kind::kPinned)) return call.fail(cudaErrorInvalidValue, "given " + describe(p));
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned /*flags*/) {
    Call call("cudaHostRegister");
    if (const cudaError_t error = find_devices_uncaptured(&call)) return error;
    if (!p || bytes == 0 || allocations().in_device_memory(p))
        return call.fail(cudaErrorInvalidValue, "given " + std::to_string(bytes) + " bytes of " + describe(p));
    if (!allocations().register_host(p, bytes, current))
        return call.fail(cudaErrorHostMemoryAlreadyRegistered, "given " + describe(p));
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* p) {
    Call call("cudaHostUnregister");
    if (const cudaError_t error = find_devices_uncaptured(&call)) return error;
    run_all_streams();
    if (!allocations().release(p, Kind::kRegistered))
        return call.fail(cudaErrorHostMemoryNotRegistered, "given " + describe(p));
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
    Call call("cudaPointerGetAttributes");
    if (const cudaError_t error = find_devices(&call)) return error;
    auto* const plain = const_cast<void*>(p);
    const Allocation* allocation = allocations().find(p, 0);
    if (!allocation)
        *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, plain};
    else if (allocation->kind == Kind::kDevice)
        *attributes = {cudaMemoryTypeDevice, allocation->device, plain, nullptr};
    else
        *attributes = {cudaMemoryTypeHost, allocation->device, plain, plain};
    return cudaSuccess;
}
