// SPDX-License-Identifier: MIT
//
// The C API's functions of GPUs and their memory.
#include <map>
#include <mutex>

#include "handles.h"
#include "model/on_device.h"

using namespace fusedvae;

namespace {

// Opened once each and never closed: at a process's end the driver may be gone before us.
Device& gpu(const char* name) {
    require(name, "device");
    const int index = device_index(name);
    if (index == kCpu) throw std::invalid_argument("device is \"cpu\"; expected a GPU, such as \"cuda\"");
    static std::mutex mutex;
    static auto& opened = *new std::map<int, std::shared_ptr<Device>>;
    const std::lock_guard lock(mutex);
    std::shared_ptr<Device>& device = opened[index];
    if (!device) device = Device::open(index);
    return *device;
}

// Runs body(device), whose pointers and sizes it has checked.
template <class Body>
fvae_status on_gpu(const char* device, Body body) {
    return guarded([&] { body(gpu(device)); });
}

}  // namespace

int32_t fvae_device_count(void) { return Device::count(); }

fvae_status fvae_device_get_properties(const char* device, fvae_device_properties* properties) {
    return on_gpu(device, [&](const Device& gpu) {
        fvae_device_properties p{};
        p.struct_size = sizeof p;
        gpu.name().copy(p.name, sizeof p.name - 1);
        p.major = gpu.capability() / 10;
        p.minor = gpu.capability() % 10;
        p.total_bytes = static_cast<uint64_t>(gpu.bytes());
        p.free_bytes = static_cast<uint64_t>(gpu.free_bytes());
        write_struct(properties, p, "properties");
    });
}

fvae_status fvae_device_allocate(const char* device, size_t bytes, void** memory) {
    return on_gpu(device, [&](Device& gpu) {
        require(memory, "memory");
        if (bytes == 0) throw std::invalid_argument("bytes must be at least 1");
        *memory = gpu.allocate(bytes);
    });
}
fvae_status fvae_device_free(const char* device, void* memory) {
    return on_gpu(device, [&](Device& gpu) { gpu.free(memory); });
}
fvae_status fvae_device_upload(const char* device, void* memory, const void* host, size_t bytes) {
    return on_gpu(device, [&](Device& gpu) {
        require(memory, "memory");
        require(host, "host");
        gpu.upload(memory, host, bytes);
    });
}
fvae_status fvae_device_download(const char* device, void* host, const void* memory, size_t bytes) {
    return on_gpu(device, [&](Device& gpu) {
        require(host, "host");
        require(memory, "memory");
        gpu.download(host, memory, bytes);
    });
}
