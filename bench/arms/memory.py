# SPDX-License-Identifier: MIT
"""The memory's limit: two simple loops over arrays that no cache holds, on as many threads as the arms have.

    read     max(a)     4 bytes for each element
    update   a += b    12 bytes: two read, one written

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


def last_level_cache() -> int:
    """Bytes of the largest cache that Linux reports for the first core; elsewhere 32 MiB."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in sizes), default=2**25)


class Memory:
    def __init__(self, threads: int):
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        size = max(LEAST_BYTES, 4 * last_level_cache()) // 4  # STREAM's rule: four times the last cache
        self.slices = [(np.ones(part, np.float32), np.ones(part, np.float32)) for part in [size // threads] * threads]

    def about(self) -> dict:
        return {"numpy": np.__version__, "last_level_cache": last_level_cache()}

    def bandwidth(self, seconds: float) -> dict[str, float]:
        """GB/s of both loops, the best pass of about `seconds` for each."""
        return {
            "read": self._best(lambda a, b: a.max(), 4, seconds),
            "update": self._best(lambda a, b: np.add(a, b, out=a), 12, seconds),
        }

    def _best(self, work, bytes_per_element: int, seconds: float) -> float:
        elements = sum(len(a) for a, _ in self.slices)
        best, end = float("inf"), time.perf_counter() + seconds
        while best == float("inf") or time.perf_counter() < end:
            start = time.perf_counter()
            for done in [self.pool.submit(work, a, b) for a, b in self.slices]:
                done.result()
            best = min(best, time.perf_counter() - start)
        return bytes_per_element * elements / best / 1e9
