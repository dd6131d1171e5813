// SPDX-License-Identifier: MIT
//
// How a kernel runs: the blocks of the grid one after another, or as many at once as were launched to run together, the
// threads of a block as fibers of one host thread. Each runs until it has to wait for others, at a barrier or a collective
// operation of its warp; when all it waits for have arrived, the last one does the operation for all. Whoever waits for a
// thread that never comes is a fault.
#pragma once
#include <cstddef>
#include <functional>
#include <string>

#include "settings.h"
#include "vector_types.h"

namespace emulator {

constexpr int kWarp = 32;
constexpr size_t kSharedBytes = 227 * 1024;  // of a block at most, as on a Hopper card

// A place of the source: as a default argument, the caller's.
struct Where {
    const char* file;
    int line;
    static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

// What a running thread sees.
struct Indices {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
extern Indices indices;

// Calls `body` as each thread of each block, `together` neighbouring blocks at a time. Returns "" or what went wrong; the
// kernel has then stopped where it was.
std::string run_grid(dim3 grid, dim3 block, unsigned together, size_t shared_bytes, const std::function<void()>& body,
                     Order order);

// ---- called by running threads ---------------------------------------------------------------------------------------

// A barrier of the whole block.
void block_barrier(Where where);
// A barrier of the blocks that run together, which must be so many.
void blocks_barrier(unsigned blocks, Where where);
// Each lane of the warp gives its operands; the last one calls run(operands of all, by lane) for all.
void collective(const char* name, void* operands, void (*run)(void* const operands[kWarp]), Where where);
// The block's dynamic shared memory: NaN until written.
void* shared_memory();
// Stops the kernel: `what` becomes the error's sentence.
[[noreturn]] void fault(const std::string& what, Where where);

// 16 bytes to shared memory, zeros if not valid, at some time before the wait for the group which they belong to.
void copy_async16(void* shared, const void* global, bool valid, Where where);
void commit_copies();
// Waits until at most `groups` of this thread's committed groups are not done.
void wait_copies(int groups);

}  // namespace emulator
