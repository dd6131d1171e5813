# SPDX-License-Identifier: MIT
"""Whatever holds rows, as blocks of some MB: files and folders of tables, Arrow, DataFrames, arrays, iterables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _checks, _csv, _frames
from ._bfloat16 import as_array
from ._readers import require
from ._sources import first_of, is_array

# A block's size in memory, were its values float64; twice as much is not faster.
BLOCK_BYTES = 8 << 20
# What Parquet reads ahead of a block, in each column.
BUFFER_BYTES = 1 << 18
NPY = b"\x93NUMPY"
SUFFIXES = (".parquet", ".pq", ".arrow", ".feather", ".ipc", *_csv.SUFFIXES, ".npy")


@dataclass(frozen=True)
class Block:
    """Some rows: the columns of a table, or one array (b, ...)."""

    source: str
    columns: list[str] | None
    parts: list[NDArray[Any]]

    @property
    def rows(self) -> int:
        return len(self.parts[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.parts[0].shape[1:] if self.columns is None else (len(self.columns),)

    def places(self, values: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Where in `values` (b, *shape) each part belongs, and the part."""
        if self.columns is None:
            return [(values, self.parts[0])]
        return [(values[:, j], part) for j, part in enumerate(self.parts)]

    def labels(self) -> Sequence[str | None]:
        """Each part's column, where parts are columns."""
        return [None] if self.columns is None else self.columns

    def described(self) -> str:
        return f"rows of shape {self.shape}" if self.columns is None else f"the columns {_checks.listed(self.columns)}"


def blocks_of(source: Any, columns: list[str] | None) -> Iterator[Block]:
    """The rows of `source` in order, read once; columns: those of a table to read, in this order."""
    if isinstance(source, (str, os.PathLike)):
        yield from _files([Path(source)], columns)
    elif isinstance(source, (list, tuple)) and source and all(isinstance(one, (str, os.PathLike)) for one in source):
        yield from _files([Path(one) for one in source], columns)
    elif hasattr(source, "scanner"):  # an Arrow Dataset
        rows = _rows_of(len(columns or source.schema.names))
        batches = source.to_batches(
            columns=columns, batch_size=rows, batch_readahead=1, fragment_readahead=1, use_threads=False
        )
        yield from _tables("the dataset", batches, columns)
    elif hasattr(source, "read_next_batch"):  # an Arrow RecordBatchReader
        yield from _tables("the stream", source, columns)
    elif _frames.is_table(source):
        yield from _tables("the table", [source], columns)
    elif is_array(source):
        yield from _arrays("the array", as_array(source), columns)
    else:
        for i, batch in enumerate(source):
            first = first_of(batch, f"batch {i}")
            if _frames.is_table(first):
                yield from _tables(f"batch {i}", [first], columns)
            else:
                yield from _arrays(f"batch {i}", as_array(first), columns)


def _rows_of(width: int) -> int:
    return max(1, BLOCK_BYTES // (8 * max(1, width)))


def _arrays(name: str, array: NDArray[Any], columns: list[str] | None) -> Iterator[Block]:
    if columns is not None:
        raise ValueError(f"{name} has no named columns for columns= to choose")
    if array.dtype.kind not in "biuf" or array.ndim < 2:
        raise ValueError(
            f"{name} has shape {array.shape} of {array.dtype}; rows are arrays of numbers of shape (b, ...)"
        )
    rows = _rows_of(int(np.prod(array.shape[1:])))
    for first in range(0, len(array), rows):
        yield Block(name, None, [array[first : first + rows]])


def _tables(name: str, tables: Iterable[Any], columns: list[str] | None) -> Iterator[Block]:
    for table in tables:
        rows = _rows_of(len(columns or table.columns))
        for first in range(0, len(table), rows):
            if hasattr(table, "column_names"):
                part = table.slice(first, rows)
            else:
                part = getattr(table, "iloc", table)[first : first + rows]
            numbers = _frames.numbers_of(part, ValueError, name, columns)
            if not numbers:
                raise ValueError(f"{name} has no columns")
            yield Block(name, [*numbers], [*numbers.values()])


# ---- files ----------------------------------------------------------------------------------------------------------


def _files(paths: list[Path], columns: list[str] | None) -> Iterator[Block]:
    for path in (file for one in paths for file in files_in(one)):
        if _head(path) == NPY:
            yield from _arrays(str(path), np.load(path, mmap_mode="r", allow_pickle=False), columns)
        else:
            yield from _tables(str(path), tables_of(path, columns), columns)


def files_in(path: Path) -> list[Path]:
    """The file, or those of a folder and its subfolders that are tables by their names, sorted; none that is hidden."""
    if not path.is_dir():
        return [path]
    relative = sorted(one.relative_to(path) for one in path.rglob("*") if _is_table(one))
    found = [path / one for one in relative if not any(part.startswith((".", "_")) for part in one.parts)]
    if not found:
        raise ValueError(f"{path} holds no tables ({', '.join(SUFFIXES)})")
    return found


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or _csv.suffix(path) in _csv.SUFFIXES


def tables_of(path: Path, columns: list[str] | None = None) -> Iterator[Any]:
    """A Parquet, Arrow or CSV file block by block, as RecordBatches or DataFrames of `columns`, or more."""
    head = _head(path)
    if head.startswith(b"PAR1"):
        return _arrow_errors(path, _parquet(path, columns))
    if head == b"ARROW1":
        return _arrow_errors(path, _ipc(path))
    if _csv.suffix(path) in _csv.SUFFIXES:
        layout = _csv.csv_layout(path)
        return _csv.csv_frames(path, layout, _rows_of(len(layout.names)))
    raise ValueError(f"{path} is of no kind that is read in blocks: Parquet, Arrow, CSV or .npy")


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(6)


def _parquet(path: Path, columns: list[str] | None) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", "data", "reading Parquet files")
    # Without these two a whole row group, which may be the file, is read at once.
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
        known = set(file.schema_arrow.names)
        chosen = columns if columns is not None and known.issuperset(columns) else None  # all, to be named in an error
        rows = _rows_of(len(chosen or known))
        yield from file.iter_batches(batch_size=rows, columns=chosen, use_threads=False)


def _ipc(path: Path) -> Iterator[Any]:
    pyarrow = require("pyarrow", "data", "reading Arrow files")
    ipc = require("pyarrow.ipc", "data", "reading Arrow files")
    with pyarrow.memory_map(os.fspath(path)) as memory, ipc.open_file(memory) as file:
        for i in range(file.num_record_batches):
            yield file.get_batch(i)


def _arrow_errors(path: Path, batches: Iterator[Any]) -> Iterator[Any]:
    pyarrow = require("pyarrow", "data", f"reading {path}")
    try:
        yield from batches
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a readable table: {str(error).splitlines()[0]}") from error
