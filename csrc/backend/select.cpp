// SPDX-License-Identifier: MIT
//
// The one visible place where a backend is chosen: the first of the list below that this library holds and this
// processor can run, or the one that FUSEDVAE_BACKEND names.
//
// The order is measured: one training step on two threads of a Zen 5 server, milliseconds (bench/README.md).
//
//               avx512_bf16   avx512    avx2   scalar
//     iwae            0.154    0.187   0.325     1.01
//     mnist           0.679     1.22    2.17     7.23
//     deep             4.37     7.28    15.3     50.5
//
// avx512_bf16 is taken where bfloat16 is asked for, and never instead of float32.
// A processor whose AVX-512 lowers its clock would need a row of its own.
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "backend.h"
#include "platform.h"

namespace fusedvae {
namespace {

[[maybe_unused]] bool always() { return true; }
#if defined(__x86_64__)
[[maybe_unused]] bool has_f16c() {  // Clang 14's __builtin_cpu_supports does not know it
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
[[maybe_unused]] bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
[[maybe_unused]] bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
// vdpbf16ps is twice as fast as float32 on AMD's processors; other makers' have not been measured, and on some it is
// reported to be slower.
[[maybe_unused]] bool gains_from_bfloat16() {
    return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
}
// On Zen 4 a line that is fetched twice takes as long as two: one row of bench's `deep` and `mnist` takes 48 and 29 us
// there, 64 and 39 with fetching; on Zen 5 41 to 48 and 27, with fetching 38 and 23. Others have not been measured.
bool is_zen5_or_later() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &a, &b, &c, &d)) return false;
    const unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
    return family >= 26;
}
#endif

struct Candidate {
    const Backend* backend;
    bool (*runs_here)();
};
// Those that CMake was told to build (cmake/instruction_sets.cmake).
const Candidate kCandidates[] = {
#if defined(FUSEDVAE_HAS_AVX512)
    {&cpu::kAvx512, has_avx512},
#endif
#if defined(FUSEDVAE_HAS_AVX2)
    {&cpu::kAvx2, has_avx2},
#endif
#if defined(FUSEDVAE_HAS_NEON)
    {&cpu::kNeon, always},
#endif
#if defined(FUSEDVAE_HAS_SCALAR)
    {&cpu::kScalar, always},
#endif
};

[[noreturn]] void none_runs_here() {
    throw std::runtime_error(
        "this library was built with -DFUSEDVAE_BACKENDS=\"" FUSEDVAE_BACKENDS
        "\", none of which this processor can run; build it with scalar among them, or without that option");
}

const Backend& choose() {
    const char* forced = platform::environment("FUSEDVAE_BACKEND");
    if (forced && *forced) {
        try {
            return backend(forced);
        } catch (const std::invalid_argument& e) {
            throw std::invalid_argument("FUSEDVAE_BACKEND: " + std::string(e.what()) + ", or unset it");
        }
    }
    for (const Candidate& c : kCandidates)
        if (c.runs_here()) return *c.backend;
    none_runs_here();
}

}  // namespace

const char* available_backends() {
    static const std::string names = [] {
        std::string list;
        for (const Candidate& c : kCandidates)
            if (c.runs_here()) list += (list.empty() ? "" : ",") + std::string(c.backend->name);
        return list;
    }();
    return names.c_str();
}

const Backend& backend(const char* name) {
    for (const Candidate& c : kCandidates)
        if (std::strcmp(c.backend->name, name) == 0 && c.runs_here()) return *c.backend;
    if (!*available_backends()) none_runs_here();
    throw std::invalid_argument("backend '" + std::string(name) +
                                "' cannot run here; choose one of: " + available_backends());
}

const Backend* bfloat16_backend() {
#if defined(FUSEDVAE_HAS_AVX512_BF16)
    static const bool gains = gains_from_bfloat16();
    if (gains && &backend() == &cpu::kAvx512) return &cpu::kAvx512Bf16;
#endif
    return nullptr;
}

bool gains_from_fetching() {
#if defined(__x86_64__)
    static const bool gains = is_zen5_or_later();
    return gains;
#else
    return false;
#endif
}

const Backend& backend() {
    static const Backend& chosen = choose();  // a throw leaves it unset: every call then reports the error again
    return chosen;
}

}  // namespace fusedvae
