# SPDX-License-Identifier: MIT
"""Columns from arrays and DataFrames: statistics, categories, missing values, and what is refused."""

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import tables

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")


@pytest.fixture
def frame():
    """Six rows of every kind of column."""
    return pd.DataFrame(
        {
            "age": [20.0, 30.0, 40.0, 50.0, 60.0, 1000.0],
            "town": ["Rome", "Bonn", "Rome", "Rome", "Bonn", "Oslo"],
            "paid": [True, False, True, True, True, False],
            "grade": pd.Categorical([3, 1, 1, 3, 3, 1], categories=[1, 2, 3]),
            "visits": pd.array([1, 2, 3, 4, 5, 6], dtype="Int64"),
            "same": [7] * 6,
        }
    )


def test_numbers_are_scaled_by_mean_and_deviation():
    x = np.random.default_rng(0).normal(3, 5, (50, 4))
    columns = tables.fit_columns(x)
    assert [column.shift for column in columns] == pytest.approx(x.mean(axis=0))
    assert [column.scale for column in columns] == pytest.approx(x.std(axis=0))
    assert all(column == fv.Column("", column.shift, column.scale) for column in columns)


def test_robust_scale_is_median_and_interquartile_range(frame):
    age, *_, same = tables.fit_columns(frame, "robust")
    assert (age.shift, age.scale) == (45.0, 25.0)
    assert (same.shift, same.scale) == (7.0, 1.0)


def test_robust_scale_of_a_column_that_is_mostly_one_value_is_its_deviation():
    x = np.r_[np.zeros(9), 10.0][:, None]
    (column,) = tables.fit_columns(x, "robust")
    assert (column.shift, column.scale) == (0.0, pytest.approx(3.0))


def test_no_scale():
    assert tables.fit_columns(np.array([[1.0], [3.0]]), None) == (fv.Column(),)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64", "bool"])
def test_every_kind_of_number(dtype):
    x = np.array([[0, 1], [1, 1], [1, 0], [0, 0]]).astype(dtype)
    assert [(column.shift, column.scale) for column in tables.fit_columns(x)] == [(0.5, 0.5)] * 2


def test_categories_are_those_that_occur_sorted_as_text(frame):
    columns = {column.name: column for column in tables.fit_columns(frame)}
    assert list(columns) == list(frame.columns)
    assert columns["town"].categories == ("Bonn", "Oslo", "Rome")
    assert columns["paid"].categories == ("False", "True")
    assert columns["grade"].categories == ("1", "3")
    assert [columns[name].categories for name in ("age", "visits", "same")] == [None] * 3
    assert (columns["town"].shift, columns["town"].scale) == (0.0, 1.0)


def test_frames_become_raw_rows_and_back(frame):
    columns = tables.fit_columns(frame)
    raw = tables.raw_rows(frame, columns)
    assert raw.dtype == np.float64
    assert raw[:, 1].tolist() == [2, 0, 2, 2, 0, 1]
    assert raw[:, 2].tolist() == [1, 0, 1, 1, 1, 0]
    again = tables.to_frame(raw, columns)
    assert list(again.columns) == list(frame.columns)
    assert again["town"].tolist() == frame["town"].tolist()
    assert again["grade"].tolist() == ["3", "1", "1", "3", "3", "1"]
    assert again["age"].tolist() == frame["age"].tolist()
    assert np.array_equal(tables.raw_rows(again, columns), raw)  # what was made can be read


@pytest.mark.parametrize(("impute", "fill"), [("mean", 200.0), ("median", 40.0), ("most_frequent", 20.0)])
def test_impute(frame, impute, fill):
    frame.loc[3, "age"], frame.loc[0, "town"], frame.loc[1, "visits"] = np.nan, None, pd.NA
    frame.loc[2, "age"] = 20.0 if impute == "most_frequent" else 40.0
    frame.loc[5, "age"] = {"mean": 850.0}.get(impute, 1000.0)
    columns = tables.fit_columns(frame, impute=impute)
    assert columns[0].fill == fill
    assert (
        columns[1].categories[int(columns[1].fill)] == "Bonn"
    )  # the most frequent, whatever `impute`; ties: the first
    assert np.isnan(tables.raw_rows(frame, columns)[[3, 0, 1], [0, 1, 4]]).all()
    assert all(column.fill is not None for column in columns)


def test_missing_values_name_the_column_and_the_option(frame):
    frame.loc[4, "town"] = None
    with pytest.raises(ValueError, match=r"Input X contains NaN: column 'town' \(first in row 4\).*impute=\"median\""):
        tables.fit_columns(frame)
    x = np.ones((3, 2), np.float32)
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"column 1 \(first in row 2\)"):
        tables.fit_columns(x)


def test_infinity_names_the_column(frame):
    frame.loc[4, "age"] = -np.inf
    for impute in (None, "mean"):
        with pytest.raises(ValueError, match=r"contains infinity .* column 'age' \(first in row 4\)"):
            tables.fit_columns(frame, impute=impute)


def test_a_column_without_values(frame):
    frame["age"] = np.nan
    with pytest.raises(ValueError, match="column 'age' holds no values at all"):
        tables.fit_columns(frame, impute="mean")


def test_numbers_whose_variance_is_beyond_float64():
    with pytest.raises(ValueError, match=r"a value too large for dtype\('float64'\): column 1"):
        tables.fit_columns(np.array([[1.0, 1e200], [2.0, -1e200]]))


def test_large_numbers_are_not_taken_for_infinity():
    x = np.full((4, 3), 3e38, np.float32)
    x[:, 1] = -x[:, 1]
    tables.fit_columns(x, None)


def test_unseen_categories_have_scikit_learns_words(frame):
    columns = tables.fit_columns(frame)
    with pytest.raises(ValueError, match=r"Found unknown categories \['Paris'\] in column 'town' during transform"):
        tables.raw_rows(frame.replace("Oslo", "Paris"), columns)


def test_mixed_types_have_scikit_learns_words(frame):
    frame["age"] = [1, "x", 2.0, 3, 4, 5]
    with pytest.raises(TypeError, match=r"uniformly strings or numbers. Got \['float', 'int', 'str'\] in column 'age'"):
        tables.fit_columns(frame)


def test_dates_are_refused(frame):
    frame["age"] = pd.Timestamp("2020-01-01")
    with pytest.raises(TypeError, match="column 'age' holds datetime64 values; turn them into numbers"):
        tables.fit_columns(frame)


def test_text_where_numbers_were(frame):
    columns = tables.fit_columns(frame)
    with pytest.raises(ValueError, match=r"column 'age' held numbers when the model was fitted: .*'old'"):
        tables.raw_rows(frame.assign(age="old"), columns)


def test_arrays_cannot_stand_for_categories(frame):
    with pytest.raises(ValueError, match="column 'town' has categories; pass a DataFrame"):
        tables.raw_rows(np.zeros((2, 6)), tables.fit_columns(frame))


def test_objects_that_are_numbers_are_numbers():
    (column,) = tables.fit_columns(pd.DataFrame({"a": np.array([1, 2.5, None], dtype=object)}), None, "mean")
    assert (column.categories, column.fill) == (None, 1.75)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="unknown scale 'standart'; known are 'standard', 'robust'"):
        tables.fit_columns(np.ones((2, 2)), "standart")
    with pytest.raises(ValueError, match="unknown impute 'zero'"):
        tables.fit_columns(np.ones((2, 2)), impute="zero")


def test_other_libraries_tables():
    pyarrow = pytest.importorskip("pyarrow")
    table = tables.as_pandas(pyarrow.table({"a": [1.0, 2.0], "b": ["x", "y"]}))
    assert [column.categories for column in tables.fit_columns(table)] == [None, ("x", "y")]


def test_a_column_of_names_is_no_category():
    names = pd.DataFrame({"id": [f"row {i}" for i in range(40)], "x": np.arange(40.0)})
    with pytest.raises(ValueError, match=r"column 'id' has 40 different words in 40 rows, .* leave it out"):
        tables.fit_columns(names)
    known = tables.fit_columns(names.astype({"id": "category"}))
    assert known[0].width == 40
    assert tables.fit_columns(names.iloc[:20])[0].width == 20  # few words may all be different
