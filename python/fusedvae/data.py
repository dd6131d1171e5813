# SPDX-License-Identifier: MIT
"""Data sets by name or path: `load("digits")`, `load("fashion-mnist")`, `load("table.csv", label="class")`.

Rows come as the engine reads them: uint8 images stay uint8 (the model multiplies by 1/255), tables become float32,
large .npy files stay on disk. Labels are carried along for plots; training never sees them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import _csv, _readers
from ._checks import counted
from ._readers import Rows
from ._spool import read_tables, spool

__all__ = ["NAMES", "Dataset", "cache_folder", "load", "spool"]

NAMES = ("digits", "fashion-mnist")

# The files of https://github.com/zalandoresearch/fashion-mnist (MIT licence) with the SHA-256 of what they hold; of the
# content, because gzip headers carry dates and Debian's package has its own.
FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
TABLES = (".parquet", ".pq", ".arrow", ".feather", ".ipc", ".csv", ".tsv")
GZIP = b"\x1f\x8b"
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# Several times the largest of those files: a server that sends more than this sends something else.
DOWNLOAD_LIMIT = 128 << 20


@dataclass(frozen=True)
class Dataset:
    """Rows to train on and rows held out: train (n, ...) and test (m, ...) or None, with their labels where known.

    image_shape is (Y, X), (Y, X, channels) or (channels, Y, X) where the rows are images, else None.
    """

    name: str
    train: np.ndarray
    test: np.ndarray | None = None
    labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    image_shape: tuple[int, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one row, as Config takes it."""
        return self.train.shape[1:]


def load(
    source: str | os.PathLike[str],
    *,
    test_fraction: float = 0.1,
    seed: int = 0,
    image_shape: Sequence[int] | None = None,
    key: str | None = None,
    label: str | None = None,
    drop: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    grey: bool = False,
) -> Dataset:
    """Reads a data set by name ("digits", "fashion-mnist") or path.

    A path is a .npy, .npz, IDX or CSV (plain or gzipped), Parquet or Arrow file, a folder with MNIST's four files, a
    folder of images, or one of tables (CSV, Parquet, Arrow). Rows of large tables and .npy files stay on disk. Commas,
    semicolons or tabs stand between the cells of CSV; beside the last two, numbers may have decimal commas.

    - test_fraction: share of the rows held out where the source has no test set of its own: a random choice by `seed`,
      the last rows of a memory map; 0 holds out none
    - image_shape: the images that rows are, e.g. (28, 28), where the file does not say
    - key: .npz only: the array to read
    - label: tables only: the column that holds labels; drop: columns to leave out
    - size: folders of images only: (Y, X) to resize to; grey: drop colour

    FileNotFoundError where there is no such file, ValueError for one that is damaged or of an unknown kind and for an
    option that does not apply to it, ImportError, which names the extra, where a library is missing.

    >>> load("digits").train.shape
    (1617, 8, 8)
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must be in [0, 1), it is {test_fraction}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be two positive numbers (Y, X), it is {size}")
    options = {"key": key, "label": label, "drop": drop, "size": size, "grey": grey}
    rows = _read(source, {name: value for name, value in options.items() if value})
    x, test = (_shaped(source, part, image_shape) for part in (rows.x, rows.test))
    assert x is not None
    name = source if source in NAMES else Path(source).name
    shape = x.shape[1:] if x.ndim > 2 else None
    if test is not None or test_fraction == 0:
        return Dataset(str(name), x, test, rows.labels, rows.test_labels, shape)
    if len(x) < 2:
        raise ValueError(
            f"{source} has {counted(len(x), 'row')}; two are needed to hold one out (test_fraction=0 trains on all)"
        )
    if isinstance(x, np.memmap):  # a random choice would read a memory map whole
        held_out = _held_out(len(x), test_fraction)
        kept: slice | np.ndarray = slice(None, -held_out)
        held: slice | np.ndarray = slice(-held_out, None)
    else:
        kept, held = split(len(x), test_fraction, seed)
    labels, test_labels = (None, None) if rows.labels is None else (rows.labels[kept], rows.labels[held])
    return Dataset(str(name), x[kept], x[held], labels, test_labels, shape)


def split(n: int, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n rows, two or more, to train on and which to hold out: indices, a random choice by `seed`.

    >>> [part.tolist() for part in split(5, 0.4, seed=0)]
    [[3, 0, 1], [2, 4]]
    """
    order = np.random.default_rng(seed).permutation(n)
    held_out = _held_out(n, test_fraction)
    return order[held_out:], order[:held_out]


def _held_out(n: int, test_fraction: float) -> int:
    return min(n - 1, max(1, round(n * test_fraction)))


def _read(source: str | os.PathLike[str], options: dict[str, object]) -> Rows:
    kind = str(source) if source in NAMES else _kind(Path(source))
    if kind in ("a CSV file", "a Parquet file") and Path(source).stat().st_size > _readers.MAP_BYTES:
        kind = "a large table"
    reader, accepted = _KINDS.get(kind, (None, ()))
    if foreign := [name for name in options if name not in accepted]:
        raise ValueError(f"{foreign[0]}= does not apply to {kind}")
    if reader is not None:
        return reader(Path(source), **options)
    return _digits() if kind == "digits" else _fashion_mnist()


_KINDS: dict[str, tuple[Callable[..., Rows], tuple[str, ...]]] = {
    "a .npy file": (_readers.read_npy, ()),
    "a .npz file": (_readers.read_npz, ("key",)),
    "an IDX file": (_readers.read_idx, ()),
    "a CSV file": (_csv.read_csv, ("label", "drop")),
    "a Parquet file": (_readers.read_parquet, ("label", "drop")),
    "a folder with MNIST's files": (_readers.read_mnist_folder, ()),
    "a folder of images": (_readers.read_images, ("size", "grey")),
    "an Arrow file": (read_tables, ("label", "drop")),
    "a large table": (read_tables, ("label", "drop")),
    "a folder of tables": (read_tables, ("label", "drop")),
}


def _kind(path: Path) -> str:
    """Binary kinds by their first bytes, text by its suffix."""
    if path.is_dir():
        idx = any((path / f"train-images-idx3-ubyte{end}").exists() for end in ("", ".gz"))
        if idx:
            return "a folder with MNIST's files"
        suffixes_there = {_csv.suffix(one) for one in path.rglob("*")}
        tables = not suffixes_there.isdisjoint(TABLES) and suffixes_there.isdisjoint(_readers.IMAGE_SUFFIXES)
        return "a folder of tables" if tables else "a folder of images"
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file or folder, and no data set of that name ({', '.join(NAMES)})"
        ) from error
    for magic, kind in (
        (b"\x93NUMPY", "a .npy file"),
        (b"PK", "a .npz file"),
        (b"PAR1", "a Parquet file"),
        (b"ARROW1", "an Arrow file"),
        (GZIP, "an IDX file"),
        (b"\0\0", "an IDX file"),
    ):
        if head.startswith(magic):
            zipped_table = head.startswith(GZIP) and _csv.suffix(path) in _csv.SUFFIXES
            return "a CSV file" if zipped_table else kind
    suffixes = {".npy": "a .npy file", ".npz": "a .npz file", ".parquet": "a Parquet file"}
    suffixes |= dict.fromkeys(_csv.SUFFIXES, "a CSV file")
    if path.suffix.lower() in suffixes:
        return suffixes[path.suffix.lower()]
    raise ValueError(
        f"{path} is of no known kind: .npy, .npz, IDX, .csv, .tsv (these also .gz), .parquet, .arrow, "
        "or a folder of images or tables"
    )


def _shaped(source: object, x: np.ndarray | None, image_shape: Sequence[int] | None) -> np.ndarray | None:
    if x is None:
        return None
    if x.ndim < 2:
        raise ValueError(f"{source} holds an array of shape {x.shape}; rows of data need at least two axes")
    if image_shape is None:
        return x
    if int(np.prod(x.shape[1:])) != int(np.prod(image_shape)):
        raise ValueError(f"{source} has rows of shape {x.shape[1:]}, which are no images of shape {tuple(image_shape)}")
    return x.reshape(len(x), *image_shape)


def _digits() -> Rows:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels (UCI, Alpaydin and Kaynak), 0..16 scaled to [0, 1]."""
    digits = _readers.require("sklearn.datasets", "demo", 'the data set "digits"').load_digits()
    return Rows((digits.images / 16).astype(np.float32), digits.target)


def _fashion_mnist() -> Rows:
    """60 000 and 10 000 pictures of clothes, uint8 28 x 28 (Xiao, Rasul and Vollgraf 2017)."""
    for folder in (FASHION_DEBIAN, cache_folder()):
        if all((folder / name).exists() for name in FASHION_FILES):
            return _readers.read_mnist_folder(folder)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, sha256 in FASHION_FILES.items():
            if not (folder / name).exists():
                _download(FASHION_URL + name, folder / name, sha256)
    except (OSError, EOFError, ValueError) as error:
        raise OSError(
            f"fashion-mnist is not on this machine and could not be downloaded ({error}); on Debian and Ubuntu: "
            f"apt install dataset-fashion-mnist; elsewhere put {', '.join(FASHION_FILES)} from {FASHION_URL} "
            f"into {folder}"
        ) from error
    return _readers.read_mnist_folder(folder)


def cache_folder(kind: str = "fashion-mnist") -> Path:
    """Where files of this kind are kept, in $FUSEDVAE_CACHE, else $XDG_CACHE_HOME/fusedvae, else ~/.cache/fusedvae."""
    if chosen := os.environ.get("FUSEDVAE_CACHE"):
        return Path(chosen) / kind
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusedvae" / kind


def _download(url: str, path: Path, sha256: str) -> None:
    """Fetches a gzipped file; it appears under its name whole and checked, or not at all."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        content = answer.read(DOWNLOAD_LIMIT)
    with gzip.open(io.BytesIO(content)) as values:
        right = hashlib.sha256(values.read(DOWNLOAD_LIMIT)).hexdigest() == sha256
    if not right:
        raise ValueError(f"{url} sent {len(content)} bytes with a wrong checksum")
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        temporary.write(content)
    try:
        os.replace(temporary.name, path)
    except OSError:
        os.unlink(temporary.name)
        raise
