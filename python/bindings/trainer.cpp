/* SPDX-License-Identifier: MIT
 *
 * Trainer. fit runs without the GIL; its callback takes it for as long as Python runs. What Python raises there leaves
 * fit unchanged, and a pending Ctrl-C is found at every event, TICK included.
 */
#include "bindings.h"

namespace fusedvae::python {
namespace {

struct BoundTrainer {
    Trainer trainer;
    std::shared_ptr<Training> training;

    BoundTrainer(Trainer t, std::shared_ptr<Training> shared) : trainer(std::move(t)), training(std::move(shared)) {}
};

// The trainer for what its callbacks may do, and other threads may not while it runs; none begins to train it meanwhile.
class Idle {
  public:
    explicit Idle(BoundTrainer& self) : reading_(*self.training), trainer_(self.trainer) {
        if (!reading_.valid()) {
            throw std::runtime_error("this trainer runs in another thread; ask it from a callback, or wait for it");
        }
    }
    Trainer* operator->() const { return &trainer_; }

  private:
    Reading reading_;
    Trainer& trainer_;
};

py::tuple progress_tuple(const fvae_progress& p) {
    const py::object validation = p.has_validation ? py::object(losses_tuple(p.validation)) : py::object(py::none());
    return py::make_tuple(p.epoch, p.epochs, p.batch, p.batches, p.step, p.learning_rate, p.beta,
                          losses_tuple(p.batch_losses), losses_tuple(p.train), validation);
}

// callback(event, progress) -> whether to stop.
Callback guarded(const py::function& callback) {
    return [&callback](fvae_event event, const fvae_progress& progress) -> int32_t {
        const py::gil_scoped_acquire acquired;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        const bool stop = callback(static_cast<int>(event), progress_tuple(progress)).cast<bool>();
        return stop ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
    };
}

void fit(BoundTrainer& self, const Rows& x, int64_t epochs, const Rows* validation, const py::function& callback,
         uint32_t events) {
    const Exclusive exclusive(*self.training);
    const py::gil_scoped_release released;
    const Model model = self.trainer.model();
    wait_for(model, x);
    if (validation) wait_for(model, *validation);
    self.trainer.fit(x.view, epochs, validation ? &validation->view : nullptr, guarded(callback), events);
}

// source(epoch, batch) -> Rows, or None where the epoch has no more.
void fit_source(BoundTrainer& self, const py::function& source, int64_t epochs, const Rows* validation,
                const py::function& callback, uint32_t events) {
    const Exclusive exclusive(*self.training);
    const Model model = self.trainer.model();
    py::object batch;  // kept until the next one is asked for; given up under the GIL, which is held again at the end
    const Source next = [&](int64_t epoch, int64_t index, fvae_array& rows) {
        const py::gil_scoped_acquire acquired;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        batch = source(epoch, index);
        if (batch.is_none()) return false;
        const Rows& given = batch.cast<const Rows&>();
        wait_for(model, given);
        rows = given.view;
        return true;
    };
    const py::gil_scoped_release released;
    if (validation) wait_for(model, *validation);
    self.trainer.fit_source(next, epochs, validation ? &validation->view : nullptr, guarded(callback), events);
}

// fit of all trainers at once; callbacks[i] is that of trainers[i]. Returns why each became non-finite, "" where it did not.
std::vector<std::string> fit_ensemble(const std::vector<BoundTrainer*>& bound, const Rows& x, int64_t epochs,
                                      const Rows* validation, int threads, const std::vector<py::function>& callbacks,
                                      uint32_t events) {
    std::vector<std::unique_ptr<Exclusive>> exclusive;
    std::vector<Trainer*> trainers;
    for (BoundTrainer* one : bound) {
        exclusive.push_back(std::make_unique<Exclusive>(*one->training));
        trainers.push_back(&one->trainer);
    }
    const EnsembleCallback callback = [&](int64_t index, fvae_event event, const fvae_progress* progress) -> int32_t {
        const py::gil_scoped_acquire acquired;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (index < 0) return FVAE_CALLBACK_CONTINUE;
        const auto i = static_cast<size_t>(index);
        bound[i]->training->owner = std::this_thread::get_id();  // its only thread, from its first event on
        const bool stop = callbacks[i](static_cast<int>(event), progress_tuple(*progress)).cast<bool>();
        return stop ? FVAE_CALLBACK_STOP : FVAE_CALLBACK_CONTINUE;
    };
    {
        const py::gil_scoped_release released;
        for (Trainer* trainer : trainers) {
            wait_for(trainer->model(), x);
            if (validation) wait_for(trainer->model(), *validation);
        }
        fusedvae::fit_ensemble(trainers, x.view, epochs, validation ? &validation->view : nullptr, threads, callback,
                               events);
    }
    std::vector<std::string> failures;
    for (const Trainer* trainer : trainers) failures.push_back(trainer->failure());
    return failures;
}

py::tuple step(BoundTrainer& self, const Rows& batch, const std::optional<Floats>& noise) {
    if (noise) {
        const int64_t latent = self.trainer.model().config().latent;
        if (noise->ndim() != 2 || noise->shape(0) != batch.view.rows || noise->shape(1) != latent) {
            throw std::invalid_argument("noise must have shape (n, latent)");
        }
    }
    const float* const noise_data = noise ? noise->data() : nullptr;
    fvae_losses losses;
    {
        const Exclusive exclusive(*self.training);
        const py::gil_scoped_release released;
        if (batch.view.on_device) wait_for(self.trainer.model(), batch);
        losses = self.trainer.step(batch.view, noise_data);
    }
    return losses_tuple(losses);
}

py::tuple evaluate(BoundTrainer& self, const Rows& x, uint64_t seed) {
    const Idle trainer(self);
    fvae_losses losses;
    {
        const py::gil_scoped_release released;
        if (x.view.on_device) wait_for(trainer->model(), x);
        losses = trainer->evaluate(x.view, seed);
    }
    return losses_tuple(losses);
}

// (epoch, step, learning_rate, beta, train losses, validation losses) of each finished epoch.
py::list history(BoundTrainer& self) {
    py::list records;
    for (const fvae_epoch& e : Idle(self)->history()) {
        records.append(py::make_tuple(e.epoch, e.step, e.learning_rate, e.beta, losses_tuple(e.train),
                                      losses_tuple(e.validation)));
    }
    return records;
}

py::dict memory(BoundTrainer& self) {
    py::dict bytes;
    for (const auto& [name, size] : Idle(self)->memory()) bytes[py::str(name)] = size;
    return bytes;
}

void save(BoundTrainer& self, const std::string& path) {
    const Idle trainer(self);
    const py::gil_scoped_release released;
    trainer->save(path);
}

}  // namespace

void bind_trainer(py::module_& m) {
    py::class_<BoundTrainer>(m, "Trainer")
        .def(py::init([](BoundModel& model, const fvae_trainer_options& options) {
                 return BoundTrainer(Trainer(model.model, options), model.training);
             }),
             py::arg("model"), py::arg("options"))
        .def_static(
            "resume",
            [](const std::string& path) {
                const py::gil_scoped_release released;
                return BoundTrainer(Trainer::resume(path), std::make_shared<Training>());
            },
            py::arg("path"))
        .def("model", [](BoundTrainer& self) { return BoundModel(self.trainer.model(), self.training); })
        .def("options", [](BoundTrainer& self) { return Idle(self)->options(); })
        .def(
            "set_learning_rate", [](BoundTrainer& self, double rate) { Idle(self)->set_learning_rate(rate); },
            py::arg("learning_rate"))
        .def("fit", &fit, py::arg("x"), py::arg("epochs"), py::arg("validation"), py::arg("callback"),
             py::arg("events"))
        .def("fit_source", &fit_source, py::arg("source"), py::arg("epochs"), py::arg("validation"),
             py::arg("callback"), py::arg("events"))
        .def("step", &step, py::arg("batch"), py::arg("noise"))
        .def("evaluate", &evaluate, py::arg("x"), py::arg("seed"))
        .def("epochs", [](BoundTrainer& self) { return Idle(self)->epochs(); })
        .def("steps", [](BoundTrainer& self) { return Idle(self)->steps(); })
        .def("history", &history)
        .def("memory", &memory)
        .def("save", &save, py::arg("path"));
    m.def("fit_ensemble", &fit_ensemble, py::arg("trainers"), py::arg("x"), py::arg("epochs"), py::arg("validation"),
          py::arg("threads"), py::arg("callbacks"), py::arg("events"));
}

}  // namespace fusedvae::python
