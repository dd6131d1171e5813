# SPDX-License-Identifier: MIT
"""The same seed gives the same bits: for any number of threads, and for a run stopped anywhere, saved and resumed."""

import fusedvae as fv
import numpy as np
import pytest

MODELS = {
    "narrow": {"input_shape": 12, "hidden": (16,), "latent": 3},
    "wide": {"input_shape": 200, "hidden": (300,), "latent": 10},
    "deep": {"input_shape": 40, "hidden": (70, 33, 65), "latent": 5, "activation": "gelu"},
    "bare": {"input_shape": 17, "hidden": (), "latent": 1},
    "element": {"input_shape": 30, "hidden": (50,), "latent": 4, "likelihood": fv.Gaussian("element")},
    "feature": {"input_shape": 30, "hidden": (50,), "latent": 4, "likelihood": fv.Gaussian("feature")},
}
OPTIONS = {
    "adam": {},
    "momentum": {"optimizer": fv.SGD(1e-3, momentum=0.9, nesterov=True, weight_decay=1e-3)},
    "adamw": {"optimizer": fv.AdamW(1e-2, weight_decay=0.1)},
    "cosine": {"schedule": fv.Cosine(12, final=0.1, warmup=4)},
    "decay": {"schedule": fv.StepDecay(5, factor=0.5, warmup=2)},
    "linear beta": {"beta": fv.LinearBeta(steps=9)},
    "cyclical beta": {"beta": fv.CyclicalBeta(0.5, steps=6)},
    "clipping": {"clip_norm": 0.5},
    "free bits": {"free_bits": 0.05},
    "everything": {
        "optimizer": fv.AdamW(1e-2),
        "schedule": fv.Cosine(15, warmup=3),
        "beta": fv.CyclicalBeta(1.0, steps=7),
        "clip_norm": 1.0,
        "free_bits": 0.05,
        "drop_last": True,
        "snapshot": True,
    },
    "in order": {"shuffle": False},
}
for precision in fv.available_precisions()[1:]:
    OPTIONS[precision] = {"precision": precision}
    OPTIONS[f"{precision} with everything"] = {**OPTIONS["everything"], "precision": precision}
    OPTIONS[f"{precision} with momentum"] = {**OPTIONS["momentum"], "precision": precision}


def rows(width: int, n: int = 110) -> np.ndarray:
    return np.random.default_rng(width).random((n, width), dtype=np.float32)


class StopAfter(fv.Callback):
    """Stops after so many steps of this fit."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_batch_end(self, trainer, progress):
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("batch_size", [1, 32, 100])
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("precision", fv.available_precisions())
def test_threads_change_no_bit(name: str, batch_size: int, precision: str, same_bits):
    config = fv.Config(**MODELS[name])
    x = rows(config.width, 20 if batch_size == 1 else 110)
    results = []
    for threads in (1, 2, 3, 8):
        model = fv.Model(config, seed=1)
        trainer = fv.Trainer(model, batch_size=batch_size, threads=threads, seed=2, precision=precision)
        history = trainer.fit(x, epochs=2, validation_data=x[:50])
        results.append((model.parameters(), history))
    for parameters, history in results[1:]:
        assert same_bits(parameters, results[0][0])
        assert same_bits(history, results[0][1])


@pytest.mark.parametrize("name", list(OPTIONS))
def test_threads_change_no_bit_for_any_option(name: str, same_bits):
    x = rows(40)
    results = []
    for threads in (1, 2, 3, 8):
        model = fv.Model(fv.Config(**MODELS["deep"]), seed=1)
        fv.Trainer(model, batch_size=32, threads=threads, **OPTIONS[name]).fit(x, epochs=2)
        results.append(model.parameters())
    assert all(same_bits(results[0], other) for other in results[1:])


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6, 11])
@pytest.mark.parametrize("name", list(OPTIONS))
def test_a_resumed_run_ends_with_the_bits_of_the_whole(name: str, stop_after: int, tmp_path, make_model, same_bits, x):
    def train(model: fv.Model) -> fv.Trainer:
        return fv.Trainer(model, batch_size=25, seed=5, **OPTIONS[name])

    whole = train(make_model())
    whole.fit(x, epochs=3, validation_data=x[:30])

    first = train(make_model())
    first.fit(x, epochs=3, validation_data=x[:30], callbacks=[StopAfter(stop_after)])
    assert first.global_step == min(stop_after, whole.global_step)
    first.save(tmp_path / "run.ckpt")
    second = fv.Trainer.resume(tmp_path / "run.ckpt")
    assert (second.epoch, second.global_step) == (first.epoch, first.global_step)
    assert same_bits(second.model.parameters(), first.model.parameters())
    if second.epoch < 3:
        second.fit(x, epochs=3 - second.epoch, validation_data=x[:30])
    assert same_bits(second.model.parameters(), whole.model.parameters())
    assert same_bits(second.history, whole.history)


def test_resuming_at_every_step_of_the_run(tmp_path, make_model, same_bits, x):
    whole = fv.Trainer(make_model(), batch_size=40)
    whole.fit(x, epochs=2)
    trainer = fv.Trainer(make_model(), batch_size=40)
    while trainer.epoch < 2:
        trainer.fit(x, epochs=2 - trainer.epoch, callbacks=[StopAfter(1)])
        trainer.save(tmp_path / "run.ckpt")
        trainer = fv.Trainer.resume(tmp_path / "run.ckpt")
    assert same_bits(trainer.model.parameters(), whole.model.parameters())


def test_checkpoints_written_by_a_callback_resume(tmp_path, make_model, same_bits, x):
    class Save(fv.Callback):
        def on_batch_end(self, trainer, progress):
            trainer.save(tmp_path / f"{progress.step}.ckpt")

    whole = fv.Trainer(make_model(), batch_size=40)
    whole.fit(x, epochs=2, callbacks=[Save()])
    for step in (1, 2, 3, 4, 5):
        trainer = fv.Trainer.resume(tmp_path / f"{step}.ckpt")
        assert trainer.global_step == step
        trainer.fit(x, epochs=2 - trainer.epoch)
        assert same_bits(trainer.model.parameters(), whole.model.parameters())


def test_fit_in_two_parts_is_fit_in_one(make_model, same_bits, x):
    one, two = fv.Trainer(make_model()), fv.Trainer(make_model())
    one.fit(x, epochs=4)
    two.fit(x, epochs=1)
    two.fit(x, epochs=3)
    assert same_bits(one.model.parameters(), two.model.parameters())


def test_steps_by_hand_resume_too(tmp_path, make_model, same_bits, x):
    whole = fv.Trainer(make_model(), fv.SGD(0.01, momentum=0.9))
    for i in range(4):
        whole.step(x[i * 20 : i * 20 + 20])
    trainer = fv.Trainer(make_model(), fv.SGD(0.01, momentum=0.9))
    for i in range(4):
        trainer.step(x[i * 20 : i * 20 + 20])
        trainer.save(tmp_path / "run.ckpt")
        trainer = fv.Trainer.resume(tmp_path / "run.ckpt")
    assert same_bits(trainer.model.parameters(), whole.model.parameters())


def test_seeds_change_the_run(make_model, same_bits, x):
    def train(seed: int) -> dict[str, np.ndarray]:
        trainer = fv.Trainer(make_model(), batch_size=30, seed=seed)
        trainer.fit(x, epochs=1)
        return trainer.model.parameters()

    assert same_bits(train(1), train(1))
    assert not same_bits(train(1), train(2))


def test_input_kinds_change_no_bit(make_model, same_bits):
    x = np.random.default_rng(0).integers(0, 2, (110, 12)).astype(np.float32)
    results = []
    for dtype in ("float32", "float64", "float16", "uint8", "bool"):
        model = make_model(uint8_scale=1.0)
        fv.Trainer(model, batch_size=32).fit(x.astype(dtype), epochs=2)
        results.append(model.parameters())
    assert all(same_bits(results[0], other) for other in results[1:])
