# SPDX-License-Identifier: MIT
"""The callbacks that come with the package: early stopping, checkpoints, loggers, bars and the rate finder."""

import csv
import io
import logging
import os
import signal
import subprocess
import sys
import textwrap

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import progress


@pytest.fixture
def noisy(x):
    """(train, held out): too few rows to learn from, so that the held-out loss turns within some epochs."""
    rows = (np.random.default_rng(3).random(x.shape) < x).astype(np.float32)
    return rows[:20], rows[20:]


@pytest.fixture
def make_trainer(make_model):
    """A trainer that overfits after about ten epochs."""

    def make(seed: int = 0, **options) -> fv.Trainer:
        return fv.Trainer(make_model(seed=seed), fv.Adam(0.03), **{"batch_size": 5, "beta": 0.1, **options})

    return make


class Keep(fv.Callback):
    """Each epoch's parameters."""

    def __init__(self) -> None:
        self.epochs: list[dict] = []

    def on_epoch_end(self, trainer, progress):
        self.epochs.append(trainer.model.parameters())


# ---- early stopping


def test_the_best_epoch_is_restored(make_trainer, noisy, same_bits):
    train, held_out = noisy
    trainer, stopping, keep = make_trainer(), fv.EarlyStopping(patience=4), Keep()
    history = trainer.fit(train, epochs=200, validation_data=held_out, callbacks=[stopping, keep])
    best = int(history["val_loss"].argmin())
    assert 0 < best < trainer.epoch - 1
    assert trainer.epoch == best + 5
    assert (stopping.best_epoch, stopping.waited) == (best + 1, 4)
    assert stopping.best_value == history["val_loss"][best]
    assert same_bits(trainer.model.parameters(), keep.epochs[best])


def test_the_last_epochs_parameters_may_be_kept(make_trainer, noisy, same_bits):
    train, held_out = noisy
    trainer, keep = make_trainer(), Keep()
    stopping = fv.EarlyStopping(patience=4, restore_best=False)
    trainer.fit(train, epochs=200, validation_data=held_out, callbacks=[stopping, keep])
    assert trainer.epoch < 200
    assert same_bits(trainer.model.parameters(), keep.epochs[-1])


def test_the_best_is_restored_without_a_stop(make_trainer, noisy, same_bits):
    train, held_out = noisy
    trainer, keep = make_trainer(), Keep()
    stopping = fv.EarlyStopping(patience=1000)
    history = trainer.fit(train, epochs=30, validation_data=held_out, callbacks=[stopping, keep])
    assert trainer.epoch == 30
    assert same_bits(trainer.model.parameters(), keep.epochs[int(history["val_loss"].argmin())])


def test_small_improvements_do_not_count(make_trainer, noisy):
    train, held_out = noisy
    trainer = make_trainer()
    stopping = fv.EarlyStopping(patience=2, min_delta=1e6)
    trainer.fit(train, epochs=50, validation_data=held_out, callbacks=[stopping])
    assert (stopping.best_epoch, trainer.epoch) == (1, 3)


@pytest.mark.parametrize("monitor", ["loss", "reconstruction", "val_kl"])
def test_other_monitors(monitor: str, make_trainer, noisy):
    train, held_out = noisy
    trainer, stopping = make_trainer(), fv.EarlyStopping(patience=3, monitor=monitor)
    history = trainer.fit(train, epochs=12, validation_data=held_out, callbacks=[stopping])
    assert stopping.best_value == history[monitor].min() == history[monitor][stopping.best_epoch - 1]


def test_validation_data_is_missed_before_the_first_step(make_trainer, noisy, same_bits):
    trainer = make_trainer()
    before = trainer.model.parameters()
    with pytest.raises(ValueError, match=r"needs validation_data.*monitor='loss'"):
        trainer.fit(noisy[0], epochs=3, callbacks=[fv.EarlyStopping()])
    assert trainer.global_step == 0
    assert same_bits(trainer.model.parameters(), before)
    trainer.fit(noisy[0], epochs=3, callbacks=[fv.EarlyStopping(monitor="loss")])
    assert trainer.epoch == 3


def test_epochs_without_validation_count_for_nothing(make_trainer, noisy):
    train, held_out = noisy
    trainer, stopping = make_trainer(), fv.EarlyStopping(patience=2)
    trainer.fit(train, epochs=5)
    trainer.fit(train, epochs=2, validation_data=held_out, callbacks=[stopping])
    assert trainer.epoch == 7
    assert stopping.best_epoch in (6, 7)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"patience": 0}, ValueError, "patience"),
        ({"patience": 2.5}, TypeError, "patience"),
        ({"min_delta": -1.0}, ValueError, "min_delta"),
        ({"monitor": "val_los"}, ValueError, "unknown monitor 'val_los'; known are 'val_loss'"),
        ({"restore_best": 1}, TypeError, "restore_best"),
        ({"best": 3}, TypeError, "PathLike"),
    ],
)
def test_impossible_stopping(arguments: dict, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        fv.EarlyStopping(**arguments)


def test_a_best_file_in_no_folder_is_found_before_the_first_step(make_trainer, noisy, tmp_path):
    trainer = make_trainer()
    stopping = fv.EarlyStopping(monitor="loss", best=tmp_path / "nowhere" / "best.ckpt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trainer.fit(noisy[0], epochs=1, callbacks=[stopping])
    assert trainer.global_step == 0


def undisturbed(make_trainer, noisy, tmp_path):
    train, held_out = noisy
    trainer = make_trainer()
    callbacks = [fv.EarlyStopping(patience=4, best=tmp_path / "alone.best")]
    trainer.fit(train, epochs=200, validation_data=held_out, callbacks=callbacks)
    return trainer


@pytest.mark.parametrize("stop_after", [1, 3, 20, 61])
def test_a_resumed_run_stops_where_the_other_did(stop_after: int, make_trainer, noisy, tmp_path, same_bits):
    """Stopped at a step (20 rows are four), saved, resumed with new callbacks: the same end to the bit."""
    train, held_out = noisy
    alone = undisturbed(make_trainer, noisy, tmp_path)
    assert alone.global_step > 61

    def callbacks():
        return [fv.EarlyStopping(patience=4, best=tmp_path / "best"), fv.Checkpoint(tmp_path / "run.ckpt")]

    class Stop(fv.Callback):
        def on_batch_end(self, trainer, progress):
            return progress.step == stop_after

    first = make_trainer()
    first.fit(train, epochs=200, validation_data=held_out, callbacks=[*callbacks(), Stop()])
    assert first.global_step == stop_after
    again = fv.Trainer.resume(tmp_path / "run.ckpt")
    again.fit(train, epochs=200 - again.epoch, validation_data=held_out, callbacks=callbacks())
    assert again.epoch == alone.epoch
    assert same_bits(again.model.parameters(), alone.model.parameters())


def test_a_best_file_ahead_of_the_checkpoint_counts(make_trainer, noisy, tmp_path, same_bits):
    """As a crash between the two leaves it; even if the resumed run does not come as far."""
    train, held_out = noisy
    stopping = fv.EarlyStopping(patience=50, best=tmp_path / "best")
    trainer = make_trainer()
    trainer.fit(train, epochs=2, validation_data=held_out)
    trainer.save(tmp_path / "run.ckpt")
    trainer.fit(train, epochs=3, validation_data=held_out, callbacks=[stopping])
    best = stopping.best_epoch
    assert best > 3
    resumed, again = fv.Trainer.resume(tmp_path / "run.ckpt"), fv.EarlyStopping(patience=50, best=tmp_path / "best")
    resumed.fit(train, epochs=1, validation_data=held_out, callbacks=[again])
    assert (again.best_epoch, again.waited) == (best, 0)
    assert same_bits(resumed.model.parameters(), trainer.model.parameters())


def test_a_best_file_of_another_run_is_not_taken(make_trainer, noisy, tmp_path, same_bits):
    train, held_out = noisy
    path = tmp_path / "best"
    other = make_trainer(seed=5)
    other.fit(train, epochs=6, validation_data=held_out, callbacks=[fv.EarlyStopping(best=path)])
    foreign = path.read_bytes()
    trainer, stopping, keep = make_trainer(), fv.EarlyStopping(patience=4, best=path), Keep()
    trainer.fit(train, epochs=3, validation_data=held_out, callbacks=[keep])
    assert path.read_bytes() == foreign
    history = trainer.fit(train, epochs=1, validation_data=held_out, callbacks=[stopping, keep])
    best = int(history["val_loss"].argmin())
    assert same_bits(fv.load(path).parameters(), keep.epochs[best])
    assert best >= 2


def test_best_parameters_that_are_gone_are_said_to_be(make_trainer, noisy, tmp_path, same_bits, caplog):
    train, held_out = noisy
    trainer = make_trainer()
    history = trainer.fit(train, epochs=40, validation_data=held_out)
    best = int(history["val_loss"].argmin())
    assert best < 35
    stopping, keep = fv.EarlyStopping(patience=100), Keep()
    with caplog.at_level(logging.WARNING, "fusedvae"):
        trainer.fit(train, epochs=1, validation_data=held_out, callbacks=[stopping, keep])
    assert f"epoch {best + 1} is the best so far" in caplog.text
    assert not stopping.restore(trainer.model)
    assert same_bits(trainer.model.parameters(), keep.epochs[-1])


def test_a_run_that_stopped_stops_again_until_patience_is_raised(make_trainer, noisy, same_bits):
    train, held_out = noisy
    trainer, stopping = make_trainer(), fv.EarlyStopping(patience=4)
    trainer.fit(train, epochs=200, validation_data=held_out, callbacks=[stopping])
    epoch, best = trainer.epoch, trainer.model.parameters()
    trainer.fit(train, epochs=10, validation_data=held_out, callbacks=[stopping])
    assert trainer.epoch == epoch
    assert same_bits(trainer.model.parameters(), best)
    stopping.patience = 8
    trainer.fit(train, epochs=1, validation_data=held_out, callbacks=[stopping])
    assert trainer.epoch == epoch + 1


def test_one_object_serves_several_trainings(make_trainer, noisy):
    train, held_out = noisy
    stopping = fv.EarlyStopping(patience=4)
    for seed in (0, 1):
        trainer = make_trainer(seed=seed)
        history = trainer.fit(train, epochs=200, validation_data=held_out, callbacks=[stopping])
        assert stopping.best_epoch == history["val_loss"].argmin() + 1
        assert trainer.epoch == stopping.best_epoch + 4


def test_an_exception_leaves_the_model_where_the_training_stands(make_trainer, noisy, same_bits):
    train, held_out = noisy
    alone = make_trainer()
    alone.fit(train, epochs=20, validation_data=held_out)

    class Fail(fv.Callback):
        def on_epoch_end(self, trainer, progress):
            if progress.epoch == 15:
                raise LookupError

    trainer, stopping = make_trainer(), fv.EarlyStopping(patience=100)
    with pytest.raises(LookupError):
        trainer.fit(train, epochs=20, validation_data=held_out, callbacks=[stopping, Fail()])
    copy = trainer.model.copy()
    assert stopping.restore(copy)
    assert not same_bits(copy.parameters(), trainer.model.parameters())
    trainer.fit(train, epochs=4, validation_data=held_out)
    assert same_bits(trainer.model.parameters(), alone.model.parameters())


# ---- checkpoints


def test_checkpoints_every_few_epochs(make_trainer, noisy, tmp_path):
    seen = []

    def look(trainer, progress):
        seen.append(fv.Trainer.resume(path).epoch if path.exists() else 0)

    path = tmp_path / "run.ckpt"
    trainer = make_trainer()
    trainer.fit(noisy[0], epochs=5, callbacks=[fv.Checkpoint(path, every=2), look])
    assert seen == [0, 2, 2, 4, 4]
    assert fv.Trainer.resume(path).epoch == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ckpt"]


def test_numbered_checkpoints(make_trainer, noisy, tmp_path, same_bits):
    trainer, keep = make_trainer(), Keep()
    trainer.fit(noisy[0], epochs=3, callbacks=[fv.Checkpoint(tmp_path / "run-{epoch:03d}.ckpt"), keep])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f"run-00{epoch}.ckpt" for epoch in (1, 2, 3)]
    for epoch, parameters in enumerate(keep.epochs, 1):
        assert same_bits(fv.load(tmp_path / f"run-00{epoch}.ckpt").parameters(), parameters)


def test_the_latest_are_kept_across_a_resume(make_trainer, noisy, tmp_path):
    path = tmp_path / "{epoch}.ckpt"
    (tmp_path / "90.ckpt").write_bytes(b"another run's")
    make_trainer().fit(noisy[0], epochs=4, callbacks=[fv.Checkpoint(path, keep=2)])
    assert {entry.name for entry in tmp_path.iterdir()} == {"3.ckpt", "4.ckpt", "90.ckpt"}
    resumed = fv.Trainer.resume(tmp_path / "4.ckpt")
    resumed.fit(noisy[0], epochs=1, callbacks=[fv.Checkpoint(path, keep=2)])
    assert {entry.name for entry in tmp_path.iterdir()} == {"4.ckpt", "5.ckpt", "90.ckpt"}


def test_a_stopped_run_is_saved_within_its_epoch(make_trainer, noisy, tmp_path, same_bits):
    class Stop(fv.Callback):
        def on_batch_end(self, trainer, progress):
            return progress.step == 6

    alone = make_trainer()
    alone.fit(noisy[0], epochs=4)
    make_trainer().fit(noisy[0], epochs=4, callbacks=[fv.Checkpoint(tmp_path / "run.ckpt"), Stop()])
    resumed = fv.Trainer.resume(tmp_path / "run.ckpt")
    assert (resumed.epoch, resumed.global_step) == (1, 6)
    resumed.fit(noisy[0], epochs=3)
    assert same_bits(resumed.model.parameters(), alone.model.parameters())


@pytest.mark.parametrize(("error", "steps"), [(KeyboardInterrupt, 6), (SystemExit, 6), (LookupError, 4)])
def test_what_ends_programs_is_saved(error: type[BaseException], steps: int, make_trainer, noisy, tmp_path):
    class Fail(fv.Callback):
        def on_batch_end(self, trainer, progress):
            if progress.step == 6:
                raise error

    with pytest.raises(error):
        make_trainer().fit(noisy[0], epochs=4, callbacks=[fv.Checkpoint(tmp_path / "run.ckpt"), Fail()])
    assert fv.Trainer.resume(tmp_path / "run.ckpt").global_step == steps


def test_a_bad_loss_leaves_the_last_sound_checkpoint(make_model, x, tmp_path):
    class Raise(fv.Callback):
        def on_epoch_end(self, trainer, progress):
            trainer.learning_rate = 1e30

    trainer = fv.Trainer(make_model(), fv.SGD(0.01), batch_size=30)
    with pytest.raises(fv.NonFiniteError):
        trainer.fit(x, epochs=50, callbacks=[fv.Checkpoint(tmp_path / "run.ckpt"), Raise()])
    assert np.isfinite(fv.load(tmp_path / "run.ckpt").elbo(x)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("run.ckpt", 0), ValueError, "every"),
        (("run.ckpt", 1, 3), ValueError, "keep counts numbered files"),
        (("{epoch}.ckpt", 1, 0), ValueError, "keep"),
        (("{epoch}-{step}.ckpt",), ValueError, "no other field"),
        (("{epoch:q}.ckpt",), ValueError, "write {epoch} or {epoch:04d}"),
        (("{epoch",), ValueError, "write {epoch}"),
        ((3,), TypeError, "PathLike"),
    ],
)
def test_impossible_checkpoints(arguments: tuple, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        fv.Checkpoint(*arguments)


def test_braces_of_another_kind_are_a_name(make_trainer, noisy, tmp_path):
    make_trainer().fit(noisy[0], epochs=1, callbacks=[fv.Checkpoint(tmp_path / "{a}.ckpt")])
    assert (tmp_path / "{a}.ckpt").exists()


@pytest.mark.parametrize("name", ["nowhere/run.ckpt", "."])
def test_unwritable_checkpoints_are_found_before_the_first_step(name: str, make_trainer, noisy, tmp_path):
    trainer = make_trainer()
    with pytest.raises(OSError, match="cannot be written"):
        trainer.fit(noisy[0], epochs=1, callbacks=[fv.Checkpoint(tmp_path / name)])
    assert trainer.global_step == 0


# ---- Ctrl-C


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_keeps_everything(interruptible, tmp_path):
    """A real one: the checkpoint stands where the training does and goes on to the bits of an undisturbed run."""
    program = textwrap.dedent(
        """
        import sys
        import numpy as np
        import fusedvae as fv
        folder = sys.argv[1]
        x = np.random.default_rng(0).random((600, 32), dtype=np.float32)
        class Ready(fv.Callback):
            def on_epoch_end(self, trainer, progress):
                if progress.epoch == 2:
                    print("ready", flush=True)
        def callbacks(name):
            return [fv.EarlyStopping(patience=10**9, best=f"{folder}/{name}.best"), fv.Checkpoint(f"{folder}/{name}")]
        def train(trainer, epochs, name, *more):
            held_out = x[500:]
            trainer.fit(x[:500], epochs - trainer.epoch, held_out, [*callbacks(name), *more])
            return trainer
        def make():
            return fv.Trainer(fv.Model(fv.Config(input_shape=32, hidden=(32,), latent=4)), batch_size=7)
        interrupted = make()
        try:
            train(interrupted, 10**9, "run", Ready())
        except KeyboardInterrupt:
            pass
        again = fv.Trainer.resume(f"{folder}/run")
        assert again.global_step == interrupted.global_step > 0
        same = lambda a, b: all(np.array_equal(v, b.model.parameters()[k]) for k, v in a.model.parameters().items())
        assert same(again, interrupted)
        epochs = again.epoch + 2
        for one in (again, interrupted):
            train(one, epochs, "run")
        alone = train(make(), epochs, "alone")
        assert same(again, alone) and same(interrupted, alone)
        print("the same", flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        try:
            assert child.communicate(timeout=60)[0] == "the same\n"
        finally:
            child.kill()
    assert child.returncode == 0


# ---- loggers


def read(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_log_is_the_history(make_trainer, noisy, tmp_path):
    train, held_out = noisy
    trainer, path, lengths = make_trainer(), tmp_path / "log.csv", []
    log = fv.CSVLogger(path)
    trainer.fit(train, epochs=3, callbacks=[log, lambda trainer, progress: lengths.append(len(read(path)))])
    assert lengths == [1, 2, 3]
    history = trainer.fit(train, epochs=2, validation_data=held_out, callbacks=[log])
    rows = read(path)
    assert list(rows[0]) == list(history)
    assert rows[0]["val_loss"] == ""
    for name, values in history.items():
        np.testing.assert_array_equal([float(row[name] or "nan") for row in rows], values)
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


def test_a_resumed_run_goes_on_with_its_log(make_trainer, noisy, tmp_path):
    path = tmp_path / "log.csv"
    trainer = make_trainer()
    trainer.fit(noisy[0], epochs=2, callbacks=[fv.CSVLogger(path)])
    trainer.save(tmp_path / "run.ckpt")
    trainer.fit(noisy[0], epochs=3, callbacks=[fv.CSVLogger(path)])
    alone = path.read_text()
    path.write_text(alone[:-5])  # as a crash may leave it
    fv.Trainer.resume(tmp_path / "run.ckpt").fit(noisy[0], epochs=3, callbacks=[fv.CSVLogger(path)])
    assert path.read_text() == alone


def test_a_file_that_is_no_log_is_left_alone(make_trainer, noisy, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    trainer = make_trainer()
    with pytest.raises(ValueError, match=r"table\.csv is no training's log"):
        trainer.fit(noisy[0], epochs=1, callbacks=[fv.CSVLogger(path)])
    assert (path.read_text(), trainer.global_step) == ("a,b\n1,2\n", 0)
    with pytest.raises(FileNotFoundError):
        trainer.fit(noisy[0], epochs=1, callbacks=[fv.CSVLogger(tmp_path / "nowhere" / "log.csv")])
    assert trainer.global_step == 0


def test_tensorboard_reads_what_is_written(make_trainer, noisy, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train, held_out = noisy
    trainer = make_trainer(beta=0.5)
    trainer.fit(train, epochs=2, validation_data=held_out, callbacks=[fv.TensorBoard(tmp_path)])
    trainer.save(tmp_path / "run.ckpt")
    history = fv.Trainer.resume(tmp_path / "run.ckpt").fit(train, epochs=1, callbacks=[fv.TensorBoard(tmp_path)])
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()

    def values(tag: str) -> list[tuple[int, float]]:
        return [(event.step, float(np.asarray(event.tensor_proto.float_val)[0])) for event in events.Tensors(tag)]

    for tag, name in (("loss/train", "loss"), ("kl/train", "kl"), ("beta", "beta"), ("learning_rate", "learning_rate")):
        assert values(tag) == [(epoch, np.float32(value)) for epoch, value in enumerate(history[name], 1)], tag
    expected = [(epoch, np.float32(history["val_reconstruction"][epoch - 1])) for epoch in (1, 2)]
    assert values("reconstruction/validation") == expected


def test_tensorboard_is_missed_by_name(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "tensorboard.summary", raising=False)
    with pytest.raises(ImportError, match=r'pip install "fusedvae\[tensorboard\]"'):
        fv.TensorBoard(tmp_path)


# ---- bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_rich_draws_on_a_terminal(make_trainer, noisy):
    pytest.importorskip("rich")
    out = Terminal()
    history = make_trainer().fit(noisy[0], epochs=3, callbacks=[progress.ProgressBar(out, style="rich")])
    assert f"epoch 3/3  loss {history['loss'][-1]:.2f}, rec " in out.getvalue()
    assert "100%" in out.getvalue() or "━" in out.getvalue()


@pytest.mark.parametrize("style", ["tqdm", "rich"])
def test_bars_count_epochs_where_batches_are_unknown(style: str, make_trainer, noisy):
    pytest.importorskip(style)
    out = Terminal()

    class Unsized:
        def __iter__(self):
            return iter(np.split(noisy[0], 4))

    make_trainer().fit(Unsized(), epochs=3, callbacks=[progress.ProgressBar(out, style=style)])
    assert "epoch 3/3" in out.getvalue()
    if style == "tqdm":
        assert "100%" in out.getvalue().split("\r")[-1]
        assert " epochs/s" in out.getvalue()


def test_a_bar_is_closed_after_an_exception(make_trainer, noisy):
    pytest.importorskip("rich")

    class Fail(fv.Callback):
        def on_epoch_end(self, trainer, progress):
            raise LookupError

    bar = progress.ProgressBar(Terminal(), style="rich")
    with pytest.raises(LookupError):
        make_trainer().fit(noisy[0], epochs=3, callbacks=[bar, Fail()])
    assert bar._bar is None


def test_styles_of_bars(make_trainer, noisy, capfd, monkeypatch):
    with pytest.raises(ValueError, match="unknown style 'fancy'; known are"):
        make_trainer().fit(noisy[0], epochs=1, progress="fancy")
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "rich.progress", raising=False)
    with pytest.raises(ImportError, match=r"fusedvae\[progress\]"):
        make_trainer().fit(noisy[0], epochs=1, progress="rich")
    make_trainer().fit(noisy[0], epochs=2, progress="tqdm")
    assert "2/2" in capfd.readouterr().err


# ---- the rate finder


def test_the_rate_finder_leaves_the_model_alone(make_model, x, same_bits):
    model = make_model()
    before = model.parameters()
    found = fv.find_learning_rate(model, x, fv.SGD(0.1), batch_size=30, steps=60, low=1e-5, high=10.0, seed=2)
    assert same_bits(model.parameters(), before)
    assert len(found.rates) == len(found.losses) <= 60
    np.testing.assert_allclose(found.rates[0], 1e-5)
    np.testing.assert_allclose(found.rates[1:] / found.rates[:-1], (1e6) ** (1 / 59))
    assert found.suggestion == pytest.approx(found.rates[found.losses.argmin()] / 10)
    again = fv.find_learning_rate(model, x, fv.SGD(0.1), batch_size=30, steps=60, low=1e-5, high=10.0, seed=2)
    np.testing.assert_array_equal(again.losses, found.losses)


def test_the_suggestion_trains_better_than_rates_far_from_it(make_model, x):
    suggestion = fv.find_learning_rate(make_model(), x, batch_size=10).suggestion
    losses = []
    for rate in (suggestion, suggestion / 100, suggestion * 100):
        trainer = fv.Trainer(make_model(), fv.Adam(rate), batch_size=10)
        try:
            losses.append(trainer.fit(x, epochs=20)["loss"][-1])
        except fv.NonFiniteError:
            losses.append(np.inf)
    assert losses[0] < min(losses[1:])


def test_the_rate_finder_ends_where_the_loss_does(make_model, x):
    model = make_model(likelihood=fv.Gaussian("element"))
    found = fv.find_learning_rate(model, 10 * x, fv.SGD(0.1), batch_size=30, high=1e20)
    assert 2 <= len(found.losses) < 200
    assert np.isfinite(found.losses).all()
    assert len(found.rates) == len(found.losses)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"low": 0.0}, ValueError, "low"),
        ({"low": 1e-2, "high": 1e-3}, ValueError, "high"),
        ({"steps": 3}, ValueError, "steps"),
        ({"optimizer": "adam"}, TypeError, "optimizer"),
        ({"batch": 3}, TypeError, "batch"),
    ],
)
def test_impossible_searches(arguments: dict, error: type[Exception], words: str, make_model, x):
    with pytest.raises(error, match=words):
        fv.find_learning_rate(make_model(), x, **arguments)


def test_it_searches_for_models(x):
    with pytest.raises(TypeError, match=r"must be a fusedvae\.Model"):
        fv.find_learning_rate(x, x)
