# SPDX-License-Identifier: MIT
"""Whole jobs, the way users run them: seconds per epoch, and seconds to the same held-out ELBO.

    python bench/jobs.py                  both jobs; `fashion` or `table` for one
        fashion   60 000 images, 784-400-20, batch 128: PyTorch's usual loop and pythae's TrainingPipeline
        table     50 000 x 30, 30-128-64-32-2, batch 32: PyOD's VAE, training and scoring

Each round is a whole training of each arm with another seed, one arm after the other, fusedvae once more at the end as
a control of drift. Every epoch's parameters are kept, and one scorer of no arm's rates them all after the timing. With
--json FILE the figures go there; another job's figures in that file stay.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from arms import ARMS, installed
from report import Neighbours, machine, quartiles, summary, table, write
from worker import Worker

CONTROL = "fusedvae, again"


@dataclass(frozen=True)
class Job:
    epochs: dict[str, int]  # arm -> epochs of one training; fusedvae's comes first, with more, to reach the peers' ELBO
    unlike: tuple[str, ...]  # arms whose ELBO is no target: fusedvae's own, and what does not maximise it
    bar: float  # nats between the mean held-out -ELBO of fusedvae and of a peer after as many epochs
    scoring: dict[str, tuple[str, ...]]  # arm -> its ways to score the training rows


JOBS = {
    "fashion": Job({"fashion": 5, "fashion.torch": 3, "fashion.pythae": 3}, unlike=(), bar=1.5, scoring={}),
    "table": Job(
        {"table": 10, "table.single": 10, "table.pyod": 5, "table.default": 2},
        unlike=("table.single", "table.default"),
        bar=0.3,
        scoring={"table.pyod": ("batch 32", "batch 1024"), "table": ("distance", "elbo")},
    ),
}
AGREEMENT = 0.1  # nats: the scorer draws other noise than fusedvae's own evaluation, good to 0.02 on these rows
# Relative, of the mean distance: float32 alone; and the noise of one draw for each of 50 000 rows, 0.1 % a draw (a mean
# code's distances lie 12 % lower).
SAME, SAME_DRAWN = 1e-4, 1e-2


def train(job: Job, workers: dict[str, Worker], rounds: int, folder: Path) -> dict[str, list[list[float]]]:
    """laps[turn][round]: seconds to each epoch's end; parameters go to FOLDER/turn/round/epoch.npz."""
    fused = next(iter(workers))
    turns = {arm: arm for arm in workers} | {CONTROL: fused}
    warm = folder / "warm"
    warm.mkdir()
    for worker in workers.values():
        worker.ask("run", 0, 1, str(warm))
    laps: dict[str, list[list[float]]] = {turn: [] for turn in turns}
    for seed in range(rounds):
        for turn, arm in turns.items():
            kept = folder / turn / str(seed)
            kept.mkdir(parents=True)
            laps[turn].append(workers[arm].ask("run", seed, job.epochs[arm], str(kept))[0])
        print(f"round {seed + 1}: " + ", ".join(f"{t} {s[-1][-1]:.2f} s" for t, s in laps.items()), flush=True)
    return laps


def held_out(name: str, job: Job, scorer: Worker, arms: list[str], rounds: int, folder: Path) -> dict[str, list]:
    """curves[arm][round]: the held-out -ELBO after each epoch, by the common scorer."""

    def curve(arm: str, seed: int) -> list[float]:
        kept = [folder / arm / str(seed) / f"{epoch}.npz" for epoch in range(1, job.epochs[arm] + 1)]
        return [scorer.ask("score", name, str(path))[0] for path in kept]

    return {arm: [curve(arm, seed) for seed in range(rounds)] for arm in arms}


def score(job: Job, workers: dict[str, Worker], scorer: Worker, rounds: int, folder: Path) -> dict[str, dict]:
    """Seconds to score all training rows, by title of arm and way: every arm with the first arm's last parameters."""
    turns = [(arm, way) for arm in job.scoring if arm in workers for way in job.scoring[arm]]
    first = turns[0][0]
    path = folder / first / str(rounds - 1) / f"{job.epochs[first]}.npz"
    from_means, from_draws = scorer.ask("distances", str(path))[0]
    for arm in {arm for arm, _ in turns} - {first}:
        workers[arm].ask("adopt", str(path))
    samples: dict[str, list[float]] = {}
    for number in range(2 * rounds + 1):
        for arm, way in turns:
            seconds, mean = workers[arm].ask("score", way)[0]
            expected, same = (from_means, SAME) if way == "distance" else (from_draws, SAME_DRAWN)
            if way != "elbo" and abs(mean / expected - 1) > same:
                raise SystemExit(f"{arm}'s scores are {mean:.4f} in the mean, expected are {expected:.4f}")
            if number:  # the first is a warm-up
                samples.setdefault(f"{ARMS[arm].title}, {way}", []).append(seconds)
    return {turn: summary(values) for turn, values in samples.items()}


def crossing(seconds: list[float], curve: list[float], target: float) -> float | None:
    """When the line between the epochs' ends reaches `target`; the first end, if that is below; None if it never is."""
    for i, value in enumerate(curve):
        if value <= target:
            if i == 0:
                return seconds[0]
            part = (curve[i - 1] - target) / (curve[i - 1] - value)
            return seconds[i - 1] + part * (seconds[i] - seconds[i - 1])
    return None


def measure(name: str, job: Job, arms: list[str], rounds: int, threads: int) -> dict:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with Neighbours() as neighbours, ExitStack() as running:
            workers = {arm: running.enter_context(Worker(arm, threads)) for arm in arms}
            about = {ARMS[arm].title: worker.ask("about")[0] for arm, worker in workers.items()}
            laps = train(job, workers, rounds, folder)
            own = workers[arms[0]].ask("held_out")[0]
            scorer = running.enter_context(Worker("held_out", threads))
            scoring = score(job, workers, scorer, rounds, folder) if job.scoring else None
            curves = held_out(name, job, scorer, arms, rounds, folder)
    if abs(own - curves[arms[0]][-1][-1]) > AGREEMENT:
        raise SystemExit(f"fusedvae's own -ELBO is {own:.3f}, the scorer's {curves[arms[0]][-1][-1]:.3f}")

    mean = {arm: [statistics.mean(ends) for ends in zip(*curves[arm], strict=True)] for arm in arms}
    reached = {turn: [statistics.median(ends) for ends in zip(*laps[turn], strict=True)] for turn in laps}
    record = {}
    for turn, rounds_of in laps.items():
        # Epochs but the first, which holds what comes before training too.
        epochs = [end - start for ends in rounds_of for start, end in pairwise(ends)]
        record[turn] = {"epoch_seconds": summary(epochs), "laps": rounds_of}
    ours = record[arms[0]]["epoch_seconds"]["median"]
    for arm in arms:
        figures = record[arm]
        figures |= {"held_out": curves[arm], "mean_held_out": mean[arm]}
        figures["times_per_epoch"] = figures["epoch_seconds"]["median"] / ours
        if arm in job.unlike or arm == arms[0]:
            continue
        after, target = job.epochs[arm], mean[arm][-1]
        if abs(target - mean[arms[0]][after - 1]) > job.bar:
            raise SystemExit(
                f"after {after} epochs {ARMS[arm].title} is at {target:.2f} nats, fusedvae at "
                f"{mean[arms[0]][after - 1]:.2f}: they do not train the same model"
            )
        to = {
            "target": target,
            "seconds": reached[arm][-1],
            "fusedvae": crossing(reached[arms[0]], mean[arms[0]], target),
        }
        figures["to_target"] = to | {"times": to["fusedvae"] and to["seconds"] / to["fusedvae"]}
    titled = {ARMS[turn].title if turn in ARMS else turn: figures for turn, figures in record.items()}
    return {"rounds": rounds, "arms": titled, "scoring": scoring, "neighbours": neighbours.cores, "versions": about}


def show(name: str, record: dict) -> None:
    ours = record["arms"]["fusedvae"]["epoch_seconds"]["median"]
    lines, targets = [], []
    for title, figures in record["arms"].items():
        ratio = f"{figures['epoch_seconds']['median'] / ours:.2f}"
        lines.append([title, *quartiles(figures["epoch_seconds"], ".3f"), ratio])
        if to := figures.get("to_target"):
            reached = ["never", ""] if to["fusedvae"] is None else [f"{to['fusedvae']:.2f}", f"{to['times']:.2f}"]
            epochs = len(figures["mean_held_out"])
            targets.append([f"{title}, {epochs} epochs", f"{to['target']:.2f}", f"{to['seconds']:.2f}", *reached])
    print("\n" + table([f"{name}: one epoch", "seconds", "quartiles", "x fusedvae's"], lines))
    if targets:
        print("\n" + table(["to the held-out -ELBO of", "nats", "seconds", "fusedvae", "x fusedvae's"], targets))
    if record["scoring"]:
        rows = [[title, *quartiles(values, ".4f")] for title, values in record["scoring"].items()]
        print("\n" + table(["scoring the training rows", "seconds", "quartiles"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)}; all, if none is named")
    parser.add_argument(
        "--rounds", type=int, default=3, help="trainings of each arm, each with its own seed (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads for every arm (%(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the record there")
    arguments = parser.parse_args()
    for name in arguments.jobs:
        if name not in JOBS:
            parser.error(f"no {name!r}; known are {', '.join(JOBS)}")
    if not installed("table"):
        parser.error("fusedvae is not installed in this Python; run `pip install .` first")

    record: dict = {"benchmark": "jobs"}
    if arguments.json and arguments.json.exists():
        record |= json.loads(arguments.json.read_text())
    for name in arguments.jobs or JOBS:
        arms = [arm for arm in JOBS[name].epochs if installed(arm)]
        for arm in (arm for arm in JOBS[name].epochs if arm not in arms):
            print(f"left out: {ARMS[arm].title} ({ARMS[arm].needs} is not installed)")
        where = machine()
        figures = measure(name, JOBS[name], arms, arguments.rounds, arguments.threads)
        record[name] = {"machine": where, "threads": arguments.threads, **figures}
        show(name, figures)
        if arguments.json:
            write(arguments.json, record)


if __name__ == "__main__":
    main()
