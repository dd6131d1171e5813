# SPDX-License-Identifier: MIT
"""CSV files as they come: delimiters, names, gaps, decimal commas, gzip; damaged ones refused with a sentence."""

import gzip
import sys

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _csv, _readers, cli, data


@pytest.fixture(params=["pandas", "plain"])
def csv_reader(request, monkeypatch):
    """Each CSV test runs with pandas and without it; the answers must agree."""
    if request.param == "pandas":
        pytest.importorskip("pandas")
    else:
        monkeypatch.setitem(sys.modules, "pandas", None)


@pytest.mark.usefixtures("csv_reader")
@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2.5\n-3,4e2\n",
        "1,2.5\n-3,4e2\n",
        "a;b\n1;2.5\n-3;4e2",
        "a\tb\r\n1\t2.5\r\n-3\t4e2\r\n",
        '\ufeff"a","b"\n1, 2.5\n-3, 4e2\n\n',
    ],
)
def test_csv_headers_and_delimiters(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    loaded = data.load(tmp_path / "t.csv", test_fraction=0)
    assert loaded.train.dtype == np.float32
    assert loaded.image_shape is None
    np.testing.assert_array_equal(loaded.train, np.array([[1, 2.5], [-3, 400]], np.float32))


@pytest.mark.usefixtures("csv_reader")
def test_csv_numbers_keep_their_bits(tmp_path):
    x = np.random.default_rng(0).standard_normal(1000)
    (tmp_path / "x.csv").write_text("\n".join(["x", *map(repr, x.tolist())]))
    assert _csv.csv_columns(tmp_path / "x.csv")["x"].tobytes() == x.tobytes()


def test_csv_label_and_drop(tmp_path):
    (tmp_path / "t.csv").write_text("id,a,kind,b\nx1,1,cat,2\nx2,3,dog,4\n")
    with pytest.raises(ValueError, match=r"not numeric: 'id', 'kind'; name the label with label="):
        data.load(tmp_path / "t.csv")
    loaded = data.load(tmp_path / "t.csv", label="kind", drop=["id"], test_fraction=0)
    np.testing.assert_array_equal(loaded.train, [[1, 2], [3, 4]])
    assert list(loaded.labels) == ["cat", "dog"]
    with pytest.raises(ValueError, match="no column 'sort'; its columns are 'id', 'a', 'kind', 'b'"):
        data.load(tmp_path / "t.csv", label="sort")
    with pytest.raises(ValueError, match="no data columns left"):
        data.load(tmp_path / "t.csv", label="kind", drop=["id", "a", "b"])


@pytest.mark.usefixtures("csv_reader")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n3,\n", "missing values in 'b' .first at row 1 of 'b'"),
        ("a,b\n1,2\nNA,4\n", "missing values in 'a'"),
        ("a,a\n1,2\n", "two columns named 'a'"),
        ("a,b\n1,2\n3,4,5\n", "t.csv"),
    ],
)
def test_csv_damaged(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path / "t.csv")


@pytest.mark.usefixtures("csv_reader")
@pytest.mark.parametrize(
    "text",
    [
        "a;b\n1,5;2\n-3;4,25e2\n;+7\n",
        "1,5;2\n-3;4,25e2\nNA;+7\n",
        "1,5\t2,0\n-3,0\t425\n\t7,0\n",
        "Preis, EUR;b\n1,5;2\n-3;4,25e2\n;+7\n",
    ],
)
def test_decimal_commas(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    columns = _csv.csv_columns(tmp_path / "t.csv")
    np.testing.assert_array_equal([*columns.values()], [[1.5, -3, np.nan], [2, 425, 7]])
    assert len(text.splitlines()) - 3 == ("b" in columns)


@pytest.mark.usefixtures("csv_reader")
def test_commas_that_may_mark_thousands_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n1,"1,234"\n2,"5,678"\n')
    with pytest.raises(ValueError, match=r"t.csv: column 'b' holds numbers with commas, such as '1,234'; write them"):
        data.load(tmp_path / "t.csv")


@pytest.mark.usefixtures("csv_reader")
def test_words_with_commas_stay_words(tmp_path):
    (tmp_path / "t.csv").write_text("a;b\n1,5;red, warm\n2,5;1,5\n")
    columns = _csv.csv_columns(tmp_path / "t.csv")
    assert columns["a"].tolist() == [1.5, 2.5]
    assert columns["b"].tolist() == ["red, warm", "1,5"]


def test_decimal_commas_block_by_block(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.setenv("FUSEDVAE_CACHE", str(tmp_path))
    (tmp_path / "t.csv").write_text("a;b\n" + "".join(f"{i};{i},5\n" for i in range(50)))
    monkeypatch.setattr("fusedvae._blocks.BLOCK_BYTES", 7 * 2 * 8)
    np.testing.assert_array_equal(data.spool(tmp_path / "t.csv")[:, 1], np.arange(50) + 0.5)


@pytest.mark.usefixtures("csv_reader")
def test_gzipped(tmp_path):
    content = b"a,b\n1,2.5\n-3,4e2\n"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(content))
    loaded = data.load(tmp_path / "t.csv.gz", test_fraction=0)
    np.testing.assert_array_equal(loaded.train, np.array([[1, 2.5], [-3, 400]], np.float32))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(ValueError, match=r"t.csv.gz is a damaged gzip file"):
        data.load(tmp_path / "t.csv.gz")
    (tmp_path / "t.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"not an IDX file: .*; of other gzipped files those called .csv.gz are read"):
        data.load(tmp_path / "t.gz")


def test_gzipped_in_blocks_and_folders(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.setenv("FUSEDVAE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.csv.gz").write_bytes(gzip.compress(f"a,b\n{i},2\n".encode()))
    np.testing.assert_array_equal(data.load(folder, test_fraction=0).train, [[0, 2], [1, 2]])
    monkeypatch.setattr(_readers, "MAP_BYTES", 10)
    np.testing.assert_array_equal(data.load(folder / "1.csv.gz", test_fraction=0).train, [[1, 2]])


def test_both_from_a_shell(tmp_path, monkeypatch):
    """What a spreadsheet wrote, packed: trained on and scored as the same numbers in plain."""
    for module in ("pandas", "sklearn"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(5, 2, (40, 2)).round(3)
    plain = "a,b\n" + "".join(f"{a},{b}\n" for a, b in x.tolist())
    (tmp_path / "plain.csv").write_text(plain)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(plain.replace(",", ";").replace(".", ",").encode()))
    for name in ("plain.csv", "t.csv.gz"):
        assert cli.main(["train", name, "--epochs", "1", "--quiet", "--out", f"{name}.safetensors"]) == 0
        assert cli.main(["score", "plain.csv.safetensors", name, "--out", f"{name}.npy"]) == 0
    one, other = (fv.load(f"{name}.safetensors").config.columns for name in ("plain.csv", "t.csv.gz"))
    assert one == other
    np.testing.assert_array_equal(np.load("plain.csv.npy"), np.load("t.csv.gz.npy"))
