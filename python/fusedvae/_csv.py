# SPDX-License-Identifier: MIT
"""CSV files, plain or gzipped: commas, semicolons or tabs, a first row of names or none, decimal points or commas."""

from __future__ import annotations

import contextlib
import csv
import gzip
import importlib
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ._readers import Rows, of_columns, require

SUFFIXES = (".csv", ".tsv", ".txt")
# What an empty cell of a table may look like: the spellings that spreadsheets, R and pandas write.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")
COMMA_NUMBER = re.compile(r"\s*[+-]?\d*,?\d+(?:[eE][+-]?\d+)?\s*")


class Layout(NamedTuple):
    """How a file is to be read: what delimits cells, whether its first row names the columns, and their names."""

    delimiter: str
    header: bool
    names: list[str]


def suffix(path: Path) -> str:
    """The suffix that tells a file's kind, in lower case: of a gzipped file the one before .gz."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_csv(path: Path, label: str | None = None, drop: Sequence[str] = ()) -> Rows:
    """A CSV file's numeric columns."""
    return of_columns(path, csv_columns(path), label, drop)


def csv_columns(path: Path) -> dict[str, np.ndarray]:
    """A CSV file's columns; one with a cell that is neither a number nor missing is an array of objects."""
    layout = csv_layout(path)
    try:
        importlib.import_module("pandas")
        read = _read_pandas
    except ImportError:  # slower, with the same answers
        read = _read_plain
    return read(path, layout)


def csv_layout(path: Path) -> Layout:
    """Commas, semicolons and tabs delimit; a first row with a cell that is no number names the columns.

    Without such a row the names are "0", "1", …
    """
    try:
        with _open(path) as file:
            first = file.readline()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a readable table: it is no UTF-8 text, save it as such ({error})") from error
    if not first.strip():
        raise ValueError(f"{path} is empty")
    delimiter = max(";\t,", key=first.count)
    # In a row of numbers with decimal commas there may be more of these than of what delimits.
    delimiter = next((one for one in ";\t" if one in first and _are_numbers(first.split(one), one)), delimiter)
    cells = next(csv.reader([first], delimiter=delimiter))
    header = not _are_numbers(cells, delimiter)
    # A column without a name, such as the index that pandas writes, gets pandas' own name for it.
    names = [cell.strip() or f"Unnamed: {j}" for j, cell in enumerate(cells)]
    names = names if header else [str(j) for j in range(len(cells))]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} has two columns named {twice!r}")
    return Layout(delimiter, header, names)


def csv_frames(path: Path, layout: Layout, rows: int | None = None) -> Iterator[Mapping[str, Any]]:
    """The table as pandas DataFrames of `rows` rows, or as one."""
    pandas = require("pandas", "data", "reading CSV files in blocks")
    # Before pandas 3.1 every third number was read as one of its neighbours, unless asked.
    exact = tuple(map(int, pandas.__version__.split(".")[:2])) >= (3, 1)
    try:
        with (
            _gzip_errors(path),
            pandas.read_csv(
                path,
                sep=layout.delimiter,
                header=None,
                names=layout.names,
                index_col=False,
                skiprows=1 if layout.header else 0,
                na_values=list(MISSING),
                keep_default_na=False,
                skipinitialspace=True,
                encoding="utf-8-sig",
                compression="gzip" if _is_gzipped(path) else None,
                on_bad_lines="error",
                float_precision=None if exact else "round_trip",
                iterator=True,
                chunksize=rows,
            ) as reader,
        ):
            for frame in reader if rows else [reader.read()]:
                for name in layout.names:
                    if frame[name].dtype.kind not in "fiub":
                        frame[name] = _without_commas(path, layout, name, frame[name].to_numpy(object))
                yield frame
    except (pandas.errors.ParserError, pandas.errors.ParserWarning, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable table: {str(error).strip()}") from error


def _read_pandas(path: Path, layout: Layout) -> dict[str, np.ndarray]:
    (frame,) = csv_frames(path, layout)
    return {name: frame[name].to_numpy() for name in layout.names}


def _read_plain(path: Path, layout: Layout) -> dict[str, np.ndarray]:
    delimiter, header, names = layout
    with _open(path) as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        rows = []
        for row in reader:
            if row and len(row) != len(names):
                raise ValueError(f"{path} line {reader.line_num} has {len(row)} columns, the first has {len(names)}")
            if row:
                rows.append(row)
    columns = zip(*rows[header:], strict=True) if len(rows) > header else ([] for _ in names)
    return {
        name: _without_commas(path, layout, name, _numbers_or_text(cells))
        for name, cells in zip(names, columns, strict=True)
    }


def _numbers_or_text(cells: Sequence[str]) -> np.ndarray:
    try:
        return np.array([math.nan if cell.strip() in MISSING else float(cell) for cell in cells], np.float64)
    except ValueError:
        return np.array(cells, dtype=object)


def _without_commas(path: Path, layout: Layout, name: str, values: np.ndarray) -> np.ndarray:
    """A column's cells as numbers where all have decimal commas, as spreadsheets of many countries write them.

    They write semicolons or tabs between the cells. Where commas stand there a comma within a cell may as well mark
    thousands: ValueError.
    """
    if values.dtype != object:
        return values
    cells = [cell for cell in values if isinstance(cell, str) and cell.strip() not in MISSING]
    if not cells or not all(map(COMMA_NUMBER.fullmatch, cells)):
        return values
    if layout.delimiter == ",":
        example = next((cell for cell in cells if "," in cell), cells[0])
        raise ValueError(
            f"{path}: column {name!r} holds numbers with commas, such as {example!r}; write them with a decimal point "
            "and no mark between thousands, or put semicolons between the columns"
        )
    return np.array(
        [
            (math.nan if cell.strip() in MISSING else float(cell.replace(",", "."))) if isinstance(cell, str) else cell
            for cell in values
        ],
        np.float64,
    )


def _are_numbers(cells: Sequence[str], delimiter: str) -> bool:
    return all(_is_number(cell) or (delimiter != "," and bool(COMMA_NUMBER.fullmatch(cell))) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip() in MISSING
    return True


# ---- files ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    opened: Any = gzip.open if _is_gzipped(path) else open
    with _gzip_errors(path), opened(path, "rt", newline="", encoding="utf-8-sig") as file:
        yield file


@contextlib.contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error


def _is_gzipped(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"
