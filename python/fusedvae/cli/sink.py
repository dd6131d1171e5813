# SPDX-License-Identifier: MIT
"""Where rows of results go, block by block: .npy, .npz, CSV, Parquet, or CSV on stdout.

A file appears under its name whole or not at all. CSV numbers are the shortest that are read back to the same bits.
"""

from __future__ import annotations

import contextlib
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._atomic import replacing
from .._readers import require
from .terminal import STDOUT, UsageError, check_output

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")
Write = Callable[..., None]


class Field(NamedTuple):
    """A result: its name in a .npz file, the names of its columns in a table, the shape of one row, its type.

    categories: for each column None or the words that its whole numbers stand for in a table.
    """

    name: str
    columns: Sequence[str]
    shape: tuple[int, ...] = ()
    dtype: DTypeLike = np.float32
    categories: Sequence[Sequence[str] | None] = ()


def check(path: Path, arrays: int = 1) -> None:
    """Raises before the work what `opened` would raise after it for so many fields."""
    check_output(path)
    if path != STDOUT and path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: results are written as {', '.join(SUFFIXES)}, or as CSV to stdout with --out -")
    if path.suffix.lower() == ".npy" and arrays > 1:
        raise UsageError(f"{path}: an .npy file holds one array; {arrays} are asked for: write .npz, .csv or .parquet")
    if path.suffix.lower() == ".parquet":
        require("pyarrow.parquet", "data", "writing Parquet files")


@contextlib.contextmanager
def opened(path: Path, fields: Sequence[Field], rows: int) -> Iterator[Write]:
    """A function that takes one array (m, *shape) for each field and writes these m rows after those before."""
    check(path, len(fields))
    if path == STDOUT:
        yield _csv(sys.stdout, fields)
        return
    with replacing(path) as written:
        if path.suffix.lower() == ".csv":
            with open(written, "w", newline="", encoding="utf-8") as file:
                yield _csv(file, fields)
        elif path.suffix.lower() == ".parquet":
            with _parquet(written, fields) as write:
                yield write
        elif path.suffix.lower() == ".npy":
            with open(written, "wb") as binary:
                yield _npy(binary, fields[0], rows)
        else:
            with _npz(written, fields, rows) as write:
                yield write


def _csv(file: IO[str], fields: Sequence[Field]) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    header = [[name for field in fields for name in field.columns]]

    def write(*blocks: NDArray[Any]) -> None:
        writer.writerows(header)  # with the first rows, so that what fails before them prints nothing
        header.clear()
        columns = [column for _, column in _columns(fields, blocks)]
        # NumPy's text of a float is the shortest that is read back to it, Python's that of its double.
        writer.writerows(zip(*(column.astype("U").tolist() for column in columns), strict=True))

    return write


@contextlib.contextmanager
def _parquet(path: Path, fields: Sequence[Field]) -> Iterator[Write]:
    pyarrow = require("pyarrow", "data", "writing Parquet files")
    parquet = require("pyarrow.parquet", "data", "writing Parquet files")
    with contextlib.ExitStack() as leaving:
        writer: Any = None

        def write(*blocks: NDArray[Any]) -> None:
            nonlocal writer
            named = _columns(fields, blocks)
            table = pyarrow.table([pyarrow.array(column) for _, column in named], names=[name for name, _ in named])
            if writer is None:
                writer = leaving.enter_context(parquet.ParquetWriter(path, table.schema))
            writer.write_table(table)

        yield write


def _npy(file: IO[bytes], field: Field, rows: int) -> Write:
    dtype = np.dtype(field.dtype)
    if dtype.hasobject:
        raise UsageError("an .npy file holds numbers, not words: write .npz, .csv or .parquet")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *field.shape)}
    np.lib.format.write_array_header_1_0(file, header)

    def write(block: NDArray[Any]) -> None:
        # Not through a memory map: on a full disk that ends the process.
        file.write(np.ascontiguousarray(block, dtype).data)

    return write


@contextlib.contextmanager
def _npz(path: Path, fields: Sequence[Field], rows: int) -> Iterator[Write]:
    """Held until its end."""
    arrays: list[NDArray[Any]] = [np.empty((rows, *field.shape), field.dtype) for field in fields]
    done = 0

    def write(*blocks: NDArray[Any]) -> None:
        nonlocal done
        for array, block in zip(arrays, blocks, strict=True):
            array[done : done + len(block)] = block
        done += len(blocks[0])

    yield write
    # Words go as NumPy's text, which needs no pickle.
    words = (array.astype("U") if array.dtype == object else array for array in arrays)
    savez: Any = np.savez  # whose stubs take a field named as an array for an option
    savez(path, **{field.name: array for field, array in zip(fields, words, strict=True)})


def _columns(fields: Sequence[Field], blocks: Sequence[NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
    """The blocks as named columns (m,), categories as words."""
    found = []
    for field, block in zip(fields, blocks, strict=True):
        matrix = block.reshape(len(block), -1)
        known = field.categories or [None] * matrix.shape[1]
        for name, values, words in zip(field.columns, matrix.T, known, strict=True):
            found.append((name, values if words is None else np.array(words, object)[np.rint(values).astype(int)]))
    return found
