# SPDX-License-Identifier: MIT
"""Tables, files and streams read block by block into a memory map."""

import gc
import tracemalloc

import numpy as np
import pytest
from fusedvae import _blocks, _readers, _spool
from fusedvae.data import load, spool
from table_files import (
    FILES,
    NAMES,
    TABLES,
    arrow_table,
    pandas_frame,
    write_csv,
    write_feather,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path, x):
    rows = spool(FILES[name](tmp_path / name, x))
    assert type(rows) is np.memmap
    np.testing.assert_array_equal(rows, x)
    assert not rows.flags.writeable


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.csv"])
def test_columns_are_chosen_in_order(name: str, tmp_path, x):
    path = FILES[name](tmp_path / name, x)
    np.testing.assert_array_equal(spool(path, columns=["c5", "c0"]), x[:, [5, 0]])
    with pytest.raises(ValueError, match="has no column 'c55'; its columns are 'c0', 'c1'"):
        spool(path, columns=["c5", "c55"])
    with pytest.raises(TypeError, match="list of names"):
        spool(path, columns="c5")


@pytest.mark.usefixtures("small_blocks")
def test_folders_and_lists_of_files(tmp_path, x):
    folder = tmp_path / "parts"
    (folder / "sub").mkdir(parents=True)
    write_parquet(folder / "a.parquet", x[:40])
    write_parquet(folder / "b.parquet", x[40:60])
    write_csv(folder / "sub" / "c.csv", x[60:])
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.csv").write_text("broken")
    np.testing.assert_array_equal(spool(folder), x)
    np.testing.assert_array_equal(spool([folder / "b.parquet", folder / "a.parquet"]), np.r_[x[40:60], x[:40]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no tables"):
        spool(tmp_path / "empty")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("table", TABLES)
def test_tables(table, x):
    np.testing.assert_array_equal(spool(table(x)), x)


@pytest.mark.usefixtures("small_blocks")
def test_arrow_streams_and_datasets(tmp_path, x):
    dataset = pytest.importorskip("pyarrow.dataset")
    write_parquet(tmp_path / "a.parquet", x)
    np.testing.assert_array_equal(spool(dataset.dataset(tmp_path / "a.parquet")), x)
    np.testing.assert_array_equal(spool(dataset.dataset(tmp_path / "a.parquet"), columns=["c1"]), x[:, 1:2])
    np.testing.assert_array_equal(spool(arrow_table(x).to_reader(max_chunksize=11)), x)


@pytest.mark.usefixtures("small_blocks")
def test_arrays_and_iterables(x):
    np.testing.assert_array_equal(spool(x), x)
    np.testing.assert_array_equal(spool(x[i : i + 25] for i in range(0, 90, 25)), x)
    np.testing.assert_array_equal(spool([x[:30], x[30:]]), x)
    np.testing.assert_array_equal(spool((x[i : i + 25], "labels") for i in range(0, 90, 25)), x)
    images = x.reshape(90, 3, 4)
    rows = spool(images[i : i + 25] for i in range(0, 90, 25))
    assert rows.shape == (90, 3, 4)
    np.testing.assert_array_equal(rows, images)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("float32", "float32"), ("float64", "float32"), ("uint8", "uint8"), ("bool", "bool"), ("float16", "float16"),
     ("int64", "float32"), (">f4", "float32")],
)  # fmt: skip
def test_types(given: str, wanted: str, x):
    values = (x > 0.5).astype(given)
    rows = spool(values)
    assert rows.dtype == wanted
    np.testing.assert_array_equal(rows, values)
    assert spool(values, dtype="float64").dtype == np.float64


def test_tables_of_several_types_become_float32(tmp_path, x):
    frame = pandas_frame(x).astype({"c0": "float64"})
    frame["c1"] = frame["c1"] > 0.5
    rows = spool(frame)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, frame.to_numpy(np.float32))
    assert spool(frame.round().astype("uint8")).dtype == np.uint8


def test_temporary_files_go_with_their_map(cache, x):
    rows = spool(x)
    view = rows[3:7]
    del rows
    gc.collect()
    np.testing.assert_array_equal(view, x[3:7])
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    with pytest.raises(ValueError, match="missing"):
        spool(np.full_like(x, np.nan))
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("small_blocks")
def test_a_kept_file_is_a_whole_npy_file_or_none(tmp_path, cache, x):
    path = tmp_path / "rows.npy"
    rows = spool(x, path)
    np.testing.assert_array_equal(rows, x)
    np.testing.assert_array_equal(np.load(path), x)

    def broken():
        yield x
        raise LookupError

    with pytest.raises(LookupError):
        spool(broken(), path)
    np.testing.assert_array_equal(np.load(path), x)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.npy"]
    assert not list(cache.rglob("*.npy"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        spool(x, tmp_path / "nowhere" / "rows.npy")


@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk_is_named(kept: bool, tmp_path, x):
    """A limit on the size of files stands for it: its error comes from the same call."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="rows.npy" if kept else f"a file in {tmp_path}"):
            spool(x, tmp_path / "rows.npy" if kept else None, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_temporary_files_is_chosen(tmp_path, x):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        spool(x, folder=tmp_path / "nowhere")
    assert spool(x, folder=tmp_path).shape == x.shape


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_missing_values_are_named(name: str, tmp_path, x):
    holes = x.copy()
    holes[61, 4] = np.nan
    path = FILES[name](tmp_path / name, holes)
    with pytest.raises(ValueError, match=rf"{name}: column 'c4', row 61 \(both from 0\): the value is missing"):
        spool(path)
    np.testing.assert_array_equal(spool(path, missing="keep"), holes)


def test_nulls_of_integers_are_missing_values(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": pyarrow.array([1, None, 3], pyarrow.uint8()), "b": [True, False, None]})
    with pytest.raises(ValueError, match=r"column 'a', row 1 .*missing"):
        spool(table)
    np.testing.assert_array_equal(spool(table, missing="keep"), [[1, 1], [np.nan, 0], [3, np.nan]])


def test_values_that_do_not_fit_are_named(x):
    with pytest.raises(ValueError, match=r"column 1, row 2 .*float32 cannot hold 1e\+300"):
        spool(np.where(np.arange(24).reshape(4, 6) == 13, 1e300, 1.0))
    with pytest.raises(ValueError, match=r"uint8 cannot hold 256"):
        spool(np.full((2, 2), 256), dtype="uint8")
    with pytest.raises(ValueError, match=r"float32 cannot hold -inf"):
        spool(np.full((2, 2), -np.inf))


@pytest.mark.parametrize(
    ("source", "options", "error", "words"),
    [
        ("no such file", {}, FileNotFoundError, "no such file"),
        (np.zeros((0, 3)), {}, ValueError, "no rows"),
        (np.zeros(3), {}, ValueError, r"shape \(3,\)"),
        (np.array([["a"]]), {}, ValueError, "arrays of numbers"),
        (np.zeros((2, 2)), {"columns": ["a"]}, ValueError, "no named columns"),
        (np.zeros((2, 2)), {"missing": "drop"}, ValueError, "unknown missing 'drop'"),
        (np.zeros((2, 2)), {"dtype": "int32"}, ValueError, "unknown dtype 'int32'"),
        (np.zeros((2, 2)), {"dtype": "uint8", "missing": "keep"}, ValueError, "no NaN to keep"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], {}, ValueError, r"shape \(3,\); what came before it has .*\(2,\)"),
        ([{"image": 1}], {}, TypeError, "dict with 'image'.*collate_fn"),
        (3, {}, ValueError, r"shape \(\)"),
    ],
)
def test_impossible_spools(source, options: dict, error: type[Exception], words: str):
    if isinstance(source, list):
        source = iter(source)
    with pytest.raises(error, match=words):
        spool(source, **options)


def test_damaged_and_unknown_files(tmp_path, x):
    path = write_parquet(tmp_path / "t.parquet", x)
    data = path.read_bytes()
    (tmp_path / "half.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"half\.parquet is not a readable table"):
        spool(tmp_path / "half.parquet")
    (tmp_path / "t.bin").write_bytes(b"nothing known")
    with pytest.raises(ValueError, match=r"t\.bin is of no kind"):
        spool(tmp_path / "t.bin")


def test_parts_with_other_columns(tmp_path, x):
    write_parquet(tmp_path / "a.parquet", x)
    write_parquet(tmp_path / "b.parquet", x, [*NAMES[:-1], "other"])
    with pytest.raises(ValueError, match=r"b\.parquet has the columns .*before it has the columns"):
        spool(tmp_path)
    np.testing.assert_array_equal(spool(tmp_path, columns=NAMES[:2]), np.r_[x, x][:, :2])


def test_memory_is_bounded(tmp_path, monkeypatch):
    """A Parquet file of one row group, 30 times a block."""
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", 1 << 20)
    x = np.random.default_rng(0).random((1_000_000, 8), dtype=np.float32)
    path = write_parquet(tmp_path / "t.parquet", x, NAMES[:8], row_group_size=len(x))
    assert path.stat().st_size > 30 << 20
    pool, usual = pyarrow.system_memory_pool(), pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pool)
    tracemalloc.start()
    try:
        before = pool.bytes_allocated()
        rows = spool(path, folder=tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        arrow_peak = pool.max_memory() - before
    finally:
        tracemalloc.stop()
        pyarrow.set_memory_pool(usual)
    assert peak < 6 << 20
    assert arrow_peak < len(NAMES[:8]) * (3 << 20)  # a dictionary and a page of 1 MiB each, and what is read ahead
    np.testing.assert_array_equal(rows[::100_000], x[::100_000])


# ---- data.load


def test_large_tables_stay_on_disk(tmp_path, x, monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x, columns=NAMES).assign(kind=["even", "odd"] * 45, note="text")
    frame.to_csv(tmp_path / "t.csv", index=False)
    small = load(tmp_path / "t.csv", label="kind", drop=["note"])
    for module in (_readers, _spool):
        monkeypatch.setattr(module, "MAP_BYTES", 100)
    large = load(tmp_path / "t.csv", label="kind", drop=["note"], test_fraction=0.2)
    assert isinstance(large.train, np.memmap)
    np.testing.assert_array_equal(np.r_[large.train, large.test], x)
    assert large.labels.tolist() == ["even", "odd"] * 36
    assert small.labels.dtype == large.labels.dtype
    with pytest.raises(ValueError, match=r"not numeric: 'note'"):
        load(tmp_path / "t.csv", label="kind")
    with pytest.raises(ValueError, match=r"no column 'sort'; its columns are 'c0'"):
        load(tmp_path / "t.csv", label="sort")


@pytest.mark.usefixtures("small_blocks")
def test_folders_of_tables(tmp_path, x):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for i, part in enumerate(np.split(x, 3)):
        table = arrow_table(part).append_column("kind", pyarrow.array(np.arange(30) + 30 * i))
        parquet.write_table(table, tmp_path / f"part-{i}.parquet")
    data = load(tmp_path, label="kind", test_fraction=0)
    np.testing.assert_array_equal(data.train, x)
    np.testing.assert_array_equal(data.labels, np.arange(90))


def test_arrow_files(tmp_path, x):
    data = load(write_feather(tmp_path / "t.arrow", x), test_fraction=0.5)
    assert not isinstance(data.train, np.memmap)
    assert len(data.train) == len(data.test) == 45
    np.testing.assert_array_equal(np.sort(np.r_[data.train, data.test], axis=0), np.sort(x, axis=0))
