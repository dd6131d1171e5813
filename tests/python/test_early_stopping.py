# SPDX-License-Identifier: MIT
"""Early stopping: when it ends a run, what it restores, how it goes on across a resume."""

import logging

import fusedvae as fv
import pytest


def test_the_best_epoch_is_restored(keep, make_trainer, noisy, same_bits):
    train, held_out = noisy
    trainer, stopping = make_trainer(), fv.EarlyStopping(patience=4)
    history = trainer.fit(train, epochs=200, validation_data=held_out, callbacks=[stopping, keep])
    best = int(history["val_loss"].argmin())
    assert 0 < best < trainer.epoch - 1
    assert trainer.epoch == best + 5
    assert (stopping.best_epoch, stopping.waited) == (best + 1, 4)
    assert stopping.best_value == history["val_loss"][best]
    assert same_bits(trainer.model.parameters(), keep.epochs[best])


def test_the_last_epochs_parameters_may_be_kept(keep, make_trainer, noisy, same_bits):
    train, held_out = noisy
    trainer = make_trainer()
    stopping = fv.EarlyStopping(patience=4, restore_best=False)
    trainer.fit(train, epochs=200, validation_data=held_out, callbacks=[stopping, keep])
    assert trainer.epoch < 200
    assert same_bits(trainer.model.parameters(), keep.epochs[-1])


def test_the_best_is_restored_without_a_stop(keep, make_trainer, noisy, same_bits):
    train, held_out = noisy
    trainer = make_trainer()
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


def test_a_best_file_of_another_run_is_not_taken(keep, make_trainer, noisy, tmp_path, same_bits):
    train, held_out = noisy
    path = tmp_path / "best"
    other = make_trainer(seed=5)
    other.fit(train, epochs=6, validation_data=held_out, callbacks=[fv.EarlyStopping(best=path)])
    foreign = path.read_bytes()
    trainer, stopping = make_trainer(), fv.EarlyStopping(patience=4, best=path)
    trainer.fit(train, epochs=3, validation_data=held_out, callbacks=[keep])
    assert path.read_bytes() == foreign
    history = trainer.fit(train, epochs=1, validation_data=held_out, callbacks=[stopping, keep])
    best = int(history["val_loss"].argmin())
    assert same_bits(fv.load(path).parameters(), keep.epochs[best])
    assert best >= 2


def test_best_parameters_that_are_gone_are_said_to_be(keep, make_trainer, noisy, tmp_path, same_bits, caplog):
    train, held_out = noisy
    trainer = make_trainer()
    history = trainer.fit(train, epochs=40, validation_data=held_out)
    best = int(history["val_loss"].argmin())
    assert best < 35
    stopping = fv.EarlyStopping(patience=100)
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
