# SPDX-License-Identifier: MIT
"""Dimension reduction beside PCA: held-out mean squared error of the mean code's reconstruction.

    python bench/dimensions.py --json bench/results/dimensions.json

Every row is printed, whichever way it goes; the exit status is 1 if the mean over the splits is above PCA's at latent
width 2 or 8 on digits, breast_cancer or fashion-mnist. Both arms see the same rows: tables standardised by the training
rows' mean and deviation, pixels in [0, 1]; the error is the mean over held-out rows and columns in these units. What
`defaults` holds was chosen on splits 0 to 2 of the small sets, so that they are measured on others.
"""

from __future__ import annotations

import argparse
import math
import statistics

import fusedvae as fv
import numpy as np
from fusedvae.data import load
from report import machine, table, write
from sklearn import datasets, decomposition
from sklearn.model_selection import train_test_split

LATENTS = (2, 8, 16)
SMALL = ("digits", "breast_cancer", "wine")
BARRED = ("digits", "breast_cancer", "fashion-mnist")
BETA, BATCH, STEPS, LEAST_EPOCHS = 1.0, 64, 2000, 10
# Splits on which nothing was chosen.
FIRST_SPLIT = 3
ARMS = ("fusedvae", "variance from 1", "variance from 1, KL warm-up, free bits", "variance fixed at 1")
# The usual remedies against collapse: the KL's weight rises over this share of the steps, nats left to each dimension.
WARMUP, FREE_BITS = 0.3, 0.1


def rows_of(name: str, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out rows (n, D), (m, D), float32."""
    if name == "fashion-mnist":
        data = load(name)
        return tuple(x.reshape(len(x), 784).astype(np.float32) / 255 for x in (data.train, data.test))
    x = getattr(datasets, f"load_{name}")().data
    train, test = train_test_split(x, test_size=0.3, random_state=split)
    shift, scale = (0.0, 16.0) if name == "digits" else (train.mean(0), train.std(0))
    return tuple(((part - shift) / scale).astype(np.float32) for part in (train, test))


def defaults(train: np.ndarray, latent: int, seed: int, arm: str) -> fv.Model:
    """The chosen recipe, or what `arm` changes of it: a variance that begins at 1, or stays there."""
    likelihood = fv.Gaussian("fixed" if "fixed" in arm else "feature")
    config = fv.Config(train.shape[1], hidden=(256,), latent=latent, activation="gelu", likelihood=likelihood)
    model = fv.Model(config, seed=seed)
    if arm == ARMS[0]:
        fv.init_variance(model, train)
    batches = math.ceil(len(train) / BATCH)
    epochs = max(LEAST_EPOCHS, math.ceil(STEPS / batches))
    steps = epochs * batches
    remedies = {"beta": fv.LinearBeta(BETA, steps=math.ceil(WARMUP * steps)), "free_bits": FREE_BITS}
    options = remedies if "free bits" in arm else {"beta": BETA}
    trainer = fv.Trainer(
        model, fv.Adam(2e-3), batch_size=BATCH, schedule=fv.Cosine(steps=steps), threads=1, seed=seed, **options
    )
    trainer.fit(train, epochs)
    return model


def error(x: np.ndarray, reconstruction: np.ndarray) -> float:
    return float(np.mean((x.astype(np.float64) - reconstruction) ** 2))


def measure(name: str, latent: int, splits: list[int]) -> dict:
    """Errors and reports of every arm, one value for each split."""
    found: dict = {"PCA": []} | {arm: [] for arm in ARMS}
    reports: dict = {arm: [] for arm in ARMS}
    for split in splits:
        train, test = rows_of(name, split)
        pca = decomposition.PCA(latent, svd_solver="covariance_eigh").fit(train)
        found["PCA"].append(error(test, pca.inverse_transform(pca.transform(test))))
        for arm in ARMS:
            model = defaults(train, latent, split, arm)
            found[arm].append(error(test, model.reconstruct(test)))
            report = fv.collapse_report(model, test)
            reports[arm].append(
                {
                    "active_units": report.active_units,
                    "kl": report.total_kl,
                    "mutual_information": report.mutual_information,
                    "elbo": float(model.elbo(test, samples=10).mean()),
                }
            )
    return {"set": name, "latent": latent, "splits": splits, "errors": found, "reports": reports}


def lines_of(record: dict) -> list[list[str]]:
    pca = record["errors"]["PCA"]
    lines = [[record["set"], str(record["latent"]), "PCA", f"{statistics.mean(pca):.4f}", "1", *[""] * 4]]
    for arm in ARMS:
        errors, reports = record["errors"][arm], record["reports"][arm]

        def mean(key: str, reports: list = reports) -> float:
            return statistics.mean(report[key] for report in reports)

        lines.append(
            [
                *("", "", arm, f"{statistics.mean(errors):.4f}"),
                f"{statistics.mean(errors) / statistics.mean(pca):.2f}",
                f"{sum(a <= b for a, b in zip(errors, pca, strict=True))} of {len(pca)}",
                *(f"{mean('active_units'):.1f}", f"{mean('kl'):.1f}", f"{mean('elbo'):.1f}"),
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5, help="of each small set (%(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="trainings on fashion-mnist's own split (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    arguments = parser.parse_args()

    where, records = machine(), []
    fv.set_num_threads(1)
    for name in (*SMALL, "fashion-mnist"):
        count = arguments.splits if name in SMALL else arguments.seeds
        splits = list(range(FIRST_SPLIT, FIRST_SPLIT + count))
        width = rows_of(name, splits[0])[0].shape[1]
        for latent in (latent for latent in LATENTS if latent < width):
            records.append(measure(name, latent, splits))
            print(" | ".join(" ".join(line[2:5]) for line in lines_of(records[-1])), name, latent, flush=True)
    headers = ["set", "Z", f"arm, beta {BETA:g}", "MSE", "x PCA's", "no worse on", "active", "KL", "ELBO"]
    print("\n" + table(headers, [line for record in records for line in lines_of(record)]))
    if arguments.json:
        versions = {"fusedvae": fv.__version__, "numpy": np.__version__}
        recipe = {"beta": BETA, "batch": BATCH, "steps": STEPS, "least_epochs": LEAST_EPOCHS}
        recipe |= {"warmup": WARMUP, "free_bits": FREE_BITS}
        write(
            arguments.json,
            {"benchmark": "dimensions", "machine": where, "versions": versions, **recipe, "rows": records},
        )
    worse = [
        f"{record['set']} at {record['latent']}"
        for record in records
        if record["set"] in BARRED
        and record["latent"] in (2, 8)
        and statistics.mean(record["errors"][ARMS[0]]) > statistics.mean(record["errors"]["PCA"])
    ]
    if worse:
        raise SystemExit(f"worse than PCA: {', '.join(worse)}")


if __name__ == "__main__":
    main()
