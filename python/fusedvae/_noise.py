# SPDX-License-Identifier: MIT
"""Uniform numbers of the engine's streams in NumPy.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), with the counter's
layout of csrc/layer/philox.h.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Words = NDArray[np.uint64]
_LOW = np.uint64(0xFFFFFFFF)
_SAMPLE = 4  # the purpose, in the counter's last word


def philox(counter: tuple[_Words, ...], seed: int) -> tuple[_Words, _Words, _Words, _Words]:
    """Ten rounds on four words of 32 bits each, kept in uint64."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0)
        c2 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def uniforms(seed: int, first: int, rows: int, group: int, count: int) -> NDArray[np.float64]:
    """Numbers in (0, 1) from the stream of `sample_latent`: of each row from `first` on, `count` from `group` on."""
    row, index = np.indices((rows, (count + 3) // 4)).astype(np.uint64)
    row, index = row + np.uint64(first), index + np.uint64(group)
    words = philox((index, row & _LOW, row >> np.uint64(32), np.full_like(row, _SAMPLE)), seed)
    values = np.stack(words, axis=-1).reshape(rows, -1)[:, :count].astype(np.float64)
    return (values + 0.5) * 2.0**-32
