# SPDX-License-Identifier: MIT
"""The clock of a whole job: seconds from its start to each epoch's end, and the parameters at each of these ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


class Laps:
    """`end` writes the epoch's parameters to FOLDER/1.npz, FOLDER/2.npz, …; the clock stands still while it does."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.seconds: list[float] = []
        self.start = time.perf_counter()

    def end(self, parameters: Callable[[], Mapping[str, np.ndarray]]) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.start)
        np.savez(self.folder / f"{len(self.seconds)}.npz", **parameters())
        self.start += time.perf_counter() - now
