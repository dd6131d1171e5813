# SPDX-License-Identifier: MIT
"""Times fv.train_ensemble on 64 models against fit of one after another, each with all threads.

    python bench/ensemble.py --json bench/results/ensemble.json
    python bench/ensemble.py --device cuda --precision bfloat16 --json bench/results/gpu_ensemble.json

The two ways take turns, each with trainers of its own; a turn is one epoch of every model, on the same rows. Models
differ in their seeds. Afterwards every model of one way must have the bits of its twin of the other.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import fusedvae as fv
import numpy as np
from problems import PROBLEMS, Problem
from report import Neighbours, machine, quartiles, summary, table, write

CONFIGS = ("tiny", "tabular", "iwae", "mnist")
ALONE, TOGETHER = "one after another", "train_ensemble"


def one_after_another(trainers: list[fv.Trainer], x: np.ndarray) -> None:
    for trainer in trainers:
        trainer.fit(x, epochs=1)


def together(trainers: list[fv.Trainer], x: np.ndarray) -> None:
    fv.train_ensemble(trainers, x, epochs=1)


WAYS: dict[str, Callable[[list[fv.Trainer], np.ndarray], None]] = {ALONE: one_after_another, TOGETHER: together}


def make_trainers(problem: Problem, options: argparse.Namespace) -> list[fv.Trainer]:
    optimizer = fv.Adam(problem.learning_rate)
    models = [fv.Model(problem.config(), seed=seed, device=options.device) for seed in range(options.models)]
    return [
        fv.Trainer(model, optimizer, problem.batch, seed=seed, precision=options.precision)
        for seed, model in enumerate(models)
    ]


def verify(ways: dict[str, list[fv.Trainer]]) -> None:
    for i, (alone, other) in enumerate(zip(ways[ALONE], ways[TOGETHER], strict=True)):
        mine, twin = alone.model.parameters(), other.model.parameters()
        if not all(np.array_equal(mine[name], twin[name]) for name in mine):
            raise SystemExit(f"model {i} of {TOGETHER} is not that of {ALONE}")


def measure(problem: Problem, options: argparse.Namespace) -> dict:
    fv.set_num_threads(options.threads)
    x = problem.data() if options.device == "cpu" else fv.DeviceArray(problem.data(), options.device)
    trainers = {way: make_trainers(problem, options) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with Neighbours() as neighbours:
        for number in range(options.rounds + 1):
            for way, train in WAYS.items():
                start = time.perf_counter()
                train(trainers[way], x)
                if number:  # the first is a warm-up
                    seconds[way].append(time.perf_counter() - start)
    verify(trainers)
    steps = options.models * problem.steps()
    ways = {
        way: {"models_per_second": summary([options.models / s for s in values]), "step_ms": 1e3 * min(values) / steps}
        for way, values in seconds.items()
    }
    return {
        "config": problem.name,
        "models": options.models,
        "steps": problem.steps(),
        "threads": options.threads,
        "device": options.device,
        "precision": options.precision,
        "ways": ways,
        "times": ways[TOGETHER]["models_per_second"]["median"] / ways[ALONE]["models_per_second"]["median"],
        "neighbours": neighbours.cores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default=",".join(CONFIGS), help="networks (%(default)s)")
    parser.add_argument("--models", type=int, default=64, help="models of an ensemble (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads for both (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where the models are (%(default)s)")
    parser.add_argument("--precision", default="float32", help="of the products (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    options = parser.parse_args()
    where = machine()
    records = []
    rows = []
    for name in options.configs.split(","):
        record = measure(PROBLEMS[name], options)
        records.append(record)
        for way, figures in record["ways"].items():
            times = f"{record['times']:.2f}" if way == TOGETHER else ""
            rows.append([f"{name}, {way}", *quartiles(figures["models_per_second"], ".1f"), times])
    print(table(["network", "models/s, an epoch each", "quartiles", "times as fast"], rows))
    if options.json:
        about = {"benchmark": "ensemble", "machine": where, "fusedvae": fv.__version__, "backend": fv.backend()}
        write(options.json, {**about, "configs": records})


if __name__ == "__main__":
    main()
