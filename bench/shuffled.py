# SPDX-License-Identifier: MIT
"""Training on rows in random order, beside the same in the order of memory: what reaching for far rows costs a step.

    python bench/shuffled.py --json bench/results/shuffled.json

`Trainer.fit` on float32 in memory, in both orders by turns; drawing an epoch's order is part of it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

import fusedvae as fv
import numpy as np
from fusedvae.bench import NETWORKS
from report import machine, quartiles, summary, table, write

SETS = [("tabular", 1 << 14), ("tabular", 1 << 17), ("tabular", 1 << 20), ("iwae", 60000), ("mnist", 60000)]
STEPS = 4096  # of a turn of `tabular`, in whole epochs


def measure(name: str, rows: int, precision: str, rounds: int) -> dict:
    network = NETWORKS[name]
    x = np.random.default_rng(0).random((rows, network.width), dtype=np.float32)
    trainers = {
        shuffle: fv.Trainer(
            fv.Model(network.config()),
            fv.Adam(network.learning_rate),
            network.batch,
            precision=precision,
            shuffle=shuffle,
        )
        for shuffle in (False, True)
    }
    batches = -(-rows // network.batch)
    epochs = max(1, STEPS // batches)
    samples: dict[bool, list[float]] = {shuffle: [] for shuffle in trainers}
    for trainer in trainers.values():
        trainer.fit(x, epochs=1)
    for _ in range(rounds):
        for shuffle, trainer in trainers.items():
            start = time.perf_counter()
            trainer.fit(x, epochs=epochs)
            samples[shuffle].append(1e3 * (time.perf_counter() - start) / (epochs * batches))
    in_order, shuffled = summary(samples[False]), summary(samples[True])
    return {
        "network": asdict(network),
        "rows": rows,
        "mib": x.nbytes / 2**20,
        "precision": precision,
        "in_order_ms": in_order,
        "shuffled_ms": shuffled,
        "times": shuffled["median"] / in_order["median"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each order (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    arguments = parser.parse_args()
    about = machine()
    fv.set_num_threads(arguments.threads)
    precisions = [p for p in ("float32", "bfloat16") if p in fv.available_precisions()]
    records = [measure(name, rows, p, arguments.rounds) for p in precisions for name, rows in SETS]
    lines = [
        [
            r["network"]["name"],
            r["precision"],
            str(r["rows"]),
            f"{r['mib']:.0f}",
            *quartiles(r["in_order_ms"], ".4f"),
            *quartiles(r["shuffled_ms"], ".4f"),
            f"{r['times']:.3f}",
        ]
        for r in records
    ]
    headers = ["network", "precision", "rows", "MiB", "in order, ms", "quartiles", "shuffled, ms", "quartiles", "x"]
    print(table(headers, lines))
    if arguments.json:
        record = {"benchmark": "shuffled", "machine": about, "threads": arguments.threads, "sets": records}
        write(arguments.json, record)


if __name__ == "__main__":
    main()
