# SPDX-License-Identifier: MIT
"""Early stopping (Prechelt 1998): a run ends when a loss no longer improves, with its best epoch's parameters."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from . import _checks
from ._log import logger
from .callbacks import Callback, History, Progress
from .model import Floats, Model, load

if TYPE_CHECKING:
    from .trainer import Trainer

MONITORED = ("val_loss", "val_reconstruction", "val_kl", "loss", "reconstruction", "kl")


class EarlyStopping(Callback):
    """Stops a run after `patience` epochs without improvement and gives the model its best epoch's parameters.

    An epoch improves on the best so far where its `monitor`, in nats per row, is lower by more than `min_delta` nats.
    The monitor is a loss of `Trainer.history`: "val_loss", which validation_data gives, "val_reconstruction", "val_kl",
    "loss" (which rises while beta does), "reconstruction" or "kl". Epochs are counted in the history, so that a resumed
    run stops where the run that was never stopped does; one that has stopped stops again at once until patience is
    raised.

    restore_best: when `fit` returns, after its last epoch or stopped, the model has the best epoch's parameters. After
    Ctrl-C or an exception it stays where the training stands, so that a further fit goes on from there, and `restore`
    gives it the best ones. best: a file that keeps the trainer of the best epoch, instead of memory (`load` reads its
    model); beside a checkpoint it lets a resumed run restore an epoch before the resume. It is written atomically.

    Attributes: best_epoch, from 1 as in `History`, None before the first; best_value, its monitor; waited, the epochs
    since. ValueError before the first step where the monitor needs validation data and there is none.

    >>> import numpy as np, fusedvae as fv
    >>> x = np.random.default_rng(0).random((200, 12), dtype=np.float32)
    >>> stopping = fv.EarlyStopping(patience=3)
    >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=12, hidden=(16,), latent=2)), fv.Adam(0.05), batch_size=20)
    >>> history = trainer.fit(x[:100], epochs=1000, validation_data=x[100:], callbacks=[stopping])
    >>> bool(history["val_loss"][stopping.best_epoch - 1] == history["val_loss"].min()), trainer.epoch < 1000
    (True, True)
    """

    def __init__(
        self,
        patience: int = 10,
        min_delta: float = 0.0,
        monitor: str = "val_loss",
        restore_best: bool = True,
        best: str | os.PathLike[str] | None = None,
    ) -> None:
        self.patience = _checks.integer("patience", patience, 1)
        self.min_delta = _checks.number("min_delta", min_delta)
        self.monitor = _checks.choice("monitor", monitor, MONITORED)
        self.restore_best = _checks.flag("restore_best", restore_best)
        self.best = None if best is None else os.fsdecode(_checks.path(best))
        self._parameters: dict[str, Floats] | None = None
        self._forget()

    def _forget(self) -> None:
        self.best_epoch: int | None = None
        self.best_value = math.inf
        self.waited = 0
        self._counted = -1
        self._in_file = False

    def on_train_begin(self, trainer: Trainer, progress: Progress) -> bool | None:
        if self.monitor.startswith("val_") and not trainer._validates:
            raise ValueError(
                f"EarlyStopping watches {self.monitor}, which needs validation_data; "
                f"give fit some, or watch the training's own: monitor={self.monitor[4:]!r}"
            )
        if self.best is not None:
            _checks.target(self.best)
        kept = (self.best_epoch, self.best_value)
        self._forget()
        past = trainer.history
        in_file = self._history_in_file(past)
        # A run that crashed after its best epoch and before the checkpoint left a file ahead of the run resumed here.
        longest = past if len(in_file["epoch"]) < len(past["epoch"]) else in_file
        for epoch, value in enumerate(longest[self.monitor]):
            self._count(epoch, float(value))
        self._in_file = self.best_epoch is not None and self.best_epoch == len(in_file["epoch"])
        if kept != (self.best_epoch, self.best_value):
            self._parameters = None
        if self.best_epoch is not None and self._parameters is None and not self._in_file:
            if self.best_epoch == trainer.epoch and progress.batch == 0:
                self._keep(trainer)
            elif self.restore_best:
                logger().warning(
                    "epoch %d is the best so far; a resumed run has its parameters only from EarlyStopping(best=path)",
                    self.best_epoch,
                )
        return self._done()

    def on_epoch_end(self, trainer: Trainer, progress: Progress) -> bool | None:
        losses = progress.validation if self.monitor.startswith("val_") else progress.train
        if self._count(progress.epoch, getattr(losses, self.monitor.removeprefix("val_"))):
            self._keep(trainer)
        return self._done()

    def after_fit(self, trainer: Trainer, error: BaseException | None) -> None:
        if error is None and self.restore_best:
            self.restore(trainer.model)

    def restore(self, model: Model) -> bool:
        """Gives `model` the best epoch's parameters; False where this run has none to give."""
        if self._in_file and self.best is not None:
            model.set_parameters(load(self.best).parameters())
        elif self._parameters is not None:
            model.set_parameters(self._parameters)
        return self._in_file or self._parameters is not None

    def _count(self, epoch: int, value: float) -> bool:
        """Whether the epoch of this index improves; one counted before, or without a value, is passed over."""
        if epoch <= self._counted or math.isnan(value):
            return False
        self._counted = epoch
        improved = value < self.best_value - self.min_delta
        if improved:
            self.best_epoch, self.best_value, self.waited = epoch + 1, value, 0
        else:
            self.waited += 1
        return improved

    def _keep(self, trainer: Trainer) -> None:
        if self.best is not None:
            trainer.save(self.best)
            self._in_file = True
        elif self.restore_best:
            self._parameters = trainer.model.parameters()

    def _done(self) -> bool:
        done = self.waited >= self.patience
        if done:
            logger().info("%s has not improved on %.6g of epoch %d", self.monitor, self.best_value, self.best_epoch)
        return done

    def _history_in_file(self, past: History) -> History:
        """The history of the trainer in `best`, if that is this training; a first fit begins a file anew."""
        from .trainer import Trainer

        if self.best is not None and len(past["epoch"]) > 0 and os.path.exists(self.best):
            found = Trainer.resume(self.best).history
            common = min(len(found["epoch"]), len(past["epoch"]))
            if all(np.array_equal(found[name][:common], past[name][:common], equal_nan=True) for name in past):
                return found
        return History([])
