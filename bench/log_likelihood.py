# SPDX-License-Identifier: MIT
"""Times the importance-weighted estimate of log p(x) with 5000 samples on the `iwae` network, beside PyTorch's.

    python bench/log_likelihood.py --json bench/results/log_likelihood.json

The arms take turns; a register-only multiply-add loop between them gives the arithmetic peak. What is counted is the
decoder's products alone, 2 sum KN for each image and sample.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from arms import ARMS, installed
from problems import PROBLEMS
from report import Neighbours, machine, quartiles, summary, table, write
from worker import Worker

CONFIG, SAMPLES = "iwae", 5000
OURS, PEER = "likelihood", "likelihood.torch"
# The arms draw their own noise. At these first parameters two estimates of one image differ by about 0.03 nats
# (standard deviation), their means over the images by that over the square root of their number.
TOLERANCE = 0.05


def measure(arms: list[str], images: int, rounds: int, threads: int) -> dict:
    problem = PROBLEMS[CONFIG]
    decoder = [name for name in problem.layers() if name.startswith("decoder")]
    flops = 2 * SAMPLES * sum(outs * ins for name, (outs, ins) in problem.layers().items() if name in decoder)
    with Neighbours() as neighbours, ExitStack() as stack:
        workers = {arm: stack.enter_context(Worker(arm, threads)) for arm in arms}
        means = {}
        for arm, worker in workers.items():
            worker.ask("prepare", problem)
            values, _ = worker.ask("estimate", images, SAMPLES)
            means[arm] = sum(values) / images
        if max(means.values()) - min(means.values()) > TOLERANCE:
            raise SystemExit(f"the arms' mean estimates are {means}: not the same quantity")
        about = {arm: worker.ask("about")[0] for arm, worker in workers.items()}
        samples: dict[str, list[float]] = {arm: [] for arm in arms}
        peaks = []
        for _ in range(rounds):
            for arm, worker in workers.items():
                samples[arm].append(images / worker.ask("estimate", images, SAMPLES)[1])
            peaks.append(workers[OURS].ask("peak", 0.1)[0])
    rates = {arm: {"images_per_second": summary(values)} for arm, values in samples.items()}
    for arm in rates.values():
        arm["gflops"] = flops * arm["images_per_second"]["median"] / 1e9
    peak = max(summary(peaks)["median"], *(arm["gflops"] for arm in rates.values()))
    for name, arm in rates.items():
        arm["percent_of_peak"] = 100 * arm["gflops"] / peak
        arm["mean_nats"] = means[name]
    return {
        "config": CONFIG,
        "samples": SAMPLES,
        "images": images,
        "threads": threads,
        "flops_per_image": flops,
        "peak_gflops": peak,
        "peak_samples": peaks,
        "arms": rates,
        "neighbours": neighbours.cores,
        "versions": about,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="in each turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="turns that each arm takes (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads for every arm (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    arguments = parser.parse_args()
    arms = [OURS, PEER] if installed(PEER) else [OURS]
    if len(arms) < 2:
        print(f"left out: {ARMS[PEER].title} (not installed)")

    where = machine()
    record = measure(arms, arguments.images, arguments.rounds, arguments.threads)
    print(f"{where['processor']}; {arguments.threads} threads; peak {record['peak_gflops']:.0f} GFLOP/s")
    ours = record["arms"][OURS]["images_per_second"]["median"]
    lines = []
    for name, arm in record["arms"].items():
        rates = arm["images_per_second"]
        cells = [f"{arm['gflops']:.0f}", f"{arm['percent_of_peak']:.0f}", f"{rates['median'] / ours:.2f}"]
        lines.append([ARMS[name].title, *quartiles(rates, ".4g"), *cells])
    print(table([CONFIG, "images per second", "quartiles", "GFLOP/s", "% of peak", "x fusedvae's"], lines))
    if arguments.json:
        write(arguments.json, {"benchmark": "log_likelihood", "machine": where, **record})


if __name__ == "__main__":
    main()
