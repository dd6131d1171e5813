// SPDX-License-Identifier: MIT
#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "sanitizer.h"
#include "settings.h"

namespace emulator {

namespace {

constexpr size_t kArena = size_t{1} << 36;  // addresses, not memory
constexpr size_t kAlign = 256;              // as cudaMalloc's
constexpr size_t kGuard = 1024;             // bytes between allocations that nobody may touch
constexpr unsigned char kPoison = 0xff;     // as float or bfloat16 a NaN
constexpr size_t kPage = size_t{1} << 16;   // at least the system's, for mprotect

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

Allocations& allocations() {
    static auto* const all = new Allocations;  // never destroyed: objects that outlive main() release memory
    return *all;
}

Allocations::Allocations() {
    void* memory = mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    arena_ = round_up(reinterpret_cast<uintptr_t>(memory), kPage);
}

void Allocations::protect(bool all) const {
    mprotect(reinterpret_cast<void*>(arena_), touched_, all ? PROT_NONE : PROT_READ | PROT_WRITE);
}

Allocations::Access::Access() {
    if (allocations().accesses_++ == 0) allocations().protect(false);
}

Allocations::Access::~Access() {
    if (--allocations().accesses_ == 0) allocations().protect(true);
}

void* Allocations::allocate(size_t bytes, int device) {
    if (bytes > settings().memory || used(device) + bytes > settings().memory) return nullptr;
    // The first gap that is wide enough.
    uintptr_t at = arena_ + kGuard;
    for (const auto& [start, allocation] : all_) {
        if (allocation.kind != Kind::kDevice) continue;
        if (at + bytes + kGuard <= start) break;
        at = round_up(start + allocation.bytes + kGuard, kAlign);
    }
    const size_t end = round_up(at + bytes + kGuard - arena_, kPage);
    if (end > kArena - kPage) return nullptr;
    touched_ = std::max(touched_, end);
    const Access access;
    protect(false);  // of what was touched for the first time too
    auto* p = reinterpret_cast<unsigned char*>(at);
    unpoison(p - kGuard, bytes + 2 * kGuard);
    std::memset(p - kGuard, kPoison, bytes + 2 * kGuard);
    poison(p - kGuard, kGuard);
    poison(p + bytes, kGuard);
    all_[at] = {bytes, Kind::kDevice, device};
    return p;
}

void* Allocations::allocate_pinned(size_t bytes, int device) {
    void* p = std::aligned_alloc(kAlign, round_up(std::max<size_t>(bytes, 1), kAlign));
    if (p) all_[reinterpret_cast<uintptr_t>(p)] = {bytes, Kind::kPinned, device};
    return p;
}

bool Allocations::register_host(void* p, size_t bytes, int device) {
    const auto start = reinterpret_cast<uintptr_t>(p);
    for (const auto& [other, allocation] : all_)
        if (start < other + allocation.bytes && other < start + bytes) return false;
    all_[start] = {bytes, Kind::kRegistered, device};
    return true;
}

bool Allocations::release(void* p, Kind kind) {
    const auto found = all_.find(reinterpret_cast<uintptr_t>(p));
    if (found == all_.end() || found->second.kind != kind) return false;
    const size_t bytes = found->second.bytes;
    all_.erase(found);
    if (kind == Kind::kPinned) std::free(p);
    if (kind != Kind::kDevice) return true;
    const Access access;
    std::memset(p, kPoison, bytes);
    poison(p, bytes);
    return true;
}

const Allocation* Allocations::find(const void* p, size_t bytes, const void** start) const {
    const auto address = reinterpret_cast<uintptr_t>(p);
    auto found = all_.upper_bound(address);
    if (found == all_.begin()) return nullptr;
    --found;
    if (address + bytes > found->first + found->second.bytes) return nullptr;
    if (start) *start = reinterpret_cast<const void*>(found->first);
    return &found->second;
}

bool Allocations::in_device_memory(const void* p) const {
    const auto address = reinterpret_cast<uintptr_t>(p);
    return address >= arena_ && address < arena_ + kArena - kPage;
}

size_t Allocations::used(int device) const {
    size_t bytes = 0;
    for (const auto& [start, allocation] : all_)
        if (allocation.kind == Kind::kDevice && allocation.device == device) bytes += allocation.bytes;
    return bytes;
}

Allocations::Bytes Allocations::contents() const {
    Bytes out;
    for (const auto& [start, allocation] : all_) {
        if (allocation.kind == Kind::kRegistered) continue;  // it may be read-only
        const auto* p = reinterpret_cast<const unsigned char*>(start);
        out.emplace(start, std::vector<unsigned char>(p, p + allocation.bytes));
    }
    return out;
}

void Allocations::set_contents(const Bytes& bytes) {
    for (const auto& [start, content] : bytes)
        if (!content.empty()) std::memcpy(reinterpret_cast<void*>(start), content.data(), content.size());
}

std::string Allocations::check_guards() {
    if (kAddressSanitizer) return "";  // it has seen to that, read and write
    for (const auto& [start, allocation] : all_) {
        if (allocation.kind != Kind::kDevice) continue;
        auto* const p = reinterpret_cast<unsigned char*>(start);
        const auto written = [](unsigned char c) { return c != kPoison; };
        unsigned char* const end = p + allocation.bytes;
        const unsigned char* after = std::find_if(end, end + kGuard, written);
        const unsigned char* before = std::find_if(p - kGuard, p, written);
        if (after == end + kGuard && before == p) continue;
        const std::string where = after != end + kGuard ? std::to_string(after - end) + " bytes after the end"
                                                        : std::to_string(p - before) + " bytes before the start";
        std::memset(p - kGuard, kPoison, kGuard);
        std::memset(end, kPoison, kGuard);
        return "device memory was written " + where + " of an allocation of " + std::to_string(allocation.bytes) +
               " bytes";
    }
    return "";
}

std::string describe(const void* p) {
    const void* start = nullptr;
    const Allocation* allocation = allocations().find(p, 0, &start);
    if (!allocation) return allocations().in_device_memory(p) ? "device memory that is not allocated" : "host memory";
    const char* kind = allocation->kind == Kind::kDevice ? "device" : "pinned";
    return std::string(kind) + " memory, " +
           std::to_string(static_cast<const char*>(p) - static_cast<const char*>(start)) +
           " bytes into an allocation of " + std::to_string(allocation->bytes);
}

}  // namespace emulator
