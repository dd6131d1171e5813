# SPDX-License-Identifier: MIT
"""One network's measurement: every arm verified, then timed in turns, with the machine's limits measured in between.

The record that comes out, one for each network, holds a row for each arm and count of threads; run.py prints it,
plot.py draws it.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import NamedTuple

from arms import ARMS, Unavailable
from problems import Problem
from report import Neighbours, summary
from worker import Worker

VERIFIED_STEPS = 4
# Relative, of the float32 losses over these steps. Right arms came within 1.4e-6 on every network tried; a gradient
# left out, or a wrong beta, moves those of `tiny` and `tabular` by 7e-6 and more (bench/README.md).
FLOAT32_TOLERANCE = 5e-6
LIMIT_SECONDS = 0.05  # for each limit, in each round


class Turn(NamedTuple):
    arm: str
    threads: int
    again: bool = False  # the drift's control: fusedvae once more, at the end of each round


class Plan(NamedTuple):
    arms: list[str]  # fusedvae first
    threads: list[int]
    seconds: float  # timed, for each turn
    rounds: int


def measure(problem: Problem, plan: Plan, left_out: dict[str, str]) -> dict:
    """The record of one network. An arm that cannot run here is added to `left_out` with its reason."""
    with Neighbours() as neighbours, ExitStack() as stack:
        workers: dict[Turn, Worker] = {}
        about: dict[str, dict] = {}
        for turn in [Turn(arm, n) for n in plan.threads for arm in plan.arms if arm not in left_out]:
            worker = stack.enter_context(Worker(turn.arm, turn.threads))
            try:
                about[turn.arm], _ = worker.ask("about")
                worker.ask("prepare", problem)
            except Unavailable as reason:
                left_out[turn.arm] = str(reason)
                continue
            workers[turn] = worker
        verified = _verify(problem, workers, max(plan.threads))
        limits = [
            _Limits(stack.enter_context(Worker("memory", n)), workers[Turn("fusedvae", n)], n) for n in plan.threads
        ]
        # Where fusedvae has no bfloat16, its loop for the bfloat16 peak is missing too, and the column stays empty.
        precisions = [
            ARMS[arm].precision for arm in ("fusedvae", "fusedvae.bf16") if Turn(arm, plan.threads[0]) in workers
        ]

        epochs = {}
        for turn, worker in workers.items():
            worker.ask("train", 1)  # compiles, allocates, wakes the threads
            once = min(worker.ask("train", 1)[1] for _ in range(2))
            epochs[turn] = max(1, round(plan.seconds / plan.rounds / once))

        turns = [*workers, Turn("fusedvae", plan.threads[-1], again=True)]
        samples: dict[Turn, list[float]] = {turn: [] for turn in turns}
        for _ in range(plan.rounds):
            for turn in turns:
                key = turn._replace(again=False)
                workers[key].ask("train", 1)  # the caches belong to the arm before
                loss, took = workers[key].ask("train", epochs[key])
                if not math.isfinite(loss):
                    raise SystemExit(f"{problem.name}: {turn.arm}'s loss became {loss}; its time means nothing")
                samples[turn].append(1e3 * took / (epochs[key] * problem.steps()))
            for limit in limits:
                limit.sample(precisions, problem.state_bytes())

    rows = []
    for turn in turns:
        key = turn._replace(again=False)
        ms = summary(samples[turn])
        rows.append({
            **turn._asdict(), "title": ARMS[turn.arm].title, "precision": ARMS[turn.arm].precision, "ms": ms,
            "steps_per_sample": epochs[key] * problem.steps(), "gflops": problem.flops() / ms["median"] / 1e6,
            **verified[key],
        })  # fmt: skip
    found = [limit.found(problem, rows) for limit in limits]
    for row in rows:
        _relate(row, rows, next(limit for limit in found if limit["threads"] == row["threads"]))
    return {
        "config": problem.name,
        "layers": [problem.width, *problem.hidden, problem.latent],
        "batch": problem.batch,
        "likelihood": problem.likelihood,
        "flops": problem.flops(),
        "state_bytes": problem.state_bytes(),
        "step_bytes": problem.step_bytes(),
        "limits": found,
        "rows": rows,
        "neighbours": neighbours.cores,
        "versions": about,
    }


def _verify(problem: Problem, workers: dict[Turn, Worker], threads: int) -> dict[Turn, dict[str, float]]:
    """Each arm's greatest relative difference from the reference over the first steps; an error above its tolerance."""
    with Worker("reference", threads) as reference:
        reference.ask("prepare", problem)
        expected, _ = reference.ask("losses", VERIFIED_STEPS)
        tolerances = {"float32": FLOAT32_TOLERANCE}
        if any(ARMS[turn.arm].precision == "bfloat16" for turn in workers):
            tolerances["bfloat16"], _ = reference.ask("bfloat16_tolerance", expected)
    verified = {}
    for turn, worker in workers.items():
        tolerance = tolerances[ARMS[turn.arm].precision]
        losses, _ = worker.ask("losses", VERIFIED_STEPS)
        difference = max(abs(loss / right - 1) for loss, right in zip(losses, expected, strict=True))
        if not difference <= tolerance:
            raise SystemExit(
                f"{problem.name}: {turn.arm} computes {losses}, the reference {expected}: off by {difference:.2g}, "
                f"more than {tolerance:.2g}, so it is not the same step"
            )
        verified[turn] = {"verified_to": difference, "tolerance": tolerance}
    return verified


class _Limits:
    """The machine's limits on one count of threads: arithmetic for each precision, and memory."""

    def __init__(self, memory: Worker, fusedvae: Worker, threads: int):
        self.memory, self.fusedvae, self.threads = memory, fusedvae, threads
        about = memory.ask("about")[0]
        self.own_caches, self.last_level_cache = threads * about["own_cache"], about["last_level_cache"]
        self.peaks: dict[str, list[float]] = {}
        self.bandwidths: dict[str, list[float]] = {}

    def sample(self, precisions: list[str], state_bytes: int) -> None:
        for precision in precisions:
            peak, _ = self.fusedvae.ask("peak", LIMIT_SECONDS, precision)
            self.peaks.setdefault(precision, []).append(peak)
        for loop, rate in self.memory.ask("bandwidth", LIMIT_SECONDS)[0].items():
            self.bandwidths.setdefault(loop, []).append(rate)
        rate, _ = self.memory.ask("state_bandwidth", LIMIT_SECONDS, state_bytes)
        self.bandwidths.setdefault("state", []).append(rate)

    def found(self, problem: Problem, rows: list[dict]) -> dict:
        """Peaks are never below a product that was measured: the loop can meet a slower moment than the arms did."""
        peaks = {}
        for precision, samples in self.peaks.items():
            best = max((r["gflops"] for r in rows if (r["threads"], r["precision"]) == (self.threads, precision)),
                       default=0.0)  # fmt: skip
            peaks[precision] = {"gflops": max(summary(samples)["median"], best), "loop": summary(samples)}
        bandwidth = {loop: summary(samples) for loop, samples in self.bandwidths.items()}
        # The optimiser's traffic, weights and moments read once and written once, where the cores' own caches do not
        # hold them: between those and the last level, or memory.
        traffic = 2 * problem.state_bytes() if problem.state_bytes() > self.own_caches else 0
        loop = "update" if problem.state_bytes() > self.last_level_cache else "state"
        memory_ms = traffic / bandwidth[loop]["median"] / 1e6
        bounds = {}
        for precision, peak in peaks.items():
            arithmetic_ms = problem.flops() / peak["gflops"] / 1e6
            bounds[precision] = {
                "arithmetic_ms": arithmetic_ms,
                "memory_ms": memory_ms,
                "ms": arithmetic_ms + memory_ms,
                "overlapped_ms": max(arithmetic_ms, memory_ms),
            }
        return {
            "threads": self.threads,
            "peaks": peaks,
            "bandwidth": bandwidth,
            "own_caches": self.own_caches,
            "last_level_cache": self.last_level_cache,
            "bounds": bounds,
        }


def _relate(row: dict, rows: list[dict], limit: dict) -> None:
    """Adds a row's shares of the possible, and its time over fusedvae's at the same precision and threads."""
    peak, bound = limit["peaks"].get(row["precision"]), limit["bounds"].get(row["precision"])
    row["percent_of_peak"] = 100 * row["gflops"] / peak["gflops"] if peak else None
    row["percent_of_bound"] = 100 * bound["ms"] / row["ms"]["median"] if bound else None
    kind = (row["threads"], row["precision"])
    ours = [r for r in rows if r["arm"].startswith("fusedvae") and not r["again"]
            and (r["threads"], r["precision"]) == kind]  # fmt: skip
    row["times_fusedvae"] = row["ms"]["median"] / ours[0]["ms"]["median"] if ours else None


def best_peer(record: dict, precision: str, threads: int, only: str = "") -> dict | None:
    """The fastest row that is not fusedvae's, among arms whose name starts with `only`."""
    peers = [
        row
        for row in record["rows"]
        if (row["precision"], row["threads"]) == (precision, threads)
        and row["arm"].startswith(only)
        and not row["arm"].startswith("fusedvae")
    ]
    return min(peers, key=lambda row: row["ms"]["median"], default=None)
