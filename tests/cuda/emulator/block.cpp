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

enum class State { kReady, kAtBarrier, kAtBlocksBarrier, kAtCollective, kReturned };

struct Block;

struct Thread {
    Block* block = nullptr;
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

constexpr size_t kGuard = 1024;          // bytes after the block's that nobody may write
constexpr unsigned char kPoison = 0xff;  // as float or bfloat16 a NaN

struct Shared {
    alignas(1024) unsigned char bytes[kSharedBytes + kGuard];
};

struct Block {
    std::vector<std::unique_ptr<Thread>> pool;  // fibers are kept from block to block
    std::unique_ptr<Shared> shared = std::make_unique<Shared>();
    uint3 index{};
    int at_barrier = 0;
};

// The running kernel; one at a time, since the runtime's lock is held while it runs.
struct Kernel {
    std::vector<std::unique_ptr<Block>> pool;
    std::vector<Block*> blocks;  // those that run together
    int threads = 0;             // of each block: the first of its pool
    int at_barrier = 0;          // of all blocks
    Thread* running = nullptr;
    const std::function<void()>* body = nullptr;
    Order order = Order::kForward;
    size_t shared_bytes = 0;
    std::string fault;
};
Kernel kernel;

std::string place(Where where) {
    const char* slash = std::strrchr(where.file, '/');
    return std::string(slash ? slash + 1 : where.file) + ":" + std::to_string(where.line);
}

std::string triple(unsigned x, unsigned y, unsigned z) {
    return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

std::string name_of(const Thread& thread) {
    return "thread " + triple(thread.index.x, thread.index.y, thread.index.z) + " of block " +
           triple(thread.block->index.x, thread.block->index.y, thread.block->index.z);
}

std::string whereabouts(const Thread& thread) {
    if (thread.state == State::kReturned) return "has returned";
    return "waits at " + std::string(thread.name) + " (" + place(thread.where) + ")";
}

// Suspends the running thread until another makes it ready.
void wait_in(State state) {
    Thread* self = kernel.running;
    self->state = state;
    self->fiber.suspend();
}

struct Stopped {};  // leaves a kernel that is at fault

[[noreturn]] void stop(const std::string& sentence) {
    kernel.fault = sentence;
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
    Thread* self = kernel.running;
    self->name = name;
    self->operands = operands;
    self->run = run;
    self->where = where;
}

void thread_main(void* argument) {
    auto* self = static_cast<Thread*>(argument);
    try {
        (*kernel.body)();
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
    for (const Block* block : kernel.blocks)
        for (int i = 0; i < kernel.threads; ++i) {
            const Thread& waiting = *block->pool[i];
            if (waiting.state == State::kReturned) continue;
            const bool of_warp = waiting.state == State::kAtCollective;
            const int first = of_warp ? i / kWarp * kWarp : 0, last = of_warp ? first + kWarp : kernel.threads;
            for (const Block* another : kernel.blocks) {
                if (another != block && waiting.state != State::kAtBlocksBarrier) continue;
                for (int j = first; j < last; ++j) {
                    const Thread& other = *another->pool[j];
                    if (other.state == waiting.state) continue;
                    return name_of(waiting) + " " + whereabouts(waiting) + ", which " + name_of(other) +
                           " never reaches: it " + whereabouts(other);
                }
            }
        }
    return "all threads wait";
}

void prepare(Thread* thread, Block* block, int number, dim3 size) {
    thread->block = block;
    thread->number = number;
    const auto n = static_cast<unsigned>(number);
    thread->index = {n % size.x, n / size.x % size.y, n / size.x / size.y};
    thread->state = State::kReady;
    thread->open.clear();
    thread->committed.clear();
    thread->fiber.start(thread_main, thread);
}

// Runs the blocks until all their threads have returned; "" or what went wrong.
std::string run_together(dim3 size) {
    kernel.fault.clear();
    kernel.at_barrier = 0;
    for (Block* block : kernel.blocks) {
        block->at_barrier = 0;
        unsigned char* const bytes = block->shared->bytes;
        unpoison(bytes, sizeof block->shared->bytes);
        std::memset(bytes, kPoison, kernel.shared_bytes + kGuard);
        poison(bytes + kernel.shared_bytes, sizeof block->shared->bytes - kernel.shared_bytes);
        for (int i = 0; i < kernel.threads; ++i) prepare(block->pool[i].get(), block, i, size);
    }
    const int count = static_cast<int>(kernel.blocks.size()) * kernel.threads;
    for (int returned = 0; returned < count;) {
        bool moved = false;
        for (int i = 0; i < count; ++i) {
            const int number = kernel.order == Order::kForward ? i : count - 1 - i;
            Block* block = kernel.blocks[number / kernel.threads];
            Thread* thread = block->pool[number % kernel.threads].get();
            if (thread->state != State::kReady) continue;
            moved = true;
            kernel.running = thread;
            indices.thread = thread->index;
            indices.block = block->index;
            thread->fiber.resume();
            if (!kernel.fault.empty()) return kernel.fault;
            returned += thread->state == State::kReturned;
        }
        if (!moved) return deadlock();
    }
    for (Block* block : kernel.blocks) {
        unpoison(block->shared->bytes, sizeof block->shared->bytes);
        const unsigned char* end = block->shared->bytes + kernel.shared_bytes;
        if (std::any_of(end, end + kGuard, [](unsigned char c) { return c != kPoison; }))
            return "block " + triple(block->index.x, block->index.y, block->index.z) + " wrote beyond its " +
                   std::to_string(kernel.shared_bytes) + " bytes of shared memory";
    }
    return "";
}

// Everyone goes on from the barrier that all have reached.
void release(Thread& self, Block& block) {
    for (int i = 0; i < kernel.threads; ++i) {
        Thread& other = *block.pool[i];
        if (!same_place(self, other)) different_places(self, other);
        other.state = State::kReady;
    }
}

}  // namespace

std::string run_grid(dim3 grid, dim3 size, unsigned together, size_t shared_bytes, const std::function<void()>& body,
                     Order order) {
    kernel.threads = static_cast<int>(size.x * size.y * size.z);
    while (kernel.pool.size() < together) kernel.pool.push_back(std::make_unique<Block>());
    kernel.blocks.clear();
    for (unsigned i = 0; i < together; ++i) {
        Block* block = kernel.pool[i].get();
        kernel.blocks.push_back(block);
        while (block->pool.size() < static_cast<size_t>(kernel.threads))
            block->pool.push_back(std::make_unique<Thread>());
    }
    kernel.body = &body;
    kernel.order = order;
    kernel.shared_bytes = shared_bytes;
    indices.block_size = size;
    indices.grid_size = grid;
    const unsigned count = grid.x * grid.y * grid.z;
    for (unsigned i = 0; i < count; i += together) {
        const unsigned first = order == Order::kForward ? i : count - together - i;
        for (unsigned j = 0; j < together; ++j) {
            const unsigned number = first + j;
            kernel.blocks[j]->index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
        }
        const std::string problem = run_together(size);
        for (Block* block : kernel.blocks) unpoison(block->shared->bytes, sizeof block->shared->bytes);
        if (!problem.empty()) return problem;
    }
    return "";
}

void block_barrier(Where where) {
    Thread* self = kernel.running;
    Block* block = self->block;
    arrive("__syncthreads()", nullptr, nullptr, where);
    if (++block->at_barrier < kernel.threads) {
        wait_in(State::kAtBarrier);
        return;
    }
    block->at_barrier = 0;
    release(*self, *block);
}

void blocks_barrier(unsigned blocks, Where where) {
    Thread* self = kernel.running;
    arrive("blocks_barrier()", nullptr, nullptr, where);
    if (blocks != kernel.blocks.size())
        fault("a barrier of " + std::to_string(blocks) + " blocks, of which " + std::to_string(kernel.blocks.size()) +
                  " run together",
              where);
    if (++kernel.at_barrier < static_cast<int>(kernel.blocks.size()) * kernel.threads) {
        wait_in(State::kAtBlocksBarrier);
        return;
    }
    kernel.at_barrier = 0;
    for (Block* block : kernel.blocks) release(*self, *block);
}

void collective(const char* name, void* operands, void (*run)(void* const*), Where where) {
    Thread* self = kernel.running;
    arrive(name, operands, run, where);
    const int first = self->number / kWarp * kWarp;
    if (first + kWarp > kernel.threads)
        stop(name_of(*self) + " is at " + name + " (" + place(where) + "), but its warp has only " +
             std::to_string(kernel.threads - first) + " threads: blocks must be whole warps");
    self->state = State::kAtCollective;
    for (int lane = 0; lane < kWarp; ++lane)
        if (self->block->pool[first + lane]->state != State::kAtCollective) {
            self->fiber.suspend();
            return;
        }
    void* all[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) {
        Thread& other = *self->block->pool[first + lane];
        if (!same_place(*self, other)) different_places(*self, other);
        all[lane] = other.operands;
        other.state = State::kReady;
    }
    run(all);
}

void* shared_memory() { return kernel.running->block->shared->bytes; }

void fault(const std::string& what, Where where) {
    stop(name_of(*kernel.running) + " (" + place(where) + "): " + what);
}

void copy_async16(void* shared, const void* global, bool valid, Where where) {
    const auto* to = static_cast<unsigned char*>(shared);
    const unsigned char* own = kernel.running->block->shared->bytes;
    if (to < own || to + 16 > own + kernel.shared_bytes)
        fault("copy_async16 writes outside the block's shared memory", where);
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0)
        fault("copy_async16 needs addresses that are multiples of 16", where);
    if (valid && !allocations().find(global, 16)) fault("copy_async16 reads outside the device's memory", where);
    const Copy copy{shared, valid ? global : nullptr};
    if (kernel.order == Order::kBackward)
        copy.perform();  // as early as it may be
    else
        kernel.running->open.push_back(copy);  // as late as it may be
}

void commit_copies() {
    kernel.running->committed.push_back(std::move(kernel.running->open));
    kernel.running->open.clear();
}

void wait_copies(int groups) {
    auto& committed = kernel.running->committed;
    for (; committed.size() > static_cast<size_t>(groups); committed.pop_front())
        for (const Copy& copy : committed.front()) copy.perform();
}

}  // namespace emulator
