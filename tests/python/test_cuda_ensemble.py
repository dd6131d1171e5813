# SPDX-License-Identifier: MIT
"""train_ensemble on a GPU: steps of all side by side, and each ends with the bits of a fit of its own."""

import functools
import threading
import time
from typing import Any

import ensembles
import fusedvae as fv
import numpy as np
import pytest
from ensembles import assert_as_alone, same
from gpus import needs_emulator, needs_gpu

WAYS = ["graphs", "programs"]
trainers = functools.partial(ensembles.trainers, device="cuda")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).random((150, 12), dtype=np.float32)


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_one_launch_for_many_steps_has_the_bits_of_graphs(monkeypatch, x, precision):
    runs = []
    for way in WAYS:
        monkeypatch.setenv("FUSEDVAE_GPU_STEPS", way)
        runs.append(trainers(2, precision=precision, clip_norm=1.0, free_bits=0.01)[1])
        runs[-1].fit(x, epochs=3, validation_data=x[:20])
    assert same(*runs)


@needs_gpu
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_each_has_the_bits_of_a_fit_of_its_own(x, threads):
    assert_as_alone(lambda: trainers(7), x, epochs=3, validation_data=x[:10], threads=threads)


@needs_emulator
@pytest.mark.parametrize("setting", ["architecture=80", "order=backward,streams=late", "races=1"])
def test_clusters_or_not_in_any_order(monkeypatch, x, setting):
    alone = trainers(3)
    for trainer in alone:
        trainer.fit(x, epochs=1)
    monkeypatch.setenv("FUSEDVAE_EMULATED_GPU", setting)
    for mine, one in zip(fv.train_ensemble(trainers(3), x, epochs=1), alone, strict=True):
        assert same(mine, one)


@needs_gpu
def test_precisions_devices_and_kinds_of_rows_may_differ(x):
    def mixed() -> list[fv.Trainer]:
        return [
            *(trainers(3, precision=name)[i] for i, name in enumerate(("float32", "tf32", "bfloat16"))),
            fv.Trainer(fv.Model(fv.Config(input_shape=12, hidden=(16,), latent=3), seed=9), batch_size=16),
        ]

    assert_as_alone(mixed, (x * 255).astype(np.uint8), epochs=2)


@needs_gpu
def test_large_batches_run_beside_the_others(x):
    def sizes() -> list[fv.Trainer]:
        return [trainers(3, batch_size=size)[i] for i, size in enumerate((1100, 64, 100))]

    assert_as_alone(sizes, np.concatenate([x] * 8), epochs=2)


@needs_gpu
def test_one_that_diverges_or_stops_ends_alone(x):
    def stopping(trainer: fv.Trainer) -> list[Any]:
        return [fv.EarlyStopping(monitor="loss", patience=1, min_delta=1e9)] if trainer is together[2] else []

    together = trainers(4)
    together[1] = trainers(2, optimizer=fv.SGD(1e30), snapshot=True)[1]
    fv.train_ensemble(together, x, epochs=5, callbacks=stopping)
    assert isinstance(together[1].failure, fv.NonFiniteError)
    assert [together[i].epoch for i in (0, 2, 3)] == [5, 2, 5]
    for i in (0, 3):
        alone = trainers(4)[i]
        alone.fit(x, epochs=5)
        assert same(together[i], alone)
    fv.train_ensemble([together[0], together[3]], x, epochs=1)
    assert [together[i].epoch for i in (0, 3)] == [6, 6]


@needs_gpu
def test_a_callbacks_error_ends_all(x):
    class Fails(fv.Callback):
        def on_epoch_end(self, trainer: fv.Trainer, progress: Any) -> None:
            if trainer is together[1] and progress.epoch == 1:
                raise KeyError("mine")

    together = trainers(3)
    with pytest.raises(KeyError, match="mine"):
        fv.train_ensemble(together, x, epochs=200, callbacks=lambda trainer: [Fails()])
    assert all(trainer.epoch < 200 for trainer in together)
    together[0].fit(x, epochs=1)


@needs_gpu
def test_models_of_others_may_be_read_meanwhile(x):
    together, done = trainers(3), threading.Event()

    class Reads(fv.Callback):
        def on_epoch_end(self, trainer: fv.Trainer, progress: Any) -> None:
            for other in together:
                assert np.isfinite(other.model.encode(x[:5])[0]).all()

    def read() -> None:
        while not done.is_set():
            for trainer in together:
                trainer.model.parameters()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        fv.train_ensemble(together, x, epochs=4, callbacks=lambda trainer: [Reads()], validation_data=x[:20])
    finally:
        done.set()
        reader.join()
    for mine, alone in zip(together, trainers(3), strict=True):
        alone.fit(x, epochs=4, validation_data=x[:20])
        assert same(mine, alone)


@needs_gpu
def test_who_is_late_keeps_nobody(x):
    """A callback that waits for the other trainings to end: they do."""
    together, ended = trainers(3), []

    class Waits(fv.Callback):
        def on_epoch_end(self, trainer: fv.Trainer, progress: Any) -> None:
            if trainer is together[0] and progress.epoch == 0:
                for _ in range(3000):
                    if len(ended) == 2:
                        break
                    time.sleep(0.01)
                assert len(ended) == 2

        def on_train_end(self, trainer: fv.Trainer, progress: Any) -> None:
            ended.append(trainer)

    fv.train_ensemble(together, x, epochs=3, callbacks=lambda trainer: [Waits()])
    assert ended[-1] is together[0]


@needs_gpu
def test_the_rows_are_held_as_long_as_the_call(x):
    together = trainers(3)
    sizes = []
    for _ in range(2):
        fv.train_ensemble(together, x, epochs=1)
        sizes.append(sum(trainer.memory()["device"] for trainer in together))
    assert sizes[0] == sizes[1]
    [alone] = trainers(1)
    alone.fit(x, epochs=1)
    assert alone.memory()["device"] > together[0].memory()["device"]  # by the rows


@needs_emulator
def test_a_gpus_failure_is_everyones(monkeypatch, x):
    together = trainers(2)
    monkeypatch.setenv("FUSEDVAE_EMULATED_GPU", "fail=run:1:719")
    with pytest.raises(RuntimeError, match="run failed on the GPU"):
        fv.train_ensemble(together, x, epochs=2)


@needs_gpu
def test_names_of_ways(monkeypatch, x):
    monkeypatch.setenv("FUSEDVAE_GPU_STEPS", "magic")
    with pytest.raises(ValueError, match='FUSEDVAE_GPU_STEPS is "magic"; it may be graphs or programs'):
        trainers(1)[0].fit(x, epochs=1)
