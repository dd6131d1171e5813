# SPDX-License-Identifier: MIT
"""train_ensemble: each training ends as it would have alone, and what happens to one stays its own."""

import _thread
import io
import threading
import time

import fusedvae as fv
import numpy as np
import pytest
from ensembles import assert_as_alone, same, trainers
from fusedvae.progress import EnsembleBar


@pytest.fixture
def x():
    return np.random.default_rng(0).random((50, 12), dtype=np.float32)


@pytest.mark.parametrize("threads", [None, 1, 2, 5])
def test_each_has_the_bits_of_a_fit_of_its_own(x, threads):
    assert_as_alone(lambda: trainers(5), x, epochs=3, validation_data=x[:10], threads=threads)


def test_batches_and_integers_are_rows_too(x):
    rows = (x * 255).astype(np.uint8)
    [mine] = fv.train_ensemble(trainers(1), [rows[:30], rows[30:]], epochs=2)
    [alone] = trainers(1)
    alone.fit(rows, epochs=2)
    assert same(mine, alone)


def test_a_tables_columns_are_found_by_name(x):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x[:, :2], columns=["a", "b"])

    def one(*names):
        columns = [fv.Column(name, shift=0.5) for name in names]
        return fv.Trainer(fv.Model(fv.Config(input_shape=2, latent=1, likelihood="gaussian", columns=columns), seed=1))

    [mine] = fv.train_ensemble([one("a", "b")], table[["b", "a"]], epochs=2, validation_data=table[["b", "a"]])
    alone = one("a", "b")
    alone.fit(table, epochs=2, validation_data=table)
    assert same(mine, alone)
    with pytest.raises(ValueError, match=r"trainers\[1\]'s model has other names or categories of columns"):
        fv.train_ensemble([one("a", "b"), one("b", "a")], table, epochs=1)
    with pytest.raises(ValueError, match="yet now missing:\n- a"):
        fv.train_ensemble([one("a", "b")], table.rename(columns={"a": "c"}), epochs=1)


def test_a_call_goes_on_where_the_last_one_ended(x):
    together = trainers(3)
    fv.train_ensemble(together, x, epochs=2)
    fv.train_ensemble(together, x, epochs=1)
    for mine, alone in zip(together, trainers(3), strict=True):
        alone.fit(x, epochs=3)
        assert same(mine, alone)


def test_one_that_diverges_ends_alone(x, caplog):
    together = trainers(3)
    together[1] = trainers(2, optimizer=fv.SGD(1e30), snapshot=True)[1]
    with caplog.at_level("WARNING", "fusedvae"):
        fv.train_ensemble(together, x, epochs=4)
    assert isinstance(together[1].failure, fv.NonFiniteError)
    assert "became non-finite at step" in str(together[1].failure)
    assert "1 of 3 trainings became non-finite (the first is trainers[1])" in caplog.text
    assert [trainer.epoch for trainer in together][::2] == [4, 4]
    for i in (0, 2):
        alone = trainers(3)[i]
        alone.fit(x, epochs=4)
        assert same(together[i], alone)
    together[1].learning_rate = 1e-3
    fv.train_ensemble(together, x, epochs=1)
    assert together[1].failure is None


def test_callbacks_are_each_trainers_own(x):
    together, threads, ended = trainers(4), {}, []

    class Watch(fv.Callback):
        def on_epoch_end(self, trainer, progress):
            threads.setdefault(id(trainer), set()).add(threading.get_ident())
            assert trainer.model.encode(x)[0].shape == (50, 3)
            return trainer is together[2]

        def after_fit(self, trainer, error):
            ended.append((trainer, error))

    fv.train_ensemble(together, x, epochs=3, callbacks=lambda trainer: [Watch()], threads=2)
    assert [trainer.epoch for trainer in together] == [3, 3, 1, 3]
    assert all(len(idents) == 1 for idents in threads.values())
    assert ended == [(trainer, None) for trainer in together]


def test_early_stopping_restores_each_ones_best(x):
    def stopping(trainer):
        return [fv.EarlyStopping(monitor="loss", patience=1, min_delta=1e9)]

    together = fv.train_ensemble(trainers(3), x, epochs=9, callbacks=stopping)
    assert [trainer.epoch for trainer in together] == [2, 2, 2]


def test_a_callbacks_exception_ends_all(x):
    together = trainers(3)

    def callbacks(trainer):
        def fail(trainer, progress):
            raise KeyError("mine")

        return [fail] if trainer is together[1] else []

    with pytest.raises(KeyError, match="mine"):
        fv.train_ensemble(together, x, epochs=1_000_000, callbacks=callbacks, threads=2)
    fv.train_ensemble(together, x, epochs=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_control_c_ends_all_within_a_moment(x, threads):
    together = trainers(2)

    def callbacks(trainer):
        return [lambda trainer, progress: _thread.interrupt_main()] if trainer is together[1] else []

    with pytest.raises(KeyboardInterrupt):
        fv.train_ensemble(together, x, epochs=1_000_000_000, callbacks=callbacks, threads=threads)
    together[0].fit(x, epochs=1)


def test_a_thread_that_only_waits_hears_control_c(x):
    together = trainers(2)
    main = threading.get_ident()

    begun = threading.Barrier(2)  # the other thread must have taken its trainer before the caller's is over

    class Waits(fv.Callback):
        def on_train_begin(self, trainer, progress):
            begun.wait()

        def on_epoch_end(self, trainer, progress):
            if threading.get_ident() == main:
                return True  # the caller's training is over; it waits for the other one
            if progress.epoch > 20:
                _thread.interrupt_main()
            return None

    with pytest.raises(KeyboardInterrupt):
        fv.train_ensemble(together, x, epochs=1_000_000_000, callbacks=lambda trainer: [Waits()], threads=2)


def test_mistakes_are_named(x):
    a, b = trainers(2)
    with pytest.raises(ValueError, match=r"trainers\[0\] and trainers\[2\] train the same model"):
        fv.train_ensemble([a, b, fv.Trainer(a.model)], x)
    with pytest.raises(TypeError, match=r"trainers\[1\] is a Model; give trainers"):
        fv.train_ensemble([a, b.model], x)
    other = fv.Trainer(fv.Model(fv.Config(input_shape=7)))
    with pytest.raises(ValueError, match=r"trainers\[1\]'s model reads rows of shape \(7,\)"):
        fv.train_ensemble([a, other], x)
    bad = x.copy()
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN in row 3, column 4"):
        fv.train_ensemble([a, b], bad)
    with pytest.raises(ValueError, match="threads"):
        fv.train_ensemble([a, b], x, threads=0)
    assert a.global_step == b.global_step == 0
    assert fv.train_ensemble([], x) == []


def test_lines_say_how_far_all_are(x):
    class Progress:
        def __init__(self, epoch):
            self.epoch, self.epochs, self.batch, self.batches = epoch, 2, 0, 4
            self.train = fv.Losses(7.5, 7.0, 0.5)

    file = io.StringIO()
    bar, one, two = EnsembleBar(2, file), object(), object()
    bar._last_line = -1e9
    for trainer in (one, two):
        bar.on_train_begin(trainer, Progress(0))
    bar.on_epoch_end(one, Progress(0))
    bar.on_train_end(one, Progress(2))
    bar._last_line = -1e9
    bar.on_epoch_end(two, Progress(1))
    assert file.getvalue() == "0 of 2 models done  loss 7.50\n1 of 2 models done  loss 7.50\n"


def test_trainings_that_begin_at_once_share_one_bar(monkeypatch):
    opened = []

    def slow(*arguments):
        opened.append(arguments)
        time.sleep(0.05)  # long enough for the other thread to begin meanwhile

    class Progress:
        epoch, epochs = 0, 3

    monkeypatch.setattr("fusedvae.progress._open", slow)
    bar = EnsembleBar(2, io.StringIO())
    both = [threading.Thread(target=bar.on_train_begin, args=(object(), Progress)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(opened) == 1


def test_a_bar_is_drawn_and_closed(x, monkeypatch):
    pytest.importorskip("tqdm")
    file = io.StringIO()
    file.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", file)
    fv.train_ensemble(trainers(3), x, epochs=4, progress=True, threads=2)
    assert "of 3 models done  loss" in file.getvalue()
    assert "100%" in file.getvalue()
