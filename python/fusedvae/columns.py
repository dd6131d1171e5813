# SPDX-License-Identifier: MIT
"""How a model reads the columns of a table: scaled numbers, categories as one-hot, fills for missing values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import _checks, _core


@dataclass(frozen=True)
class Column:
    """How one column of a table enters the network. The engine applies it, in C as in Python; the model file keeps it.

    A number is read as (value - shift) / scale, and decoded in its own units. With `categories` the value is an index
    into them: the network reads it as one-hot and decodes the likeliest index. `fill` stands for NaN in the data (an
    index for categories); None refuses missing values. ValueError for a scale that is not positive, a fill that is no
    category's index, and categories that repeat.

    >>> Column("age", shift=38.6, scale=13.6)
    Column(name='age', shift=38.6, scale=13.6, fill=None, categories=None)
    >>> Column("colour", categories=("blue", "red")).width
    2
    """

    name: str = ""
    shift: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, not {self.name!r}")
        _set(self, "shift", _checks.number("shift", self.shift, -math.inf))
        _set(self, "scale", _checks.number("scale", self.scale, open_low=True))
        if self.categories is not None:
            given: Any = self.categories
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise TypeError(f"categories must be a sequence of strings, not {given!r}")
            _set(self, "categories", tuple(given))
            if not self.categories or not all(type(category) is str for category in self.categories):
                raise ValueError(f"categories must be one or more strings, not {self.categories!r}")
            if len(set(self.categories)) < len(self.categories):
                raise ValueError(f"two categories of {self.name!r} are the same")
        if self.fill is not None:
            _set(self, "fill", _checks.number("fill", self.fill, -math.inf))
            if self.categories is not None and self.fill not in range(len(self.categories)):
                raise ValueError(f"fill must be the index of one of {len(self.categories)} categories, not {self.fill}")

    @property
    def width(self) -> int:
        """Values that the network reads: 1, or the number of categories."""
        return 1 if self.categories is None else len(self.categories)

    def _to_core(self) -> _core.Column:
        core = _core.Column()
        core.name, core.shift, core.scale = self.name, self.shift, self.scale
        core.fill = math.nan if self.fill is None else self.fill
        core.categories = list(self.categories or ())
        return core

    @classmethod
    def _from_core(cls, core: _core.Column) -> Column:
        fill = None if math.isnan(core.fill) else core.fill
        return cls(core.name, core.shift, core.scale, fill, tuple(core.categories) or None)


def checked(columns: Any, width: int) -> tuple[Column, ...] | None:
    """`columns` as a tuple of one Column for each of `width`; None stays None."""
    if columns is None:
        return None
    table: list[Column] = []
    for column in columns:
        if not isinstance(column, (Column, dict)):
            raise TypeError(f"columns must be fusedvae.Column objects, not {type(column).__name__}")
        table.append(Column(**column) if isinstance(column, dict) else column)
    if len(table) != width:
        raise ValueError(f"columns describes {len(table)} columns; input_shape has {width}")
    names = [column.name for column in table if column.name]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"two columns have the same name {twice!r}")
    return tuple(table)


def _set(frozen: object, name: str, value: Any) -> None:
    object.__setattr__(frozen, name, value)
