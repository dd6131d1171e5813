// SPDX-License-Identifier: MIT
//
// The thread pool: every member of a team runs once and meets the others, regions may follow each other with changing
// numbers of threads, a taken pool leaves the second caller alone, and exceptions come back. Runs under ThreadSanitizer.
#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/threads.h"

using namespace fusedvae;

TEST(every_member_runs_once) {
    for (int threads : {1, 2, 3, 8, 2, 5, 1, 8}) {
        Lease lease(threads);
        CHECK_EQUAL(lease.threads(), threads);
        std::vector<int> runs(static_cast<size_t>(threads), 0);  // plain ints: the region's end must publish them
        for (int round = 0; round < 50; ++round)
            lease.run([&](const Team& team) { ++runs[static_cast<size_t>(team.thread)]; });
        for (int n : runs) CHECK_EQUAL(n, 50);
    }
}

TEST(meeting_publishes_what_was_written_before) {
    constexpr int kThreads = 4, kRounds = 2000;
    Lease lease(kThreads);
    std::vector<int> values(kThreads, 0);
    std::atomic<int> wrong{0};
    lease.run([&](const Team& team) {
        for (int round = 1; round <= kRounds; ++round) {
            values[static_cast<size_t>(team.thread)] = round;
            team.meet();
            if (std::accumulate(values.begin(), values.end(), 0) != round * kThreads) ++wrong;
            team.meet();
        }
    });
    CHECK_EQUAL(wrong.load(), 0);
}

TEST(second_caller_of_a_taken_pool_works_alone) {
    Lease first(2);
    CHECK_EQUAL(first.threads(), 2);
    int threads = 0;
    std::thread([&] {
        Lease second(2);
        second.run([&](const Team& team) { threads += team.threads; });
    }).join();
    CHECK_EQUAL(threads, 1);
}

TEST(many_callers_at_once) {
    std::atomic<int> sum{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 8; ++c)
        callers.emplace_back([&] {
            for (int i = 0; i < 200; ++i) {
                Lease lease(3);
                lease.run([&](const Team& team) {
                    team.meet();
                    if (team.thread == 0) ++sum;
                });
            }
        });
    for (std::thread& t : callers) t.join();
    CHECK_EQUAL(sum.load(), 1600);
}

TEST(exceptions_come_back_and_the_pool_lives_on) {
    CHECK_THROWS(run_checked(4,
                             [](const Team& team) {
                                 if (team.thread == team.threads - 1) throw std::runtime_error("thrown by a worker");
                             }),
                 std::runtime_error, "thrown by a worker");
    std::atomic<int> runs{0};
    run_checked(4, [&](const Team&) { ++runs; });
    CHECK_EQUAL(runs.load(), 4);
}

TEST(shares_cover_everything_once) {
    for (int64_t total : {0, 1, 7, 8, 9, 100, 128})
        for (int64_t grain : {1, 8})
            for (int threads : {1, 2, 3, 8, 200}) {
                int64_t next = 0;
                for (int t = 0; t < threads; ++t) {
                    const Range r = share(total, grain, t, threads);
                    CHECK_EQUAL(r.first, next);
                    CHECK(r.last >= r.first);
                    CHECK(r.last == total || r.last % grain == 0);
                    next = r.last;
                }
                CHECK_EQUAL(next, total);
            }
}

TEST(default_number_of_threads_is_checked) {
    CHECK(default_threads() >= 1);
    CHECK_THROWS(set_default_threads(0), std::invalid_argument, "between 1 and 1024");
    CHECK_THROWS(set_default_threads(1025), std::invalid_argument, "it is 1025");
    set_default_threads(3);
    CHECK_EQUAL(default_threads(), 3);
}
