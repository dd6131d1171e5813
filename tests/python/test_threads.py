# SPDX-License-Identifier: MIT
"""Several threads and processes on one model: the same bits as alone, with a GIL and without."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable

import fusedvae as fv
import numpy as np
import pytest


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Runs work(t) on so many threads at once; the first exception is raised again."""
    failures: list[BaseException] = []
    together = threading.Barrier(count)

    def guarded(t: int) -> None:
        try:
            together.wait()
            work(t)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(t,)) for t in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_thirty_two_threads_use_one_model(make_model, x):
    model = make_model()
    x = x.astype(np.float32)

    def answers() -> list[np.ndarray]:
        codes = np.empty((len(x), model.config.latent), np.float32)
        model.encode_into(x, codes)
        sampler = fv.Sampler(model, seed=3)
        return [
            *model.encode(x),
            codes,
            model.elbo(x, 3),
            model.score(x, "kl"),
            sampler.sample(5),
            model.contributions(x),
        ]

    alone = answers()

    def work(_: int) -> None:
        for _ in range(5):
            for found, expected in zip(answers(), alone, strict=True):
                np.testing.assert_array_equal(found, expected)

    in_threads(32, work)


def test_of_many_that_would_train_one_model_all_others_are_refused(make_model, x):
    trainer = fv.Trainer(make_model(), batch_size=10)
    trained, refused = [], []

    def work(t: int) -> None:
        for _ in range(20):
            try:
                trainer.fit(x, epochs=1)
            except RuntimeError as refusal:  # noqa: PERF203
                refused.append(str(refusal))
            else:
                trained.append(t)

    in_threads(8, work)
    assert trainer.epoch == len(trained) > 0
    assert len(trained) + len(refused) == 8 * 20
    assert all("this model is being trained in another thread" in refusal for refusal in refused)


def test_a_detector_is_read_whole_while_it_is_set(make_model, x):
    model = make_model()
    Z = model.config.latent

    def detector(value: float) -> fv.Detector:
        mean, precision = np.full(Z, value), np.full((Z, Z), value) + np.eye(Z)
        return fv.Detector("mahalanobis", threshold=value, latent_mean=mean, latent_precision=precision)

    model.detector = detector(0.0)

    def work(t: int) -> None:
        for i in range(100):
            if t == 0:
                model.detector = detector(float(i))
            else:
                found = model.detector
                assert found is not None
                np.testing.assert_array_equal(found.latent_mean, found.threshold)
                np.testing.assert_array_equal(found.latent_precision, found.threshold + np.eye(Z))

    in_threads(6, work)


def test_callbacks_of_two_trainings_keep_to_their_own(make_model, x):
    seen: list[list[int]] = [[], []]

    def work(t: int) -> None:
        trainer = fv.Trainer(make_model(), batch_size=10, threads=2)
        trainer.fit(x, epochs=5 + t, callbacks=[lambda _, progress: seen[t].append(progress.epoch)])

    in_threads(2, work)
    assert [max(epochs) for epochs in seen] == [4, 5]


# ---- fork -----------------------------------------------------------------------------------------------------------

MODEL: fv.Model | None = None
TRAINER: fv.Trainer | None = None


def scores_and_another_epoch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In a forked worker: the parent's threads are not there, its model and trainer are."""
    assert MODEL is not None
    assert TRAINER is not None
    scores = MODEL.elbo(x)
    TRAINER.fit(x, epochs=1)
    return scores, MODEL.elbo(x)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_forked_workers_score_and_train_with_the_parents_model(make_model):
    global MODEL, TRAINER
    x = np.random.default_rng(0).random((500, 12))
    before = fv.get_num_threads()
    fv.set_num_threads(2)  # the parent has a pool when it forks, and each child must build its own
    try:
        MODEL = make_model(hidden=(200,))
        TRAINER = fv.Trainer(MODEL, batch_size=100)
        TRAINER.fit(x, epochs=1)
        scores = MODEL.elbo(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads
            # each task in a fork of its own: one that takes two would score the second with what it has trained
            with multiprocessing.get_context("fork").Pool(3, maxtasksperchild=1) as pool:
                found = pool.map_async(scores_and_another_epoch, [x] * 3, chunksize=1).get(timeout=120)
        TRAINER.fit(x, epochs=1)
        for seen, trained in found:
            np.testing.assert_array_equal(seen, scores)
            np.testing.assert_array_equal(trained, MODEL.elbo(x))  # what the parent's next epoch does too
        assert not np.array_equal(MODEL.elbo(x), scores)
    finally:
        fv.set_num_threads(before)
        MODEL = TRAINER = None


# ---- beside others --------------------------------------------------------------------------------------------------

BESIDE = """
import os, threading
{imports}
import fusedvae as fv

environment = dict(os.environ)
x = np.random.default_rng(0).random((600, 30), dtype=np.float32)
options = dict(input_shape=30, hidden=(64,), latent=4)

def train():
    model = fv.Model(fv.Config(**options), seed=1)
    fv.Trainer(model, batch_size=50, threads=2).fit(x, epochs=5)
    return model.parameters()

alone = train()
theirs_alone = other()
before = {threads}
results, theirs = [], []
threads = [threading.Thread(target=lambda: results.append(train())) for _ in range(2)]
threads.append(threading.Thread(target=lambda: theirs.append(other())))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert (len(results), len(theirs)) == (2, 1)
for result in results:
    assert all(np.array_equal(result[name], alone[name]) for name in alone)
for result in theirs:
    assert np.allclose(result, theirs_alone, rtol=1e-5)
assert {threads} == before, "the other library's number of threads has changed"
assert dict(os.environ) == environment
assert np.float32(1e-40) * np.float32(1) > 0, "subnormal numbers are flushed"
print("done")
"""

TORCH = """
import numpy as np
import torch

def other():
    torch.manual_seed(0)
    a = torch.rand(300, 300)
    for _ in range(10):
        a = torch.nn.functional.normalize(torch.relu(a @ a))
    return a.numpy().sum()
"""
SKLEARN = """
import numpy as np
import threadpoolctl
from sklearn.cluster import KMeans

def other():
    rows = np.random.default_rng(1).random((1000, 10))
    return KMeans(8, n_init=1, random_state=0).fit(rows).inertia_
"""


@pytest.mark.parametrize(
    ("library", "imports", "threads"),
    [
        ("torch", TORCH, "torch.get_num_threads()"),
        ("sklearn", SKLEARN, "[pool['num_threads'] for pool in threadpoolctl.threadpool_info()]"),
    ],
)
def test_training_beside_another_user_of_threads(library: str, imports: str, threads: str):
    """At once, both come to the end with the results they have alone, and the other's setup stays as it was."""
    pytest.importorskip(library)
    code = BESIDE.format(imports=imports, threads=threads)
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done"]


IDLE = """
import os, time
import numpy as np, fusedvae as fv
def tasks():
    return set(os.listdir("/proc/self/task"))
before = tasks()
import fusedvae
assert tasks() == before, "importing starts threads"
model = fv.Model(fv.Config(input_shape=784))
fv.Trainer(model, batch_size=128, threads=3).fit(np.zeros((512, 784)), epochs=1)
workers = tasks() - before
assert len(workers) == 2, workers
def state(task):
    with open(f"/proc/self/task/{task}/stat") as stat:
        return stat.read().rsplit(")")[1].split()[0]
for _ in range(1000):
    if all(state(task) == "S" for task in workers):
        break
    time.sleep(0.01)
else:
    raise SystemExit("workers never sleep")
print("asleep")
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="/proc tells what a process's threads do")
def test_idle_workers_sleep():
    """What is spun away between regions is bounded: afterwards the cores belong to others."""
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["asleep"], done.stderr
