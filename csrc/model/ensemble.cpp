// SPDX-License-Identifier: MIT
#include "ensemble.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "error.h"

namespace fusedvae {

namespace {

constexpr std::chrono::milliseconds kTick{50};
constexpr int kMostOnGpus = 64;  // trainings at a time: each has activations and gradients there

// What the threads share.
struct Ensemble {
    fvae_ensemble_callback callback;
    uint32_t events;
    void* user;
    std::atomic<bool> stopped{false};  // everyone ends at its next step
    std::mutex guard{};
    std::exception_ptr first{};  // of those that stopped it

    void stop_with(std::exception_ptr thrown) {
        const std::lock_guard<std::mutex> lock(guard);
        if (!first) first = thrown;
        stopped = true;
    }
    int32_t tell(int64_t index, fvae_event event, const fvae_progress* progress) {
        if (stopped) return FVAE_CALLBACK_STOP;
        if (!callback || !(events & (1u << event))) return FVAE_CALLBACK_CONTINUE;
        return callback(user, index, event, progress);
    }
};

struct Member {
    Ensemble* ensemble;
    int64_t index;
    static int32_t event(void* user, fvae_event event, const fvae_progress* progress) {
        const auto* self = static_cast<Member*>(user);
        return self->ensemble->tell(self->index, event, progress);
    }
};

// Those of each GPU where there are several.
class OnGpus {
  public:
    explicit OnGpus(const std::vector<std::shared_ptr<Trainer>>& trainers) {
        std::map<int, int> counts;
        for (const auto& trainer : trainers) ++counts[index_of(*trainer)];
        all_ = counts.count(kCpu) == 0;
        for (const auto& [index, count] : counts)
            if (index != kCpu && count > 1) ensembles_[index] = DeviceEnsemble::make(index);
    }
    bool all() const { return all_; }
    std::shared_ptr<DeviceEnsemble> of(const Trainer& trainer) const {
        const auto found = ensembles_.find(index_of(trainer));
        return found == ensembles_.end() ? nullptr : found->second;
    }

  private:
    static int index_of(const Trainer& trainer) { return device_index(trainer.model()->device()); }

    std::map<int, std::shared_ptr<DeviceEnsemble>> ensembles_;
    bool all_ = false;
};

void check_distinct(const std::vector<std::shared_ptr<Trainer>>& trainers) {
    for (size_t i = 0; i < trainers.size(); ++i)
        for (size_t j = 0; j < i; ++j)
            if (trainers[i]->model() == trainers[j]->model())
                throw std::invalid_argument("trainers " + std::to_string(j) + " and " + std::to_string(i) +
                                            " train the same model; give each a model of its own");
}

}  // namespace

std::vector<std::string> fit_ensemble(const std::vector<std::shared_ptr<Trainer>>& trainers, const fvae_array& x,
                                      int64_t epochs, const fvae_array* validation, int threads,
                                      fvae_ensemble_callback callback, uint32_t events, void* user) {
    check_distinct(trainers);
    std::vector<std::string> failures(trainers.size());
    std::vector<size_t> order(trainers.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return trainers[a]->model()->network.floats > trainers[b]->model()->network.floats;
    });

    const OnGpus gpus(trainers);
    if (threads == 0) threads = gpus.all() ? kMostOnGpus : default_threads();

    Ensemble ensemble{callback, events, user};
    const auto fit = [&](size_t i) {
        Member member{&ensemble, static_cast<int64_t>(i)};
        try {
            trainers[i]->fit(x, epochs, validation, Member::event, events | (1u << FVAE_TICK), &member,
                             gpus.of(*trainers[i]));
        } catch (const Error& error) {
            if (error.status == FVAE_NON_FINITE)
                failures[i] = error.what();
            else
                ensemble.stop_with(std::current_exception());
        } catch (...) {
            ensemble.stop_with(std::current_exception());
        }
    };

    std::atomic<size_t> next{0};
    int finished = 0;  // threads
    std::condition_variable changed;
    Lease lease(std::min<int>(threads, static_cast<int>(trainers.size())));
    lease.run([&](const Team& team) {
        for (size_t i; !ensemble.stopped && (i = next++) < order.size();) fit(order[i]);
        std::unique_lock<std::mutex> lock(ensemble.guard);
        ++finished;
        changed.notify_all();
        if (team.thread != 0) return;
        // The caller's thread goes on hearing of a wish to stop.
        while (!changed.wait_for(lock, kTick, [&] { return finished == team.threads; })) {
            lock.unlock();
            if (ensemble.tell(-1, FVAE_TICK, nullptr) == FVAE_CALLBACK_ERROR)
                ensemble.stop_with(std::make_exception_ptr(Error(FVAE_STOPPED, "a callback failed")));
            lock.lock();
        }
    });
    if (ensemble.first) std::rethrow_exception(ensemble.first);
    return failures;
}

}  // namespace fusedvae
