// SPDX-License-Identifier: MIT
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "sanitizer.h"

namespace emulator {

namespace {

constexpr size_t kStackBytes = size_t{1} << 18;  // of which kernels use a few KiB, or some dozens with AddressSanitizer

#ifdef __x86_64__
// Stores the stack pointer at rdi and continues on the stack rsi: what a call may not change is kept on the stacks.
// (swapcontext would ask the kernel for the signal mask each time, a hundred times as long.)
__attribute__((naked, noinline)) void switch_stacks(void** /*save*/, void* /*load*/) {
    asm volatile(
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
        "ret\n");
}

// Where a new stack's first switch returns to: r12 holds the fiber and r13 the function for it.
__attribute__((naked, noinline)) void first_call() { asm volatile("movq %r12, %rdi\n callq *%r13\n ud2\n"); }
#endif

}  // namespace

Fiber::Fiber() {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* memory =
        mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, page, PROT_NONE);
    stack_ = static_cast<char*>(memory) + page;
}

Fiber::~Fiber() {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    munmap(stack_ - page, page + kStackBytes);
}

void Fiber::start(void (*function)(void*), void* argument) {
    function_ = function;
    argument_ = argument;
    own_fake_ = nullptr;
    unpoison(stack_, kStackBytes);  // an abandoned call leaves its frames' red zones
#ifdef __x86_64__
    auto** top = reinterpret_cast<void**>(stack_ + kStackBytes);
    *--top = nullptr, *--top = nullptr;  // so that rsp is a multiple of 16 in first_call
    *--top = reinterpret_cast<void*>(first_call);
    *--top = nullptr, *--top = nullptr;       // rbp, rbx
    *--top = this;                            // r12
    *--top = reinterpret_cast<void*>(enter);  // r13
    *--top = nullptr, *--top = nullptr;       // r14, r15
    own_ = top;
#else
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack_;
    own_.uc_stack.ss_size = kStackBytes;
    own_.uc_link = nullptr;
    // makecontext's arguments are ints.
    const auto bits = reinterpret_cast<uintptr_t>(this);
    auto* halves = +[](unsigned high, unsigned low) {
        enter(reinterpret_cast<Fiber*>((static_cast<uintptr_t>(high) << 16 << 16) | low));
    };
    makecontext(&own_, reinterpret_cast<void (*)()>(halves), 2, static_cast<unsigned>(bits >> 16 >> 16),
                static_cast<unsigned>(bits));
#endif
}

void Fiber::enter(Fiber* fiber) {
    finish_switch(nullptr, &fiber->caller_stack_, &fiber->caller_bytes_);
    fiber->function_(fiber->argument_);
    fiber->leave(true);
}

void Fiber::resume() {
    start_switch(&caller_fake_, stack_, kStackBytes);
#ifdef __x86_64__
    switch_stacks(&caller_, own_);
#else
    swapcontext(&caller_, &own_);
#endif
    finish_switch(caller_fake_, nullptr, nullptr);
}

void Fiber::leave(bool for_good) {
    start_switch(for_good ? nullptr : &own_fake_, caller_stack_, caller_bytes_);
#ifdef __x86_64__
    switch_stacks(&own_, caller_);
#else
    swapcontext(&own_, &caller_);
#endif
    finish_switch(own_fake_, &caller_stack_, &caller_bytes_);
}

}  // namespace emulator
