// SPDX-License-Identifier: MIT
#include "model/ensemble.h"

#include "handles.h"

using namespace fusedvae;

fvae_status fvae_ensemble_fit(fvae_trainer* const* trainers, int64_t count, const fvae_array* x, int64_t epochs,
                              const fvae_array* validation, int32_t threads, fvae_ensemble_callback callback,
                              uint32_t events, void* user) {
    return guarded([&] {
        if (count < 0 || count > 65536)
            throw std::invalid_argument("count must be between 0 and 65536, it is " + std::to_string(count));
        if (threads < 0 || threads > 1024)
            throw std::invalid_argument("threads must be between 0 and 1024, it is " + std::to_string(threads));
        if (count > 0) require(trainers, "trainers");
        std::vector<std::shared_ptr<Trainer>> running;
        for (int64_t i = 0; i < count; ++i) {
            require(trainers[i], "a trainer");
            running.push_back(trainers[i]->trainer);
        }
        const fvae_array rows = read_struct(x, fvae_array_default(), "x");
        fvae_array held_out = fvae_array_default();
        if (validation) held_out = read_struct(validation, held_out, "validation");
        for (int64_t i = 0; i < count; ++i) trainers[i]->failure.clear();  // this run may end with an error
        const auto failures =
            fit_ensemble(running, rows, epochs, validation ? &held_out : nullptr, threads, callback, events, user);
        for (size_t i = 0; i < failures.size(); ++i) trainers[i]->failure = failures[i];
    });
}

const char* fvae_trainer_failure(const fvae_trainer* trainer) {
    return trainer && !trainer->failure.empty() ? trainer->failure.c_str() : nullptr;
}
