// SPDX-License-Identifier: MIT
//
// Decodes in a thread that may neither wait nor allocate, as an audio callback may not:
//
//     realtime MODEL.safetensors CALLBACKS
//
// A wavetable synthesiser in small: each callback moves the code along a circle and decodes one cycle of sound. While a
// callback runs, every allocation and every lock that this thread takes is counted, and one is a failure.
#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fusedvae/fusedvae.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {
thread_local bool in_callback = false;
std::atomic<long> allocations{0}, locks{0};
}  // namespace

// In the place of the C library's, for this program and all libraries it loads.
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void __libc_free(void*);

void* malloc(size_t bytes) {
    allocations += in_callback;
    return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
    allocations += in_callback;
    return __libc_calloc(count, bytes);
}
void* realloc(void* block, size_t bytes) {
    allocations += in_callback;
    return __libc_realloc(block, bytes);
}
void free(void* block) {
    allocations += in_callback;
    __libc_free(block);
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
    static int (*next)(pthread_mutex_t*) = nullptr;
    if (!next) next = reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
    locks += in_callback;
    return next(mutex);
}
int pthread_rwlock_rdlock(pthread_rwlock_t* lock) {
    static int (*next)(pthread_rwlock_t*) = nullptr;
    if (!next) next = reinterpret_cast<int (*)(pthread_rwlock_t*)>(dlsym(RTLD_NEXT, "pthread_rwlock_rdlock"));
    locks += in_callback;
    return next(lock);
}
}

namespace {

void require(bool condition, const char* what) {
    if (!condition) throw std::runtime_error(what);
}

void run(const std::string& path, int callbacks) {
    const fusedvae::Model model = fusedvae::Model::load(path);
    const fusedvae::Config config = model.config();
    int64_t samples = 1;
    for (const int64_t extent : config.input_shape) samples *= extent;
    const fusedvae::Workspace workspace = model.workspace(1);
    std::vector<float> code(static_cast<size_t>(config.latent)), sound(static_cast<size_t>(samples));
    std::vector<float> last(sound.size());
    long failures = 0, moved = 0;
    double slowest = 0.0;

    std::thread audio([&] {
        auto due = std::chrono::steady_clock::now();
        for (int c = 0; c < callbacks; ++c) {
            std::this_thread::sleep_until(due += std::chrono::milliseconds(1));
            const auto start = std::chrono::steady_clock::now();
            in_callback = true;
            for (size_t j = 0; j < code.size(); ++j)
                code[j] = std::sin(0.05f * static_cast<float>(c) + static_cast<float>(j));
            failures += fvae_model_decode_into(model.get(), code.data(), 1, sound.data(), workspace.data(),
                                               workspace.size()) != FVAE_OK;
            in_callback = false;
            const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
            slowest = std::max(slowest, took.count());
            moved += sound != last;
            last = sound;
        }
    });
    audio.join();

    std::vector<float> expected(sound.size());
    model.decode(code.data(), 1, expected.data());
    require(failures == 0, "a callback's decode failed");
    require(moved == callbacks, "two callbacks in a row gave the same sound");
    require(sound == expected, "the last sound is not what decode gives");
    require(allocations == 0, "a callback allocated or freed memory");
    require(locks == 0, "a callback took a lock");
    // The counters count: what the library may do elsewhere is seen.
    in_callback = true;
    { const fusedvae::Model other = model.copy(); }
    in_callback = false;
    require(allocations > 0 && locks > 0, "the counters see nothing");
    std::printf("%d callbacks, no allocation, no lock; the slowest took %.1f us\n", callbacks, slowest);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 3) throw std::invalid_argument("usage: realtime MODEL.safetensors CALLBACKS");
        run(argv[1], std::atoi(argv[2]));
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "realtime: %s\n", error.what());
        return 1;
    }
}
