# SPDX-License-Identifier: MIT
"""Fashion-MNIST, 784-400-20, batch 128, Adam 1e-3, beside PyTorch's usual loop.

    python bench/fashion_mnist.py                 seconds for one epoch of 60 000 images, interleaved
    python bench/fashion_mnist.py --elbo          10 epochs over three seeds: the held-out -ELBO after each

With --out DIR the figures go to DIR/fashion_mnist_epoch.json, or to DIR/fashion_mnist_elbo.json and .png. --elbo ends
with status 1 if the means after the last epoch differ by more than 0.5 nats from PyTorch's, or, in bfloat16, by more
than 0.3 from float32's. Where the processor has no use for bfloat16, its row is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from arms import ARMS
from report import Neighbours, machine, quartiles, summary, table, write
from worker import Worker

FUSED, WORDS, LOOP, TENSORS = "fashion", "fashion.bfloat16", "fashion.torch", "fashion.tensors"
BAR, BFLOAT16_BAR = 0.5, 0.3  # nats


def ours() -> tuple[str, ...]:
    import fusedvae

    return (FUSED, WORDS) if "bfloat16" in fusedvae.available_precisions() else (FUSED,)


def time_epochs(rounds: int, threads: int) -> dict:
    """Seconds per epoch of each arm in turns, fusedvae twice per round; the first epoch of each arm is not counted."""
    arms = (*ours(), LOOP, TENSORS)
    turns = {ARMS[arm].title: arm for arm in arms} | {"fusedvae, again": FUSED}
    samples: dict[str, list[float]] = {turn: [] for turn in turns}
    with Neighbours() as neighbours, ExitStack() as stack:
        workers = {arm: stack.enter_context(Worker(arm, threads)) for arm in arms}
        about = {ARMS[arm].title: worker.ask("about")[0] for arm, worker in workers.items()}
        losses = {}
        for arm, worker in workers.items():
            worker.ask("start", 0)
            losses[arm] = worker.ask("epoch")[0]
        # The same model from another first draw: the mean losses of a first epoch lie within a few nats of 280.
        if max(losses.values()) - min(losses.values()) > 5:
            raise SystemExit(f"first epochs end at {losses}: the arms do not train the same model")
        for number in range(rounds):
            for turn, arm in turns.items():
                samples[turn].append(workers[arm].ask("epoch")[1])
            print(f"round {number + 1}: " + ", ".join(f"{t} {s[-1]:.2f} s" for t, s in samples.items()), flush=True)
    seconds = {turn: summary(values) for turn, values in samples.items()}
    float32 = seconds[ARMS[FUSED].title]["median"]
    lines = [
        [turn, *quartiles(values, ".3f"), f"{60000 / values['median']:,.0f}", f"{values['median'] / float32:.2f}"]
        for turn, values in seconds.items()
    ]
    print(table(["one epoch", "seconds", "quartiles", "images/s", "x fusedvae's"], lines))
    first = {ARMS[arm].title: loss for arm, loss in losses.items()}
    record = {"seconds": seconds, "first_epoch_loss": first}
    return {**record, "neighbours": neighbours.cores, "versions": about}


def compare_elbo(seeds: int, epochs: int, samples: int, threads: int) -> dict:
    """Held-out -ELBO in nats after each epoch, curves[arm][seed]; PyTorch also scores fusedvae's last models."""
    titles = {arm: ARMS[arm].title for arm in (*ours(), LOOP)}
    curves: dict[str, list[list[float]]] = {arm: [] for arm in titles}
    crossed = []
    with ExitStack() as stack:
        workers = {arm: stack.enter_context(Worker(arm, threads)) for arm in titles}
        about = {titles[arm]: worker.ask("about")[0] for arm, worker in workers.items()}
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for seed in range(seeds):
            for arm, worker in workers.items():
                worker.ask("start", seed)
                curve = []
                for _ in range(epochs):
                    worker.ask("epoch")
                    curve.append(worker.ask("held_out", samples)[0])
                curves[arm].append(curve)
                print(f"seed {seed}, {titles[arm]}: {', '.join(f'{value:.2f}' for value in curve)}", flush=True)
            path = f"{folder}/{seed}.npz"
            workers[FUSED].ask("store", path)
            crossed.append(workers[LOOP].ask("held_out", samples, path)[0])

    final = {arm: [curve[-1] for curve in curves[arm]] for arm in curves}
    final = {titles[arm]: values for arm, values in final.items()}
    final["fusedvae's, scored by PyTorch"] = crossed
    means = {title: statistics.mean(values) for title, values in final.items()}
    peer = means[titles[LOOP]]
    lines = [
        [title, *(f"{value:.2f}" for value in [*values, means[title]]), f"{means[title] - peer:+.2f}"]
        for title, values in final.items()
    ]
    print(table([f"-ELBO, {epochs} epochs", *(f"seed {s}" for s in range(seeds)), "mean", "difference"], lines))
    return {
        "epochs": epochs,
        "samples": samples,
        "curves": {titles[arm]: values for arm, values in curves.items()},
        "final": final,
        "mean_final": means,
        "versions": about,
    }


COLORS = ("tab:blue", "tab:green", "tab:orange")


def draw(record: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (whole, last) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axes, first in ((whole, 1), (last, max(1, record["epochs"] // 2))):
        for color, (title, curves) in zip(COLORS, record["curves"].items(), strict=False):
            x = range(first, record["epochs"] + 1)
            for curve in curves:
                axes.plot(x, curve[first - 1 :], color=color, alpha=0.35, linewidth=0.8)
            mean = [statistics.mean(values) for values in zip(*curves, strict=True)]
            axes.plot(x, mean[first - 1 :], color=color, marker="o", markersize=3, label=title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    whole.set_ylabel("held-out −ELBO, nats per image")
    whole.legend(title=f"mean of {len(curves)} seeds (each: thin)")
    last.set_title("the second half, enlarged", fontsize="medium")
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elbo", action="store_true", help="compare held-out ELBO instead of time")
    parser.add_argument("--rounds", type=int, default=5, help="timed epochs of each arm (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="with --elbo (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="with --elbo (%(default)s)")
    parser.add_argument("--samples", type=int, default=4, help="draws for each test image, with --elbo (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads for every arm (%(default)s)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the figures")
    arguments = parser.parse_args()

    record = {"machine": machine(), "threads": arguments.threads}
    if not arguments.elbo:
        record |= {"benchmark": "fashion_mnist_epoch", **time_epochs(arguments.rounds, arguments.threads)}
    else:
        record |= {"benchmark": "fashion_mnist_elbo"}
        record |= compare_elbo(arguments.seeds, arguments.epochs, arguments.samples, arguments.threads)
    if arguments.out:
        write(arguments.out / f"{record['benchmark']}.json", record)
        if arguments.elbo:
            draw(record, arguments.out / "fashion_mnist_elbo.png")
    if arguments.elbo:
        means = record["mean_final"]
        for arm, other, bar in ((FUSED, LOOP, BAR), (WORDS, FUSED, BFLOAT16_BAR)):
            if ARMS[arm].title not in means:
                continue
            difference = abs(means[ARMS[arm].title] - means[ARMS[other].title])
            if difference > bar:
                sys.exit(f"{ARMS[arm].title} and {ARMS[other].title} differ by {difference:.2f} nats, more than {bar}")


if __name__ == "__main__":
    main()
