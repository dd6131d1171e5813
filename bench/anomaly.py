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
import json
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


def measure(folder: Path, arms: list[str], seeds: int, results: dict) -> None:
    """Puts "auroc" and "seconds" (training and scoring) of each seed into results[setting][table][arm]."""
    for name in TABLES:
        for setting in SETTINGS:
            for arm in arms:
                figures: dict[str, list[float]] = {"auroc": [], "seconds": []}
                results.setdefault(setting, {}).setdefault(name, {})[arm] = figures
                for seed in range(seeds):
                    train, test, labels = split(*load(folder, name, seed), setting, seed)
                    start = time.perf_counter()
                    scores = ARMS[arm](train, test, seed)
                    figures["seconds"].append(round(time.perf_counter() - start, 4))
                    figures["auroc"].append(round(auroc(labels, scores), 3))
        print(f"{name} done", flush=True)


def show(setting: str, results: dict) -> dict[str, dict[str, float]]:
    """Prints the setting's table; the mean AUROC and the median seconds of each arm that knows all tables."""
    arms = [arm for arm in ARMS if all(arm in figures for figures in results.values())]
    mean = {arm: statistics.mean(statistics.mean(of[arm]["auroc"]) for of in results.values()) for arm in arms}
    seconds = {arm: statistics.median(s for of in results.values() for s in of[arm]["seconds"]) for arm in arms}
    rows = [
        [name.split("_", 1)[1], *(f"{statistics.mean(of[arm]['auroc']):.1f}" for arm in arms)]
        for name, of in results.items()
    ]
    rows.append(["mean", *(f"{mean[arm]:.2f}" for arm in arms)])
    rows.append(["median seconds", *(f"{seconds[arm]:.2f}" for arm in arms)])
    print("\n" + table([setting, *arms], rows))
    for arm, points in GOALS.items():
        if {arm, "fusedvae"} <= mean.keys():
            above = mean["fusedvae"] - mean[arm]
            print(f"{above:+.2f} points from {arm}'s mean; {'reached' if above >= points else 'missed'}: {points:+.0f}")
    return {arm: {"auroc": mean[arm], "median_seconds": seconds[arm]} for arm in arms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="with the ten .npz files")
    parser.add_argument("--arms", default=",".join(ARMS), help="of these, by commas (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="cuts, splits and trainings of each (%(default)s)")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="also write the record there; other arms' figures in it stay"
    )
    arguments = parser.parse_args()
    arms = arguments.arms.split(",")
    for arm in arms:
        if arm not in ARMS:
            parser.error(f"no {arm!r}; known are {', '.join(ARMS)}")
    for name in TABLES:
        if not (arguments.data / f"{name}.npz").exists():
            parser.error(f"{arguments.data} has no {name}.npz")

    record: dict = {"benchmark": "anomaly", "rows": ROWS, "machine": {}, "versions": {}, "means": {}, "results": {}}
    if arguments.json and arguments.json.exists():
        record |= json.loads(arguments.json.read_text())
    where = machine()
    measure(arguments.data, arms, arguments.seeds, record["results"])
    record["machine"] |= dict.fromkeys(arms, where)
    record["versions"] |= versions()
    record["means"] = {setting: show(setting, of) for setting, of in record["results"].items()}
    if arguments.json:
        write(arguments.json, record)


if __name__ == "__main__":
    main()
