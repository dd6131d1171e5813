# SPDX-License-Identifier: MIT
"""fusedvae's arm: Trainer.fit on data in memory, the loop of a user. It reads the rows in order, as its peers do."""

from __future__ import annotations

import re
from pathlib import Path

import fusedvae as fv
import numpy as np
from fusedvae import _core
from problems import LEARNING_RATE, Problem


def compilers() -> list[str]:
    """The compilers that the engine's loaded libraries name in their own files (Linux)."""
    maps = Path("/proc/self/maps")
    found = set()
    if maps.exists():
        names = {line.split()[-1] for line in maps.read_text().splitlines() if "fusedvae" in line}
        for name in names:
            found |= set(re.findall(rb"GCC: \([^)]+\) [\d.]+|clang version [\d.]+", Path(name).read_bytes()))
    return sorted(text.decode() for text in found)


class Fused:
    def __init__(self, threads: int):
        self.threads = threads

    def about(self) -> dict:
        return {"fusedvae": fv.__version__, "backend": fv.backend(), "compilers": compilers(), "numpy": np.__version__}

    def prepare(self, problem: Problem) -> None:
        self.problem = problem
        config = fv.Config(
            input_shape=problem.width, hidden=problem.hidden, latent=problem.latent, likelihood=problem.likelihood
        )
        model = fv.Model(config)
        model.set_parameters(problem.parameters())
        self.trainer = fv.Trainer(
            model, optimizer=fv.Adam(LEARNING_RATE), batch_size=problem.batch, threads=self.threads, shuffle=False
        )
        self.x = problem.data()

    def losses(self, count: int) -> list[float]:
        batch = self.x[: self.problem.batch]
        return [self.trainer.step(batch, noise=self.problem.noise(i)).loss for i in range(count)]

    def train(self, epochs: int) -> float:
        return float(self.trainer.fit(self.x, epochs=epochs)["loss"][-1])

    def peak(self, seconds: float) -> float:
        """GFLOP/s of a register-only multiply-add loop on as many threads: the processor's arithmetic limit now."""
        return _core.measure_peak(self.threads, seconds)
