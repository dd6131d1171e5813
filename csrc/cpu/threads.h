// SPDX-License-Identifier: MIT
//
// The thread pool: workers that spin for a bounded time and then sleep. One region runs at a time in a process; who finds
// the pool taken works alone, which changes no bit of any result. No pinning, no change of the floating-point mode.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>

namespace fusedvae {

// Threads that a call uses when it does not say: what platform::usable_cores() finds, until set.
int default_threads();
void set_default_threads(int threads);

// A word that threads wait on: they spin for a while, then sleep; waking costs a system call only where one sleeps.
class Signal {
  public:
    uint32_t load() const { return word_.load(std::memory_order_acquire); }
    void wait_while(uint32_t value, int spins);
    void set(uint32_t value);
    // Subtracts one; the one that reaches zero wakes who waits.
    void count_down();

  private:
    void wake();
    alignas(64) std::atomic<uint32_t> word_{0};
    std::atomic<int> sleepers_{0};
};

// Threads meet here; all of a region's threads call wait() equally often.
class Barrier {
  public:
    Barrier(int threads, int spins) : threads_(threads), spins_(spins) {}
    void wait();

  private:
    const int threads_, spins_;
    alignas(64) std::atomic<uint32_t> arrived_{0};
    Signal round_;
};

// What a region's function sees.
struct Team {
    int thread;  // 0 .. threads - 1
    int threads;
    Barrier* barrier;
    void meet() const {
        if (threads > 1) barrier->wait();
    }
};

// The right to run regions on `threads` threads (the caller is one of them), or alone where the pool is taken.
class Lease {
  public:
    explicit Lease(int wanted);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    int threads() const { return threads_; }
    // work must not throw.
    void run(const std::function<void(const Team&)>& work);

  private:
    class Pool* pool_ = nullptr;
    int threads_ = 1;
};

// For work that can throw: remembers the first exception of a region and throws it again afterwards.
void run_checked(int threads, const std::function<void(const Team&)>& work);

// [first, last) of `total` items for one thread, in multiples of `grain`.
struct Range {
    int64_t first, last;
};
Range share(int64_t total, int64_t grain, int thread, int threads);

}  // namespace fusedvae
