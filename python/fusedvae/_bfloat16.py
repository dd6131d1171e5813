# SPDX-License-Identifier: MIT
"""Arrays of bfloat16, a float's upper half: NumPy has no such type; ml_dtypes, JAX and PyTorch have."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def words_of(x: Any) -> NDArray[np.uint16] | None:
    """The words of an array of bfloat16, in place; None for everything else."""
    dtype = str(getattr(x, "dtype", ""))
    if dtype == "torch.bfloat16":
        return np.asarray(x.detach().view(sys.modules["torch"].int16)).view(np.uint16)
    return np.asarray(x).view(np.uint16) if dtype == "bfloat16" else None


def widened(words: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The same numbers as float32.

    >>> widened(np.array([0x3F80, 0xC000], np.uint16)).tolist()
    [1.0, -2.0]
    """
    return np.left_shift(words, 16, dtype=np.uint32).view(np.float32)


def as_array(x: Any) -> NDArray[Any]:
    """`numpy.asarray`, of bfloat16 as float32."""
    words = words_of(x)
    return np.asarray(x) if words is None else widened(words)
