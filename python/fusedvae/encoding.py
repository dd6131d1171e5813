# SPDX-License-Identifier: MIT
"""Rows as the network reads them, in double precision, for the few computations that happen outside the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Config


def encoded(x: NDArray[Any], config: Config, name: str = "x") -> NDArray[np.float64]:
    """x (n, D) as the caller has it -> (n, encoded_width): uint8 scaled, columns shifted and scaled, or one-hot.

    ValueError for values that are not finite, NaN where the column has no fill among them.
    """
    rows = x.astype(np.float64)
    columns = config.columns
    if columns is None:
        rows *= config.uint8_scale if x.dtype == np.uint8 else 1
    else:
        rows = np.where(np.isnan(rows), [np.nan if column.fill is None else column.fill for column in columns], rows)
    if not np.isfinite(rows).all():
        j = int(np.argwhere(~np.isfinite(rows))[0, 1])
        known = f" ({columns[j].name})" if columns and columns[j].name else ""
        raise ValueError(f"{name} holds NaN or an infinite value in column {j}{known}")
    if columns is None:
        return rows
    parts = [
        ((values - column.shift) / column.scale)[:, None]
        if column.categories is None
        else (values[:, None] == np.arange(column.width)).astype(np.float64)
        for values, column in zip(rows.T, columns, strict=True)
    ]
    return np.hstack(parts)
