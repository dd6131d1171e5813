# SPDX-License-Identifier: MIT
"""Detectors as `anomaly.py` and `anomaly_choice.py` compare them, how a table is split, and how scores are rated.

An arm is a function of (train, test, seed) that answers a score for each row of test; higher is more abnormal.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable

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


def fused(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Contamination sets a threshold, unknown to the ROC curve; "auto" would train five further models to find it."""
    return -fv.AnomalyDetector(contamination=0.1, random_state=seed, threads=1).fit(train).score_samples(test)


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
