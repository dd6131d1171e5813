# SPDX-License-Identifier: MIT
"""The trainer: an optimiser, its schedules and counters around one model. The epoch loop itself runs in C++."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _arrays, _checks, _core, _sources, optimizers
from ._log import logger
from .callbacks import AnyCallback, Dispatcher, History, Losses
from .config import PRECISIONS
from .model import Model, check_model
from .optimizers import Adam, Beta, Constant, Optimizer, Schedule


class Trainer:
    """Trains `model` in place.

    - optimizer: `SGD`, `Adam` or `AdamW`; None is Adam(1e-3); schedule: `Constant`, `Cosine` or `StepDecay` of its rate
    - beta: the KL's weight, a number, `LinearBeta` or `CyclicalBeta`
    - clip_norm: the gradient's global norm is limited to it
    - free_bits: nats per latent dimension on the batch-mean KL (Kingma et al. 2016, eq. 15)
    - precision: what the step's products multiply, "float32", "tf32" (on GPUs alone), "bfloat16" (sums, parameters,
      moments, log-variances and losses stay float32; ValueError where the processor does not gain by it) or "auto",
      which is bfloat16 where that is to be had
    - threads: at most so many; None follows `set_num_threads`. seed: of shuffle and noise
    - drop_last: leave a last short batch out
    - snapshot: keep the state of each epoch's start, restored when a loss is not finite

    The same seed gives the same bits for any number of threads. A model on a GPU is trained there, and its trainer
    follows it when it moves between two calls; rows that are on that GPU already are read where they are.

    >>> import numpy as np, fusedvae as fv
    >>> x = np.random.default_rng(0).random((200, 12), dtype=np.float32)
    >>> model = fv.Model(fv.Config(input_shape=12, hidden=(16,), latent=2))
    >>> trainer = fv.Trainer(model, fv.Adam(1e-2), batch_size=50)
    >>> history = trainer.fit(x, epochs=20)
    >>> bool(history["loss"][-1] < history["loss"][0])
    True
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer | None = None,
        batch_size: int = 128,
        beta: Beta = 1.0,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        free_bits: float = 0.0,
        precision: str = "float32",
        threads: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        snapshot: bool = False,
    ) -> None:
        check_model(model)
        options = _core.TrainerOptions()
        options.precision = PRECISIONS.index(_checks.choice("precision", precision, PRECISIONS))
        optimizers.write_optimizer(options, Adam() if optimizer is None else optimizer)
        optimizers.write_schedule(options, Constant() if schedule is None else schedule)
        optimizers.write_beta(options, beta)
        options.batch_size = _checks.integer("batch_size", batch_size, 1)
        if clip_norm is not None:
            options.clip_norm = _checks.number("clip_norm", clip_norm, open_low=True)
        options.free_bits = _checks.number("free_bits", free_bits)
        if threads is not None:
            options.threads = _checks.integer("threads", threads, 1, 1024)
        options.seed = _checks.seed(seed)
        options.shuffle = _checks.flag("shuffle", shuffle)
        options.drop_last = _checks.flag("drop_last", drop_last)
        options.snapshot = _checks.flag("snapshot", snapshot)
        self._adopt(_core.Trainer(model._core, options), model)

    def _adopt(self, core: _core.Trainer, model: Model) -> None:
        self._core = core
        self._model = model
        self._stop_asked = False
        self._validates = False
        self._failure: _core.NonFiniteError | None = None

    @staticmethod
    def resume(path: str | os.PathLike[str], device: str = "cpu") -> Trainer:
        """The trainer that `save` wrote, with its model: fit goes on to the bits of the run that was never stopped.

        device: where it goes on, whichever it was saved from; between CPU and GPU the bits differ, within rounding.
        Errors as those of `load`; ValueError at the first step where the device does not compute in its precision.

        >>> import tempfile, numpy as np, fusedvae as fv
        >>> x = np.zeros((10, 6), dtype=np.float32)
        >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=6, latent=2)))
        >>> history = trainer.fit(x, epochs=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer.save(f"{folder}/run.ckpt")
        ...     again = fv.Trainer.resume(f"{folder}/run.ckpt")
        >>> bool(again.fit(x, epochs=1)["loss"][-1] == trainer.fit(x, epochs=1)["loss"][-1])
        True
        """
        core = _core.Trainer.resume(_checks.path(path))
        trainer = Trainer.__new__(Trainer)
        trainer._adopt(core, Model._wrap(core.model()).to(device))
        return trainer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a checkpoint, atomically: model, moments, counters, seeds, schedule, and a partial epoch's sums.

        OSError's kinds where the system refuses; the old file, if any, is then intact. `load` reads its model.
        """
        self._core.save(_checks.path(path))

    def fit(
        self,
        x: Any,
        epochs: int = 10,
        validation_data: Any = None,
        callbacks: Iterable[AnyCallback] | AnyCallback = (),
        progress: bool | str = False,
    ) -> History:
        """Trains for `epochs` further epochs on x (n, D) and returns the whole training's history.

        x: an array, a memory map, a DataFrame or an Arrow table; a file or folder of tables or an Arrow Dataset, which
        `fusedvae.data.spool` reads into a memory map first; or an iterable of batches (b, D) of any sizes, such as a
        DataLoader: gone through in each epoch, in its own order, of tuples the first. A partial epoch (of a stopped
        run) is finished first and counts. validation_data (m, D) is scored after each epoch at the final beta.
        callbacks: `Callback` objects, plain objects with some of their methods, or functions of (trainer, progress),
        called at each epoch's end. progress: show a bar; True is "tqdm" (lines where it is missing), the other one is
        "rich".

        Bad input is a ValueError or TypeError before the first step; in a memory map, which is not read ahead, at the
        step that meets it, which the message names. NonFiniteError when the loss becomes infinite or
        NaN: the message names the step, the model keeps its last good parameters. Ctrl-C and exceptions of callbacks
        leave the trainer at a step's boundary; a further fit goes on from there.
        """
        if np.ndim(epochs):
            raise TypeError("epochs must be an integer, not an array; labels are not used: fit(x, epochs=10)")
        _checks.integer("epochs", epochs, 1)
        config = self._model.config
        x = _sources.opened(x, config)
        rows = _arrays.rows_of(x, config) if _sources.is_array(x) else None
        source = None if rows is not None else _sources.Batches(x, config, epochs)
        if rows is not None and getattr(rows.array, "dtype", None) == np.uint8 and config.columns is None:
            logger().info("x is uint8: its values are multiplied by uint8_scale = %.6g", config.uint8_scale)
        validation = None
        if validation_data is not None:
            validation = _arrays.rows_of(_sources.opened_whole(validation_data, config), config, "validation_data")
        everyone = [*callbacks] if isinstance(callbacks, (list, tuple)) else [callbacks]
        if progress:
            from .progress import ProgressBar

            everyone.append(ProgressBar(style="tqdm" if progress is True else progress))
        dispatcher = Dispatcher(self, everyone, source.length if source else 0)
        self._validates = validation is not None
        try:
            if rows is not None:
                self._core.fit(rows, epochs, validation, dispatcher, dispatcher.events)
            elif source is not None:
                self._core.fit_source(source, epochs, validation, dispatcher, dispatcher.events)
        except BaseException as error:
            dispatcher.after_fit(error)
            raise
        dispatcher.after_fit(None)
        return self.history

    def stop(self) -> None:
        """Asks a running fit to stop within about 50 ms, after the step it is in; for callbacks and other threads."""
        self._stop_asked = True

    def step(self, batch: Any, noise: Any = None) -> Losses:
        """One optimiser step on batch (n, D) of any size; noise (n, Z), None: drawn. Returns its losses, nats per row.

        Errors as those of `fit`; the parameters are then as they were before.

        >>> import numpy as np, fusedvae as fv
        >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=6, latent=2)))
        >>> losses = trainer.step(np.zeros((5, 6)))
        >>> bool(np.isclose(losses.loss, losses.reconstruction + losses.kl))
        True
        """
        rows = _arrays.rows_of(batch, self._model.config, "batch")
        eps = _arrays.as_noise(noise, rows.count, self._model.config.latent, samples=False)
        return Losses(*self._core.step(rows, eps))

    def evaluate(self, x: Any, seed: int = 0) -> Losses:
        """Mean losses over x (n, D) at the final beta, in nats per row, in float32; the ELBO is -(reconstruction + kl).

        Each row has noise of its own, fixed by `seed`: the steadiest estimate of a data set's mean for its cost.

        >>> import numpy as np, fusedvae as fv
        >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=6, latent=2)))
        >>> trainer.evaluate(np.zeros((5, 6))) == trainer.evaluate(np.zeros((5, 6)))
        True
        """
        rows = _arrays.rows_of(_sources.opened_whole(x, self._model.config), self._model.config)
        return Losses(*self._core.evaluate(rows, _checks.seed(seed)))

    @property
    def model(self) -> Model:
        """The model in training."""
        return self._model

    @property
    def failure(self) -> _core.NonFiniteError | None:
        """Why this trainer's last run in `train_ensemble` ended early; None where its losses stayed finite."""
        return self._failure

    @property
    def history(self) -> History:
        """All finished epochs, those before a resume included."""
        return History(self._core.history())

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self._core.epochs()

    @property
    def global_step(self) -> int:
        """Steps of the whole training."""
        return self._core.steps()

    @property
    def learning_rate(self) -> float:
        """The rate that the schedule multiplies; set it to change it from the next step on."""
        return self._core.options().learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._core.set_learning_rate(_checks.number("learning_rate", value))

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser, with the learning rate of now."""
        return optimizers.read_optimizer(self._core.options())

    @property
    def schedule(self) -> Schedule:
        """The learning rate's schedule."""
        return optimizers.read_schedule(self._core.options())

    @property
    def beta(self) -> Beta:
        """The KL's weight: a number or its schedule."""
        return optimizers.read_beta(self._core.options())

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self._core.options().batch_size

    @property
    def precision(self) -> str:
        """What the step's products multiply: "float32", "tf32" or "bfloat16"."""
        return PRECISIONS[self._core.options().precision]

    def memory(self) -> dict[str, int]:
        """Bytes that the trainer holds, by what they hold: "parameters", "moments", "workspace", ...

        "device" are a GPU's. The data is read where it lies and is not among them.
        """
        return self._core.memory()

    def __repr__(self) -> str:
        return f"Trainer({self.optimizer}, batch_size={self.batch_size}, beta={self.beta}, schedule={self.schedule})"
