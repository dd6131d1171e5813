# SPDX-License-Identifier: MIT
"""Times whole jobs on a GPU, fusedvae beside PyTorch.

    python bench/gpu_jobs.py epoch --json bench/results/gpu_epoch.json             Fashion-MNIST, 784-400-20, batch 128
    python bench/gpu_jobs.py elbo --json bench/results/gpu_elbo.json               its held-out -ELBO beside the CPU's
    python bench/gpu_jobs.py likelihood --json bench/results/gpu_likelihood.json   log p(x) of 10 000 images, `iwae`
    python bench/gpu_jobs.py likelihood --dry-run --arms fusedvae                  on the emulated GPU too

Arms take turns; the table has medians, and how far they are from the floors of gpu.py. `epoch` ends with an error
where the losses of two arms' third epochs are 5 nats apart, `elbo` where a mean over the seeds is more than 0.3 nats
from the CPU's, `likelihood` where two arms' means are not the same quantity. Fashion-MNIST is read as in
fashion_mnist.py.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import fusedvae as fv
from arms import fashion
from arms.cuda import PRECISIONS
from arms.cuda_jobs import EPOCH, LIKELIHOOD, FusedEpoch, Images
from fusedvae import _core
from fusedvae._gpu import why_no_gpu
from gpu import floors, measure_limits
from log_likelihood import SAMPLES, TOLERANCE
from problems import PROBLEMS
from report import machine, quartiles, summary, table, write


def make(kinds: dict, options: argparse.Namespace, *arguments) -> dict:
    """The arms in each precision; those that cannot be are named."""
    arms = {}
    for name, precision in itertools.product(options.arms or kinds, options.precisions):
        try:
            arms[name, precision] = kinds[name](precision, *arguments)
        except (ImportError, MemoryError, RuntimeError, ValueError) as error:  # noqa: PERF203
            print(f"left out: {name} {precision}: {error}")
    return arms


def verify(values: dict[tuple[str, str], float], allowed: float) -> dict[str, float]:
    named = {" ".join(arm): value for arm, value in values.items()}
    if not all(abs(a - b) <= allowed for a, b in itertools.product(named.values(), repeat=2)):
        raise SystemExit(f"the arms find {named}: more than {allowed} nats apart")
    return named


def report(title: str, seconds: dict, possible: dict[str, dict]) -> list[dict]:
    """A record of each arm, and the table of them all; `possible` has each precision's floors in seconds."""
    rows, lines = [], []
    for (name, precision), samples in seconds.items():
        row = {"arm": name, "precision": precision, "seconds": summary(samples)}
        cells = ["", ""]
        if possible:
            row["floors"] = possible[precision]
            which, floor = max(row["floors"].items(), key=lambda item: item[1])
            cells = [f"{floor:.3g} ({which})", f"{row['seconds']['median'] / floor:.2f}"]
        rows.append(row)
        lines.append([name, precision, *quartiles(row["seconds"], ".4g"), *cells])
    print(table([title, "precision", "seconds", "quartiles", "floor", "times the floor"], lines))
    return rows


def epoch(options: argparse.Namespace, limits: dict | None) -> dict:
    images = 600 if options.dry_run else 60_000
    problem = Images.of(images)
    arms = make(EPOCH, options, images)
    seconds: dict = {arm: job.epochs(1) for arm, job in arms.items()}
    losses = verify({arm: job.epoch() for arm, job in arms.items()}, 5)
    for _ in range(options.rounds):
        for arm, job in arms.items():
            seconds[arm] += job.epochs(2)
    steps = -(-images // problem.batch)
    possible = {}
    if limits:
        for precision in options.precisions:
            step = floors(problem, precision, limits)
            possible[precision] = {name: us * steps / 1e6 for name, us in step.items()}
    return {"images": images, "third_losses": losses, "rows": report("one epoch", seconds, possible)}


def elbo(options: argparse.Namespace, limits: dict | None) -> dict:
    images, seeds, epochs = (600, 1, 1) if options.dry_run else (60_000, options.seeds, options.epochs)
    arms = {"CPU float32": fashion.Fused(fv.get_num_threads())}
    arms |= {f"GPU {precision}": FusedEpoch(precision, images) for precision in options.precisions}
    final: dict[str, list[float]] = {name: [] for name in arms}
    for seed, (name, arm) in itertools.product(range(seeds), arms.items()):
        arm.start(seed)
        arm.trainer.fit(arm.train[:images], epochs=epochs)
        final[name].append(arm.held_out(samples=1 if options.dry_run else 4))
    means = {name: statistics.mean(values) for name, values in final.items()}
    apart = {name: mean - means["CPU float32"] for name, mean in means.items()}
    headers = [f"-ELBO, {epochs} epochs", *(f"seed {seed}" for seed in range(seeds)), "mean", "difference"]
    lines = [
        [name, *(f"{value:.2f}" for value in [*values, means[name]]), f"{apart[name]:+.2f}"]
        for name, values in final.items()
    ]
    print(table(headers, lines))
    within = all(abs(difference) <= 0.3 for difference in apart.values())
    failure = None if within else f"more than 0.3 nats from the CPU's: {apart}"
    return {"epochs": epochs, "final": final, "means": means, "failure": failure}


def likelihood(options: argparse.Namespace, limits: dict | None) -> dict:
    images, samples = (20, 64) if options.dry_run else (10_000, SAMPLES)
    arms = make(LIKELIHOOD, options)
    # Beside the arms' noise (log_likelihood.py), rounding the weights to bfloat16 moves these 540 nats by hundredths.
    means = {arm: statistics.mean(job.estimate(min(images, 256), samples)) for arm, job in arms.items()}
    named = verify(means, 2 * TOLERANCE)
    seconds: dict = {arm: [] for arm in arms}
    for _ in range(options.rounds):
        for arm, job in arms.items():
            begin = time.perf_counter()
            job.estimate(images, samples)
            seconds[arm].append(time.perf_counter() - begin)
    decoder = [n * k for name, (n, k) in PROBLEMS["iwae"].layers().items() if name.startswith("decoder")]
    flops = 2 * images * samples * sum(decoder)
    possible = {p: {"operations": flops / limits["flops"][p]} for p in options.precisions} if limits else {}
    rows = report(f"{images} images", seconds, possible)
    return {"images": images, "samples": samples, "flops": flops, "means": named, "rows": rows}


JOBS = {"epoch": (epoch, EPOCH), "elbo": (elbo, {}), "likelihood": (likelihood, LIKELIHOOD)}


def main() -> None:
    options = parse()
    if len(fv.available_devices()) == 1:
        print(f"skipped: {why_no_gpu()}")
        return
    run, kinds = JOBS[options.job]
    limits = measure_limits() if set(options.arms or kinds) - {"fusedvae"} else None
    about = {"benchmark": f"gpu_{options.job}", "machine": machine(), "card": _core.device_properties("cuda")}
    record = {**about, "limits": limits, **run(options, limits)}
    if options.json:
        write(options.json, record)
    if record.get("failure"):
        raise SystemExit(record["failure"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--arms", help="comma-separated; all that the job has, unless given")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="comma-separated, of %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each arm (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of elbo (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of elbo (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="of everything a little: times mean nothing")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    options = parser.parse_args()
    options.precisions = options.precisions.split(",")
    options.arms = options.arms.split(",") if options.arms else []
    kinds = JOBS[options.job][1]
    if options.arms and not kinds:
        parser.error(f"{options.job} takes no --arms: it compares fusedvae with itself")
    for chosen, known in ((options.precisions, PRECISIONS), (options.arms, kinds)):
        for one in chosen:
            if one not in known:
                parser.error(f"{one!r} is none of {', '.join(known)}")
    return options


if __name__ == "__main__":
    main()
