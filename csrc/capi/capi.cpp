// SPDX-License-Identifier: MIT
//
// The C API of what belongs to no handle: errors, backends, threads, random numbers. Handles are in model.cpp and
// trainer.cpp, kernels in kernels.cpp; each function checks pointers, calls, nothing else.
#include <algorithm>
#include <cmath>

#include "cpu/threads.h"
#include "handles.h"
#include "model/names.h"
#include "model/options.h"

using namespace fusedvae;

namespace {
thread_local std::string last_error;
}

fvae_status fusedvae::fail(fvae_status status, const char* message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();
    }
    return status;
}

const char* fvae_last_error(void) { return last_error.c_str(); }
const char* fvae_version(void) { return FUSEDVAE_VERSION; }
uint32_t fvae_abi_version(void) { return FVAE_ABI_VERSION; }

fvae_status fvae_backend(const char** name) {
    return guarded([&] {
        require(name, "name");
        *name = backend().name;
    });
}
const char* fvae_available_backends(void) { return available_backends(); }
int32_t fvae_num_threads(void) { return default_threads(); }
fvae_status fvae_set_num_threads(int32_t threads) {
    return guarded([&] { set_default_threads(threads); });
}

int32_t fvae_has_bfloat16(void) {
    int32_t answer = 0;
    guarded([&] { answer = bfloat16_backend() != nullptr; });
    return answer;
}

fvae_status fvae_measure_peak(int32_t threads, double seconds, fvae_precision precision, double* gflops) {
    return guarded([&] {
        require(gflops, "gflops");
        if (threads < 1 || threads > 1024 || !(seconds > 0.0 && seconds <= 60.0))
            throw std::invalid_argument("threads must be between 1 and 1024, seconds above 0 and at most 60");
        name_of(precision);  // known before it is read
        const Backend& b = backend_in(precision);
        std::vector<double> rate(static_cast<size_t>(threads), 0.0);
        run_checked(threads, [&](const Team& team) {
            double flops = 0.0;
            float sink = 0.0f;
            team.meet();
            const double start = platform::seconds();
            double now = start;
            while (now - start < seconds) {
                flops += b.fma_loop(20000, &sink);
                now = platform::seconds();
            }
            rate[static_cast<size_t>(team.thread)] = std::isfinite(sink) ? flops / (now - start) : 0.0;
        });
        *gflops = 0.0;
        for (double r : rate) *gflops += r * 1e-9;
    });
}

fvae_array fvae_array_default(void) {
    fvae_array array{};
    array.struct_size = sizeof array;
    return array;
}

fvae_status fvae_sample_latent(uint64_t seed, uint64_t first, int64_t n, int64_t latent, double temperature, float* z) {
    return guarded([&] {
        require(z, "z");
        if (n < 0 || latent < 1 || latent > kMaxWidth || !(temperature >= 0.0 && std::isfinite(temperature)))
            throw std::invalid_argument("n must not be negative, latent between 1 and " + std::to_string(kMaxWidth) +
                                        ", temperature finite and not negative");
        if (n > INT64_MAX / latent) throw std::invalid_argument("n times latent must fit 64 bits");
        for (int64_t done = 0; done < n;) {  // pieces within which the row's low word does not wrap
            const uint64_t row = first + static_cast<uint64_t>(done), left = (uint64_t{1} << 32) - (row & 0xffffffffu);
            const int count = static_cast<int>(std::min<uint64_t>({left, static_cast<uint64_t>(n - done), 4096}));
            Stream stream = make_stream(seed, 0, kSample);
            stream.step = static_cast<uint32_t>(row >> 32);
            backend().normals(z + done * latent, latent, stream, static_cast<uint32_t>(row), count,
                              static_cast<int>(latent));
            done += count;
        }
        for (int64_t i = 0; i < n * latent; ++i) z[i] *= static_cast<float>(temperature);
    });
}
fvae_status fvae_score_noise(uint64_t seed, int64_t samples, int64_t latent, float* noise) {
    return guarded([&] {
        require(noise, "noise");
        if (latent < 1 || latent > kMaxWidth)
            throw std::invalid_argument("latent must be between 1 and " + std::to_string(kMaxWidth));
        score_noise(backend(), seed, samples, static_cast<int>(latent), noise);
    });
}
void fvae_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]) {
    philox4x32(counter, key, words);
}
