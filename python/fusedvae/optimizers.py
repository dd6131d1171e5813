# SPDX-License-Identifier: MIT
"""How a trainer steps: optimisers, learning-rate schedules and KL-weight schedules, each a small immutable value.

Constants and weight decay are PyTorch's. Every `steps` counts optimiser steps (batches), not epochs.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from . import _checks, _core

# Each in the order of its codes in fusedvae.h.
_OPTIMIZERS = ("SGD", "Adam", "AdamW")
_SCHEDULES = ("Constant", "Cosine", "StepDecay")
_BETAS = ("float", "LinearBeta", "CyclicalBeta")


@dataclass(frozen=True)
class SGD:
    """Gradient descent; with momentum, v = momentum * v + g and the step is along v (nesterov: along g + momentum * v).

    weight_decay is added to the gradient. ValueError for a negative value or nesterov without momentum.

    >>> SGD(0.1, momentum=0.9)
    SGD(learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
    """

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _checks.number("learning_rate", self.learning_rate)
        _checks.fraction("momentum", self.momentum)
        _checks.flag("nesterov", self.nesterov)
        _checks.number("weight_decay", self.weight_decay)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum greater than 0")


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1); weight_decay is added to the gradient.

    >>> Adam().learning_rate
    0.001
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_adam(self)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    >>> AdamW(weight_decay=0.1).betas
    (0.9, 0.999)
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        _check_adam(self)


@dataclass(frozen=True)
class Constant:
    """A constant learning rate after `warmup` steps of linear rise."""

    warmup: int = 0

    def __post_init__(self) -> None:
        _checks.integer("warmup", self.warmup)


@dataclass(frozen=True)
class Cosine:
    """After `warmup` steps of linear rise, half a cosine over `steps` steps down to `final` times the rate, then that.

    >>> Cosine(steps=10_000, warmup=500)
    Cosine(steps=10000, final=0.0, warmup=500)
    """

    steps: int
    final: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        _checks.integer("steps", self.steps, 1)
        _checks.number("final", self.final, 0.0, 1.0)
        _checks.integer("warmup", self.warmup)


@dataclass(frozen=True)
class StepDecay:
    """After `warmup` steps of linear rise, the rate is multiplied by `factor` once every `steps` steps."""

    steps: int
    factor: float = 0.1
    warmup: int = 0

    def __post_init__(self) -> None:
        _checks.integer("steps", self.steps, 1)
        _checks.number("factor", self.factor, 0.0, 1.0, open_low=True)
        _checks.integer("warmup", self.warmup)


@dataclass(frozen=True)
class LinearBeta:
    """The KL's weight rises from 0 to `final` over `steps` steps.

    >>> LinearBeta(steps=1000)
    LinearBeta(final=1.0, steps=1000)
    """

    final: float = 1.0
    _: KW_ONLY
    steps: int

    def __post_init__(self) -> None:
        _checks.number("final", self.final)
        _checks.integer("steps", self.steps, 1)


@dataclass(frozen=True)
class CyclicalBeta:
    """The KL's weight rises to `final` over the first `ratio` of every `steps` steps and stays there for the rest
    (Fu et al. 2019).
    """

    final: float = 1.0
    _: KW_ONLY
    steps: int
    ratio: float = 0.5

    def __post_init__(self) -> None:
        _checks.number("final", self.final)
        _checks.integer("steps", self.steps, 1)
        _checks.number("ratio", self.ratio, 0.0, 1.0, open_low=True)


Optimizer = SGD | Adam | AdamW
Schedule = Constant | Cosine | StepDecay
Beta = float | LinearBeta | CyclicalBeta


def write_optimizer(options: _core.TrainerOptions, optimizer: Optimizer) -> None:
    """Puts an optimiser into the trainer's options."""
    if not isinstance(optimizer, (SGD, Adam, AdamW)):
        raise TypeError(f"optimizer must be SGD, Adam or AdamW, such as fusedvae.Adam(1e-3), not {optimizer!r}")
    options.optimizer = _OPTIMIZERS.index(type(optimizer).__name__)
    options.learning_rate = optimizer.learning_rate
    options.weight_decay = optimizer.weight_decay
    if isinstance(optimizer, SGD):
        options.momentum = optimizer.momentum
        options.nesterov = int(optimizer.nesterov)
    else:
        options.beta1, options.beta2 = optimizer.betas
        options.epsilon = optimizer.eps


def read_optimizer(options: _core.TrainerOptions) -> Optimizer:
    """The optimiser that the trainer's options describe."""
    if _OPTIMIZERS[options.optimizer] == "SGD":
        return SGD(options.learning_rate, options.momentum, bool(options.nesterov), options.weight_decay)
    kind = Adam if _OPTIMIZERS[options.optimizer] == "Adam" else AdamW
    return kind(options.learning_rate, (options.beta1, options.beta2), options.epsilon, options.weight_decay)


def write_schedule(options: _core.TrainerOptions, schedule: Schedule) -> None:
    """Puts a learning-rate schedule into the trainer's options."""
    if not isinstance(schedule, (Constant, Cosine, StepDecay)):
        raise TypeError(f"schedule must be Constant, Cosine or StepDecay, not {schedule!r}")
    options.schedule = _SCHEDULES.index(type(schedule).__name__)
    options.warmup_steps = schedule.warmup
    if isinstance(schedule, Cosine):
        options.schedule_steps, options.schedule_factor = schedule.steps, schedule.final
    elif isinstance(schedule, StepDecay):
        options.schedule_steps, options.schedule_factor = schedule.steps, schedule.factor


def read_schedule(options: _core.TrainerOptions) -> Schedule:
    """The learning-rate schedule that the trainer's options describe."""
    name = _SCHEDULES[options.schedule]
    if name == "Constant":
        return Constant(options.warmup_steps)
    kind = Cosine if name == "Cosine" else StepDecay
    return kind(options.schedule_steps, options.schedule_factor, options.warmup_steps)


def write_beta(options: _core.TrainerOptions, beta: Beta) -> None:
    """Puts the KL's weight, a number or a schedule, into the trainer's options."""
    if not isinstance(beta, (LinearBeta, CyclicalBeta)):
        options.beta = _checks.number("beta", beta)
        return
    options.beta_schedule = _BETAS.index(type(beta).__name__)
    options.beta, options.beta_steps = beta.final, beta.steps
    if isinstance(beta, CyclicalBeta):
        options.beta_ratio = beta.ratio


def read_beta(options: _core.TrainerOptions) -> Beta:
    """The KL's weight that the trainer's options describe."""
    name = _BETAS[options.beta_schedule]
    if name == "float":
        return options.beta
    if name == "LinearBeta":
        return LinearBeta(options.beta, steps=options.beta_steps)
    return CyclicalBeta(options.beta, steps=options.beta_steps, ratio=options.beta_ratio)


def _check_adam(optimizer: Adam | AdamW) -> None:
    _checks.number("learning_rate", optimizer.learning_rate)
    betas = tuple(optimizer.betas)
    if len(betas) != 2:
        raise ValueError(f"betas must be two numbers, not {optimizer.betas!r}")
    for i, beta in enumerate(betas):
        _checks.fraction(f"betas[{i}]", beta)
    object.__setattr__(optimizer, "betas", betas)
    _checks.number("eps", optimizer.eps, open_low=True)
    _checks.number("weight_decay", optimizer.weight_decay)
