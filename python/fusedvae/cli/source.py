# SPDX-License-Identifier: MIT
"""Rows that go through a model block by block, and how a table's columns find theirs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusedvae as fv

from .. import _readers, data
from .._checks import listed
from .._csv import csv_columns

# Rows of about this many bytes are worked on at a time, so that a file larger than memory passes through.
BLOCK_BYTES = 32 << 20
PARTS = ("all", "train", "test")
TABLES = ("a CSV file", "a Parquet file")
SPOOLED = ("an Arrow file", "a folder of tables")


@dataclass(frozen=True)
class Source:
    """Rows in the order of their file; kept: columns (n,) of a table that go along to the results."""

    parts: Sequence[NDArray[Any]]
    kept: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Each block with its place among all rows."""
        start = 0
        for part in self.parts:
            row_bytes = max(1, int(np.prod(part.shape[1:])) * part.itemsize)
            size = max(1, BLOCK_BYTES // row_bytes)
            for first in range(0, len(part), size):
                block = part[first : first + size]
                yield slice(start + first, start + first + len(block)), block
            start += len(part)


def read_rows(
    source: str,
    config: fv.Config,
    *,
    key: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    part: str = "all",
) -> Source:
    """Data rows as `config`'s model reads them."""
    if spooled(source):
        return _spooled(source, config, drop, keep)
    table = read_table(source)
    if table is not None:
        if key or part != "all":
            raise ValueError("--key and --part do not apply to tables")
        named = any(column.name for column in config.columns or ())
        chosen, kept = _matched(source, table, config.column_names if named else config.width, drop, keep)
        return Source([_raw(source, chosen, config)], kept)
    if drop or keep:
        raise ValueError("--drop and --keep apply to tables")
    options: dict[str, Any] = {"key": key} if key else {}
    if Path(source).is_dir() and len(config.input_shape) in (2, 3):
        options = {"size": config.input_shape[:2], "grey": len(config.input_shape) == 2}
    rows = data._read(source, options)
    parts = {"train": rows.x, "test": rows.test}
    known = [array for name, array in parts.items() if array is not None and part in ("all", name)]
    if not known:
        raise ValueError(f"{source} has no test rows of its own")
    return Source(known)


def read_codes(source: str, config: fv.Config, *, key: str | None, drop: Sequence[str], keep: Sequence[str]) -> Source:
    """Codes as `fusedvae encode` writes them; log-variances beside them are passed over."""
    table = read_table(source)
    names = [f"z{j}" for j in range(config.latent)]
    if table is not None:
        if key:
            raise ValueError("--key does not apply to tables")
        logvar = [name for name in table if name in {f"logvar{j}" for j in range(config.latent)}]
        chosen, kept = _matched(source, table, names, [*drop, *logvar], keep)
        return Source([_numbers(source, chosen)], kept)
    if drop or keep:
        raise ValueError("--drop and --keep apply to tables")
    if key is None and data._kind(Path(source)) == "a .npz file":
        key = "mu"
    return Source([data._read(source, {"key": key} if key else {}).x])


def read_table(source: str) -> dict[str, NDArray[Any]] | None:
    """The columns of a CSV or Parquet file, of CSV on stdin where source is "-"; None for other kinds."""
    if source == "-":
        with tempfile.TemporaryDirectory() as folder:  # the reader looks at the first line, then reads from the start
            path = Path(folder) / "stdin"
            with open(path, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            try:
                return csv_columns(path)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), "stdin")) from error
    kind = _kind(source)
    if kind not in TABLES or spooled(source):
        return None
    return (csv_columns if kind == "a CSV file" else _readers.parquet_columns)(Path(source))


def spooled(source: str) -> bool:
    """Whether the table is read through `spool` into a memory map: a large one, a folder of them, Arrow."""
    kind = _kind(source)
    return kind in SPOOLED or (kind in TABLES and Path(source).stat().st_size > _readers.MAP_BYTES)


def names_in(source: str) -> list[str]:
    """The columns of such a table."""
    from .. import _blocks, _frames

    return [name for name, _ in _frames.columns_of(next(iter(_blocks.tables_of(_blocks.files_in(Path(source))[0]))))]


def _spooled(source: str, config: fv.Config, drop: Sequence[str], keep: Sequence[str]) -> Source:
    if keep:
        raise ValueError("--keep does not apply to tables that are large, in folders or in Arrow files")
    table = {name: np.empty(0) for name in names_in(source)}
    named = any(column.name for column in config.columns or ())
    chosen, _ = _matched(source, table, config.column_names if named else config.width, drop, ())
    # As float64, so that a row has the score that it has in any other file.
    return Source([data.spool(source, columns=list(chosen), dtype="float64", missing="keep")])


def _kind(source: str) -> str:
    return source if source == "-" or source in data.NAMES else data._kind(Path(source))


def check_names(source: str, table: Mapping[str, NDArray[Any]], names: Sequence[str]) -> None:
    """ValueError unless the table has these columns."""
    if absent := [name for name in names if name not in table]:
        raise ValueError(f"{source} has no column {absent[0]!r}; its columns are {listed(table)}")


def _matched(
    source: str,
    table: Mapping[str, NDArray[Any]],
    wanted: Sequence[str] | int,
    drop: Sequence[str],
    keep: Sequence[str],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The model's columns in its order, by name, or by place where it or the table has no names; and those to keep."""
    check_names(source, table, (*drop, *keep))
    source = "stdin" if source == "-" else source
    kept = {name: table[name] for name in keep}
    left = {name: values for name, values in table.items() if name not in drop}
    if isinstance(wanted, int) or list(table) == [str(j) for j in range(len(table))]:
        left = {name: values for name, values in left.items() if name not in keep}
        width = wanted if isinstance(wanted, int) else len(wanted)
        if len(left) != width:
            raise ValueError(
                f"{source} has {len(left)} columns ({listed(left)}), the model reads {width}; "
                "leave some out with --drop"
            )
        return left, kept
    if missing := [name for name in wanted if name not in left]:
        raise ValueError(f"{source} lacks columns that the model reads: {listed(missing)}; its own are {listed(left)}")
    if unknown := [name for name in left if name not in wanted and name not in keep]:
        raise ValueError(
            f"{source} has columns that the model does not read: {listed(unknown)}; leave them out with "
            f"--drop {','.join(unknown[:3])}, or copy them to the results with --keep"
        )
    return {name: left[name] for name in wanted}, kept


def _raw(source: str, columns: Mapping[str, NDArray[Any]], config: fv.Config) -> NDArray[Any]:
    """The columns as raw rows (n, D): words become the indices of the model's categories."""
    if config.columns is None or not any(column.categories for column in config.columns):
        return _numbers(source, columns)
    from .. import tables

    pandas = _readers.require("pandas", "data", "a table with categories")
    raw: NDArray[Any] = tables.raw_rows(pandas.DataFrame(dict(columns)), config.columns)
    return raw


def _numbers(source: str, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    if text := [name for name, values in columns.items() if values.dtype.kind not in "fiub"]:
        raise ValueError(f"{source}: not numeric: {listed(text)}")
    return np.column_stack([values.astype(np.float64) for values in columns.values()])
