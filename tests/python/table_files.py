# SPDX-License-Identifier: MIT
"""Rows (n, 12) as tables of several libraries and as files of several kinds, columns c0 to c11."""

from pathlib import Path

import numpy as np
import pytest

NAMES = [f"c{j}" for j in range(12)]


def pandas_frame(x):
    return pytest.importorskip("pandas").DataFrame(x, columns=NAMES)


def polars_frame(x):
    return pytest.importorskip("polars").DataFrame(x, schema=NAMES)


def arrow_table(x):
    return pytest.importorskip("pyarrow").table({name: x[:, j] for j, name in enumerate(NAMES)})


def arrow_batch(x):
    return arrow_table(x).to_batches()[0]


TABLES = [pandas_frame, polars_frame, arrow_table, arrow_batch]


def write_parquet(path: Path, x: np.ndarray, names=NAMES, **options) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({name: x[:, j] for j, name in enumerate(names)})
    parquet.write_table(table, path, **options)
    return path


def write_feather(path: Path, x: np.ndarray) -> Path:
    pytest.importorskip("pyarrow.feather").write_feather(arrow_table(x), path)
    return path


def write_csv(path: Path, x: np.ndarray) -> Path:
    pytest.importorskip("pandas").DataFrame(x, columns=NAMES).to_csv(path, index=False)
    return path


def write_npy(path: Path, x: np.ndarray) -> Path:
    np.save(path, x)
    return path


FILES = {"t.parquet": write_parquet, "t.feather": write_feather, "t.csv": write_csv, "t.npy": write_npy}
