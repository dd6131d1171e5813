# SPDX-License-Identifier: MIT
"""Times one training step (forward, ELBO, backward, Adam) of fusedvae and its peers, interleaved in one run.

    python bench/step.py --configs mnist,tabular --seconds 2 --threads 2 --json out.json

Each arm is a process of its own and stands still while another is timed. In every round the arms take their turns,
fusedvae once more at the end as a control of drift, and then a register-only multiply-add loop gives the arithmetic
peak. Before that, each arm's losses over the first Adam steps must equal a double-precision reference's.
"""

from __future__ import annotations

import argparse
import math
from contextlib import ExitStack

from arms import ARMS, installed
from problems import PROBLEMS, Problem
from report import Neighbours, machine, quartiles, summary, table, write
from worker import Worker

PEERS = ("torch", "torch.compile", "jax")
CONTROL = "fusedvae, again"
VERIFIED_STEPS = 4
PEAK_SECONDS = 0.1


def verify(problem: Problem, workers: dict[str, Worker], threads: int) -> dict[str, float]:
    """Each arm's greatest relative difference from the reference over the first steps; an error above its tolerance."""
    with Worker("reference", threads) as reference:
        reference.ask("prepare", problem)
        expected, _ = reference.ask("losses", VERIFIED_STEPS)
    differences = {}
    for arm, worker in workers.items():
        losses, _ = worker.ask("losses", VERIFIED_STEPS)
        differences[arm] = max(abs(loss / right - 1) for loss, right in zip(losses, expected, strict=True))
        if not differences[arm] <= problem.tolerance:
            raise SystemExit(f"{problem.name}: {arm} computes {losses}, the reference {expected}: not the same step")
    return differences


def measure(problem: Problem, peers: list[str], seconds: float, rounds: int, threads: int) -> dict:
    """One configuration's record: for each arm the milliseconds per step of each round, and the peak between them."""
    with Neighbours() as neighbours, ExitStack() as stack:
        workers = {arm: stack.enter_context(Worker(arm, threads)) for arm in ("fusedvae", *peers)}
        about = {arm: worker.ask("about")[0] for arm, worker in workers.items()}
        for worker in workers.values():
            worker.ask("prepare", problem)
        differences = verify(problem, workers, threads)

        epochs = {}
        for arm, worker in workers.items():
            worker.ask("train", 1)  # compiles, allocates, wakes the threads
            once = min(worker.ask("train", 1)[1] for _ in range(2))
            epochs[arm] = max(1, round(seconds / rounds / once))

        turns = {arm: arm for arm in workers} | {CONTROL: "fusedvae"}
        samples: dict[str, list[float]] = {turn: [] for turn in turns}
        peaks = []
        for _ in range(rounds):
            for turn, arm in turns.items():
                workers[arm].ask("train", 1)  # the caches belong to the arm before
                loss, took = workers[arm].ask("train", epochs[arm])
                if not math.isfinite(loss):
                    raise SystemExit(f"{problem.name}: {arm}'s loss became {loss}; its time means nothing")
                samples[turn].append(1e3 * took / (epochs[arm] * problem.batches))
            peaks.append(workers["fusedvae"].ask("peak", PEAK_SECONDS)[0])

    gflop = problem.flops() / 1e9
    arms = {}
    for turn, times in samples.items():
        arms[turn] = {"ms": summary(times), "steps_per_sample": epochs[turns[turn]] * problem.batches}
        arms[turn]["gflops"] = gflop / (arms[turn]["ms"]["median"] / 1e3)
        arms[turn]["verified_to"] = differences[turns[turn]]
    # The loop can meet a slower moment than the arms did; the peak is never below a product that was measured.
    peak = max(summary(peaks)["median"], *(arm["gflops"] for arm in arms.values()))
    for arm in arms.values():
        arm["percent_of_peak"] = 100 * arm["gflops"] / peak
    best = min(peers, key=lambda arm: arms[arm]["ms"]["median"], default=None)
    return {
        "config": problem.name,
        "layers": [problem.width, *problem.hidden, problem.latent],
        "batch": problem.batch,
        "likelihood": problem.likelihood,
        "flops": problem.flops(),
        "peak_gflops": peak,
        "peak_samples": peaks,
        "arms": arms,
        "best_peer": best,
        "times_best_peer": arms[best]["ms"]["median"] / arms["fusedvae"]["ms"]["median"] if best else None,
        "neighbours": neighbours.cores,
        "versions": about,
    }


def rows(record: dict) -> list[list[str]]:
    ours = record["arms"]["fusedvae"]["ms"]["median"]
    lines = []
    for turn, arm in record["arms"].items():
        ms = arm["ms"]
        title = ARMS[turn].title if turn in ARMS else turn
        rates = [f"{arm['gflops']:.0f}", f"{arm['percent_of_peak']:.0f}", f"{ms['median'] / ours:.2f}"]
        lines.append([f"{record['config']:8s} {title}", *quartiles(ms, ".4g"), *rates])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default=",".join(PROBLEMS), help="comma-separated, of %(default)s")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated, of %(default)s; '' for none")
    parser.add_argument("--seconds", type=float, default=4, help="timed, for each arm and configuration (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="turns that each arm takes in them (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads for every arm (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    arguments = parser.parse_args()
    configs, wanted = arguments.configs.split(","), [peer for peer in arguments.peers.split(",") if peer]
    for name, known in [(c, PROBLEMS) for c in configs] + [(p, PEERS) for p in wanted]:
        if name not in known:
            parser.error(f"no {name!r}; known are {', '.join(known)}")
    if not installed("fusedvae"):
        parser.error("fusedvae is not installed in this Python; run `pip install .` first")
    peers = [peer for peer in wanted if installed(peer)]
    for peer in set(wanted) - set(peers):
        print(f"left out: {ARMS[peer].title} (not installed)")

    where, records = machine(), []
    print(f"{where['processor']}; {arguments.threads} threads")
    headers = ["config   arm", "ms per step", "quartiles", "GFLOP/s", "% of peak", "x fusedvae's"]
    for name in configs:
        records.append(measure(PROBLEMS[name], peers, arguments.seconds, arguments.rounds, arguments.threads))
        print(f"\n{name}: peak {records[-1]['peak_gflops']:.0f} GFLOP/s")
        print(table(headers, rows(records[-1])), flush=True)
    if peers:
        gains = [record["times_best_peer"] for record in records]
        mean = math.exp(sum(map(math.log, gains)) / len(gains))
        print("\nTimes the best peer:", ", ".join(f"{c} {gain:.2f}" for c, gain in zip(configs, gains, strict=True)))
        print(f"geometric mean {mean:.2f}")
    if arguments.json:
        record = {"benchmark": "step", "machine": where, "threads": arguments.threads, "configs": records}
        write(arguments.json, record)


if __name__ == "__main__":
    main()
