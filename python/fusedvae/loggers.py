# SPDX-License-Identifier: MIT
"""The history of a training on disk while it runs: as a CSV file, and for TensorBoard."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _checks
from ._readers import require
from .callbacks import Callback, History, Losses, Progress

if TYPE_CHECKING:
    from .trainer import Trainer


class CSVLogger(Callback):
    """Keeps `Trainer.history` in a CSV file: the columns of `History` in nats per row, a line for each finished epoch.

    A line is on disk when its epoch's callbacks are done. A resumed run goes on with the file, which begins with the
    epochs before it and loses those that were logged after the checkpoint and are trained again. Cells without a value
    are empty; numbers read back to the bit. ValueError, before the first step, for a file that holds something else.

    >>> import tempfile, numpy as np, fusedvae as fv
    >>> from pathlib import Path
    >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=6, latent=2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = trainer.fit(np.zeros((10, 6)), epochs=2, callbacks=[fv.CSVLogger(f"{folder}/log.csv")])
    ...     print(Path(f"{folder}/log.csv").read_text().splitlines()[0])
    epoch,step,loss,val_loss,reconstruction,val_reconstruction,kl,val_kl,learning_rate,beta
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.fsdecode(_checks.path(path)))

    def on_train_begin(self, trainer: Trainer, progress: Progress) -> None:
        history = trainer.history
        head = ",".join(history) + "\n"
        if self.path.exists():
            with open(self.path, "rb") as file:
                found = file.read(len(head))
            if found and found != head.encode():
                raise ValueError(f"{self.path} is no training's log, which begins with {head!r}; choose another path")
        temporary = self.path.with_name(self.path.name + ".tmp")
        with open(temporary, "w", newline="") as file:
            file.write(head)
            _write(file, history)
        os.replace(temporary, self.path)

    def on_epoch_end(self, trainer: Trainer, progress: Progress) -> None:
        with open(self.path, "a", newline="") as file:
            losses = (progress.train, progress.validation or (math.nan,) * 3)
            _write(file, History([(progress.epoch, progress.step, progress.learning_rate, progress.beta, *losses)]))


def _write(file: Any, history: History) -> None:
    lines = csv.writer(file, lineterminator="\n")
    for values in zip(*(column.tolist() for column in history.values()), strict=True):
        lines.writerow(["" if math.isnan(value) else value for value in values])


class TensorBoard(Callback):
    """Writes each epoch's losses, learning rate and beta as scalars that `tensorboard --logdir FOLDER` shows.

    Tags are "loss/train" and "loss/validation", likewise "reconstruction" and "kl" (nats per row), "learning_rate" and
    "beta", at the epoch's number, from 1 as in `History`. A resumed run goes on in the same folder. Needs tensorboard
    (ImportError names the extra), whose files are written without TensorFlow.

    >>> import tempfile, numpy as np, fusedvae as fv
    >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=6, latent=2)))
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     history = trainer.fit(np.zeros((10, 6)), epochs=2, callbacks=[fv.TensorBoard(folder)])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fsdecode(_checks.path(folder))
        self._summary = require("tensorboard.summary", "tensorboard", "TensorBoard")
        self._writer: Any = None

    def on_train_begin(self, trainer: Trainer, progress: Progress) -> None:
        self._writer = self._summary.Writer(self.folder)

    def on_epoch_end(self, trainer: Trainer, progress: Progress) -> None:
        epoch = progress.epoch + 1
        for name, losses in (("train", progress.train), ("validation", progress.validation)):
            for term, value in (losses._asdict() if isinstance(losses, Losses) else {}).items():
                self._writer.add_scalar(f"{term}/{name}", value, epoch)
        self._writer.add_scalar("learning_rate", progress.learning_rate, epoch)
        self._writer.add_scalar("beta", progress.beta, epoch)
        self._writer.flush()

    def after_fit(self, trainer: Trainer, error: BaseException | None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
