# SPDX-License-Identifier: MIT
"""What `Trainer.fit` takes beside arrays: files and streams, which it spools, and iterables of batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _arrays, _core
from ._checks import listed
from ._frames import is_table
from .config import Config


def opened(x: Any, config: Config) -> Any:
    """x, or where it names files or can be read but once from Arrow, a memory map of its rows.

    Where the model's columns have names, those are the columns read.
    """
    paths = x if isinstance(x, (list, tuple)) and x else [x]
    named = all(isinstance(path, (str, os.PathLike)) for path in paths)
    if named or hasattr(x, "scanner") or hasattr(x, "read_next_batch"):
        from ._spool import mapped, spool

        if named and len(paths) == 1 and (in_place := mapped(paths[0])) is not None:
            return in_place
        names = [column.name for column in config.columns or ()]
        return spool(x, columns=names if names and all(names) else None, missing=_missing(config))
    return x


def opened_whole(x: Any, config: Config) -> Any:
    """`opened`, for data that is needed as one: an iterable of batches is read into a memory map too."""
    x = opened(x, config)
    if is_array(x):
        return x
    from ._spool import spool

    named = any(column.name for column in config.columns or ())
    return spool(_by_name(x, config) if named else x, missing=_missing(config))


def _by_name(batches: Any, config: Config) -> Iterator[Any]:
    """The batches, tables among them as the rows that the model finds in them."""
    for i, batch in enumerate(batches):
        first = first_of(batch, f"batch {i}")
        yield _arrays.host_array_of(first, config, f"batch {i}") if is_table(first) else first


def _missing(config: Config) -> str:
    """The engine reads NaN where a column has a fill, and names it where it has none."""
    return "keep" if any(column.fill is not None for column in config.columns or ()) else "error"


def is_array(x: Any) -> bool:
    """Whether x is one array or table, rather than an iterable of batches; a list of matrices is such an iterable."""
    if isinstance(x, (list, tuple)):  # (rows, labels) is no tuple of batches
        return isinstance(x, tuple) or not _begins_with_rows(x)
    known = any(hasattr(x, name) for name in ("__array__", "to_numpy", "__dlpack__", "__cuda_array_interface__", "nnz"))
    return known or is_table(x) or isinstance(x, (Mapping, bytes, bytearray, memoryview)) or not hasattr(x, "__iter__")


def first_of(batch: Any, name: str) -> Any:
    """The rows of a batch: itself, or the first of a tuple or list (rows, labels)."""
    if isinstance(batch, Mapping):
        raise TypeError(
            f"{name} is a dict with {listed([str(key) for key in batch])}; give batches of rows alone, "
            "or tuples that begin with them: a DataLoader's collate_fn can choose"
        )
    return batch[0] if isinstance(batch, (list, tuple)) and _begins_with_rows(batch) else batch


def _begins_with_rows(x: Sequence[Any]) -> bool:
    return len(x) > 0 and len(getattr(x[0], "shape", ())) > 1


class Batches:
    """The engine's source of batches: an iterable, gone through once for each epoch."""

    def __init__(self, x: Any, config: Config, epochs: int) -> None:
        if hasattr(x, "__next__") and epochs > 1:
            raise ValueError(
                f"x ({type(x).__name__}) can be gone through once, and {epochs} epochs need it as often; "
                "give a DataLoader or another object whose __iter__ begins anew, read it into a memory map with "
                "fusedvae.data.spool(x), or train with epochs=1"
            )
        self._x = x
        self._config = config
        self._iterator: Iterator[Any] | None = None
        self.length = len(x) if hasattr(x, "__len__") else 0
        """Batches of an epoch where the iterable says so, else 0."""

    def __call__(self, epoch: int, index: int) -> _core.Rows | None:
        """Batch `index` of `epoch`; None where the epoch has no more."""
        if index == 0 or self._iterator is None:
            self._iterator = iter(self._x)
            for passed in range(index):  # a run that goes on within an epoch has had these
                if next(self._iterator, self) is self:
                    raise ValueError(f"this training stands at batch {index} of its epoch, and x has only {passed}")
        batch = next(self._iterator, self)
        if batch is self:
            self._iterator = None
            return None
        name = f"batch {index} of x"
        return _arrays.rows_of(first_of(batch, name), self._config, name)
