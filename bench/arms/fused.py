# SPDX-License-Identifier: MIT
"""fusedvae's arm: Trainer.fit on data in memory, the loop of a user. It reads the rows in order, as its peers do."""

from __future__ import annotations

import re
from pathlib import Path

import fusedvae as fv
import numpy as np
from fusedvae.bench import measure_peak
from problems import EPSILON, Problem

from arms import Unavailable


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
    precision = "float32"

    def __init__(self, threads: int):
        fv.set_num_threads(threads)  # at most as many: the engine takes fewer where the work is small
        self.threads = threads

    def about(self) -> dict:
        return {"fusedvae": fv.__version__, "backend": fv.backend(), "compilers": compilers(), "numpy": np.__version__}

    def prepare(self, problem: Problem) -> None:
        self.problem = problem
        model = fv.Model(problem.config())
        model.set_parameters(problem.parameters())
        optimizer = fv.Adam(problem.learning_rate, eps=EPSILON)
        try:
            self.trainer = fv.Trainer(model, optimizer, problem.batch, precision=self.precision, shuffle=False)
        except ValueError as error:
            raise Unavailable(str(error)) from None
        self.x = problem.data()

    def losses(self, count: int) -> list[float]:
        batch = self.x[: self.problem.batch]
        return [self.trainer.step(batch, noise=self.problem.noise(i)).loss for i in range(count)]

    def train(self, epochs: int) -> float:
        return float(self.trainer.fit(self.x, epochs=epochs)["loss"][-1])

    def peak(self, seconds: float, precision: str) -> float:
        """GFLOP/s of a register-only multiply-add loop on as many threads: the processor's arithmetic limit now."""
        return measure_peak(self.threads, seconds, precision)


class FusedBfloat16(Fused):
    precision = "bfloat16"
