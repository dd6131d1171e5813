# SPDX-License-Identifier: MIT
"""From arrays and DataFrames to the columns that the engine reads: scaling, categories, missing values.

The statistics are scikit-learn's (StandardScaler, RobustScaler, SimpleImputer) and are learned here once; the engine
applies them, from the model file too. Letters: n rows, R raw columns. A raw row holds numbers as they came and, for a
column with categories, the category's index; NaN is a missing value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _checks
from ._readers import require
from .columns import Column

SCALES = ("standard", "robust")
IMPUTES = ("mean", "median", "most_frequent")
# The squares of larger numbers, and with them the columns' variances, are beyond float64.
LARGEST = 1e150
# Values whose statistics are taken at a time, so that a memory map is never copied whole.
BLOCK = 1 << 24
# A column of more different words than this is taken for names where every second row has a new one.
MOST_WORDS = 20


def fit_columns(x: Any, scale: str | None = "standard", impute: str | None = None) -> tuple[Column, ...]:
    """What to keep of x (n, R), an array or a DataFrame, so that later rows are read alike: one `Column` each.

    scale: "standard" (mean and standard deviation), "robust" (median and interquartile range, or the standard deviation
    where that range is zero), None (numbers as they are); a constant column has scale 1. A DataFrame's bool, category
    and text columns get the categories that occur, sorted, as text. impute: what stands for NaN, the "mean", "median"
    or "most_frequent" value of each column (for categories always the most frequent), None: NaN is a ValueError that
    names the column. ValueError for infinity and for a column without a single value, TypeError for what holds neither
    numbers nor categories.

    >>> columns = fit_columns(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> [(column.shift, column.scale) for column in columns]
    [(2.0, 1.0), (5.0, 1.0)]
    """
    if scale is not None:
        _checks.choice("scale", scale, SCALES)
    if impute is not None:
        _checks.choice("impute", impute, IMPUTES)
    names = [str(name) for name in x.columns] if is_frame(x) else [""] * x.shape[1]
    categories = [_categories(x.iloc[:, j]) for j in range(len(names))] if is_frame(x) else [None] * len(names)
    unscaled = [Column(name, categories=known) for name, known in zip(names, categories, strict=True)]
    raw = raw_rows(x, unscaled)
    check_values(raw, unscaled, nan_allowed=impute is not None)
    empty = [unscaled[j].name or str(j) for j in np.flatnonzero(np.isnan(raw).all(axis=0))] if impute else []
    if empty:
        raise ValueError(f"column {empty[0]!r} holds no values at all; leave it out")
    numbers = np.array([known is None for known in categories])
    shifts, scales = _statistics(raw, numbers, scale)
    fills = _fills(raw, numbers, impute)
    return tuple(
        Column(name, shift, width, fill, known)
        for name, shift, width, fill, known in zip(names, shifts, scales, fills, categories, strict=True)
    )


def raw_rows(x: Any, columns: Sequence[Column]) -> NDArray[Any]:
    """The raw rows (n, R) of x, an array or a DataFrame: an array as it is, a DataFrame as float64.

    ValueError, in scikit-learn's words, for a category that is not known.
    """
    if is_frame(x):
        raw = np.empty((len(x), len(columns)), np.float64)
        for j, column in enumerate(columns):
            raw[:, j] = _numbers(x.iloc[:, j]) if column.categories is None else _codes(x.iloc[:, j], column)
        return raw
    if any(column.categories for column in columns):
        named = next(column.name for column in columns if column.categories)
        raise ValueError(f"column {named!r} has categories; pass a DataFrame, whose columns hold them by name")
    return np.asarray(x)


def to_frame(rows: NDArray[Any], columns: Sequence[Column], index: Any = None) -> Any:
    """Raw rows (n, R) as a pandas DataFrame: numbers and pandas categories; NaN stays a missing value."""
    pandas = require("pandas", "data", "DataFrames")
    series = [
        values
        if column.categories is None
        else pandas.Categorical.from_codes(
            np.where(np.isnan(values), -1, np.rint(values)).astype(int), column.categories
        )
        for column, values in zip(columns, rows.T, strict=True)
    ]
    return pandas.DataFrame({column.name: values for column, values in zip(columns, series, strict=True)}, index=index)


def labelled(values: NDArray[Any], names: Sequence[str], index: Any) -> Any:
    """values (n, R) as a pandas DataFrame of the columns `names`."""
    return require("pandas", "data", "DataFrames").DataFrame(values, columns=list(names), index=index)


def as_pandas(x: Any) -> Any:
    """x, with other libraries' tables (polars, pyarrow) turned into pandas' by their own `to_pandas`."""
    return x.to_pandas() if hasattr(x, "to_pandas") and not is_frame(x) else x


def is_frame(x: Any) -> bool:
    """Whether x is a pandas DataFrame."""
    return hasattr(x, "iloc") and hasattr(x, "columns")


def is_categorical(x: Any) -> bool:
    """Whether x is a DataFrame whose columns all hold categories."""
    return is_frame(x) and all(_categories(x.iloc[:, j]) for j in range(x.shape[1]))


def check_values(raw: NDArray[Any], columns: Sequence[Column], nan_allowed: bool) -> None:
    """ValueError, beginning in scikit-learn's words, for infinity and, unless allowed, NaN; it names the column."""
    if raw.dtype.kind != "f" or np.isfinite(np.einsum("nj,nj->", raw, raw, dtype=np.float64)):
        return
    for j, column in enumerate(columns):
        name = f"column {column.name!r}" if column.name else f"column {j}"
        values = raw[:, j].astype(np.float64)
        missing, infinite = np.isnan(values), np.abs(values) > LARGEST
        if infinite.any():
            where = f"{name} (first in row {infinite.argmax()})"
            raise ValueError(f"Input X contains infinity or a value too large for {raw.dtype!r}: {where}")
        if missing.any() and not nan_allowed:
            usual = "most frequent category" if column.categories else "median"
            raise ValueError(
                f'Input X contains NaN: {name} (first in row {missing.argmax()}). With impute="median" the column\'s '
                f"{usual} stands for missing values; or fill them, or drop the rows"
            )


def refuse_counts(raw: NDArray[Any]) -> None:
    """ValueError, with advice, for what looks like raw counts: many columns of whole numbers, nearly all of them 0.

    A normal density of such columns says little: most have hardly a value that is not 0, many deviations away.
    """
    rows = raw[:1000]
    if rows.shape[1] < 100 or (rows == 0).mean() < 0.9 or not 1 < rows.max() < np.inf:
        return
    if (rows >= 0).all() and (rows == np.floor(rows)).all():
        raise ValueError(
            f"X looks like raw counts (whole numbers, {(rows == 0).mean():.0%} of them 0), for which there is no "
            'likelihood yet; pass np.log1p(X), or say likelihood="gaussian" to have them read as they are'
        )


def _categories(series: Any) -> tuple[str, ...] | None:
    """The categories that occur in a DataFrame's column, sorted by value; None for a column of numbers."""
    pandas = require("pandas", "data", "DataFrames")
    types = pandas.api.types
    if types.is_bool_dtype(series.dtype) or isinstance(series.dtype, pandas.CategoricalDtype):
        return tuple(str(value) for value in _sorted(series.dropna().unique())) or None
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return None
    kind = types.infer_dtype(series, skipna=True)
    if kind in ("integer", "floating", "mixed-integer-float", "empty"):
        return None
    if kind in ("string", "boolean"):
        found = series.dropna().unique()
        if len(found) > MOST_WORDS and 2 * len(found) > len(series):
            raise ValueError(
                f"column {series.name!r} has {len(found)} different words in {len(series)} rows, as names have, and "
                "categories do not; leave it out, or make it pandas' category type if it holds categories"
            )
        return tuple(str(value) for value in _sorted(found)) or None
    if kind in ("mixed", "mixed-integer"):
        found = sorted({type(value).__name__ for value in series.dropna()})
        raise TypeError(
            f"Encoders require their input argument must be uniformly strings or numbers. Got {found} in column "
            f"{series.name!r}; convert it with astype(str) or pandas.to_numeric"
        )
    raise TypeError(f"column {series.name!r} holds {kind} values; turn them into numbers or text, or leave it out")


def _sorted(values: Iterable[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=str)


def _numbers(series: Any) -> NDArray[np.float64]:
    try:
        values: NDArray[np.float64] = series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {series.name!r} held numbers when the model was fitted: {error}") from error
    return values


def _codes(series: Any, column: Column) -> NDArray[np.float64]:
    """Indices into the column's categories, NaN for missing values."""
    assert column.categories is not None
    index = {known: float(code) for code, known in enumerate(column.categories)}
    index_of = {value: index.get(str(value)) for value in series.dropna().unique()}
    unknown = [value for value, code in index_of.items() if code is None]
    if unknown:
        raise ValueError(f"Found unknown categories {unknown} in column {column.name!r} during transform")
    codes: NDArray[np.float64] = series.astype(object).map(index_of).to_numpy(dtype=np.float64, na_value=np.nan)
    return codes


def _statistics(raw: NDArray[Any], numbers: NDArray[np.bool_], scale: str | None) -> tuple[list[float], list[float]]:
    """Shift and scale of each column; (0, 1) for categories."""
    shifts, scales = np.zeros(len(numbers)), np.ones(len(numbers))
    if scale is not None and numbers.any():
        preprocessing = require("sklearn.preprocessing", "sklearn", "scaling columns")
        values = raw if numbers.all() else raw[:, numbers]
        standard = preprocessing.StandardScaler()
        block = max(1, BLOCK // values.shape[1])
        for start in range(0, len(values), block):
            standard.partial_fit(values[start : start + block])
        shifts[numbers], scales[numbers] = standard.mean_, standard.scale_
        if scale == "robust":
            robust = preprocessing.RobustScaler().fit(values)
            # Most values of such a column are equal, and a range of zero says nothing of the others.
            flat = np.nanquantile(values, 0.75, axis=0) == np.nanquantile(values, 0.25, axis=0)
            shifts[numbers] = robust.center_
            scales[numbers] = np.where(flat, standard.scale_, robust.scale_)
    return shifts.tolist(), scales.tolist()


def _fills(raw: NDArray[Any], numbers: NDArray[np.bool_], impute: str | None) -> list[float | None]:
    """What stands for NaN in each column; None where nothing may."""
    if impute is None:
        return [None] * len(numbers)
    imputer = require("sklearn.impute", "sklearn", "impute").SimpleImputer
    fills = imputer(strategy="most_frequent").fit(raw).statistics_
    if impute != "most_frequent" and numbers.any():
        fills[numbers] = imputer(strategy=impute).fit(raw[:, numbers]).statistics_
    return [float(fill) for fill in fills]
