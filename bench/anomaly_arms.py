# SPDX-License-Identifier: MIT
"""Detectors as `anomaly.py` and `anomaly_choice.py` compare them, how a table is split, and how scores are rated.

An arm is a function of (train, test, seed) that answers a score for each row of test; higher is more abnormal.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import fusedvae as fv
import numpy as np

Arm = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
SETTINGS = ("semi-supervised", "unsupervised")


def split(x: np.ndarray, y: np.ndarray, setting: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(train, test, whether each row of test is an anomaly): half of the normal rows against the rest and all
    anomalies; or, unsupervised, all rows against themselves."""
    if setting == "unsupervised":
        return x, x, y
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    held_out = np.concatenate([normal[len(normal) // 2 :], np.flatnonzero(y == 1)])
    return x[normal[: len(normal) // 2]], x[held_out], y[held_out]


def auroc(y: np.ndarray, scores: np.ndarray) -> float:
    """In percent."""
    from sklearn.metrics import roc_auc_score

    return 100 * float(roc_auc_score(y, scores))


@dataclass(frozen=True)
class Choice:
    """A way to make, train and ask a VAE; the defaults are what `anomaly_choice.py` arrived at."""

    scale: str = "standard"  # or "robust": median and interquartile range
    hidden: tuple[int, ...] = (64, 32)
    latent: int = 8
    activation: str = "tanh"
    variance: str = "element"
    min_variance: float = 1e-2
    beta: float = 1.0
    warm_up: float = 0.0  # share of the steps in which beta rises to its value
    batch_size: int = 64
    learning_rate: float = 2e-3  # falls to 0 by half a cosine
    steps: int = 2000  # and no fewer than 10 epochs
    trim: float = 0.0  # share of the training rows, the least likely ones, that a second training leaves out
    members: int = 1  # models whose scores are averaged

    def model(self, x: np.ndarray, seed: int) -> fv.Model:
        likelihood = fv.Gaussian(self.variance, min_variance=self.min_variance)
        columns = [fv.Column(shift=shift, scale=scale) for shift, scale in zip(*self.scaling(x), strict=True)]
        config = fv.Config(
            input_shape=x.shape[1],
            hidden=self.hidden,
            latent=self.latent,
            activation=self.activation,
            likelihood=likelihood,
            columns=columns,
        )
        model = fv.Model(config, seed=seed)
        batches = math.ceil(len(x) / self.batch_size)
        epochs = max(10, math.ceil(self.steps / batches))
        total = epochs * batches
        beta = fv.LinearBeta(self.beta, steps=math.ceil(self.warm_up * total)) if self.warm_up else self.beta
        trainer = fv.Trainer(
            model, fv.Adam(self.learning_rate), self.batch_size, beta, fv.Cosine(steps=total), threads=1, seed=seed
        )
        trainer.fit(x, epochs=epochs)
        return model

    def scaling(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shift, scale = x.mean(axis=0), x.std(axis=0)
        if self.scale == "robust":
            low, shift, high = np.percentile(x, [25, 50, 75], axis=0)
            scale = np.where(high > low, (high - low) / 1.349, scale)
        return shift, np.where(scale > 0, scale, 1.0)

    def scores(self, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """All scores of one training, by name; higher is more abnormal."""
        members = [self._scores(train, test, 100 * seed + member) for member in range(self.members)]
        return {name: np.mean([one[name] for one in members], axis=0) for name in members[0]}

    def _scores(self, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        model = self.model(train, seed)
        if self.trim:
            elbo = model.elbo(train, samples=16)
            model = self.model(train[elbo > np.quantile(elbo, self.trim)], seed)
        detectors = {
            name: fv.Detector(name, samples=samples)
            for name, samples in {"elbo": 16, "log_likelihood": 64, "reconstruction": 1, "kl": 1}.items()
        } | {"mahalanobis": fv.Detector.of_codes(model.encode(train)[0])}
        found = {name: -model.score(test, detector) for name, detector in detectors.items()}
        shift, scale = self.scaling(train)
        distance = 0.5 * (((test - shift) / scale) ** 2).sum(axis=1)
        return found | {
            "distance": distance,
            "elbo, distance 0.5": found["elbo"] + 0.5 * distance,
            "elbo, distance 1": found["elbo"] + distance,
            "elbo, distance 2": found["elbo"] + 2 * distance,
            "log_likelihood, distance 1": found["log_likelihood"] + distance,
        }


CHOSEN_SCORE = "elbo, distance 1"


def fused(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return Choice().scores(train, test, seed)[CHOSEN_SCORE]


def pyod_vae(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    import torch
    from pyod.models.vae import VAE

    torch.set_num_threads(1)
    return _silent(VAE(random_state=seed, verbose=0), train, test)


def pyod_pca(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    from pyod.models.pca import PCA

    return _silent(PCA(random_state=seed), train, test)


def isolation_forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


def _silent(detector, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """PCA divides by eigenvalues of 0 where columns depend on each other; its scores are then NaN or infinite, which
    count as the most abnormal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.nan_to_num(detector.fit(train).decision_function(test), nan=np.finfo(float).max)


ARMS: dict[str, Arm] = {
    "fusedvae": fused,
    "PyOD VAE": pyod_vae,
    "PyOD PCA": pyod_pca,
    "IsolationForest": isolation_forest,
}


def versions() -> dict[str, str]:
    """Of the packages that the arms come from."""
    modules = {"scikit-learn": "sklearn"}
    found = {
        name: importlib.metadata.version(name)
        for name in ("numpy", "scikit-learn", "pyod", "torch")
        if importlib.util.find_spec(modules.get(name, name))
    }
    return {"fusedvae": fv.__version__, **found}
