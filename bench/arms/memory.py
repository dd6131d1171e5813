# SPDX-License-Identifier: MIT
"""The memory's limit: simple loops over arrays that no cache holds, on as many threads as the arms have, and one over
as many bytes as a network's weights and moments take, wherever they lie.

    read     max(a)     4 bytes for each element
    update   a += b    12 bytes: two read, one written
    state    a *= 1     8 bytes: one read, one written, each thread its share of the state

In place, because a plain triad also reads the lines that it overwrites, which STREAM does not count; this way every
byte counted is a byte moved, and the mix of reads and writes is close to an optimiser's. NumPy runs both loops in
vector registers (over 100 GB/s of level-2 cache on one Zen 5 core, far from their own limit) and without the GIL.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

LEAST_BYTES = 2**26  # of an array


def caches() -> list[int]:
    """Bytes of the first core's caches, smallest first, as Linux reports them; elsewhere 1 and 32 MiB."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return sorted(int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in sizes) or [2**20, 2**25]


class Memory:
    def __init__(self, threads: int):
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        size = max(LEAST_BYTES, 4 * caches()[-1]) // 4  # STREAM's rule: four times the last cache
        self.slices = [(np.ones(part, np.float32), np.ones(part, np.float32)) for part in [size // threads] * threads]

    def about(self) -> dict:
        return {"numpy": np.__version__, "own_cache": caches()[-2], "last_level_cache": caches()[-1]}

    def bandwidth(self, seconds: float) -> dict[str, float]:
        """GB/s of the first two loops, the best pass of about `seconds` for each."""
        return {
            "read": self._best(lambda a, b: a.max(), self.slices, 4, seconds),
            "update": self._best(lambda a, b: np.add(a, b, out=a), self.slices, 12, seconds),
        }

    def state_bandwidth(self, seconds: float, state_bytes: int) -> float:
        """GB/s of the loop over the state, the best of about `seconds`."""
        part = max(1, state_bytes // 4 // self.threads)
        passes = max(1, LEAST_BYTES // state_bytes)  # in a row, so that calling the threads is not what is timed

        def work(a: np.ndarray) -> None:
            for _ in range(passes):
                np.multiply(a, np.float32(1), out=a)

        parts = [(np.ones(part, np.float32),) for _ in range(self.threads)]
        return self._best(work, parts, 8 * passes, seconds)

    def _best(self, work, slices: list[tuple[np.ndarray, ...]], bytes_per_element: int, seconds: float) -> float:
        elements = sum(len(one[0]) for one in slices)
        best, end = float("inf"), time.perf_counter() + seconds
        while best == float("inf") or time.perf_counter() < end:
            start = time.perf_counter()
            for done in [self.pool.submit(work, *one) for one in slices]:
                done.result()
            best = min(best, time.perf_counter() - start)
        return bytes_per_element * elements / best / 1e9
