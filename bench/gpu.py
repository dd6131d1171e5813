# SPDX-License-Identifier: MIT
"""Times training steps on a GPU, fusedvae beside PyTorch and JAX, with the floors that the card itself sets.

    python bench/gpu.py --json bench/results/gpu.json                  all arms, the eight networks and a large batch
    python bench/gpu.py --configs mnist-512,mnist-8192 --arms fusedvae,jax       of mnist's batches of 256 to 65536
    python bench/gpu.py --dry-run --arms fusedvae --configs tiny       epochs of three steps, on the emulated GPU too

Arms take turns; a turn is some epochs, of which the first is not timed; the table has medians of a step. Before that
each arm's losses over its first steps must equal those of a NumPy step in double precision. Floors: the step's
operations at the rate of a large matrix product measured in the same precision; the bytes of weights and moments, read
and written once, at the bandwidth of a large copy; the dependent stages of a step (each layer forward, loss, each
layer's gradient, the update) at the cost of one small kernel in a replayed graph.

The record is written after each network. (This file is not called cuda.py: PyTorch would find it in place of NVIDIA's
package of that name.)
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from dataclasses import asdict, replace

import fusedvae as fv
import numpy as np
from arms.cuda import ARMS, PRECISIONS
from arms.reference import Reference
from fusedvae import _core
from fusedvae._gpu import why_no_gpu
from problems import PROBLEMS, Problem
from report import machine, summary, table, write

DEFAULT = {**PROBLEMS, "big-8192": replace(PROBLEMS["big"], name="big-8192", batch=8192)}
BATCHES = {f"mnist-{2**i}": replace(PROBLEMS["mnist"], name=f"mnist-{2**i}", batch=2**i) for i in range(8, 17)}
CONFIGS = {**DEFAULT, **BATCHES}
VERIFIED_STEPS = 4
# Relative, of the first losses. float32: bench/README.md. tf32 rounds a product's factors to 2^-11, and of thousands
# of them in a loss most of it averages out; bfloat16 asks the reference.
TOLERANCE = {"float32": 5e-6, "tf32": 2e-3}


def main() -> None:
    options = parse()
    if len(fv.available_devices()) == 1:
        print(f"skipped: {why_no_gpu()}")
        return
    card = _core.device_properties("cuda")
    print(f"{card['name']}, compute capability {'.'.join(map(str, card['capability']))}")
    limits = None if all(name.startswith("fusedvae") for name in options.arms) else measure_limits()
    kind = Short if options.dry_run else Long
    record = {"benchmark": "gpu", "machine": machine(), "card": card, "limits": limits, "configs": []}
    for name in options.configs:
        record["configs"].append(measure(kind(**asdict(CONFIGS[name])), options, limits))
        if options.json:
            write(options.json, record)


class Long(Problem):
    """A network with as many steps in an epoch as hide what the call itself costs, of the little that each costs there;
    512 MB of data at most."""

    def steps(self) -> int:
        return max(2, min(256, 2**27 // (self.batch * self.width)))

    @functools.lru_cache(maxsize=1)  # noqa: B019  every arm asks for it, and one network is measured at a time
    def data(self) -> np.ndarray:
        return super().data()


class Short(Problem):
    """A network with so little data that the emulated GPU gets through it."""

    def steps(self) -> int:
        return 3


def measure(problem: Problem, options: argparse.Namespace, limits: dict | None) -> dict:
    """One network's record: each arm in each precision."""
    turns, left_out = {}, {}
    expected, allowed = yardstick(problem, options.precisions)
    for name, precision in itertools.product(options.arms, options.precisions):
        try:
            arm = ARMS[name](problem, precision)
            difference = verify(arm.losses(VERIFIED_STEPS), expected, allowed[precision])
            turns[name, precision] = (arm, difference, [])
        except (ImportError, MemoryError, RuntimeError, ValueError) as error:  # noqa: PERF203
            left_out[f"{name} {precision}"] = f"{type(error).__name__}: {error}"
    for _ in range(options.rounds):
        for arm, _, samples in turns.values():
            samples += [1e6 * seconds / problem.steps() for seconds in arm.epochs(options.epochs)]
    rows = []
    for (name, precision), (_, difference, samples) in turns.items():
        row = {"arm": name, "precision": precision, "us": summary(samples), "difference": difference}
        if limits:
            row["floors_us"] = floors(problem, precision, limits)
        rows.append(row)
    headers = [problem.name, "precision", "us per step", "ms per epoch", "floor us", "times the floor"]
    lines = []
    for row in rows:
        us = row["us"]["median"]
        floor = max(row["floors_us"].values()) if limits else float("nan")
        cells = [f"{us:.4g}", f"{us * problem.steps() / 1e3:.4g}", f"{floor:.3g}", f"{us / floor:.2f}"]
        lines.append([row["arm"], row["precision"], *cells])
    print(f"\n{table(headers, lines)}", flush=True)
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    return {"config": problem.name, "batch": problem.batch, "steps": problem.steps(), "flops": problem.flops(),
            "state_bytes": problem.state_bytes(), "rows": rows, "left_out": left_out}  # fmt: skip


def yardstick(problem: Problem, precisions: list[str]) -> tuple[list[float], dict[str, float]]:
    """The first losses, and by how much of them each precision's may differ."""
    reference = Reference(1)
    reference.prepare(problem)
    expected = reference.losses(VERIFIED_STEPS)
    return expected, {p: TOLERANCE.get(p) or reference.bfloat16_tolerance(expected) for p in precisions}


def verify(losses: list[float], expected: list[float], allowed: float) -> float:
    """The greatest relative difference from the reference; RuntimeError above what is allowed."""
    difference = max(abs(a - b) / abs(b) for a, b in zip(losses, expected, strict=True))
    if not difference <= allowed:
        raise RuntimeError(f"its losses {losses} differ from {expected} by {difference:.2g}, more than {allowed:.2g}")
    return difference


def measure_limits() -> dict:
    """What the card could do: products of 8192^2 matrices, a copy of 1 GiB, an empty kernel within a replayed graph."""
    import torch

    def seconds(work, count: int) -> float:
        work()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            work()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / count

    limits: dict = {"flops": {}}
    for precision in PRECISIONS:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
        limits["flops"][precision] = 2 * 8192**3 / seconds(lambda a=a, b=b: a @ b, 5)
    a = torch.empty(1 << 28, device="cuda")
    b = torch.empty_like(a)
    limits["bytes"] = 2 * a.nbytes / seconds(lambda: b.copy_(a), 10)
    one, graph = torch.zeros(1, device="cuda"), torch.cuda.CUDAGraph()
    one.add_(1)
    with torch.cuda.graph(graph):
        for _ in range(100):
            one.add_(1)
    limits["stage"] = seconds(graph.replay, 10) / 100
    print(
        ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in limits["flops"].items())
        + f", {limits['bytes'] / 1e12:.2f} TB/s, {limits['stage'] * 1e6:.2f} us a stage"
    )
    return limits


def floors(problem: Problem, precision: str, limits: dict) -> dict:
    """Microseconds below which a step cannot go: by operations, bytes and dependent stages."""
    stages = 2 * (2 * len(problem.hidden) + 2) + 1  # each product forward; each gradient; the update
    return {
        "operations": 1e6 * problem.flops() / limits["flops"][precision],
        "bytes": 1e6 * problem.step_bytes() / limits["bytes"],
        "stages": 1e6 * stages * limits["stage"],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default=",".join(DEFAULT), help=f"comma-separated, of {', '.join(CONFIGS)}")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated, of %(default)s")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="comma-separated, of %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each arm (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="timed in a turn (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="epochs of three steps: times mean nothing")
    parser.add_argument("--json", help="write the record here")
    options = parser.parse_args()
    for name, known in (("configs", CONFIGS), ("arms", ARMS), ("precisions", PRECISIONS)):
        chosen = getattr(options, name).split(",")
        setattr(options, name, chosen)
        for one in chosen:
            if one not in known:
                parser.error(f"no {name[:-1]} {one!r}; known are {', '.join(known)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
