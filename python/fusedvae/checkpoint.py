# SPDX-License-Identifier: MIT
"""A training's state on disk while it runs, for `Trainer.resume`."""

from __future__ import annotations

import os
import string
from typing import TYPE_CHECKING

from . import _checks
from .callbacks import Callback, Progress

if TYPE_CHECKING:
    from .trainer import Trainer


class Checkpoint(Callback):
    """Saves the trainer after every `every` epochs, when `fit` ends, and when Ctrl-C ends it.

    path may hold `{epoch}`, or `{epoch:04d}`, for the epochs finished: one file each. keep: delete all but the latest
    `keep` of them, None: none; those of a run that is resumed are counted in, files of other epochs are left alone.
    Without `{epoch}` the file is replaced. Each is written atomically: one that a crash interrupts is as it was before.
    A run that ends within an epoch saves that too, under the name of the last finished one, and a resume goes on there.

    ValueError for a path with another field than epoch, and for `keep` without `{epoch}`; OSError's kinds, which end
    the fit, where the system refuses.

    >>> import os, tempfile, numpy as np, fusedvae as fv
    >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=6, latent=2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = fv.Checkpoint(f"{folder}/run-{{epoch:02d}}.ckpt", every=2, keep=2)
    ...     history = trainer.fit(np.zeros((10, 6)), epochs=7, callbacks=[checkpoint])
    ...     print(sorted(os.listdir(folder)))
    ['run-06.ckpt', 'run-07.ckpt']
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1, keep: int | None = None) -> None:
        self.path = os.fsdecode(_checks.path(path))
        self.every = _checks.integer("every", every, 1)
        self.keep = None if keep is None else _checks.integer("keep", keep, 1)
        self._numbered = "{epoch" in self.path
        if self._numbered:
            try:
                fields = {field for _, field, _, _ in string.Formatter().parse(self.path) if field is not None}
                self._name(0)
            except ValueError as error:
                raise ValueError(f"path {self.path!r}: {error}; write {{epoch}} or {{epoch:04d}}") from None
            except (KeyError, IndexError):
                pass
            if fields != {"epoch"}:
                raise ValueError(f"path {self.path!r} may hold {{epoch}} and no other field")
        elif keep is not None:
            raise ValueError("keep counts numbered files: write {epoch} into path, such as 'run-{epoch:04d}.ckpt'")
        self._written: list[str] = []
        self._saved_step: int | None = None

    def on_train_begin(self, trainer: Trainer, progress: Progress) -> None:
        name = _checks.target(self._name(trainer.epoch))
        self._saved_step = trainer.global_step if os.path.exists(name) else None
        self._written = []
        if self.keep is not None:
            epochs = range(1, trainer.epoch + 1)
            self._written = [name for name in map(self._name, epochs) if os.path.exists(name)]
            self._delete_old()  # which a crash may have left

    def on_epoch_end(self, trainer: Trainer, progress: Progress) -> None:
        if trainer.epoch % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, progress: Progress) -> None:
        self._save(trainer)

    def after_fit(self, trainer: Trainer, error: BaseException | None) -> None:
        # Ctrl-C and SystemExit; after an Exception the file stays at the last epoch that was sound.
        if error is not None and not isinstance(error, Exception):
            self._save(trainer)

    def _name(self, epoch: int) -> str:
        return self.path.format(epoch=epoch) if self._numbered else self.path

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._saved_step:
            return
        name = self._name(trainer.epoch)
        trainer.save(name)
        self._saved_step = trainer.global_step
        if self.keep is not None:
            self._written = [*(other for other in self._written if other != name), name]
            self._delete_old()

    def _delete_old(self) -> None:
        assert self.keep is not None
        for old in self._written[: -self.keep]:
            if os.path.exists(old):
                os.unlink(old)
        self._written = self._written[-self.keep :]
