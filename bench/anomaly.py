# SPDX-License-Identifier: MIT
"""Anomaly detection on ten labelled tables of ADBench, beside PyOD's VAE and PCA and scikit-learn's IsolationForest.

    pip install pyod torch scikit-learn
    python bench/anomaly.py --data FOLDER --json bench/results/anomaly.json

FOLDER holds ADBench's files of Classical (16_http.npz and so on, arrays X and y with 1 for an anomaly). Every arm runs
with its own defaults, which for fusedvae were chosen on other tables (`anomaly_choice.py`), and sees the same rows:
semi-supervised, half of the normal rows, tested on the other half and all anomalies; unsupervised, all rows, tested on
themselves. Tables are cut to ROWS random rows, as ADBench does. The figure is the area under the ROC curve in percent.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from anomaly_arms import ARMS, SETTINGS, auroc, split, versions
from report import machine, table, write

TABLES = (
    "4_breastw",
    "6_cardio",
    "16_http",
    "23_mammography",
    "26_optdigits",
    "28_pendigits",
    "30_satellite",
    "32_shuttle",
    "38_thyroid",
    "40_vowels",
)
ROWS = 10_000
GOALS = {"PyOD VAE": 2.0, "PyOD PCA": 0.0, "IsolationForest": 0.0}  # points that fusedvae's mean is to be above


def load(folder: Path, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The table's rows of this seed: X (n, D) float64, y (n,)."""
    with np.load(folder / f"{name}.npz") as file:
        x, y = file["X"].astype(np.float64), file["y"]
    rows = np.random.default_rng(seed).permutation(len(x))[:ROWS]
    return x[rows], y[rows]


def measure(folder: Path, seeds: int) -> dict[str, dict[str, dict[str, dict[str, list[float]]]]]:
    """results[setting][table][arm]: "auroc" and "seconds" (training and scoring) of each seed."""
    results: dict = {
        setting: {name: {arm: {"auroc": [], "seconds": []} for arm in ARMS} for name in TABLES} for setting in SETTINGS
    }
    for name in TABLES:
        for seed in range(seeds):
            x, y = load(folder, name, seed)
            for setting in SETTINGS:
                train, test, labels = split(x, y, setting, seed)
                for arm, detect in ARMS.items():
                    start = time.perf_counter()
                    scores = detect(train, test, seed)
                    figures = results[setting][name][arm]
                    figures["seconds"].append(round(time.perf_counter() - start, 4))
                    figures["auroc"].append(round(auroc(labels, scores), 3))
        print(f"{name} done", flush=True)
    return results


def show(setting: str, results: dict) -> tuple[dict[str, float], dict[str, float]]:
    """Prints the setting's table; its mean AUROC and median seconds for each arm."""
    rows = []
    for name, arms in results.items():
        means = [statistics.mean(figures["auroc"]) for figures in arms.values()]
        spread = statistics.pstdev(arms["fusedvae"]["auroc"])
        rows.append([name.split("_", 1)[1], *(f"{mean:.1f}" for mean in means), f"{spread:.1f}"])
    mean = {arm: statistics.mean(statistics.mean(of[arm]["auroc"]) for of in results.values()) for arm in ARMS}
    seconds = {arm: statistics.median(s for of in results.values() for s in of[arm]["seconds"]) for arm in ARMS}
    rows.append(["mean", *(f"{value:.2f}" for value in mean.values()), ""])
    rows.append(["median seconds", *(f"{value:.2f}" for value in seconds.values()), ""])
    print("\n" + table([setting, *ARMS, "fusedvae's deviation"], rows))
    for arm, points in GOALS.items():
        above = mean["fusedvae"] - mean[arm]
        print(f"{above:+.2f} points from {arm} ({'reached' if above >= points else 'missed'}: at least {points:+.0f})")
    return mean, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="with the ten .npz files")
    parser.add_argument("--seeds", type=int, default=5, help="cuts, splits and trainings of each (%(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the record there")
    arguments = parser.parse_args()
    for name in TABLES:
        if not (arguments.data / f"{name}.npz").exists():
            parser.error(f"{arguments.data} has no {name}.npz")

    where = machine()
    results = measure(arguments.data, arguments.seeds)
    means = {}
    for setting, of in results.items():
        mean, seconds = show(setting, of)
        means[setting] = {arm: {"auroc": mean[arm], "median_seconds": seconds[arm]} for arm in ARMS}
    if arguments.json:
        record = {"benchmark": "anomaly", "machine": where, "versions": versions(), "rows": ROWS, "means": means}
        write(arguments.json, record | {"results": results})


if __name__ == "__main__":
    main()
