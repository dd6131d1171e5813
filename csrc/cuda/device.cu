// SPDX-License-Identifier: MIT
//
// Opening a GPU, its memory, and what is said when something fails.
#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "cuda/launch.h"
#include "context.h"
#include "row_types.h"
#include "../model/error.h"

namespace fusedvae::cuda {

namespace {

thread_local const char* last_launched = nullptr;

constexpr size_t kLargestBlock = 112 * 1024;  // of shared memory, a large tile's (microkernel.h)

std::string size_text(int64_t bytes) {
    char text[32];
    const double size = static_cast<double>(bytes);
    if (size < 1e6)
        std::snprintf(text, sizeof text, "%.0f kB", size / 1e3);
    else if (size < 1e9)
        std::snprintf(text, sizeof text, "%.1f MB", size / 1e6);
    else
        std::snprintf(text, sizeof text, "%.1f GB", size / 1e9);
    return text;
}

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Why there is no device to open; "" where there is one.
std::string why_none(int* count) {
    *count = 0;
    const cudaError_t status = cudaGetDeviceCount(count);
    if (status == cudaSuccess && *count > 0) return "";
    cudaGetLastError();
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaGetLastError();
    if (driver == 0) return "there is no NVIDIA driver on this machine: install one, or use device 'cpu'";
    if (status == cudaErrorInsufficientDriver)
        return "the NVIDIA driver is too old: it runs CUDA " + version_text(driver) + ", and this build needs CUDA " +
               version_text(runtime) + " or later; update the driver, or use device 'cpu'";
    if (status == cudaSuccess || status == cudaErrorNoDevice)
        return "the NVIDIA driver finds no GPU (CUDA_VISIBLE_DEVICES may hide it); use device 'cpu'";
    return std::string("CUDA cannot start: ") + cudaGetErrorString(status);
}

__global__ void find_bad_kernel(const void* data, RowType type, int64_t stride, int64_t rows, int64_t columns,
                                float factor, float low, float high, int64_t* first) {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
    int64_t bad = -1;
    for (int64_t i = thread; i < rows * columns && bad < 0; i += threads) {
        const unsigned char* row = static_cast<const unsigned char*>(data) + i / columns * stride;
        const float value = read_value(row, type, i % columns) * factor;
        if (!(value >= low && value <= high)) bad = i;  // NaN is neither
    }
    first[thread] = bad;
}

}  // namespace

void note_launch(const char* launcher) { last_launched = launcher; }

void fail(cudaError_t status, const char* what) {
    cudaGetLastError();  // cleared, where it can be
    std::string message = std::string(what) + " failed on the GPU: " + cudaGetErrorString(status);
    if (last_launched && std::string(what).rfind("cuda", 0) == 0)
        message += " (the kernel launched last was '" + std::string(last_launched) + "')";
    if (status == cudaErrorMemoryAllocation)
        throw Error(FVAE_OUT_OF_MEMORY, message + "; lower batch_size or the layers' widths, or free the GPU's memory");
    throw Error(FVAE_RUNTIME_ERROR, message);
}

Context::Context(int index, const cudaDeviceProp& properties)
    : index_(index),
      name_(properties.name),
      capability_(properties.major * 10 + properties.minor),
      chip_{properties.multiProcessorCount, properties.sharedMemPerBlockOptin >= kLargestBlock,
            properties.cooperativeLaunch != 0, properties.major >= 9 && code_version(find_bad_kernel) >= 90},
      bytes_(static_cast<int64_t>(properties.totalGlobalMem)) {
    use();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(cudaStreamCreateWithFlags(&side_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventCreateWithFlags(&joined_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventCreateWithFlags(&ordered_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
}

Context::~Context() {
    cudaSetDevice(index_);
    if (forked_) cudaEventDestroy(forked_);
    if (joined_) cudaEventDestroy(joined_);
    if (ordered_) cudaEventDestroy(ordered_);
    if (side_) cudaStreamDestroy(side_);
    if (stream_) cudaStreamDestroy(stream_);
}

int64_t Context::free_bytes() const {
    use();
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(free);
}

void Context::wait_for(void* stream) {
    const std::lock_guard lock(ordering_);
    use();
    check(cudaEventRecord(ordered_, static_cast<cudaStream_t>(stream)), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_, ordered_, 0), "cudaStreamWaitEvent");
}
void Context::release_to(void* stream) {
    const std::lock_guard lock(ordering_);
    use();
    check(cudaEventRecord(ordered_, stream_), "cudaEventRecord");
    check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), ordered_, 0), "cudaStreamWaitEvent");
}
void Context::synchronize() {
    use();
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

cudaStream_t Context::fork() {
    check(cudaEventRecord(forked_, stream_), "cudaEventRecord");
    check(cudaStreamWaitEvent(side_, forked_, 0), "cudaStreamWaitEvent");
    return side_;
}
void Context::join() {
    check(cudaEventRecord(joined_, side_), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_, joined_, 0), "cudaStreamWaitEvent");
}

void* Context::allocate(size_t bytes, const char* what) {
    use();
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        throw Error(FVAE_OUT_OF_MEMORY, "the GPU is out of memory: " + size_text(static_cast<int64_t>(bytes)) +
                                            " are wanted for " + what + "; " + size_text(free_bytes()) + " of its " +
                                            size_text(bytes_) + " are free");
    }
    check(status, "cudaMalloc");
    return memory;
}
void* Context::allocate(size_t bytes) { return allocate(bytes, "results (ask for fewer rows at a time)"); }
void Context::free(void* memory) noexcept {
    if (cudaSetDevice(index_) == cudaSuccess) cudaFree(memory);
}
void Context::upload(void* device, const void* host, size_t bytes) {
    use();
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
    synchronize();
}
void Context::download(void* host, const void* device, size_t bytes) {
    use();
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
    synchronize();
}

int64_t Context::find_bad(const Rows& rows) {
    use();
    constexpr int kThreads = 256;
    const int64_t values = rows.count * rows.columns;
    const int blocks =
        static_cast<int>(std::min<int64_t>(4 * chip_.multiprocessors, (values + kThreads - 1) / kThreads));
    Buffer<int64_t> first(shared_from_this(), int64_t{blocks} * kThreads, "a check of the data");
    launch("find_bad", find_bad_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream_, rows.data,
           rows.type, rows.stride, rows.count, rows.columns, rows.factor, rows.low, rows.high, first.data());
    int64_t bad = -1;
    for (const int64_t i : first.download())
        if (i >= 0 && (bad < 0 || i < bad)) bad = i;
    return bad;
}

}  // namespace fusedvae::cuda

namespace fusedvae {

int Device::count() {
    int count = 0;
    cuda::why_none(&count);
    return count;
}

std::shared_ptr<Device> Device::open(int index) {
    int count = 0;
    const std::string why = cuda::why_none(&count);
    if (!why.empty()) throw Error(FVAE_RUNTIME_ERROR, why);
    if (index < 0 || index >= count)
        throw std::invalid_argument(
            "there is no device 'cuda:" + std::to_string(index) + "': this machine has " +
            (count == 1 ? "one GPU, 'cuda:0'"
                        : std::to_string(count) + " GPUs, 'cuda:0' to 'cuda:" + std::to_string(count - 1) + "'"));
    cudaDeviceProp properties{};
    cuda::check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    if (properties.major < 8)
        throw Error(FVAE_RUNTIME_ERROR, std::string(properties.name) + " has compute capability " +
                                            std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                                            "; this library needs 8.0 (Ampere) or later: use device 'cpu'");
    return std::make_shared<cuda::Context>(index, properties);
}

int Device::device_of(const void* pointer) {
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    const bool device = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
    return device ? attributes.device : -1;
}

}  // namespace fusedvae
