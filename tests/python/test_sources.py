# SPDX-License-Identifier: MIT
"""What training reads beside arrays: tables in memory, files, iterables of batches."""

from decimal import Decimal

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _spool
from table_files import NAMES, TABLES, arrow_table, pandas_frame, polars_frame, write_csv, write_npy, write_parquet

pytestmark = pytest.mark.usefixtures("cache")


def trained(make_model, data) -> dict[str, np.ndarray]:
    model = make_model()
    fv.Trainer(model, batch_size=20).fit(data, epochs=2)
    return model.parameters()


# ---- tables in memory


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
