// SPDX-License-Identifier: MIT
//
// The choice among ways to take a step: the fastest one is found and kept, a change is followed, and trials stay rare.
#include "model/tuner.h"

#include <array>

#include "check.h"

using namespace fusedvae;

namespace {

// Steps taken in each way while a way's step takes so many seconds.
std::array<int, 3> taken(Tuner& tuner, int steps, std::array<double, 3> seconds) {
    std::array<int, 3> counts{};
    for (int i = 0; i < steps; ++i) {
        const auto way = static_cast<size_t>(tuner.way());
        ++counts[way];
        tuner.took(tuner.trying() ? seconds[way] : -1.0);  // outside of trials nobody looks at the time
    }
    return counts;
}

}  // namespace

TEST(the_fastest_way_is_taken) {
    Tuner tuner(3, 0);
    CHECK(tuner.trying());
    CHECK_EQUAL(taken(tuner, 12, {3e-3, 2e-3, 1e-3})[2], 4);  // the first trial
    const std::array<int, 3> counts = taken(tuner, 10000, {3e-3, 2e-3, 1e-3});
    CHECK(counts[0] + counts[1] < 200);
    CHECK(counts[0] > 0 && counts[1] > 0);
}

TEST(a_change_is_followed) {
    Tuner tuner(2, 1);
    taken(tuner, 10000, {2e-3, 1e-3, 0.0});
    CHECK(taken(tuner, 10000, {1e-3, 2e-3, 0.0})[0] > 5800);  // 4096 steps at most until it is seen
    CHECK(taken(tuner, 10000, {2e-3, 1e-3, 0.0})[1] > 5800);
}

TEST(what_is_hardly_faster_changes_nothing) {
    Tuner tuner(2, 1);
    CHECK(taken(tuner, 10000, {0.98e-3, 1e-3, 0.0})[1] > 9900);
    CHECK(taken(tuner, 10000, {0.96e-3, 1e-3, 0.0})[0] > 5800);
}

TEST(a_single_slow_step_is_no_reason) {
    Tuner tuner(2, 0);
    for (int i = 0; i < 8; ++i) tuner.took(i == 1 ? 1.0 : tuner.way() == 0 ? 1e-3 : 2e-3);
    CHECK(!tuner.trying());
    CHECK_EQUAL(tuner.way(), 0);
}
