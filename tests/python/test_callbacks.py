# SPDX-License-Identifier: MIT
"""Callbacks: which are called when and with what, what they may do, how they stop a run, where exceptions go."""

import contextlib

import fusedvae as fv
import numpy as np
import pytest
from fusedvae.callbacks import EVENTS


class Recorder(fv.Callback):
    """Notes every event but ticks, which come by the clock."""

    def __init__(self) -> None:
        self.events: list[tuple[str, fv.Progress]] = []

    def on_train_begin(self, trainer, progress):
        self.events.append(("train_begin", progress))

    def on_epoch_begin(self, trainer, progress):
        self.events.append(("epoch_begin", progress))

    def on_batch_end(self, trainer, progress):
        self.events.append(("batch_end", progress))

    def on_epoch_end(self, trainer, progress):
        self.events.append(("epoch_end", progress))

    def on_train_end(self, trainer, progress):
        self.events.append(("train_end", progress))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


EPOCH = ["epoch_begin", "batch_end", "batch_end", "batch_end", "epoch_end"]


def test_order_of_events(make_model, x):
    recorder = Recorder()
    fv.Trainer(make_model(), batch_size=40).fit(x, epochs=2, callbacks=[recorder])
    assert recorder.names() == ["train_begin", *EPOCH, *EPOCH, "train_end"]


def test_progress_tells_where_the_run_stands(make_model, x):
    recorder = Recorder()
    trainer = fv.Trainer(make_model(), fv.Adam(1e-2), batch_size=40, beta=0.5)
    trainer.fit(x, epochs=1)
    history = trainer.fit(x, epochs=2, validation_data=x[:10], callbacks=[recorder])
    batches = [progress for name, progress in recorder.events if name == "batch_end"]
    assert [p.batch for p in batches] == [1, 2, 3] * 2
    assert [p.step for p in batches] == [4, 5, 6, 7, 8, 9]
    assert {(p.epochs, p.batches, p.learning_rate, p.beta) for p in batches} == {(3, 3, 1e-2, 0.5)}
    assert [p.epoch for p in batches] == [1, 1, 1, 2, 2, 2]
    assert all(isinstance(p.batch_losses, fv.Losses) and np.isfinite(p.batch_losses).all() for p in batches)
    assert not any(p.has_validation for p in batches)
    ends = [progress for name, progress in recorder.events if name == "epoch_end"]
    assert [p.epoch for p in ends] == [1, 2]
    assert [p.train.loss for p in ends] == history["loss"][1:].tolist()
    assert [p.validation.loss for p in ends] == history["val_loss"][1:].tolist()
    assert all(p.has_validation for p in ends)
    with pytest.raises(AttributeError):
        ends[0].epoch = 5


def test_running_means_cover_the_epoch_so_far(make_model, x):
    recorder = Recorder()
    fv.Trainer(make_model(), batch_size=30).fit(x, epochs=1, callbacks=[recorder])
    batches = [progress for name, progress in recorder.events if name == "batch_end"]
    losses = [p.batch_losses.loss for p in batches]
    assert batches[1].train.loss == pytest.approx(np.mean(losses[:2]), rel=1e-9)
    assert batches[2].train.loss == pytest.approx(np.mean(losses), rel=1e-9)


def test_watching_changes_no_bit(make_model, x, same_bits):
    watched, alone = make_model(), make_model()
    fv.Trainer(watched, batch_size=20).fit(x, epochs=3, callbacks=[Recorder()], validation_data=x)
    fv.Trainer(alone, batch_size=20).fit(x, epochs=3)
    assert same_bits(watched.parameters(), alone.parameters())


def test_plain_objects_and_functions(make_model, x):
    class Plain:
        ended = 0

        def on_train_end(self, trainer, progress):
            self.ended += 1

    plain, epochs = Plain(), []
    trainer = fv.Trainer(make_model())
    trainer.fit(x, epochs=2, callbacks=[plain, lambda trainer, progress: epochs.append((trainer, progress.epoch))])
    assert plain.ended == 1
    assert epochs == [(trainer, 0), (trainer, 1)]


def test_one_callback_needs_no_list(make_model, x):
    epochs = []
    fv.Trainer(make_model()).fit(x, epochs=2, callbacks=lambda trainer, progress: epochs.append(progress.epoch))
    assert epochs == [0, 1]


@pytest.mark.parametrize(
    ("callback", "words"), [(Recorder, r"pass Recorder\(\)"), (3, "none of on_train_begin"), (None, "none of")]
)
def test_what_is_no_callback(callback: object, words: str, make_model, x):
    trainer = fv.Trainer(make_model())
    with pytest.raises(TypeError, match=words):
        trainer.fit(x, epochs=1, callbacks=[callback])
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("event", "steps", "epochs"),
    [("on_train_begin", 0, 0), ("on_epoch_begin", 0, 0), ("on_batch_end", 1, 0), ("on_epoch_end", 3, 1)],
)
def test_true_stops_at_this_step(event: str, steps: int, epochs: int, make_model, x):
    stopper = type("Stopper", (), {event: lambda self, trainer, progress: True})()
    recorder = Recorder()
    trainer = fv.Trainer(make_model(), batch_size=40)
    history = trainer.fit(x, epochs=5, callbacks=[stopper, recorder])
    assert (trainer.global_step, trainer.epoch) == (steps, epochs)
    assert len(history["epoch"]) == epochs
    assert recorder.names()[-1] == "train_end"


def test_numpys_true_stops_and_other_answers_do_not(make_model, x):
    trainer = fv.Trainer(make_model())
    trainer.fit(x, epochs=3, callbacks=[lambda t, p: 1, lambda t, p: "yes"])
    assert trainer.epoch == 3
    trainer.fit(x, epochs=3, callbacks=[lambda t, p: np.True_])
    assert trainer.epoch == 4


def test_stop_from_a_callback(make_model, x):
    class Stop(fv.Callback):
        def on_batch_end(self, trainer, progress):
            if progress.batch == 2:
                trainer.stop()

    trainer = fv.Trainer(make_model(), batch_size=40)
    trainer.fit(x, epochs=5, callbacks=[Stop()])
    assert trainer.global_step == 2


def test_ticks_come_by_the_clock(make_model, x):
    ticks = []

    class Ticker(fv.Callback):
        def on_tick(self, trainer, progress):
            ticks.append(progress)
            return len(ticks) == 3

    trainer = fv.Trainer(make_model(), batch_size=10)
    trainer.fit(x, epochs=10**9, callbacks=[Ticker()])
    assert [p.step for p in ticks] == sorted(p.step for p in ticks)
    assert ticks[-1].step == trainer.global_step > 0


@pytest.mark.parametrize("event", [name for name in EVENTS if name != "on_tick"])
def test_exceptions_leave_fit_as_they_are(event: str, make_model, x):
    problem = LookupError("mine")

    def fail(self, trainer, progress):
        raise problem

    trainer = fv.Trainer(make_model(), batch_size=40)
    with pytest.raises(LookupError) as caught:
        trainer.fit(x, epochs=2, callbacks=[type("Failing", (), {event: fail})()])
    assert caught.value is problem
    steps = trainer.global_step
    assert all(np.isfinite(values).all() for values in trainer.model.parameters().values())
    trainer.step(x)  # and the trainer is free again
    assert trainer.global_step == steps + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_even_those_that_end_programs(error: type[BaseException], make_model, x):
    def fail(trainer, progress):
        raise error

    with pytest.raises(error):
        fv.Trainer(make_model()).fit(x, epochs=1, callbacks=[fail])


def test_the_model_can_be_read_saved_and_scored(make_model, x, tmp_path, same_bits):
    model = make_model()
    trainer = fv.Trainer(model, batch_size=40)
    seen = []

    class Reader(fv.Callback):
        def on_batch_end(self, trainer, progress):
            seen.append((trainer.model.parameters(), trainer.model.elbo(x), trainer.evaluate(x).loss))
            trainer.model.save(tmp_path / f"{progress.step}.safetensors")

    trainer.fit(x, epochs=1, callbacks=[Reader()])
    assert len(seen) == 3
    assert not same_bits(seen[0][0], seen[1][0])
    for step, (parameters, scores, _) in enumerate(seen, 1):
        saved = fv.load(tmp_path / f"{step}.safetensors")
        assert same_bits(saved.parameters(), parameters)
        np.testing.assert_array_equal(saved.elbo(x), scores)


def test_the_learning_rate_can_be_set(make_model, x):
    rates = []

    class Halve(fv.Callback):
        def on_epoch_end(self, trainer, progress):
            trainer.learning_rate /= 2

        def on_batch_end(self, trainer, progress):
            rates.append(progress.learning_rate)

    fv.Trainer(make_model(), fv.SGD(0.5), batch_size=90).fit(x, epochs=3, callbacks=[Halve()])
    assert rates == [0.5, 0.25, 0.125]


def test_what_would_change_the_model_is_refused(make_model, x):
    refusals = []

    class Meddler(fv.Callback):
        def on_batch_end(self, trainer, progress):
            model = trainer.model
            for meddle in (
                lambda: trainer.fit(x, 1),
                lambda: trainer.step(x),
                lambda: fv.Trainer(model).step(x),
                lambda: model.set_parameters(model.parameters()),
                lambda: model.init_output_bias(x),
            ):
                with pytest.raises(RuntimeError, match="a callback may read, save and score it") as caught:
                    meddle()
                refusals.append(caught)

    trainer = fv.Trainer(make_model(), batch_size=90)
    trainer.fit(x, epochs=1, callbacks=[Meddler()])
    assert len(refusals) == 5
    assert trainer.global_step == 1


@pytest.mark.parametrize("error", [None, LookupError(), KeyboardInterrupt()])
def test_after_fit_comes_when_the_model_is_free(error: BaseException | None, make_model, x, same_bits):
    first = make_model(seed=5).parameters()
    told = []

    class After:
        def after_fit(self, trainer, error):
            trainer.model.set_parameters(first)
            told.append(error)

    def end(trainer, progress):
        if error is not None:
            raise error

    trainer = fv.Trainer(make_model())
    with contextlib.suppress(LookupError, KeyboardInterrupt):
        trainer.fit(x, epochs=2, callbacks=[After(), end])
    assert told == [error]
    assert trainer.epoch == (2 if error is None else 1)
    assert same_bits(trainer.model.parameters(), first)


def test_after_fit_is_told_of_bad_data_too(make_model, x):
    told = []
    after = type("After", (fv.Callback,), {"after_fit": lambda self, trainer, error: told.append(error)})()
    with pytest.raises(ValueError, match="NaN") as caught:
        fv.Trainer(make_model()).fit(x * np.nan, epochs=1, callbacks=after)
    assert told == [caught.value]
