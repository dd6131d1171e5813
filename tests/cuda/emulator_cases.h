// SPDX-License-Identifier: MIT
//
// What the tests of the emulated GPU share.
#pragma once
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "check.h"
#include "emulator/launch.h"
#include "emulator/sanitizer.h"
#include "environment.h"

namespace emulator_cases {

// FUSEDVAE_EMULATED_GPU for a test's length.
struct Setting : Environment {
    explicit Setting(const char* text) : Environment("FUSEDVAE_EMULATED_GPU", text) {}
};

template <class... P, class... A>
cudaError_t start(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A... arguments) {
    const std::tuple<P...> values(arguments...);
    return emulator::launch({"kernel", grid, block, shared, sizeof values}, stream,
                            [kernel, values] { std::apply(kernel, values); });
}

inline void ok(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

template <class T>
struct OnDevice {
    T* p = nullptr;
    size_t count;
    explicit OnDevice(size_t n) : count(n) { ok(cudaMalloc(&p, n * sizeof(T))); }
    explicit OnDevice(const std::vector<T>& values) : OnDevice(values.size()) {
        ok(cudaMemcpy(p, values.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~OnDevice() { cudaFree(p); }
    std::vector<T> get() const {
        std::vector<T> out(count);
        ok(cudaMemcpy(out.data(), p, count * sizeof(T), cudaMemcpyDeviceToHost));
        return out;
    }
};

// The kernel's fault must have all these words; the runtime then fails until it is told to forget.
inline void expect_fault(cudaError_t error, std::initializer_list<const char*> words) {
    CHECK_EQUAL(static_cast<int>(error), static_cast<int>(cudaErrorLaunchFailure));
    const std::string text = cudaGetErrorString(error);
    void* p;
    const cudaError_t later = cudaMalloc(&p, 4);
    emulator::forget_fault();
    for (const char* word : words)
        if (text.find(word) == std::string::npos) throw std::runtime_error("\"" + text + "\" without \"" + word + "\"");
    CHECK_EQUAL(static_cast<int>(later), static_cast<int>(cudaErrorLaunchFailure));
}

}  // namespace emulator_cases
