// SPDX-License-Identifier: MIT
//
// The C API of trainers.
#include "handles.h"

using namespace fusedvae;

fvae_trainer_options fvae_trainer_options_default(void) {
    fvae_trainer_options o{};
    o.struct_size = sizeof o;
    o.optimizer = FVAE_ADAM;
    o.learning_rate = 1e-3;
    o.beta1 = 0.9;
    o.beta2 = 0.999;
    o.epsilon = 1e-8;
    o.schedule_factor = 0.1;
    o.batch_size = 128;
    o.beta = 1.0;
    o.beta_ratio = 0.5;
    o.shuffle = 1;
    return o;
}

fvae_status fvae_trainer_create(fvae_model* model, const fvae_trainer_options* options, fvae_trainer** trainer) {
    return guarded([&] {
        require(model, "model");
        require(trainer, "trainer");
        const fvae_trainer_options o = read_struct(options, fvae_trainer_options_default(), "options");
        *trainer = new fvae_trainer{std::make_shared<Trainer>(model->model, o)};
    });
}
void fvae_trainer_free(fvae_trainer* trainer) { delete trainer; }

fvae_status fvae_trainer_get_options(const fvae_trainer* trainer, fvae_trainer_options* options) {
    return guarded([&] {
        require(trainer, "trainer");
        fvae_trainer_options o = trainer->trainer->options();
        write_struct(options, o, "options");
    });
}
fvae_status fvae_trainer_model(fvae_trainer* trainer, fvae_model** model) {
    return guarded([&] {
        require(trainer, "trainer");
        require(model, "model");
        *model = new fvae_model{trainer->trainer->model()};
    });
}

fvae_status fvae_trainer_fit(fvae_trainer* trainer, const fvae_array* x, int64_t epochs, const fvae_array* validation,
                             fvae_callback callback, uint32_t events, void* user) {
    return guarded([&] {
        require(trainer, "trainer");
        const fvae_array rows = array_of(x, "x");
        fvae_array held_out = fvae_array_default();
        if (validation) held_out = array_of(validation, "validation");
        const std::shared_ptr<Trainer> running = trainer->trainer;  // a callback may free the handle
        running->fit(rows, epochs, validation ? &held_out : nullptr, callback, events, user);
    });
}
fvae_status fvae_trainer_fit_source(fvae_trainer* trainer, fvae_source source, int64_t epochs,
                                    const fvae_array* validation, fvae_callback callback, uint32_t events, void* user) {
    return guarded([&] {
        require(trainer, "trainer");
        if (!source) throw std::invalid_argument("source is NULL");
        fvae_array held_out = fvae_array_default();
        if (validation) held_out = array_of(validation, "validation");
        const std::shared_ptr<Trainer> running = trainer->trainer;  // a callback may free the handle
        running->fit_source(source, epochs, validation ? &held_out : nullptr, callback, events, user);
    });
}
fvae_status fvae_trainer_step(fvae_trainer* trainer, const fvae_array* batch, const float* noise, fvae_losses* losses) {
    return guarded([&] {
        require(trainer, "trainer");
        const fvae_losses result = trainer->trainer->step(array_of(batch, "batch"), noise);
        if (losses) *losses = result;
    });
}
fvae_status fvae_trainer_evaluate(const fvae_trainer* trainer, const fvae_array* x, uint64_t seed,
                                  fvae_losses* losses) {
    return guarded([&] {
        require(trainer, "trainer");
        require(losses, "losses");
        *losses = trainer->trainer->evaluate(array_of(x, "x"), seed);
    });
}

int64_t fvae_trainer_epochs(const fvae_trainer* trainer) {
    return trainer ? static_cast<int64_t>(trainer->trainer->history().size()) : 0;
}
int64_t fvae_trainer_steps(const fvae_trainer* trainer) { return trainer ? trainer->trainer->steps() : 0; }
fvae_status fvae_trainer_history(const fvae_trainer* trainer, int64_t index, fvae_epoch* epoch) {
    return guarded([&] {
        require(trainer, "trainer");
        const auto& history = trainer->trainer->history();
        if (index < 0 || index >= static_cast<int64_t>(history.size()))
            throw std::invalid_argument("history index " + std::to_string(index) + " is not below " +
                                        std::to_string(history.size()));
        write_struct(epoch, history[static_cast<size_t>(index)], "epoch");
    });
}
fvae_status fvae_trainer_set_learning_rate(fvae_trainer* trainer, double learning_rate) {
    return guarded([&] {
        require(trainer, "trainer");
        trainer->trainer->set_learning_rate(learning_rate);
    });
}
int64_t fvae_trainer_memory(const fvae_trainer* trainer, int64_t index, const char** name, int64_t* bytes) {
    if (!trainer) return 0;
    const auto list = trainer->trainer->memory();
    if (index >= 0 && index < static_cast<int64_t>(list.size())) {
        if (name) *name = list[static_cast<size_t>(index)].name;
        if (bytes) *bytes = list[static_cast<size_t>(index)].bytes;
    }
    return static_cast<int64_t>(list.size());
}

fvae_status fvae_trainer_save(const fvae_trainer* trainer, const char* path) {
    return guarded([&] {
        require(trainer, "trainer");
        require(path, "path");
        trainer->trainer->save(path);
    });
}
fvae_status fvae_trainer_resume(const char* path, fvae_trainer** trainer) {
    return guarded([&] {
        require(path, "path");
        require(trainer, "trainer");
        *trainer = new fvae_trainer{Trainer::resume(path)};
    });
}
