// SPDX-License-Identifier: MIT
//
// What AddressSanitizer is told, and nothing without it.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATOR_ASAN 1
#endif
#endif

#ifdef EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

#ifdef EMULATOR_ASAN
constexpr bool kAddressSanitizer = true;
inline void poison(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void unpoison(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
inline void start_switch(void** fake, const void* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake, stack, bytes);
}
inline void finish_switch(void* fake, const void** stack, size_t* bytes) {
    __sanitizer_finish_switch_fiber(fake, stack, bytes);
}
#else
constexpr bool kAddressSanitizer = false;
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
inline void start_switch(void**, const void*, size_t) {}
inline void finish_switch(void*, const void**, size_t*) {}
#endif

}  // namespace emulator
