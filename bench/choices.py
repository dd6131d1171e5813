# SPDX-License-Identifier: MIT
"""Times what the engine's choices rest on: a step shared by columns against by rows, and one backend against another.

    python bench/choices.py --json bench/results/choices.json

The arms of a row take turns within one native process (bench/native/bench_step.cpp), which forces each one, so that
nothing but the choice differs. Before any timing all arms take the same steps, and their losses must agree: the same
bits for both ways to share, 1e-5 among backends of float32, 1e-3 from these to bfloat16's. The arm "as chosen" leaves
the way to the engine: it repeats one of the two, and its distance from that one is the drift of the machine.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from build_native import add_option, ask, build, compiler_of
from problems import PROBLEMS, Problem
from report import Neighbours, machine, summary, table, write

SHARED = [
    *(PROBLEMS[name] for name in ("tabular", "iwae", "mnist", "wide")),
    replace(PROBLEMS["mnist"], name="mnist, batch 512", batch=512),
    *(PROBLEMS[name] for name in ("deep", "big")),
]
COMPARED = [PROBLEMS[name] for name in ("tabular", "iwae", "mnist", "wide", "deep")]
CHOSEN = "as chosen"
WAYS = {"by columns": "columns", "by rows": "rows", CHOSEN: "shape"}


def measure(
    program: Path, problem: Problem, arms: dict[str, str], tolerance: float, options: argparse.Namespace
) -> dict[str, dict]:
    """{title: milliseconds per step, summarised, and how it was shared}; arms: {title: BACKEND/SHARING}."""
    layers = "-".join(map(str, (problem.width, *problem.hidden, problem.latent)))
    network = (layers, problem.likelihood, problem.batch, problem.steps())
    found = ask(program, *network, options.threads, options.turns, options.seconds, *arms.values())
    result = {title: found[arm] for title, arm in arms.items()}
    losses = {arms[title]: arm["loss"] for title, arm in result.items()}
    right = next(iter(losses.values()))
    for arm, loss in losses.items():
        if not abs(loss / right - 1) <= (1e-3 if tolerance and "bf16" in arm else tolerance):
            raise SystemExit(f"{problem.name}: the losses {losses} differ: not the same step")
    for arm in result.values():
        arm["ms"] = summary(arm["ms"])
    return result


def show(title: str, records: dict[str, dict[str, dict]]) -> None:
    """One row for each arm, one column for each network: medians."""
    arms = next(iter(records.values()))
    lines = [[arm, *(f"{record[arm]['ms']['median']:.3g}" for record in records.values())] for arm in arms]
    if CHOSEN in arms:
        ways = ["columns" if record[CHOSEN]["by_columns"] else "rows" for record in records.values()]
        lines.append(["the engine takes", *ways])
    print(f"\n{title}, ms per step\n{table(['', *records], lines)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="avx512,avx512_bf16,avx2,scalar", help="that run here (%(default)s)")
    parser.add_argument("--sharing", default="avx512,avx512_bf16", help="backends whose sharing is timed (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of each turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=12, help="of each arm (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    add_option(parser)
    options = parser.parse_args()
    programs = build(options.build, "bench_step")
    program, where = programs / "bench_step", {**machine(), "compiler": compiler_of(programs)}
    print(f"{where['processor']}; {options.threads} threads")

    with Neighbours() as neighbours:
        shared = {}
        for backend in options.sharing.split(","):
            arms = {title: f"{backend}/{way}" for title, way in WAYS.items()}
            shared[backend] = {problem.name: measure(program, problem, arms, 0.0, options) for problem in SHARED}
            show(f"sharing on {backend}", shared[backend])
        arms = {name: f"{name}/shape" for name in options.backends.split(",")}
        compared = {problem.name: measure(program, problem, arms, 1e-5, options) for problem in COMPARED}
        show("backends", compared)
    if options.json:
        record = {"benchmark": "choices", "machine": where, "threads": options.threads, "sharing": shared}
        write(options.json, {**record, "backends": compared, "neighbours": neighbours.cores})


if __name__ == "__main__":
    main()
