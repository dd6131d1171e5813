// SPDX-License-Identifier: MIT
#include "block.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "fiber.h"
#include "memory.h"
#include "sanitizer.h"

namespace emulator {

Indices indices;

namespace {

struct Copy {
    void* shared;
    const void* global;  // null: zeros
    void perform() const {
        if (global)
            std::memcpy(shared, global, 16);
        else
            std::memset(shared, 0, 16);
    }
};

enum class State { kReady, kAtBarrier, kAtCollective, kReturned };

struct Thread {
    Fiber fiber;
    State state = State::kReady;
    uint3 index{};
    int number = 0;  // within its block
    // Where it waits, and with what.
    const char* name = nullptr;
    Where where{};
    void* operands = nullptr;
    void (*run)(void* const*) = nullptr;
    // Its asynchronous copies: those of the open group, then the committed groups, oldest first.
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> committed;
};

// The running block; one at a time, since the runtime's lock is held while a kernel runs.
struct Block {
    std::vector<std::unique_ptr<Thread>> pool;  // fibers are kept from block to block
    int count = 0;                              // threads of this block: the first of the pool
    int at_barrier = 0;
    Thread* running = nullptr;
    const std::function<void()>* body = nullptr;
    Order order = Order::kForward;
    size_t shared_bytes = 0;
    std::string fault;
};
Block block;

constexpr size_t kGuard = 1024;  // bytes after the block's that nobody may write
alignas(1024) unsigned char shared_buffer[kSharedBytes + kGuard];
constexpr unsigned char kPoison = 0xff;  // as float or bfloat16 a NaN

std::string place(Where where) {
    const char* slash = std::strrchr(where.file, '/');
    return std::string(slash ? slash + 1 : where.file) + ":" + std::to_string(where.line);
}

std::string triple(unsigned x, unsigned y, unsigned z) {
    return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

std::string name_of(const Thread& thread) {
    return "thread " + triple(thread.index.x, thread.index.y, thread.index.z) + " of block " +
           triple(indices.block.x, indices.block.y, indices.block.z);
}

std::string whereabouts(const Thread& thread) {
    if (thread.state == State::kReturned) return "has returned";
    return "waits at " + std::string(thread.name) + " (" + place(thread.where) + ")";
}

// Suspends the running thread until another makes it ready.
void wait_in(State state) {
    Thread* self = block.running;
    self->state = state;
    self->fiber.suspend();
}

struct Stopped {};  // leaves a kernel that is at fault

[[noreturn]] void stop(const std::string& sentence) {
    block.fault = sentence;
    throw Stopped();
}

[[noreturn]] void different_places(const Thread& a, const Thread& b) {
    stop(name_of(a) + " is at " + a.name + " (" + place(a.where) + ") while " + name_of(b) + " " + whereabouts(b) +
         ": all must reach the same");
}

bool same_place(const Thread& a, const Thread& b) {
    return a.run == b.run && a.where.line == b.where.line && std::strcmp(a.where.file, b.where.file) == 0;
}

void arrive(const char* name, void* operands, void (*run)(void* const*), Where where) {
    Thread* self = block.running;
    self->name = name;
    self->operands = operands;
    self->run = run;
    self->where = where;
}

void thread_main(void* argument) {
    auto* self = static_cast<Thread*>(argument);
    try {
        (*block.body)();
    } catch (const Stopped&) {
        return;
    }
    for (const auto& group : self->committed)
        for (const Copy& copy : group) copy.perform();
    for (const Copy& copy : self->open) copy.perform();
    self->state = State::kReturned;
}

// All live threads wait: names one of them and one that it waits for.
std::string deadlock() {
    for (int i = 0; i < block.count; ++i) {
        const Thread& waiting = *block.pool[i];
        if (waiting.state == State::kReturned) continue;
        const bool of_warp = waiting.state == State::kAtCollective;
        const int first = of_warp ? i / kWarp * kWarp : 0, last = of_warp ? first + kWarp : block.count;
        for (int j = first; j < last; ++j) {
            const Thread& other = *block.pool[j];
            if (other.state == waiting.state) continue;
            return name_of(waiting) + " " + whereabouts(waiting) + ", which " + name_of(other) + " never reaches: it " +
                   whereabouts(other);
        }
    }
    return "all threads wait";
}

void prepare(Thread* thread, int number, dim3 size) {
    thread->number = number;
    const auto n = static_cast<unsigned>(number);
    thread->index = {n % size.x, n / size.x % size.y, n / size.x / size.y};
    thread->state = State::kReady;
    thread->open.clear();
    thread->committed.clear();
    thread->fiber.start(thread_main, thread);
}

std::string run_block(dim3 size) {
    block.fault.clear();
    block.at_barrier = 0;
    unpoison(shared_buffer, sizeof shared_buffer);
    unsigned char* end = shared_buffer + block.shared_bytes;
    std::memset(shared_buffer, kPoison, block.shared_bytes + kGuard);
    poison(end, sizeof shared_buffer - block.shared_bytes);
    for (int i = 0; i < block.count; ++i) prepare(block.pool[i].get(), i, size);
    for (int returned = 0; returned < block.count;) {
        bool moved = false;
        for (int i = 0; i < block.count; ++i) {
            Thread* thread = block.pool[block.order == Order::kForward ? i : block.count - 1 - i].get();
            if (thread->state != State::kReady) continue;
            moved = true;
            block.running = thread;
            indices.thread = thread->index;
            thread->fiber.resume();
            if (!block.fault.empty()) return block.fault;
            returned += thread->state == State::kReturned;
        }
        if (!moved) return deadlock();
    }
    unpoison(shared_buffer, sizeof shared_buffer);
    if (std::any_of(end, end + kGuard, [](unsigned char c) { return c != kPoison; }))
        return "block " + triple(indices.block.x, indices.block.y, indices.block.z) + " wrote beyond its " +
               std::to_string(block.shared_bytes) + " bytes of shared memory";
    return "";
}

}  // namespace

std::string run_grid(dim3 grid, dim3 size, size_t shared_bytes, const std::function<void()>& body, Order order) {
    block.count = static_cast<int>(size.x * size.y * size.z);
    while (block.pool.size() < static_cast<size_t>(block.count)) block.pool.push_back(std::make_unique<Thread>());
    block.body = &body;
    block.order = order;
    block.shared_bytes = shared_bytes;
    indices.block_size = size;
    indices.grid_size = grid;
    const unsigned count = grid.x * grid.y * grid.z;
    for (unsigned i = 0; i < count; ++i) {
        const unsigned number = order == Order::kForward ? i : count - 1 - i;
        indices.block = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
        const std::string problem = run_block(size);
        unpoison(shared_buffer, sizeof shared_buffer);
        if (!problem.empty()) return problem;
    }
    return "";
}

void block_barrier(Where where) {
    Thread* self = block.running;
    arrive("__syncthreads()", nullptr, nullptr, where);
    if (++block.at_barrier < block.count) {
        wait_in(State::kAtBarrier);
        return;
    }
    for (int i = 0; i < block.count; ++i) {
        Thread& other = *block.pool[i];
        if (!same_place(*self, other)) different_places(*self, other);
        other.state = State::kReady;
    }
    block.at_barrier = 0;
}

void collective(const char* name, void* operands, void (*run)(void* const*), Where where) {
    Thread* self = block.running;
    arrive(name, operands, run, where);
    const int first = self->number / kWarp * kWarp;
    if (first + kWarp > block.count)
        stop(name_of(*self) + " is at " + name + " (" + place(where) + "), but its warp has only " +
             std::to_string(block.count - first) + " threads: blocks must be whole warps");
    self->state = State::kAtCollective;
    for (int lane = 0; lane < kWarp; ++lane)
        if (block.pool[first + lane]->state != State::kAtCollective) {
            self->fiber.suspend();
            return;
        }
    void* all[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) {
        Thread& other = *block.pool[first + lane];
        if (!same_place(*self, other)) different_places(*self, other);
        all[lane] = other.operands;
        other.state = State::kReady;
    }
    run(all);
}

void* shared_memory() { return shared_buffer; }

void fault(const std::string& what, Where where) { stop(name_of(*block.running) + " (" + place(where) + "): " + what); }

void copy_async16(void* shared, const void* global, bool valid, Where where) {
    const auto* to = static_cast<unsigned char*>(shared);
    if (to < shared_buffer || to + 16 > shared_buffer + block.shared_bytes)
        fault("copy_async16 writes outside the block's shared memory", where);
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0)
        fault("copy_async16 needs addresses that are multiples of 16", where);
    if (valid && !allocations().find(global, 16)) fault("copy_async16 reads outside the device's memory", where);
    const Copy copy{shared, valid ? global : nullptr};
    if (block.order == Order::kBackward)
        copy.perform();  // as early as it may be
    else
        block.running->open.push_back(copy);  // as late as it may be
}

void commit_copies() {
    block.running->committed.push_back(std::move(block.running->open));
    block.running->open.clear();
}

void wait_copies(int groups) {
    auto& committed = block.running->committed;
    for (; committed.size() > static_cast<size_t>(groups); committed.pop_front())
        for (const Copy& copy : committed.front()) copy.perform();
}

}  // namespace emulator
