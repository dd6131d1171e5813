# SPDX-License-Identifier: MIT
"""Readers of the file kinds that fusedvae.data.load takes: .npy, .npz, IDX, Parquet and folders of images; CSV: `_csv`.

Each returns Rows. Files are foreign: every length is checked before memory is asked for, pickles are refused, and what
cannot be read is a ValueError that names the file, the place in it and the fix. Libraries are imported where they are
used.
"""

from __future__ import annotations

import gzip
import importlib
import math
import os
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._checks import listed

# Arrays above this stay on disk as memory maps, which the engine reads batch by batch.
MAP_BYTES = 256 << 20
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
# The IDX format's type codes (http://yann.lecun.com/exdb/mnist, "THE IDX FILE FORMAT"); numbers are big-endian.
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK = 16 << 20


class Rows(NamedTuple):
    """What a file holds: x (n, ...), labels (n) or None, and the file's own test rows where it has some."""

    x: np.ndarray
    labels: np.ndarray | None = None
    test: np.ndarray | None = None
    test_labels: np.ndarray | None = None


def require(module: str, extra: str, purpose: str) -> Any:
    """The imported module, or an ImportError that says which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f'{purpose} needs {package}: pip install "fusedvae[{extra}]"') from error


# ---- NumPy ----------------------------------------------------------------------------------------------------------


def read_npy(path: Path) -> Rows:
    """One array; a large one stays on disk."""
    with open(path, "rb") as file:
        if file.read(6) not in (b"\x93NUMPY", b""):  # NumPy would take it for a pickle
            raise ValueError(f"{path} is not a readable .npy file: it does not begin as one")
    try:
        return Rows(np.load(path, mmap_mode="r" if path.stat().st_size > MAP_BYTES else None, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from error


def read_npz(path: Path, key: str | None = None) -> Rows:
    """The array `key`; without one x_train (x_test, y_train, y_test), X (y), or the only array there is."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = set(archive.files)
            if not any(name.endswith(".npy") for name in archive.zip.namelist()):
                raise ValueError("it is an archive without arrays; save a spreadsheet as CSV")

            def array(name: str) -> np.ndarray | None:
                return archive[name] if name in names else None

            if key is None and "x_train" in names:
                return Rows(archive["x_train"], array("y_train"), array("x_test"), array("y_test"))
            if key is None and "X" in names:
                return Rows(archive["X"], array("y"))
            if key is None and len(names) == 1:
                return Rows(archive[archive.files[0]])
            if key in names:
                return Rows(archive[key])
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error
    wanted = "several arrays" if key is None else f"no array {key!r}"
    raise ValueError(f"{path} holds {wanted}; choose one with key=: {', '.join(sorted(names))}")


# ---- IDX ------------------------------------------------------------------------------------------------------------


def read_idx(path: Path) -> Rows:
    """The format of MNIST's files: two zero bytes, type, rank, big-endian sizes, values; plain or gzipped."""
    with open(path, "rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if zipped else open(path, "rb") as file:
            return Rows(_read_idx_values(path, file.read, None if zipped else path.stat().st_size))
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error


def _read_idx_values(path: Path, read: Callable[[int], bytes], file_bytes: int | None) -> np.ndarray:
    head = read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 32:
        advice = "" if file_bytes is not None else "; of other gzipped files those called .csv.gz are read"
        begins = head.hex(" ") or "nothing"
        raise ValueError(f"{path} is not an IDX file: it begins with {begins}, not 00 00 type rank{advice}")
    dtype, rank = np.dtype(IDX_TYPES[head[2]]), head[3]
    sizes = read(4 * rank)
    if len(sizes) < 4 * rank:
        raise ValueError(f"{path} is truncated: it ends within its {rank} sizes")
    shape = struct.unpack(f">{rank}I", sizes)
    wanted = math.prod(shape) * dtype.itemsize
    if file_bytes is not None and file_bytes != 4 + 4 * rank + wanted:
        raise ValueError(
            f"{path}: shape {shape} needs {wanted} bytes of values, the file has {file_bytes - 4 - 4 * rank}"
        )
    # In chunks, so that a false size in a small zipped file asks for no memory.
    values = bytearray()
    while len(values) <= wanted and (chunk := read(min(CHUNK, wanted + 1 - len(values)))):
        values += chunk
    if len(values) != wanted:
        found = "more" if len(values) > wanted else str(len(values))
        raise ValueError(f"{path}: shape {shape} needs {wanted} bytes of values, the file has {found}")
    array = np.frombuffer(values, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_mnist_folder(folder: Path) -> Rows:
    """MNIST's four files under their usual names, plain or gzipped."""

    def array(name: str) -> np.ndarray | None:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return read_idx(path).x
        return None

    train = array("train-images-idx3-ubyte")
    if train is None:
        raise ValueError(f"{folder} holds no train-images-idx3-ubyte(.gz)")
    labels, test, test_labels = map(
        array, ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    )
    return Rows(train, labels, test, test_labels)


# ---- tables ---------------------------------------------------------------------------------------------------------


def read_parquet(path: Path, label: str | None = None, drop: Sequence[str] = ()) -> Rows:
    """A Parquet file's numeric columns."""
    return of_columns(path, parquet_columns(path), label, drop)


def parquet_columns(path: Path) -> dict[str, np.ndarray]:
    """A Parquet file's columns."""
    pyarrow = require("pyarrow", "data", "reading Parquet files")
    parquet = require("pyarrow.parquet", "data", "reading Parquet files")
    try:
        table = parquet.ParquetFile(path).read()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from error
    return {name: table[name].to_numpy() for name in table.column_names}


def of_columns(path: Path, columns: Mapping[str, np.ndarray], label: str | None, drop: Sequence[str]) -> Rows:
    """Columns as one float32 (n, D), the label's apart; text and missing values are refused by name."""
    if absent := [name for name in (*drop, *([label] if label else [])) if name not in columns]:
        raise ValueError(f"{path} has no column {absent[0]!r}; its columns are {listed(columns)}")
    kept = {name: values for name, values in columns.items() if name != label and name not in drop}
    if text := [name for name, values in kept.items() if values.dtype.kind not in "fiub"]:
        raise ValueError(
            f"{path}: not numeric: {listed(text)}; name the label with label=, leave others out with drop="
        )
    if holes := [name for name, values in kept.items() if values.dtype.kind == "f" and np.isnan(values).any()]:
        row = int(np.isnan(kept[holes[0]]).argmax())
        raise ValueError(
            f"{path}: missing values in {listed(holes)} (first at row {row} of {holes[0]!r}); fill or drop them"
        )
    if not kept:
        raise ValueError(f"{path} has no data columns left")
    x = np.empty((len(next(iter(kept.values()))), len(kept)), np.float32)
    for j, values in enumerate(kept.values()):
        x[:, j] = values
    return Rows(x, columns[label] if label else None)


# ---- images ---------------------------------------------------------------------------------------------------------


def read_images(folder: Path, size: tuple[int, int] | None = None, grey: bool = False) -> Rows:
    """All images in a folder and its subfolders, in the order of their paths: uint8 (n, Y, X) or (n, Y, X, 3).

    size (Y, X) resizes them and grey drops colour, else all must agree. A subfolder's name is its images' label.
    """
    image = require("PIL.Image", "data", "reading a folder of images")
    relative = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    paths = [path for path in relative if not any(part.startswith(".") for part in path.parts)]
    if not paths:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    x: np.ndarray | None = None
    for i, path in enumerate(paths):
        try:
            with image.open(folder / path) as opened:
                picture = opened.convert("L" if grey or opened.mode in ("1", "L") else "RGB")
                pixels = np.asarray(picture.resize(size[::-1], image.Resampling.BOX) if size else picture)
        except (OSError, SyntaxError, image.DecompressionBombError) as error:
            raise ValueError(f"{folder / path} is not a readable image: {error}") from error
        if x is None:
            x = np.empty((len(paths), *pixels.shape), np.uint8)
        if pixels.shape != x.shape[1:]:
            first = f"{folder / paths[0]} has {_described(x[0])}"
            raise ValueError(
                f"{folder / path} has {_described(pixels)}, {first}; give size= or grey= to make them agree"
            )
        x[i] = pixels
    assert x is not None
    named = any(len(path.parts) > 1 for path in paths)
    return Rows(x, np.array([os.fspath(path.parent) for path in paths]) if named else None)


def _described(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels in {'grey' if pixels.ndim == 2 else 'colour'}"
