# SPDX-License-Identifier: MIT
"""Many models trained on the same rows at once, each on one thread, or on a GPU side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import _arrays, _checks, _core, _sources
from ._log import logger
from .callbacks import AnyCallback, Dispatcher
from .config import Config
from .trainer import Trainer


def train_ensemble(
    trainers: Iterable[Trainer],
    x: Any,
    epochs: int = 10,
    validation_data: Any = None,
    callbacks: Callable[[Trainer], Iterable[AnyCallback]] | None = None,
    progress: bool | str = False,
    threads: int | None = None,
) -> list[Trainer]:
    """`fit` of each trainer on the same rows x (n, D), `threads` of them at a time, each on one thread; returns them.

    Seeds, widths, betas, rates and batch sizes may differ, `input_shape` and the names and categories of columns may
    not; every model is its trainer's alone and ends with the bits of a `fit` of its own. Small models train several
    times as fast as one after another: the threads that share a small model's step meet at every layer, those that
    train whole models wait for nothing. On a GPU the threads only hand over work: one launch runs many steps of all
    models of a precision side by side, on one copy of the rows (one for each model where it has columns). Models with
    batches of more than 1024 rows, which fill a GPU by themselves, or of some twenty layers train beside the others.

    - x, validation_data, epochs: as for `Trainer.fit`; an iterable of batches is read into a memory map first
    - callbacks: called with each trainer, gives that trainer's callbacks, such as an `EarlyStopping` of its own; they
      run on the thread that trains it, and stop it alone
    - progress: show one bar for all; True is "tqdm" (lines where it is missing), the other one is "rich"
    - threads: None follows `set_num_threads`, or is one for each model (at most 64 at a time) where all are on a GPU;
      with 1, the models follow each other and each uses its trainer's threads

    A loss that becomes infinite or NaN ends its own training alone, with the model's last good parameters; the
    trainer's `failure` is then the NonFiniteError. What else goes wrong, Ctrl-C and exceptions of callbacks included,
    ends all trainings at a step's boundary, from which a further call goes on.

    >>> import numpy as np, fusedvae as fv
    >>> x = np.random.default_rng(0).random((200, 12), dtype=np.float32)
    >>> config = fv.Config(input_shape=12, hidden=(16,), latent=2)
    >>> betas = (0.1, 1.0, 10.0)
    >>> trainers = fv.train_ensemble([fv.Trainer(fv.Model(config, seed=0), beta=beta) for beta in betas], x, epochs=5)
    >>> [trainer.epoch for trainer in trainers]
    [5, 5, 5]
    >>> bool(trainers[0].history["kl"][-1] > trainers[2].history["kl"][-1])
    True
    """
    everyone = list(trainers)
    _checks.integer("epochs", epochs, 1)
    threads = 0 if threads is None else _checks.integer("threads", threads, 1, 1024)
    _check_trainers(everyone)
    if not everyone:
        return []
    config = everyone[0].model.config
    rows = _arrays.rows_of(_sources.opened_whole(x, config), config)
    held_out = None
    if validation_data is not None:
        held_out = _arrays.rows_of(_sources.opened_whole(validation_data, config), config, "validation_data")
    bar = None
    if progress:
        from .progress import EnsembleBar

        bar = EnsembleBar(len(everyone), style="tqdm" if progress is True else progress)
    dispatchers = []
    for trainer in everyone:
        own = list(callbacks(trainer)) if callbacks else []
        dispatchers.append(Dispatcher(trainer, own + [bar] * bool(bar)))
        trainer._validates = held_out is not None
        trainer._failure = None
    events = 0
    for dispatcher in dispatchers:
        events |= dispatcher.events
    cores = [trainer._core for trainer in everyone]
    try:
        failures = _core.fit_ensemble(cores, rows, epochs, held_out, threads, dispatchers, events)
    except BaseException as error:
        for dispatcher in dispatchers:
            dispatcher.after_fit(error)
        raise
    finally:
        if bar:
            bar.close()
    for trainer, dispatcher, why in zip(everyone, dispatchers, failures, strict=True):
        trainer._failure = _core.NonFiniteError(why) if why else None
        dispatcher.after_fit(trainer._failure)
    failed = [i for i, why in enumerate(failures) if why]
    if failed:
        logger().warning(
            "%d of %d trainings became non-finite (the first is trainers[%d]): see their .failure",
            len(failed), len(failures), failed[0],
        )  # fmt: skip
    return everyone


def _check_trainers(trainers: list[Trainer]) -> None:
    seen: dict[int, int] = {}
    for i, trainer in enumerate(trainers):
        if not isinstance(trainer, Trainer):
            raise TypeError(
                f"trainers[{i}] is a {type(trainer).__name__}; give trainers, each with a model of its own: "
                "[fv.Trainer(fv.Model(config, seed=seed)) for seed in range(8)]"
            )
        first = seen.setdefault(id(trainer.model), i)
        if first != i:
            raise ValueError(f"trainers[{first}] and trainers[{i}] train the same model; give each a model of its own")
        shape, expected = trainer.model.config.input_shape, trainers[0].model.config.input_shape
        if shape != expected:
            raise ValueError(
                f"trainers[{i}]'s model reads rows of shape {shape}, trainers[0]'s of shape {expected}; "
                "an ensemble shares its rows"
            )
        if _names(trainer.model.config) != _names(trainers[0].model.config):
            raise ValueError(
                f"trainers[{i}]'s model has other names or categories of columns than trainers[0]'s; "
                "an ensemble shares its rows"
            )


def _names(config: Config) -> list[tuple[int, str, tuple[str, ...] | None]]:
    """By what a table's columns are found and its words read, where the model has any."""
    columns = enumerate(config.columns or ())
    return [(i, column.name, column.categories) for i, column in columns if column.name or column.categories]
