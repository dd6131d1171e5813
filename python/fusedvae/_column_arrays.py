# SPDX-License-Identifier: MIT
"""A configuration's columns as arrays, for the graphs that read and decode tables elsewhere: PyTorch's and ONNX's.

The engine computes in double. Graphs hold float32, so a shift is kept as two numbers whose sum has 48 bits: near its
shift a value loses nothing by (value - high) - low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import Config, Gaussian

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ColumnArrays:
    """What is known of each encoded column d (D) and of each raw column (R).

    Encoded: ((raw[source] - high) - low) * inverse for a number, raw[source] == index for one of `count` categories,
    `filled` where the raw value is NaN (NaN: nothing stands for it). Decoded: (encoded[first] * scale + low) + high for
    a number, the place of the largest of `count` encoded values from `first` on for a category.
    """

    source: NDArray[np.int64]  # (D)
    high: Floats  # (D)
    low: Floats  # (D)
    inverse: Floats  # (D)
    index: Floats  # (D), 0 for a number
    count: Floats  # (D), 0 for a number
    filled: Floats  # (D)
    first: NDArray[np.int64]  # (R)
    scale: Floats  # (R)

    @property
    def categorical(self) -> list[tuple[int, int, int]]:
        """Raw column, first encoded column and number of categories, for each column that has some."""
        return [(r, int(d), int(self.count[d])) for r, d in enumerate(self.first) if self.count[d]]


def column_arrays(config: Config) -> ColumnArrays | None:
    """The arrays of the configuration's columns; None where rows are read as they are."""
    if config.columns is None:
        return None
    columns = config.columns
    widths = [column.width for column in columns]
    source = np.repeat(np.arange(len(columns)), widths)
    first = np.cumsum([0, *widths[:-1]])
    counts = np.array([len(column.categories or ()) for column in columns])
    index = np.where(counts[source] > 0, np.arange(len(source)) - first[source], 0)
    number = counts == 0
    shift = np.where(number, [column.shift for column in columns], 0.0)
    scale = np.where(number, [column.scale for column in columns], 1.0)
    fill = np.array([math.nan if column.fill is None else column.fill for column in columns])
    filled = np.where(number[source], ((fill - shift) * (1 / scale))[source], fill[source] == index)
    high = shift.astype(np.float32)
    return ColumnArrays(
        source=source.astype(np.int64),
        high=high[source],
        low=(shift - high).astype(np.float32)[source],
        inverse=(1 / scale).astype(np.float32)[source],
        index=index.astype(np.float32),
        count=counts[source].astype(np.float32),
        filled=np.where(np.isnan(fill)[source], np.nan, filled).astype(np.float32),
        first=first.astype(np.int64),
        scale=scale.astype(np.float32),
    )


def log_jacobian(config: Config) -> float:
    """ln |d encoded / d raw|: what a Gaussian's density of raw rows has above that of encoded ones, nats."""
    if config.columns is None or not isinstance(config.likelihood, Gaussian):
        return 0.0
    return -math.fsum(math.log(column.scale) for column in config.columns if column.categories is None)
