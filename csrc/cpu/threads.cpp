// SPDX-License-Identifier: MIT
#include "threads.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../backend/platform.h"

namespace fusedvae {

namespace {

// About 50 us of pauses (25 ns each on Zen 5): longer than any serial stretch between two regions of a training loop.
// With more threads than cores a spinning thread keeps the one it waits for from running, so it sleeps almost at once.
constexpr int kSpins = 2000, kSpinsCrowded = 20, kYieldEvery = 64;
constexpr int kMaxThreads = 1024;

int spins_for(int threads) { return threads <= platform::usable_cores() ? kSpins : kSpinsCrowded; }

std::atomic<int> g_default_threads{0};

}  // namespace

int default_threads() {
    const int set = g_default_threads.load();
    return set > 0 ? set : std::min(platform::usable_cores(), kMaxThreads);
}

void set_default_threads(int threads) {
    if (threads < 1 || threads > kMaxThreads)
        throw std::invalid_argument("threads must be between 1 and " + std::to_string(kMaxThreads) + ", it is " +
                                    std::to_string(threads));
    g_default_threads.store(threads);
}

// Sleeper and waker each write one word and then read the other's; sequential consistency is what keeps a waker from
// missing a sleeper that has just seen the old value.
void Signal::wait_while(uint32_t value, int spins) {
    for (int i = 0; i < spins; ++i) {
        if (load() != value) return;
        platform::cpu_pause();
        // The one we wait for may be waiting for this core: new threads often share one for their first 0.1 s.
        if (i % kYieldEvery == kYieldEvery - 1) std::this_thread::yield();
    }
    sleepers_.fetch_add(1);
    while (word_.load() == value) platform::wait_on(word_, value);
    sleepers_.fetch_sub(1);
}

void Signal::set(uint32_t value) {
    word_.store(value);
    wake();
}

void Signal::count_down() {
    if (word_.fetch_sub(1) == 1) wake();
}

void Signal::wake() {
    if (sleepers_.load() > 0) platform::wake_all(word_);
}

void Barrier::wait() {
    const uint32_t round = round_.load();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(threads_)) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.set(round + 1);
    } else {
        round_.wait_while(round, spins_);
    }
}

// Workers are detached and the pool is never freed: at process exit they sleep, and joining them from a library's
// destructor can deadlock. A forked child starts with a pool of its own, since threads do not survive fork.
class Pool {
  public:
    static Pool& current() {
        static const bool registered = [] {
            platform::on_fork_child([] { instance().store(new Pool); });
            return true;
        }();
        (void)registered;
        return *instance().load();
    }

    bool try_take() { return !taken_.exchange(true, std::memory_order_acquire); }
    void give_back() { taken_.store(false, std::memory_order_release); }

    void run(int threads, const std::function<void(const Team&)>& work) {
        while (static_cast<int>(workers_.size()) < threads - 1) {
            auto worker = std::make_unique<Worker>();
            workers_.reserve(workers_.size() + 1);
            std::thread([this, &one = *worker, index = static_cast<int>(workers_.size()) + 1] {
                serve(one, index);
            }).detach();  // throws before there is a worker who would never come
            workers_.push_back(std::move(worker));
        }
        spins_ = spins_for(threads);
        Barrier barrier(threads, spins_);
        work_ = &work;
        barrier_ = &barrier;
        threads_ = threads;
        running_.set(static_cast<uint32_t>(threads - 1));
        for (int i = 0; i < threads - 1; ++i) {
            Worker& worker = *workers_[static_cast<size_t>(i)];
            worker.ticket.set(++worker.issued);
        }
        work(Team{0, threads, &barrier});
        for (uint32_t left; (left = running_.load()) != 0;) running_.wait_while(left, spins_);
    }

  private:
    static std::atomic<Pool*>& instance() {
        static std::atomic<Pool*> pool{new Pool};
        return pool;
    }

    struct Worker {
        Signal ticket;        // changes when this worker is called into a region
        uint32_t issued = 0;  // the caller's
    };

    void serve(Worker& worker, int index) {
        int spins = kSpins;
        for (uint32_t seen = 0;; ++seen) {
            worker.ticket.wait_while(seen, spins);
            spins = spins_;
            (*work_)(Team{index, threads_, barrier_});
            running_.count_down();  // the region's fields may change from here on
        }
    }

    std::atomic<bool> taken_{false};
    std::vector<std::unique_ptr<Worker>> workers_;
    Signal running_;
    const std::function<void(const Team&)>* work_ = nullptr;
    Barrier* barrier_ = nullptr;
    int threads_ = 0, spins_ = 0;
};

Lease::Lease(int wanted) {
    if (wanted <= 1) return;
    Pool& pool = Pool::current();
    if (!pool.try_take()) return;
    pool_ = &pool;
    threads_ = std::min(wanted, kMaxThreads);
}

Lease::~Lease() {
    if (pool_) pool_->give_back();
}

void Lease::run(const std::function<void(const Team&)>& work) {
    if (pool_)
        pool_->run(threads_, work);
    else
        work(Team{0, 1, nullptr});
}

void run_checked(int threads, const std::function<void(const Team&)>& work) {
    std::exception_ptr first;
    std::mutex guard;
    Lease lease(threads);
    lease.run([&](const Team& team) {
        try {
            work(team);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            if (!first) first = std::current_exception();
        }
    });
    if (first) std::rethrow_exception(first);
}

Range share(int64_t total, int64_t grain, int thread, int threads) {
    const int64_t units = (total + grain - 1) / grain;
    return {std::min(total, units * thread / threads * grain), std::min(total, units * (thread + 1) / threads * grain)};
}

}  // namespace fusedvae
