# SPDX-License-Identifier: MIT
"""The history on disk: CSV and TensorBoard."""

import csv
import sys

import fusedvae as fv
import numpy as np
import pytest


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
