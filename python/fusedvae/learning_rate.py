# SPDX-License-Identifier: MIT
"""The learning rate range test (Smith 2017, section 3.3): which rates a model learns at, before the training."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import _checks
from ._core import NonFiniteError
from .callbacks import Callback, Progress
from .model import Doubles, Model, check_model
from .optimizers import Optimizer
from .trainer import Trainer

# Weight of the past in the running mean of the losses; without it the lowest one is that of a lucky batch.
SMOOTHING = 0.9
# From the rate of the lowest loss, where progress has just ended, down to one that a training lives on. Of a tenth, the
# steepest fall, the valley and half the fall, a tenth came nearest to the best rate of a sweep: within a factor of 3 on
# digits, breast_cancer and a synthetic table, with Adam and SGD.
MARGIN = 10.0


class RangeTest(NamedTuple):
    """What `find_learning_rate` measured."""

    rates: Doubles
    """(steps), rising; fewer steps where the loss became infinite or NaN."""
    losses: Doubles
    """(steps) the batches' losses at those rates, smoothed, nats per row."""
    suggestion: float
    """A rate to train at: a tenth of that of the lowest loss."""


def find_learning_rate(
    model: Model,
    x: Any,
    optimizer: Optimizer | None = None,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 200,
    **options: Any,
) -> RangeTest:
    """Trains a copy of `model` on x for `steps` steps at rates that rise from `low` to `high` by a constant factor.

    Smith 2017, "Cyclical learning rates for training neural networks", section 3.3. The model is left as it is. x:
    whatever `Trainer.fit` takes. optimizer: as for `Trainer`, its rate put aside. options: others of `Trainer`, such as
    batch_size, beta and seed; the same seed gives the same answer. Returns `RangeTest`: rates, smoothed losses and a
    suggestion, a tenth of the rate where they are lowest. Errors as those of `Trainer.fit`; ValueError unless
    low < high.

    >>> import numpy as np, fusedvae as fv
    >>> x = np.random.default_rng(0).random((1000, 12), dtype=np.float32)
    >>> model = fv.Model(fv.Config(input_shape=12, hidden=(16,), latent=2))
    >>> found = fv.find_learning_rate(model, x)
    >>> bool(found.losses.min() < found.losses[0]), 1e-4 < found.suggestion < 1e-1
    (True, True)
    """
    low = _checks.number("low", low, open_low=True)
    high = _checks.number("high", high, low, open_low=True)
    rates = np.geomspace(low, high, _checks.integer("steps", steps, 10))
    ramp = _Ramp(rates)
    check_model(model)
    trainer = Trainer(model.copy(), optimizer, **options)
    trainer.learning_rate = low
    try:
        trainer.fit(x, epochs=steps, callbacks=[ramp])  # which stops it, in the first epoch where there are many rows
    except NonFiniteError:
        if len(ramp.losses) < 2:
            raise
    losses = _smoothed(ramp.losses)
    lowest = float(rates[np.argmin(losses)])
    return RangeTest(rates[: len(losses)], losses, lowest / MARGIN)


class _Ramp(Callback):
    def __init__(self, rates: Doubles) -> None:
        self.rates = rates
        self.losses: list[float] = []

    def on_batch_end(self, trainer: Trainer, progress: Progress) -> bool:
        self.losses.append(progress.batch_losses.loss)
        if len(self.losses) == len(self.rates):
            return True
        trainer.learning_rate = float(self.rates[len(self.losses)])
        return False


def _smoothed(losses: list[float]) -> Doubles:
    """Their running mean, which begins with the first loss (Kingma and Ba 2015, section 3)."""
    mean, means = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**i))
    return np.array(means)
