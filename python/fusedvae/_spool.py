# SPDX-License-Identifier: MIT
"""Data that is read once, block by block, into a memory-mapped file that training reads in any order.

Shuffling, resuming and the same bits for the same seed need rows that can be read again in any order, which a stream's
cannot; a file's can, and the system keeps as much of it in memory as there is room for.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from . import _checks
from ._blocks import Block, blocks_of, files_in, tables_of
from ._checks import listed
from ._frames import columns_of
from ._log import logger
from ._readers import MAP_BYTES, Rows

DTYPES = ("float32", "float64", "float16", "uint8", "bool")


def spool(
    source: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    columns: Sequence[str] | None = None,
    dtype: Any = None,
    missing: str = "error",
    folder: str | os.PathLike[str] | None = None,
) -> np.memmap[Any, Any]:
    """Reads `source` once, in blocks of some MB, into a file and returns it as a read-only memory map (n, D).

    Training reads the map like an array, shuffled, resumable and with the same bits, however much larger than memory it
    is. The source is a Parquet, Arrow (IPC, Feather), CSV or .npy file, a list of them or a folder (in the order of
    their names), an Arrow Dataset, Table or RecordBatchReader, a DataFrame, an array, or an iterable of arrays
    (b, ...), tensors or tables, such as a generator.

    - path: where to keep it, a .npy file, written atomically; None is a temporary file, which is gone when the map is,
      or the process; folder: of the temporary file, by default that of `cache_folder` ($FUSEDVAE_CACHE, else
      ~/.cache/fusedvae); it must have room for the rows
    - columns: of tables: those to read, in this order
    - dtype: "float32", "float64", "float16", "uint8" or "bool"; None is the source's own where all its columns share
      one of them, with float64 and everything else as float32
    - missing: "error", or "keep" for NaN where a value is missing, which a model whose columns have a fill reads

    ValueError for a missing or infinite value (naming column and row, from 0), a column that is absent or not numeric,
    parts that differ in their columns, no rows and a damaged file; OSError of reading or writing, which names the file;
    ImportError, which names the extra, where pyarrow or pandas is needed.

    >>> import numpy as np
    >>> blocks = (np.full((2, 3), i, np.float32) for i in range(4))
    >>> x = spool(blocks, folder=tempfile.gettempdir())
    >>> type(x).__name__, x.shape, x[:, 0].tolist()
    ('memmap', (8, 3), [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    """
    keep = _checks.choice("missing", missing, ("error", "keep")) == "keep"
    target = None if dtype is None else np.dtype(_checks.choice("dtype", np.dtype(dtype).name, DTYPES))
    if keep and target is not None and target.kind != "f":
        raise ValueError(f"{target} has no NaN to keep for a missing value; choose a float dtype")
    if isinstance(columns, str):
        raise TypeError(f"columns must be a list of names, not {columns!r}")
    blocks = blocks_of(source, None if columns is None else [*columns])
    if path is None:
        where = _cache() if folder is None else Path(folder)
        # It has no name, so that not even a crash leaves it.
        with _named(f"a file in {where}"), tempfile.TemporaryFile(dir=where) as file:
            x = _write(file, blocks, target, keep)
        logger().info("read %d rows into a temporary file of %.0f MB in %s", len(x), x.nbytes / 1e6, where)
        return x
    name = _checks.target(path)
    try:
        with _named(name), open(f"{name}.tmp", "w+b") as file:
            _write(file, blocks, target, keep)
            os.fsync(file.fileno())
        os.replace(f"{name}.tmp", name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(f"{name}.tmp")
        raise
    return np.load(name, mmap_mode="r")  # type: ignore[no-any-return]


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """A full disk's error does not say which; this one does."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, name) from error
        raise


def mapped(path: str | os.PathLike[str]) -> NDArray[Any] | None:
    """The memory map of a .npy file that training can read where it is, without another copy."""
    if Path(path).suffix != ".npy" or not Path(path).is_file():
        return None
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array if array.dtype.isnative and array.dtype.name in DTYPES and array.flags.c_contiguous else None


def read_tables(path: Path, label: str | None = None, drop: Sequence[str] = ()) -> Rows:
    """Tables block by block: their numbers, as a memory map where they are many, and the label's column."""
    files = files_in(path)
    names = [name for name, _ in columns_of(next(iter(tables_of(files[0]))))]
    chosen = [] if label is None else [label]
    if absent := [name for name in (*drop, *chosen) if name not in names]:
        raise ValueError(f"{path} has no column {absent[0]!r}; its columns are {listed(names)}")
    x: NDArray[Any] = spool(path, columns=[name for name in names if name not in (*drop, label)])
    if x.nbytes <= MAP_BYTES:
        x = np.array(x)
    if label is None:
        return Rows(x)
    tables = (dict(columns_of(table)) for file in files for table in tables_of(file, chosen))
    return Rows(x, np.concatenate([np.asarray(table[label]) for table in tables]))


def _cache() -> Path:
    from .data import cache_folder

    folder = cache_folder("spool")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(file: IO[bytes], blocks: Iterator[Block], target: np.dtype[Any] | None, keep: bool) -> np.memmap[Any, Any]:
    """The blocks as a .npy file, mapped. The number of rows, known at the end, does not change its header's length."""
    rows, start = 0, 0
    first: Block | None = None
    for block in blocks:
        if first is None:
            first = block
            target = target or _own_type(block, keep)
            start = _write_header(file, target, (0, *block.shape))
        if block.shape != first.shape or block.columns != first.columns:
            raise ValueError(f"{block.source} has {block.described()}; what came before it has {first.described()}")
        assert target is not None
        file.write(_converted(block, target, keep, rows).data)
        rows += block.rows
    if first is None or target is None or rows == 0:
        raise ValueError("the source has no rows")
    file.seek(0)
    assert _write_header(file, target, (rows, *first.shape)) == start
    file.flush()
    return np.memmap(file, dtype=target, mode="r", offset=start, shape=(rows, *first.shape))


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _own_type(block: Block, keep: bool) -> np.dtype[Any]:
    types = {part.dtype.newbyteorder("=") for part in block.parts}
    shared = types.pop() if len(types) == 1 else None
    own = shared is not None and shared.name in DTYPES and shared != np.float64 and not (keep and shared.kind != "f")
    return shared if own and shared is not None else np.dtype(np.float32)


def _converted(block: Block, target: np.dtype[Any], keep: bool, rows: int) -> NDArray[Any]:
    """The block's values as `target`; `rows` were before it. An error names the first value that it cannot hold."""
    values = np.empty((block.rows, *block.shape), target)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is found below
        for place, part in block.places(values):
            place[...] = part
    for (place, part), column in zip(block.places(values), block.labels(), strict=True):
        bad = ~np.isfinite(place) if target.kind == "f" else place != part
        if keep:
            bad &= ~np.isnan(part)
        if not bad.any():
            continue
        i, *rest = (int(k) for k in np.argwhere(bad)[0])
        where = f"{block.source}: column {column or (rest[0] if len(rest) == 1 else tuple(rest))!r}, row {rows + i}"
        value = part[i][tuple(rest)]
        if value != value:
            raise ValueError(
                f"{where} (both from 0): the value is missing (NaN); fill or drop such rows, or keep it with "
                f'missing="keep" for a model whose columns have a fill'
            )
        raise ValueError(f"{where} (both from 0): {target} cannot hold {value}")
    return values
