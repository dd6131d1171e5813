// SPDX-License-Identifier: MIT
//
// A function that can stop in its middle and be continued: one thread of a block. Fibers of one host thread only.
#pragma once
#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulator {

class Fiber {
  public:
    Fiber();
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // The next resume() calls function(argument) on this fiber's stack, whatever the fiber was in the middle of.
    void start(void (*function)(void*), void* argument);
    // Runs the fiber until it suspends itself or its function returns.
    void resume();
    // Called on the fiber: goes back to resume()'s caller.
    void suspend() { leave(false); }

  private:
    static void enter(Fiber* fiber);
    void leave(bool for_good);

    char* stack_;  // kStackBytes, lazily backed by memory, below it a page that may not be touched
    void (*function_)(void*) = nullptr;
    void* argument_ = nullptr;
#ifdef __x86_64__
    void *own_ = nullptr, *caller_ = nullptr;  // stack pointers
#else
    ucontext_t own_, caller_;
#endif
    // What AddressSanitizer has to be told of stacks.
    void *own_fake_ = nullptr, *caller_fake_ = nullptr;
    const void* caller_stack_ = nullptr;
    size_t caller_bytes_ = 0;
};

}  // namespace emulator
