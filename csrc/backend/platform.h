// SPDX-License-Identifier: MIT
//
// Everything the library asks of the operating system; platform.cpp is the only file with system headers and #if's over
// systems. Failures over files throw Error (FVAE_NOT_FOUND, FVAE_PERMISSION_DENIED or FVAE_IO_ERROR) with the path
// and the system's reason. Paths are UTF-8 on Windows, the system's bytes elsewhere.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace fusedvae::platform {

// Cores that work of this process can use: the affinity mask, the cgroup's CPU quota as it was at the first call
// (rounded up) and OMP_NUM_THREADS (where it starts with a positive number), whichever is least; at least 1.
int usable_cores();

// A clock that never goes back.
double seconds();

// Null where the variable is not set.
const char* environment(const char* name);

// Tells the core that this is a spin loop.
void cpu_pause();

// Sleeps while `word` holds `expected`. May return early, so call it in a loop that reads the word again; whoever
// changes the word calls wake_all afterwards.
void wait_on(const std::atomic<uint32_t>& word, uint32_t expected);
void wake_all(std::atomic<uint32_t>& word);

// Calls `handler` in every child that fork() makes from now on.
void on_fork_child(void (*handler)());

// `alignment` is a power of two and at least sizeof(void*). Throws std::bad_alloc. Blocks of 4 MB and more ask for huge
// pages where the system has them.
void* aligned_alloc(size_t bytes, size_t alignment);
void aligned_free(void* block);

// A whole file, mapped for reading. Files this library writes are replaced, never shortened, so a mapping of one stays
// valid while it is saved again.
class FileView {
  public:
    FileView() = default;
    explicit FileView(const std::string& path);
    FileView(FileView&& other) noexcept;
    FileView& operator=(FileView&& other) noexcept;
    ~FileView();

    const unsigned char* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    const unsigned char* data_ = nullptr;
    size_t size_ = 0;
};

// Takes the next bytes of a file.
using Sink = std::function<void(const void* data, size_t bytes)>;

// Calls write(sink) and makes what it wrote the content of the file at `path`: readers see the old content or the new,
// whole and on disk, whatever fails in between. A symbolic link is followed; permission bits of an existing file stay. A
// process that is killed leaves a temporary file beside it, which the next write into that folder removes (POSIX).
void write_file_atomically(const std::string& path, const std::function<void(const Sink&)>& write);

}  // namespace fusedvae::platform
