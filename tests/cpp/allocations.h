// SPDX-License-Identifier: MIT
//
// Counts what this program allocates, by taking the place of glibc's malloc and its relatives; sanitizers have taken it
// already. One file of a program includes this. FUSEDVAE_COUNTS_ALLOCATIONS says whether there is a count.
#pragma once
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define FUSEDVAE_COUNTS_ALLOCATIONS 0
#endif
#endif
#if !defined(FUSEDVAE_COUNTS_ALLOCATIONS)
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FUSEDVAE_COUNTS_ALLOCATIONS 1
#else
#define FUSEDVAE_COUNTS_ALLOCATIONS 0
#endif
#endif

#if FUSEDVAE_COUNTS_ALLOCATIONS
inline std::atomic<long> allocations{0};

// Seen by the C++ library too, whose operator new asks for them: hidden ones would count this program's own calls alone.
#pragma GCC visibility push(default)
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t bytes) {
    ++allocations;
    return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
    ++allocations;
    return __libc_calloc(count, bytes);
}
void* realloc(void* block, size_t bytes) {
    ++allocations;
    return __libc_realloc(block, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
    ++allocations;
    return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** block, size_t alignment, size_t bytes) {
    ++allocations;
    *block = __libc_memalign(alignment, bytes);
    return *block ? 0 : ENOMEM;
}
}
#pragma GCC visibility pop
#endif
