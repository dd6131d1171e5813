# SPDX-License-Identifier: MIT
"""Trainer: counters, history, schedules, options, stopping, memory, and the defaults it shares with the engine."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core


def test_training_learns(make_model, x, likelihood):
    model = make_model(likelihood=likelihood)
    trainer = fv.Trainer(model, fv.Adam(1e-2), batch_size=30)
    before = trainer.evaluate(x).loss
    history = trainer.fit(x, epochs=60)
    assert trainer.evaluate(x).loss < before - 0.5
    assert history["loss"][-1] < history["loss"][0]


def test_history_holds_every_epoch(make_model, x):
    trainer = fv.Trainer(make_model(), fv.Adam(1e-2), batch_size=40, beta=0.5)
    history = trainer.fit(x, epochs=3, validation_data=x[:20])
    assert set(history) == {
        *("epoch", "step", "loss", "reconstruction", "kl"),
        *("val_loss", "val_reconstruction", "val_kl", "learning_rate", "beta"),
    }
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["step"].tolist() == [3, 6, 9]
    assert history["learning_rate"].tolist() == [1e-2] * 3
    np.testing.assert_allclose(history["loss"], history["reconstruction"] + 0.5 * history["kl"], rtol=1e-6)
    np.testing.assert_allclose(history["val_loss"], history["val_reconstruction"] + 0.5 * history["val_kl"], rtol=1e-6)
    assert (trainer.epoch, trainer.global_step) == (3, 9)
    more = trainer.fit(x, epochs=1)
    assert more["epoch"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(more["loss"][:3], history["loss"])
    assert np.isnan(more["val_loss"][3])


def test_history_reads_well(make_model, x):
    trainer = fv.Trainer(make_model(), batch_size=90)
    assert repr(trainer.history) == "History(0 epochs, nats per row)"
    text = repr(trainer.fit(x, epochs=12))
    assert text.startswith("History(12 epochs")
    assert len(text.splitlines()) == 13
    assert "..." in text


def test_epoch_figures_are_weighted_by_rows(make_model, x):
    trainer = fv.Trainer(make_model(), fv.SGD(0.0), batch_size=80, shuffle=False)
    seen = []

    class Batches(fv.Callback):
        def on_batch_end(self, trainer, progress):
            seen.append(progress.batch_losses.loss)

    history = trainer.fit(x, epochs=1, callbacks=[Batches()])
    assert len(seen) == 2
    assert history["loss"][0] == pytest.approx((80 * seen[0] + 10 * seen[1]) / 90, rel=1e-9)


@pytest.mark.parametrize(("drop_last", "batch_size", "steps"), [(False, 40, 3), (True, 40, 2), (False, 1000, 1)])
def test_last_short_batch(drop_last: bool, batch_size: int, steps: int, make_model, x):
    trainer = fv.Trainer(make_model(), batch_size=batch_size, drop_last=drop_last)
    trainer.fit(x, epochs=1)
    assert trainer.global_step == steps


def test_dropping_the_only_batch_is_an_error(make_model, x):
    with pytest.raises(ValueError, match="drop_last leaves short batches out"):
        fv.Trainer(make_model(), batch_size=1000, drop_last=True).fit(x, epochs=1)


def test_one_row_and_many_threads(make_model, x, same_bits):
    models = []
    for threads in (1, 16):
        model = make_model()
        fv.Trainer(model, batch_size=1, threads=threads).fit(x[:1], epochs=3)
        models.append(model.parameters())
    assert same_bits(*models)


def test_step_uses_the_noise_given(make_model, x):
    noise = np.random.default_rng(0).standard_normal((90, 3))
    model = make_model()
    losses, gradients = model.gradients(x, noise=noise)
    before = model.parameters()
    stepped = fv.Trainer(model, fv.SGD(0.1)).step(x, noise=noise)
    assert stepped.loss == pytest.approx(losses.loss, rel=1e-6)
    after = model.parameters()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(after[name], before[name] - 0.1 * gradient, rtol=1e-5, atol=1e-6)


def test_step_takes_any_size(make_model, x):
    trainer = fv.Trainer(make_model(), batch_size=16)
    for rows in (1, 16, 90):
        trainer.step(x[:rows])
    assert trainer.global_step == 3


def test_evaluate_uses_the_final_beta(make_model, x):
    model = make_model()
    trainer = fv.Trainer(model, beta=fv.LinearBeta(0.25, steps=1000))
    losses = trainer.evaluate(x, seed=9)
    assert trainer.evaluate(x, seed=9) == losses
    assert losses.loss == pytest.approx(losses.reconstruction + 0.25 * losses.kl, rel=1e-9)
    assert losses != trainer.evaluate(x, seed=10)
    means = np.mean([trainer.evaluate(x, seed=seed) for seed in range(40)], axis=0)
    assert means[1] + means[2] == pytest.approx(-model.elbo(x, samples=200).mean(), rel=5e-3)


def rates(make_model, x, steps: int, **options) -> list[float]:
    seen = []

    class Watch(fv.Callback):
        def on_batch_end(self, trainer, progress):
            seen.append(progress.learning_rate)

    fv.Trainer(make_model(), fv.SGD(0.5), batch_size=90, **options).fit(x, epochs=steps, callbacks=[Watch()])
    return seen


def test_schedules(make_model, x):
    assert rates(make_model, x, 3) == [0.5] * 3
    np.testing.assert_allclose(rates(make_model, x, 5, schedule=fv.Constant(warmup=4)), [0.125, 0.25, 0.375, 0.5, 0.5])
    cosine = [0.5 * (0.2 + 0.8 * (1 + np.cos(np.pi * min(t, 4) / 4)) / 2) for t in range(6)]
    np.testing.assert_allclose(rates(make_model, x, 6, schedule=fv.Cosine(4, final=0.2)), cosine)
    decay = fv.StepDecay(2, factor=0.1)
    np.testing.assert_allclose(rates(make_model, x, 5, schedule=decay), [0.5, 0.5, 0.05, 0.05, 0.005])


def betas(make_model, x, steps: int, beta) -> list[float]:
    seen = []

    class Watch(fv.Callback):
        def on_batch_end(self, trainer, progress):
            seen.append(progress.beta)

    fv.Trainer(make_model(), batch_size=90, beta=beta).fit(x, epochs=steps, callbacks=[Watch()])
    return seen


def test_beta_schedules(make_model, x):
    assert betas(make_model, x, 2, 0.3) == [0.3, 0.3]
    linear = betas(make_model, x, 6, fv.LinearBeta(0.8, steps=4))
    np.testing.assert_allclose(linear, [0, 0.2, 0.4, 0.6, 0.8, 0.8])
    cyclical = betas(make_model, x, 16, fv.CyclicalBeta(1.0, steps=8, ratio=0.5))
    assert cyclical[:8] == cyclical[8:]
    np.testing.assert_allclose(cyclical[:8], [0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_learning_rate_can_be_changed(make_model, x):
    trainer = fv.Trainer(make_model(), fv.Adam(1e-2), batch_size=90)
    trainer.learning_rate = 1e-4
    assert trainer.learning_rate == 1e-4
    assert trainer.optimizer == fv.Adam(1e-4)
    assert trainer.fit(x, epochs=1)["learning_rate"][0] == 1e-4
    with pytest.raises(ValueError, match="learning_rate"):
        trainer.learning_rate = -1


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": fv.SGD(0.1, momentum=0.5, nesterov=True, weight_decay=0.25)},
        {"optimizer": fv.AdamW(betas=(0.5, 0.75), eps=1e-6)},
        {"schedule": fv.Cosine(100, final=0.5, warmup=3), "beta": fv.CyclicalBeta(2.0, steps=10, ratio=0.25)},
        {"schedule": fv.StepDecay(7, factor=0.5), "beta": fv.LinearBeta(steps=5), "batch_size": 7},
        {},
    ],
)
def test_options_read_back(options: dict, make_model):
    trainer = fv.Trainer(make_model(), **options)
    wanted = {"optimizer": fv.Adam(), "schedule": fv.Constant(), "beta": 1.0, "batch_size": 128, **options}
    assert {name: getattr(trainer, name) for name in wanted} == wanted
    assert repr(wanted["optimizer"]) in repr(trainer)


def test_defaults_are_the_engines(make_model):
    ours = fv.Trainer(make_model())._core.options()
    engines = _core.TrainerOptions()
    for name in (name for name in dir(engines) if not name.startswith("_")):
        assert getattr(ours, name) == getattr(engines, name), name


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2.5}, TypeError, "batch_size"),
        ({"beta": -1.0}, ValueError, "beta"),
        ({"beta": "warm"}, TypeError, "beta"),
        ({"optimizer": "adam"}, TypeError, "optimizer"),
        ({"schedule": 0.1}, TypeError, "schedule"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm"),
        ({"free_bits": -0.1}, ValueError, "free_bits"),
        ({"precision": "float16"}, ValueError, "bfloat16"),
        ({"threads": 0}, ValueError, "threads"),
        ({"seed": -1}, ValueError, "seed"),
        ({"shuffle": 1}, TypeError, "shuffle"),
    ],
)
def test_impossible_options(options: dict, error: type[Exception], word: str, make_model):
    with pytest.raises(error, match=word):
        fv.Trainer(make_model(), **options)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: fv.SGD(-1.0), "learning_rate"),
        (lambda: fv.SGD(0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda: fv.SGD(0.1, momentum=1.0), "momentum"),
        (lambda: fv.Adam(float("inf")), "learning_rate"),
        (lambda: fv.Adam(betas=(0.9, 1.0)), r"betas\[1\]"),
        (lambda: fv.Adam(betas=(0.9,)), "two numbers"),
        (lambda: fv.Adam(eps=0.0), "eps"),
        (lambda: fv.AdamW(weight_decay=-0.1), "weight_decay"),
        (lambda: fv.Cosine(0), "steps"),
        (lambda: fv.Cosine(5, final=1.5), "final"),
        (lambda: fv.StepDecay(5, factor=0.0), "factor"),
        (lambda: fv.Constant(warmup=-1), "warmup"),
        (lambda: fv.LinearBeta(steps=0), "steps"),
        (lambda: fv.CyclicalBeta(steps=5, ratio=0.0), "ratio"),
    ],
)
def test_impossible_schedules(make, word: str):
    with pytest.raises(ValueError, match=word):
        make()


def test_memory_is_three_times_the_parameters_for_adam(make_model, x):
    model = make_model(input_shape=784, hidden=(400,), latent=20)
    data = np.zeros((256, 784), np.uint8)
    parameters = 4 * model.parameter_count

    def held(optimizer, **options) -> dict[str, int]:
        trainer = fv.Trainer(model, optimizer, **options)
        trainer.step(data[:128])
        return trainer.memory()

    # Panels are padded to whole vectors: a few columns of each layer.
    padded = 1.1 * parameters
    adam = held(fv.Adam())
    assert parameters <= adam["parameters"] <= padded
    assert 2 * parameters <= adam["moments"] <= 2 * padded
    assert adam.get("transposed", 0) <= padded
    assert adam.get("gradients", 0) == adam.get("snapshot", 0) == 0
    sgd = held(fv.SGD(0.1))
    assert sgd.get("moments", 0) == 0
    assert parameters <= held(fv.SGD(0.1, momentum=0.9))["moments"] <= padded
    assert parameters <= held(fv.Adam(), clip_norm=1.0)["gradients"] <= padded
    rows = 128 * 4 * (784 * 3 + 400 * 6 + 20 * 8)  # activations, their gradients and converted rows of one batch
    assert adam["workspace"] <= 1.5 * rows


def test_snapshot_is_named_in_memory(make_model, x):
    trainer = fv.Trainer(make_model(), batch_size=30, snapshot=True)
    trainer.fit(x, epochs=1)
    assert trainer.memory()["snapshot"] >= 3 * 4 * trainer.model.parameter_count


def test_data_is_not_copied(make_model):
    data = np.zeros((200_000, 12), np.float32)
    trainer = fv.Trainer(make_model(), batch_size=64)
    trainer.fit(data, epochs=1)
    assert sum(trainer.memory().values()) < data.nbytes / 2


def test_progress_bar_may_be_asked_for(make_model, x, capfd):
    fv.Trainer(make_model(), batch_size=30).fit(x, epochs=2, progress=True)
    assert "2/2" in capfd.readouterr().err


# ---- stopping and threads


def test_stop_from_another_thread(make_model, x):
    trainer = fv.Trainer(make_model(), batch_size=8)
    ticked = threading.Event()

    class Tick(fv.Callback):
        def on_tick(self, trainer, progress):
            ticked.set()

    thread = threading.Thread(target=trainer.fit, args=(x, 10**9), kwargs={"callbacks": [Tick()]})
    thread.start()
    assert ticked.wait(20)
    trainer.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert trainer.global_step > 0


def test_a_stop_before_fit_is_forgotten(make_model, x):
    trainer = fv.Trainer(make_model())
    trainer.stop()
    trainer.fit(x, epochs=2)
    assert trainer.epoch == 2


def test_one_training_at_a_time(make_model, x, tmp_path):
    model = make_model()
    trainer = fv.Trainer(model, batch_size=8)
    other = fv.Trainer(model)
    started, done = threading.Event(), threading.Event()

    class Hold(fv.Callback):
        def on_train_begin(self, trainer, progress):
            started.set()
            done.wait(20)

    thread = threading.Thread(target=trainer.fit, args=(x, 1), kwargs={"callbacks": [Hold()]})
    thread.start()
    assert started.wait(20)
    try:
        for refused in (
            lambda: trainer.fit(x, 1),
            lambda: trainer.step(x),
            lambda: other.step(x),
            lambda: trainer.save(tmp_path / "run"),
            lambda: trainer.history,
            lambda: setattr(trainer, "learning_rate", 0.1),
            lambda: model.set_parameters(model.parameters()),
            lambda: model.init_output_bias(x),
        ):
            with pytest.raises(RuntimeError, match="in another thread"):
                refused()
        assert model.elbo(x).shape == (90,)
    finally:
        done.set()
        thread.join()
    assert trainer.epoch == 1


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_stops_at_a_step(interruptible):
    program = textwrap.dedent(
        """
        import sys, time
        import numpy as np
        import fusedvae as fv
        trainer = fv.Trainer(fv.Model(fv.Config(input_shape=64, hidden=(64,), latent=4)), batch_size=32)
        class Ready(fv.Callback):
            def on_train_begin(self, trainer, progress):
                print("ready", flush=True)
        try:
            trainer.fit(np.zeros((4096, 64), np.float32), epochs=10**9, callbacks=[Ready()])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        step = trainer.global_step
        assert step > 0
        assert all(np.isfinite(values).all() for values in trainer.model.parameters().values())
        trainer.step(np.zeros((32, 64)))
        assert trainer.global_step == step + 1
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)  # into the training, which would go on for ever
        child.send_signal(signal.SIGINT)
        try:
            assert child.communicate(timeout=60)[0] == "interrupted\n"
        finally:
            child.kill()
    assert child.returncode == 0
