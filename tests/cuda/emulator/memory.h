// SPDX-License-Identifier: MIT
//
// The memory that the emulated runtime knows: its devices' own, and host memory that was allocated or registered with
// it. Device memory may be touched only by kernels and by the runtime's copies: everywhere else it is protected, and
// the host code that reads or writes it dies of a segmentation fault, as it would with a real device's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace emulator {

enum class Kind { kDevice, kPinned, kRegistered };

struct Allocation {
    size_t bytes = 0;
    Kind kind = Kind::kDevice;
    int device = 0;
};

class Allocations {
  public:
    // Memory of the device, NaN until written; null where the device has not as much left.
    void* allocate(size_t bytes, int device);
    void* allocate_pinned(size_t bytes, int device);
    bool register_host(void* p, size_t bytes, int device);  // false: some of it is known already
    bool release(void* p, Kind kind);                       // false: no allocation of that kind begins there

    // The allocation that holds all the bytes from p on, or null; *start is where it begins.
    const Allocation* find(const void* p, size_t bytes, const void** start = nullptr) const;
    bool in_device_memory(const void* p) const;  // allocated or not
    size_t used(int device) const;

    // What kernels may write: the bytes of every allocation of devices and of pinned memory.
    using Bytes = std::map<uintptr_t, std::vector<unsigned char>>;
    Bytes contents() const;
    void set_contents(const Bytes& bytes);
    // "" or a sentence: bytes just before or after an allocation were written (and are as before now).
    std::string check_guards();

    // While one of these lives, device memory may be touched.
    class Access {
      public:
        Access();
        ~Access();
        Access(const Access&) = delete;
        Access& operator=(const Access&) = delete;
    };

  private:
    friend Allocations& allocations();
    Allocations();
    void protect(bool all) const;

    std::map<uintptr_t, Allocation> all_;  // by their first byte
    uintptr_t arena_;                      // device memory's addresses
    size_t touched_ = 0;                   // bytes of the arena that were ever given out
    int accesses_ = 0;
};

// The process's; the runtime's lock guards it.
Allocations& allocations();

// "device memory, 16 bytes into an allocation of 64", "host memory", ...
std::string describe(const void* p);

}  // namespace emulator
