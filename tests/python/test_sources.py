# SPDX-License-Identifier: MIT
"""What training reads beside arrays: tables in memory, files larger than it, iterables of batches."""

import gc
import tracemalloc
from decimal import Decimal
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _blocks, _readers, _spool
from fusedvae.data import load, spool

NAMES = [f"c{j}" for j in range(12)]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory) -> Path:
    """No test writes into the user's folders; every temporary file of spool is seen here."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FUSEDVAE_CACHE", str(folder))
    return folder


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """Seven rows of 12 columns a block, so that small data has many."""
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", 7 * 12 * 8)


def trained(make_model, data) -> dict[str, np.ndarray]:
    model = make_model()
    fv.Trainer(model, batch_size=20).fit(data, epochs=2)
    return model.parameters()


# ---- tables in memory


def pandas_frame(x):
    return pytest.importorskip("pandas").DataFrame(x, columns=NAMES)


def polars_frame(x):
    return pytest.importorskip("polars").DataFrame(x, schema=NAMES)


def arrow_table(x):
    return pytest.importorskip("pyarrow").table({name: x[:, j] for j, name in enumerate(NAMES)})


def arrow_batch(x):
    return arrow_table(x).to_batches()[0]


TABLES = [pandas_frame, polars_frame, arrow_table, arrow_batch]


@pytest.mark.parametrize("table", TABLES)
def test_tables_in_memory(table, make_model, x, same_bits):
    frame = table(x)
    assert same_bits(trained(make_model, frame), trained(make_model, x))
    model = make_model()
    np.testing.assert_array_equal(model.elbo(frame), model.elbo(x))


def test_tables_of_several_types(make_model, x):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x, columns=NAMES).round()
    wanted = make_model().elbo(frame)
    frame["c0"] = frame["c0"].astype("Int64")
    frame["c1"] = frame["c1"].astype("boolean")
    frame["c2"] = [Decimal(int(value)) for value in frame["c2"]]
    frame["c3"] = frame["c3"].astype(bool)
    np.testing.assert_array_equal(make_model().elbo(frame), wanted)


@pytest.mark.parametrize("table", TABLES)
def test_text_is_named(table, make_model, x):
    frame = table(x)
    words = ["word"] * len(x)
    if table is pandas_frame:
        frame = frame.assign(c3=words)
    elif table is polars_frame:
        frame = frame.with_columns(c3=__import__("polars").Series(words))
    else:
        frame = frame.set_column(3, "c3", __import__("pyarrow").array(words))
    with pytest.raises(TypeError, match="x: not numeric: 'c3'"):
        make_model().elbo(frame)


# ---- spool


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


# ---- what Trainer.fit takes


class Loader:
    """Batches that begin anew each time, as a DataLoader's do."""

    def __init__(self, x: np.ndarray, size: int = 20, wrap=lambda rows: rows) -> None:
        self.x, self.size, self.wrap, self.passes = x, size, wrap, 0

    def __iter__(self):
        self.passes += 1
        for first in range(0, len(self.x), self.size):
            yield self.wrap(self.x[first : first + self.size])


class SizedLoader(Loader):
    def __len__(self) -> int:
        return -(-len(self.x) // self.size)


def in_order(make_model, x, epochs: int = 2) -> fv.Trainer:
    trainer = fv.Trainer(make_model(), batch_size=20, shuffle=False)
    trainer.fit(x, epochs=epochs, validation_data=x[:30])
    return trainer


@pytest.mark.parametrize(
    "wrap",
    [
        lambda rows: rows,
        lambda rows: (rows, np.zeros(len(rows))),
        lambda rows: [rows.astype(np.float64), "labels"],
        lambda rows: rows.tolist(),
        lambda rows: rows.reshape(-1, 12, 1)[..., 0],
        pandas_frame,
        lambda rows: (polars_frame(rows), None),
    ],
)
def test_iterables_of_batches(wrap, make_model, x, same_bits):
    loader = Loader(x, wrap=wrap)
    trainer = fv.Trainer(make_model())
    history = trainer.fit(loader, epochs=2, validation_data=x[:30])
    alone = in_order(make_model, x)
    assert loader.passes == 2
    assert trainer.global_step == 10
    assert same_bits(trainer.model.parameters(), alone.model.parameters())
    np.testing.assert_array_equal(history["loss"], alone.history["loss"])


def test_pytorchs_loaders(make_model, x, same_bits):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.zeros(len(x)))
    trainer = fv.Trainer(make_model(), batch_size=20)
    held_out = torch.utils.data.DataLoader(data.__class__(*data[:30]), batch_size=7)
    trainer.fit(torch.utils.data.DataLoader(data, batch_size=20), epochs=2, validation_data=held_out)
    alone = in_order(make_model, x)
    assert same_bits(trainer.model.parameters(), alone.model.parameters())
    np.testing.assert_array_equal(trainer.history["val_loss"], alone.history["val_loss"])
    fv.Trainer(make_model()).fit(torch.utils.data.DataLoader(data, batch_size=20, shuffle=True), epochs=1)
    dicts = torch.utils.data.DataLoader([{"image": row} for row in x[:4]], batch_size=2)
    with pytest.raises(TypeError, match=r"batch 0 of x is a dict with 'image'.*collate_fn"):
        trainer.fit(dicts, epochs=1)


def test_generators_are_gone_through_once(make_model, x, same_bits):
    trainer = fv.Trainer(make_model())
    with pytest.raises(ValueError, match=r"x \(generator\) can be gone through once.*data\.spool"):
        trainer.fit((row for row in [x]), epochs=2)
    assert trainer.global_step == 0
    trainer.fit((x[i : i + 20] for i in range(0, 90, 20)), epochs=1, validation_data=(row for row in [x[:30]]))
    assert same_bits(trainer.model.parameters(), in_order(make_model, x, epochs=1).model.parameters())


def test_a_stopped_epoch_goes_on_with_its_next_batch(make_model, x, same_bits, tmp_path):
    class Stop(fv.Callback):
        def on_batch_end(self, trainer, progress):
            return progress.step == 7

    trainer = fv.Trainer(make_model())
    trainer.fit(Loader(x), epochs=2, validation_data=x[:30], callbacks=[Stop()])
    trainer.save(tmp_path / "run.ckpt")
    resumed = fv.Trainer.resume(tmp_path / "run.ckpt")
    for one in (trainer, resumed):
        one.fit(Loader(x), epochs=1, validation_data=x[:30])
        assert same_bits(one.model.parameters(), in_order(make_model, x).model.parameters())
    short = fv.Trainer.resume(tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="stands at batch 2 of its epoch, and x has only 1"):
        short.fit(Loader(x[:20]), epochs=1)


def test_bad_batches_leave_the_trainer_before_their_step(make_model, x):
    trainer = fv.Trainer(make_model())
    with pytest.raises(ValueError, match="batch 1 of x has shape"):
        trainer.fit([x, x[:, 1:]], epochs=1)
    assert trainer.global_step == 1
    broken = x.copy()
    broken[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"(?i)nan.*step 2"):
        fv.Trainer(make_model()).fit([x, x, broken], epochs=1)
    with pytest.raises(ValueError, match="no batches"):
        fv.Trainer(make_model()).fit(iter([]), epochs=1)

    def failing():
        yield x
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fv.Trainer(make_model()).fit(failing(), epochs=1)


@pytest.mark.parametrize(("kind", "batches"), [(Loader, 0), (SizedLoader, 5)])
def test_progress_knows_what_the_iterable_says(kind, batches: int, make_model, x, capsys):
    seen = []
    trainer = fv.Trainer(make_model())
    trainer.fit(kind(x), epochs=2, callbacks=[lambda t, progress: seen.append(progress.batches)], progress=True)
    assert seen == [batches, batches]
    assert "2/2" in capsys.readouterr().err


@pytest.mark.usefixtures("small_blocks")
def test_files_train_as_their_rows_do(make_model, x, same_bits, tmp_path, cache):
    dataset = pytest.importorskip("pyarrow.dataset")
    path = write_parquet(tmp_path / "t.parquet", x)
    for source in (path, str(path), [path], tmp_path, dataset.dataset(path), arrow_table(x).to_reader()):
        model = make_model()
        trainer = fv.Trainer(model, batch_size=20)
        trainer.fit(source, epochs=2, validation_data=path)
        assert same_bits(model.parameters(), trained(make_model, x))
    assert trainer.evaluate(path) == trainer.evaluate(x)
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_npy_files_are_not_copied(make_model, x, same_bits, tmp_path, monkeypatch):
    path = write_npy(tmp_path / "x.npy", x)
    write_npy(tmp_path / "other.npy", np.asfortranarray(x.astype(">f4")))
    model = make_model()
    fv.Trainer(model, batch_size=20).fit(tmp_path / "other.npy", epochs=2)
    assert same_bits(model.parameters(), trained(make_model, x))
    monkeypatch.setattr(_spool, "_write", None)
    assert same_bits(trained(make_model, path), trained(make_model, x))


def test_a_spooled_run_resumes_to_the_bit(make_model, x, same_bits, tmp_path):
    path = write_parquet(tmp_path / "t.parquet", x)
    trainer = fv.Trainer(make_model(), batch_size=20)
    trainer.fit(path, epochs=1)
    trainer.save(tmp_path / "run.ckpt")
    resumed = fv.Trainer.resume(tmp_path / "run.ckpt")
    resumed.fit(path, epochs=1)
    assert same_bits(resumed.model.parameters(), trained(make_model, x))


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({"a": [1.0]}, TypeError, r"x is \{'a': \[1\.0\]\}, expected rows of numbers"),
        (None, TypeError, "x is None, expected rows"),
        ((np.zeros((3, 12)), np.zeros(3)), TypeError, "labels are not used: pass x"),
        (iter(np.zeros((3, 12))), ValueError, r"batch 0 of x has shape \(12,\)"),
        (type("Dataset", (), {"__getitem__": lambda self, i: np.zeros(12)[i:]})(), TypeError, "DataLoader"),
    ],
)
def test_what_is_no_data(data, error: type[Exception], words: str, make_model):
    trainer = fv.Trainer(make_model())
    with pytest.raises(error, match=words):
        trainer.fit(data, epochs=1)
    assert trainer.global_step == 0


def test_files_that_are_not_there(make_model):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fv.Trainer(make_model()).fit("nowhere.parquet", epochs=1)


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


@pytest.mark.usefixtures("small_blocks")
def test_files_are_read_as_the_models_columns_say(tmp_path, x, same_bits):
    holes = x.copy()
    holes[::7, 1] = np.nan
    path = write_csv(tmp_path / "t.csv", holes)

    def parameters(data, fill: float | None = 0.5) -> dict[str, np.ndarray]:
        columns = [fv.Column("c5"), fv.Column("c1", fill=fill), fv.Column("c0")]
        model = fv.Model(fv.Config(input_shape=3, hidden=(8,), latent=2, likelihood=fv.Gaussian(), columns=columns))
        fv.Trainer(model).fit(data, epochs=1, validation_data=data)
        return model.parameters()

    assert same_bits(parameters(path), parameters(holes[:, [5, 1, 0]]))
    with pytest.raises(ValueError, match=r"column 'c1', row 0 .*missing"):
        parameters(path, fill=None)
