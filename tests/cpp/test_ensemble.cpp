// SPDX-License-Identifier: MIT
//
// fvae_ensemble_fit: every training ends with the bits of the one that ran alone, whatever the others do.
#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#include "capi.h"
#include "fusedvae/fusedvae.hpp"

namespace {

struct Member {
    fusedvae::Model model;
    fusedvae::Trainer trainer;
};

// The i-th of an ensemble: seeds, widths, betas and rates differ.
Member member(int i, double learning_rate = 0.0) {
    fusedvae::Config config;
    config.input_shape = {kD};
    config.hidden = {16 + 8 * (i % 3)};
    config.latent = kZ;
    fusedvae::Model model(config, static_cast<uint64_t>(i));
    fvae_trainer_options options = fvae_trainer_options_default();
    options.batch_size = 16;
    options.beta = 0.5 * (1 + i % 4);
    options.learning_rate = learning_rate > 0.0 ? learning_rate : 1e-3 * (1 + i % 2);
    options.seed = static_cast<uint64_t>(100 + i);
    fusedvae::Trainer trainer(model, options);
    return {std::move(model), std::move(trainer)};
}

std::vector<Member> members(int count) {
    std::vector<Member> all;
    for (int i = 0; i < count; ++i) all.push_back(member(i));
    return all;
}

std::vector<fusedvae::Trainer*> trainers(std::vector<Member>& all) {
    std::vector<fusedvae::Trainer*> out;
    for (Member& one : all) out.push_back(&one.trainer);
    return out;
}

void check_same(const Member& a, const Member& b) {
    const auto pa = parameters(a.model.get()), pb = parameters(b.model.get());
    for (size_t i = 0; i < pa.size(); ++i)
        CHECK(std::memcmp(pa[i].data(), pb[i].data(), pa[i].size() * sizeof(float)) == 0);
    const auto ha = a.trainer.history(), hb = b.trainer.history();
    CHECK_EQUAL(ha.size(), hb.size());
    for (size_t i = 0; i < ha.size(); ++i) {
        CHECK_EQUAL(ha[i].train.loss, hb[i].train.loss);
        CHECK(std::memcmp(&ha[i].validation, &hb[i].validation, sizeof ha[i].validation) == 0);  // NaN without rows
    }
}

TEST(each_ends_as_it_would_alone) {
    const fvae_array x = rows();
    for (const int threads : {1, 2, 3, 0}) {
        auto together = members(7), alone = members(7);
        fusedvae::fit_ensemble(trainers(together), x, 3, &x, threads);
        for (Member& one : alone) one.trainer.fit(x, 3, &x);
        for (size_t i = 0; i < alone.size(); ++i) {
            check_same(together[i], alone[i]);
            CHECK_EQUAL(together[i].trainer.failure(), "");
        }
    }
}

TEST(a_training_goes_on_in_an_ensemble) {
    const fvae_array x = rows();
    auto together = members(2), alone = members(2);
    together[0].trainer.fit(x, 2);
    fusedvae::fit_ensemble(trainers(together), x, 1, nullptr, 2);
    together[1].trainer.fit(x, 2);
    for (Member& one : alone) one.trainer.fit(x, 3);
    for (size_t i = 0; i < alone.size(); ++i)
        CHECK_EQUAL(together[i].trainer.history().back().train.loss, alone[i].trainer.history().back().train.loss);
}

TEST(each_is_trained_by_one_thread_and_told_of) {
    auto all = members(6);
    std::vector<std::set<std::thread::id>> who(6);
    std::vector<int> epochs(6);
    const auto callback = [&](int64_t index, fvae_event event, const fvae_progress* progress) -> int32_t {
        if (index < 0) return FVAE_CALLBACK_CONTINUE;
        who[static_cast<size_t>(index)].insert(std::this_thread::get_id());
        if (event == FVAE_EPOCH_END) CHECK_EQUAL(progress->epoch, epochs[static_cast<size_t>(index)]++);
        return FVAE_CALLBACK_CONTINUE;
    };
    fusedvae::fit_ensemble(trainers(all), rows(), 4, nullptr, 2, callback);
    std::set<std::thread::id> threads;
    for (size_t i = 0; i < 6; ++i) {
        CHECK_EQUAL(who[i].size(), 1u);
        CHECK_EQUAL(epochs[i], 4);
        threads.insert(*who[i].begin());
    }
    CHECK(threads.size() <= 2);
}

TEST(one_that_becomes_non_finite_ends_alone) {
    auto together = members(3), alone = members(3);
    together[1] = member(1, 1e30);
    const fvae_array x = rows();
    fusedvae::fit_ensemble(trainers(together), x, 5, nullptr, 2);
    for (Member& one : alone) one.trainer.fit(x, 5);
    check_same(together[0], alone[0]);
    check_same(together[2], alone[2]);
    CHECK(together[1].trainer.failure().find("non-finite") != std::string::npos);
    CHECK(together[1].trainer.epochs() < 5);
    CHECK_EQUAL(together[0].trainer.failure(), "");

    const auto fail = [](int64_t, fvae_event, const fvae_progress*) -> int32_t { throw std::runtime_error("enough"); };
    CHECK_THROWS(fusedvae::fit_ensemble(trainers(together), x, 1, nullptr, 2, fail), std::runtime_error, "enough");
    CHECK_EQUAL(together[1].trainer.failure(), "");  // it tells of the last run alone
}

TEST(a_callback_stops_one_or_fails_all) {
    auto all = members(3);
    const auto stop_first = [](int64_t index, fvae_event event, const fvae_progress*) -> int32_t {
        return index == 0 && event == FVAE_EPOCH_END ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
    };
    fusedvae::fit_ensemble(trainers(all), rows(), 3, nullptr, 2, stop_first, fusedvae::event_bit(FVAE_EPOCH_END));
    CHECK_EQUAL(all[0].trainer.epochs(), 1);
    CHECK_EQUAL(all[1].trainer.epochs(), 3);

    const auto fail = [](int64_t index, fvae_event event, const fvae_progress*) -> int32_t {
        if (index == 2 && event == FVAE_BATCH_END) throw std::runtime_error("enough");
        return FVAE_CALLBACK_CONTINUE;
    };
    CHECK_THROWS(fusedvae::fit_ensemble(trainers(all), rows(), 100000, nullptr, 2, fail), std::runtime_error, "enough");
    fusedvae::fit_ensemble(trainers(all), rows(), 1);  // all can go on
}

// The caller's thread has nothing left to train, and hears of the wish to stop all the same.
TEST(the_waiting_caller_can_end_all) {
    auto all = members(2);
    const std::thread::id caller = std::this_thread::get_id();
    std::atomic<int> begun{0};
    const auto callback = [&](int64_t index, fvae_event event, const fvae_progress*) -> int32_t {
        if (index < 0) return FVAE_CALLBACK_ERROR;
        if (event == FVAE_TRAIN_BEGIN) ++begun;
        while (begun < 2) std::this_thread::yield();  // so that the other thread has taken the other one
        const bool mine = std::this_thread::get_id() == caller;
        return mine && event == FVAE_BATCH_END ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
    };
    CHECK_THROWS(fusedvae::fit_ensemble(trainers(all), rows(), int64_t{1} << 40, nullptr, 2, callback),
                 std::runtime_error, "a callback failed");
}

TEST(what_is_wrong_for_all_is_an_error) {
    auto all = members(2);
    std::vector<float> bad = data();
    bad[kD + 1] = NAN;
    CHECK_THROWS(fusedvae::fit_ensemble(trainers(all), rows(bad), 1), std::invalid_argument, "NaN in row 1, column 1");
    CHECK_EQUAL(all[0].trainer.steps(), 0);
    CHECK_THROWS(fusedvae::fit_ensemble(trainers(all), rows(), -1), std::invalid_argument, "epochs must be");
    CHECK_THROWS(fusedvae::fit_ensemble({&all[0].trainer, &all[1].trainer, &all[0].trainer}, rows(), 1),
                 std::invalid_argument, "trainers 0 and 2 train the same model");
    CHECK_THROWS(fusedvae::fit_ensemble(trainers(all), rows(), 1, nullptr, -1), std::invalid_argument,
                 "threads must be");
    fusedvae::fit_ensemble({}, rows(), 1);
    const fvae_array x = rows();
    CHECK_FAILS(fvae_ensemble_fit(nullptr, 1, &x, 1, nullptr, 0, nullptr, 0, nullptr), FVAE_INVALID_ARGUMENT, "NULL");
    CHECK(fvae_trainer_failure(nullptr) == nullptr);
}

}  // namespace
