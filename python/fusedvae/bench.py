# SPDX-License-Identifier: MIT
"""The benchmark behind `fusedvae bench`: one training step of eight networks on this machine, fusedvae alone.

A step is forward, ELBO, backward and Adam, its noise drawn inside; the data is in memory. bench/ in the source tree
times the same networks beside other frameworks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import fusedvae as fv

from . import _core
from .config import PRECISIONS
from .demo import flops_per_row

ROUNDS = 10  # turns of each count of threads
# An epoch of the data is about this much arithmetic, so that it hides what the call itself costs, ...
EPOCH_FLOPS = 4e9
# ... but no more than this many floats, nor so many steps.
EPOCH_FLOATS, EPOCH_STEPS = 2**23, 1024


@dataclass(frozen=True)
class Network:
    """A multilayer VAE and its batch: ReLU between layers, decoder mirrored; a Gaussian has unit variance."""

    name: str
    width: int
    hidden: tuple[int, ...]
    latent: int
    batch: int
    likelihood: str

    def config(self) -> fv.Config:
        return fv.Config(self.width, hidden=self.hidden, latent=self.latent, likelihood=self.likelihood)

    @property
    def learning_rate(self) -> float:
        """Adam's. Its first steps move each weight by about this much, and a sum over D inputs by D times as much: the
        usual 1e-3 overflows exp(logvar) on 20000 columns, and on 2048 makes rounding errors grow a hundredfold."""
        return min(1e-3, 0.5 / self.width)

    def flops(self) -> int:
        """Operations of one step: three products per layer, but none for the data's gradient."""
        return self.batch * flops_per_row(self.config())

    def steps(self) -> int:
        """Batches in one epoch of the data."""
        most = min(EPOCH_STEPS, EPOCH_FLOATS // (self.batch * self.width))
        return max(2, min(most, round(EPOCH_FLOPS / self.flops())))

    def data(self) -> np.ndarray:
        """(steps B, D) float32: a few hidden causes plus noise, squashed into (0, 1) for the Bernoulli."""
        rng = np.random.default_rng(2)
        rows, causes = self.steps() * self.batch, 5
        x = rng.standard_normal((rows, causes), dtype=np.float32) @ rng.standard_normal(
            (causes, self.width), dtype=np.float32
        )
        x += rng.standard_normal(x.shape, dtype=np.float32)
        return 1 / (1 + np.exp(-x)) if self.likelihood == "bernoulli" else x


NETWORKS = {
    network.name: network
    for network in (
        Network("tiny", 8, (16,), 2, 64, "gaussian"),
        Network("tabular", 30, (64, 32), 8, 256, "gaussian"),
        Network("iwae", 784, (200, 200), 50, 20, "bernoulli"),
        Network("mnist", 784, (400,), 20, 128, "bernoulli"),
        Network("wide", 2000, (128,), 10, 128, "gaussian"),
        Network("genes", 20000, (128,), 10, 128, "gaussian"),
        Network("deep", 784, (512, 256), 32, 512, "bernoulli"),
        Network("big", 3072, (1024, 512), 128, 1024, "gaussian"),
    )
}


@dataclass(frozen=True)
class Row:
    """One network on `threads` threads (the engine takes fewer where the work is small): milliseconds per step, the
    median and quartiles of the samples, and what they make."""

    config: str
    threads: int
    precision: str
    ms: float
    ms_q1: float
    ms_q3: float
    samples: int
    steps_per_second: float
    rows_per_second: float
    gflops: float
    peak_gflops: float
    percent_of_peak: float


def run(
    networks: Sequence[Network],
    threads: Sequence[int],
    seconds: float = 1.0,
    rounds: int = ROUNDS,
    precision: str = "float32",
) -> Iterator[Row]:
    """Times each network for about `seconds` per count of threads; the counts take turns, `rounds` each.

    After each turn the arithmetic peak is measured on as many threads.
    """
    before = fv.get_num_threads()
    try:
        for network in networks:
            yield from _measure(network, threads, seconds, rounds, precision)
    finally:
        fv.set_num_threads(before)


def measure_peak(threads: int, seconds: float, precision: str = "float32") -> float:
    """GFLOP/s of a register-only loop of multiply-adds in "float32" or "bfloat16": the arithmetic's limit."""
    return _core.measure_peak(threads, seconds, PRECISIONS.index(precision))


def _measure(network: Network, threads: Sequence[int], seconds: float, rounds: int, precision: str) -> Iterator[Row]:
    x, steps = network.data(), network.steps()
    trainer = fv.Trainer(
        fv.Model(network.config()), fv.Adam(network.learning_rate), network.batch, precision=precision, shuffle=False
    )

    def fit(epochs: int) -> float:
        start = time.perf_counter()
        loss = trainer.fit(x, epochs=epochs)["loss"][-1]
        if not math.isfinite(loss):
            raise RuntimeError(f"{network.name}: the loss became {loss}; its time means nothing")
        return time.perf_counter() - start

    fit(1)  # allocates
    times: dict[int, list[float]] = {n: [] for n in threads}
    peaks: dict[int, list[float]] = {n: [] for n in threads}
    for _ in range(rounds):
        for n in threads:
            fv.set_num_threads(n)
            epochs = max(1, round(seconds / rounds / fit(1)))  # this one wakes the threads and warms their caches
            times[n].append(1e3 * fit(epochs) / (epochs * steps))
            peaks[n].append(measure_peak(n, min(0.05, seconds / rounds), trainer.precision))
    for n in threads:
        q1, median, q3 = (float(q) for q in np.percentile(times[n], (25, 50, 75)))
        gflops = network.flops() / median / 1e6
        peak = max(float(np.median(peaks[n])), gflops)  # the loop can meet a slower moment than the steps did
        yield Row(
            config=network.name,
            threads=n,
            precision=trainer.precision,
            ms=median,
            ms_q1=q1,
            ms_q3=q3,
            samples=rounds,
            steps_per_second=1e3 / median,
            rows_per_second=1e3 / median * network.batch,
            gflops=gflops,
            peak_gflops=peak,
            percent_of_peak=100 * gflops / peak,
        )


HEADER = "config   threads   ms per step            quartiles        rows/s   GFLOP/s   % of peak"


def line(row: Row) -> str:
    """A row of the table under HEADER."""
    quartiles = f"{row.ms_q1:.4g} - {row.ms_q3:.4g}"
    return (
        f"{row.config:8} {row.threads:7} {row.ms:13.4g} {quartiles:>20} {row.rows_per_second:13,.0f} "
        f"{row.gflops:9.1f} {row.percent_of_peak:11.0f}"
    )


def record(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything as one JSON object: the build, the machine's cores, the networks and the rows."""
    names = {row.config for row in rows}
    return {
        "fusedvae": fv.__version__,
        "backend": fv.backend(),
        "cores": fv.get_num_threads(),
        "networks": {n.name: asdict(n) | {"flops_per_step": n.flops()} for n in NETWORKS.values() if n.name in names},
        "rows": [asdict(row) for row in rows],
    }
