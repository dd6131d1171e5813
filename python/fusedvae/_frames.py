# SPDX-License-Identifier: MIT
"""Columns of tables as numbers: those of pandas, polars and Arrow, none of which is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import listed


def is_table(x: Any) -> bool:
    """Whether x has named columns."""
    return hasattr(x, "columns") and (hasattr(x, "to_numpy") or hasattr(x, "column_names"))


def columns_of(x: Any) -> list[tuple[str, Any]]:
    """Each column's name and values, in order."""
    if hasattr(x, "column_names"):  # Arrow
        return list(zip(x.column_names, x.columns, strict=True))
    if hasattr(x, "iloc"):  # pandas, where two columns may have one name
        return [(str(name), x.iloc[:, j]) for j, name in enumerate(x.columns)]
    return [(name, x[name]) for name in x.columns]


def as_numbers(values: Any) -> NDArray[Any] | None:
    """A column as an array (n) of numbers, with NaN where a value is missing; None where it holds something else."""
    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        return array
    if array.dtype != object:
        return None
    # Bools and decimals with holes, and pandas' nullable types, whose hole is pandas.NA.
    numbers = [math.nan if value is None or type(value).__name__ == "NAType" else value for value in array]
    if not all(isinstance(value, (Number, np.bool_)) and not isinstance(value, complex) for value in numbers):
        return None
    return np.array(numbers, np.float64)


def numbers_of(x: Any, error: type[Exception], name: str, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """The columns chosen, by default all, as numbers; `error` names those that are absent or hold something else."""
    found = columns_of(x)
    if columns is not None:
        known = dict(found)
        if absent := [column for column in columns if column not in known]:
            raise error(f"{name} has no column {absent[0]!r}; its columns are {listed(list(known))}")
        found = [(column, known[column]) for column in columns]
    numbers = {column: as_numbers(values) for column, values in found}
    if other := [column for column, values in numbers.items() if values is None]:
        raise error(f"{name}: not numeric: {listed(other)}; leave them out, or encode them as numbers")
    if len(numbers) < len(found):
        twice = next(column for column in numbers if [one for one, _ in found].count(column) > 1)
        raise error(f"{name} has two columns named {twice!r}")
    return numbers


def arranged(x: Any, names: Sequence[str]) -> Any:
    """A table's columns in the order of `names`; as it is where its own are numbers, which name nothing.

    ValueError, in scikit-learn's words, for names that are missing, not among them, or there twice.
    """
    found = [name for name, _ in columns_of(x)]
    if found == list(names) or (hasattr(x, "iloc") and not all(isinstance(name, str) for name in x.columns)):
        return x
    unseen, missing = (sorted(set(one) - set(other)) for one, other in ((found, names), (names, found)))
    twice = sorted({name for name in found if found.count(name) > 1}) if len(set(found)) < len(found) else []
    if unseen or missing or twice:
        raise ValueError(
            "The feature names should match those that were passed during fit."
            + (f"\nFeature names unseen at fit time:\n{_lines(unseen)}" if unseen else "")
            + (f"\nFeature names seen at fit time, yet now missing:\n{_lines(missing)}" if missing else "")
            + (f"\nFeature names that occur twice:\n{_lines(twice)}" if twice else "")
        )
    return x.select(list(names)) if hasattr(x, "column_names") else x[list(names)]


def _lines(names: Sequence[str], most: int = 5) -> str:
    return "\n".join([f"- {name}" for name in names[:most]] + ["- ..."] * (len(names) > most))
