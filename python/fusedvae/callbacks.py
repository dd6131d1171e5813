# SPDX-License-Identifier: MIT
"""What a run reports and to whom: callbacks, their view of the progress, losses, and the history of epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._checks import counted

if TYPE_CHECKING:
    from .trainer import Trainer

# In the order of fvae_event.
EVENTS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end", "on_tick")
_TRAIN_BEGIN, _EPOCH_END, _TICK = 0, 3, 5


class Losses(NamedTuple):
    """Mean losses in nats per row: loss = reconstruction + beta * kl, where reconstruction = -log p(x|z)."""

    loss: float
    reconstruction: float
    kl: float


class Progress(NamedTuple):
    """Where a run stands; epochs and steps count over the whole training."""

    epoch: int
    """Epochs finished before this one, 0 in the first: where this one will stand in a history's arrays."""
    epochs: int
    """Where this fit will stop."""
    batch: int
    """Batches done in this epoch, of `batches`."""
    batches: int
    """0 where an iterable of batches does not say."""
    step: int
    learning_rate: float
    beta: float
    batch_losses: Losses
    """Of the latest batch; meaningful in on_batch_end."""
    train: Losses
    """Row-weighted means over this epoch so far."""
    validation: Losses | None
    """In on_epoch_end, where there is validation data."""

    @property
    def has_validation(self) -> bool:
        """Whether `validation` holds losses."""
        return self.validation is not None


class Callback:
    """Base of callbacks: override what is of interest; returning True from any method stops the run at that step.

    Methods run between two steps on the thread that called `fit`. They may read, save and score the model, save the
    trainer and set its learning rate. An exception leaves `fit` as it is. on_batch_end costs a call into Python
    for every batch; on_tick comes about every 50 ms.

    >>> class Patience(Callback):
    ...     best, waited = float("inf"), 0
    ...     def on_epoch_end(self, trainer, progress):
    ...         self.waited = 0 if progress.validation.loss < self.best else self.waited + 1
    ...         self.best = min(self.best, progress.validation.loss)
    ...         return self.waited == 3
    """

    def on_train_begin(self, trainer: Trainer, progress: Progress) -> bool | None:
        """Before the first step."""

    def on_epoch_begin(self, trainer: Trainer, progress: Progress) -> bool | None:
        """Before each epoch's first step."""

    def on_batch_end(self, trainer: Trainer, progress: Progress) -> bool | None:
        """After each step."""

    def on_epoch_end(self, trainer: Trainer, progress: Progress) -> bool | None:
        """After each epoch and its validation."""

    def on_train_end(self, trainer: Trainer, progress: Progress) -> bool | None:
        """After the last step, also of a stopped run."""

    def on_tick(self, trainer: Trainer, progress: Progress) -> bool | None:
        """About every 50 ms, between two steps."""

    def after_fit(self, trainer: Trainer, error: BaseException | None) -> None:
        """When `fit` has let go of the model, which may be changed now; error: what ends fit instead of a return."""


Handler = Callable[["Trainer", Progress], Any]
AnyCallback = Callback | Handler | Any  # also plain objects with some of the methods


class Dispatcher:
    """Called by the engine for the events in `events`; calls the handlers of each and answers whether to stop."""

    def __init__(self, trainer: Trainer, callbacks: Iterable[AnyCallback], batches: int = 0) -> None:
        """`batches` of an epoch, where the engine cannot know."""
        self._trainer = trainer
        self._batches = batches
        self._handlers: list[list[Handler]] = [[] for _ in EVENTS]
        self._after: list[Callable[[Trainer, BaseException | None], Any]] = []
        for callback in callbacks:
            self._add(callback)
        # The first clears an old request to stop; ticks find a new one, and Ctrl-C.
        self.events = 1 << _TRAIN_BEGIN | 1 << _TICK
        for i, handlers in enumerate(self._handlers):
            self.events |= bool(handlers) << i

    def __call__(self, event: int, fields: tuple[Any, ...]) -> bool:
        trainer = self._trainer
        if event == _TRAIN_BEGIN:
            trainer._stop_asked = False
        if self._handlers[event]:
            losses = [three and Losses(*three) for three in fields[7:]]
            progress = Progress._make([*fields[:3], fields[3] or self._batches, *fields[4:7], *losses])
            for handler in self._handlers[event]:
                answer = handler(trainer, progress)
                if isinstance(answer, (bool, np.bool_)) and answer:
                    trainer._stop_asked = True
        return trainer._stop_asked

    def after_fit(self, error: BaseException | None) -> None:
        """Tells the callbacks that the engine is done."""
        for handler in self._after:
            handler(self._trainer, error)

    def _add(self, callback: AnyCallback) -> None:
        if isinstance(callback, type):
            raise TypeError(f"callbacks are objects, not classes; pass {callback.__name__}()")
        methods = [getattr(callback, name, None) for name in EVENTS]
        if isinstance(callback, Callback):  # only what it overrides, so that on_batch_end costs nothing unasked
            overridden = [getattr(type(callback), name) is not getattr(Callback, name) for name in EVENTS]
            methods = [method if mine else None for method, mine in zip(methods, overridden, strict=True)]
        elif not any(methods) and not hasattr(callback, "after_fit"):
            if not callable(callback):
                raise TypeError(f"{callback!r} is no callback: it has none of {', '.join(EVENTS)} and is not callable")
            methods[_EPOCH_END] = callback
        if (after := getattr(callback, "after_fit", None)) is not None:
            self._after.append(after)
        for handlers, method in zip(self._handlers, methods, strict=True):
            if method is not None:
                handlers.append(method)


class History(Mapping[str, NDArray[Any]]):
    """Finished epochs as arrays of one value each: "epoch" (from 1), "step", "loss", "reconstruction", "kl",
    "val_loss", "val_reconstruction", "val_kl" (nats per row, NaN where there was no validation data), "learning_rate",
    "beta".

    >>> History([])["loss"].shape
    (0,)
    """

    def __init__(self, records: Sequence[tuple[Any, ...]]) -> None:
        """`records` holds (index, step, learning_rate, beta, train losses, validation losses) of each epoch."""
        train = np.array([record[4] for record in records], dtype=np.float64).reshape(-1, 3)
        validation = np.array([record[5] for record in records], dtype=np.float64).reshape(-1, 3)
        self._arrays: dict[str, NDArray[Any]] = {
            "epoch": np.array([record[0] + 1 for record in records], dtype=np.int64),
            "step": np.array([record[1] for record in records], dtype=np.int64),
        }
        for i, name in enumerate(Losses._fields):
            self._arrays[name] = train[:, i].copy()
            self._arrays[f"val_{name}"] = validation[:, i].copy()
        self._arrays["learning_rate"] = np.array([record[2] for record in records], dtype=np.float64)
        self._arrays["beta"] = np.array([record[3] for record in records], dtype=np.float64)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        epochs = len(self["epoch"])
        lines = [f"History({counted(epochs, 'epoch')}, nats per row)"]
        if epochs:
            validated = not np.isnan(self["val_loss"]).all()
            names = ["epoch", "step", "loss", "reconstruction", "kl"] + ["val_loss"] * validated
            lines.append("  ".join(f"{name:>14}" for name in names))
            shown = range(epochs) if epochs <= 10 else [*range(5), *range(epochs - 5, epochs)]
            for i in shown:
                if i == epochs - 5 and epochs > 10:
                    lines.append("  ".join(f"{'...':>14}" for _ in names))
                lines.append("  ".join(f"{self[name][i]:>14.7g}" for name in names))
        return "\n".join(lines)
