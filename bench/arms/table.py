# SPDX-License-Identifier: MIT
"""The whole job on a table, 50 000 x 30, in the shape of PyOD's VAE: 30-128-64-32, latent 2, batch 32, Adam 1e-3.

The columns come raw, with units of their own, and every arm standardises them by the training rows' mean and deviation;
scores and ELBO are those of standardised columns. No data set is read: the rows are a seed's, four hidden causes, bent
and mixed, plus noise.

    run(seed, epochs, folder) -> list   a whole training: seconds from the raw table to each epoch's end; see laps.py
    score(way) -> (float, float)        seconds to score the 50 000 raw rows, and their mean score
"""

from __future__ import annotations

import time

import numpy as np
from problems import LEARNING_RATE

from arms.laps import Laps

WIDTH, HIDDEN, LATENT, BATCH = 30, (128, 64, 32), 2, 32
ROWS = {"train": 50_000, "test": 10_000}


def raw(part: str) -> np.ndarray:
    """(n, 30) float64: x = unit * (tanh(c A) + c B / 3 + noise / 3) + offset, with causes c (n, 4)."""
    rng = np.random.default_rng(7)
    bend, mix = rng.standard_normal((2, 4, WIDTH))
    unit, offset = 10 ** rng.uniform(-2, 3, WIDTH), rng.uniform(-100, 100, WIDTH)
    rows = sum(ROWS.values())
    causes = rng.standard_normal((rows, 4)) * [2.0, 1.5, 0.7, 0.5]
    noise = rng.standard_normal((rows, WIDTH))
    x = unit * (np.tanh(causes @ bend) + causes @ mix / 3 + noise / 3) + offset
    return x[: ROWS["train"]] if part == "train" else x[ROWS["train"] :]


def standardised(part: str) -> np.ndarray:
    """(n, 30) float32, by the training rows' mean and standard deviation."""
    train = raw("train")
    return _standardise(raw(part), train.mean(0), train.std(0))


def _standardise(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return ((x - mean) / deviation).astype(np.float32)


class Fused:
    def __init__(self, threads: int):
        import fusedvae

        self.fv, self.threads, self.raw = fusedvae, threads, raw("train")
        fusedvae.set_num_threads(threads)

    def about(self) -> dict:
        from arms import fused

        return fused.Fused(self.threads).about()

    def run(self, seed: int, epochs: int, folder: str) -> list[float]:
        fv, laps = self.fv, Laps(folder)
        self.mean, self.deviation = self.raw.mean(0), self.raw.std(0)
        x = _standardise(self.raw, self.mean, self.deviation)
        config = fv.Config(WIDTH, HIDDEN, latent=LATENT, likelihood="gaussian")
        self.model = fv.Model(config, seed=seed)
        self.trainer = fv.Trainer(
            self.model, fv.Adam(LEARNING_RATE), batch_size=BATCH, drop_last=True, threads=self.threads, seed=seed
        )
        self.trainer.fit(x, epochs, callbacks=lambda *_: laps.end(self.model.parameters))
        return laps.seconds

    def held_out(self) -> float:
        losses = self.trainer.evaluate(standardised("test"))
        return losses.reconstruction + losses.kl

    def adopt(self, path: str) -> None:
        """Takes another arm's parameters, so that both score with the same model."""
        with np.load(path) as parameters:
            self.model.set_parameters(dict(parameters))

    def score(self, way: str) -> tuple[float, float]:
        start = time.perf_counter()
        x = _standardise(self.raw, self.mean, self.deviation)
        scores = -self.model.elbo(x) if way == "elbo" else np.linalg.norm(x - self.model.reconstruct(x), axis=1)
        return time.perf_counter() - start, float(scores.mean())


class Single(Fused):
    """On one thread: a batch of 32 is some 20 microseconds of work, so that two threads gain or lose by how soon one
    core sees what the other has written."""

    def __init__(self, threads: int):
        super().__init__(1)
