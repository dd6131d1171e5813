# SPDX-License-Identifier: MIT
"""fusedvae: variational autoencoders trained by a fused C++ engine.

    import fusedvae as fv

    model = fv.Model(fv.Config(input_shape=784, hidden=(400,), latent=20))
    history = fv.Trainer(model, fv.Adam(1e-3)).fit(X, epochs=10)
    images = fv.Sampler(model).sample(64)

Terms are in nats per row, summed over features, constants included: loss = reconstruction + beta * KL,
elbo = -(reconstruction + KL).
"""

from typing import TYPE_CHECKING, Any

from . import _checks, _core, kernels
from ._core import BadFileError, NonFiniteError
from .callbacks import Callback, History, Losses, Progress
from .columns import Column
from .config import Bernoulli, Config, Gaussian
from .detector import Detector
from .model import Model, load
from .optimizers import SGD, Adam, AdamW, Constant, Cosine, CyclicalBeta, LinearBeta, StepDecay
from .sampler import Sampler
from .trainer import Trainer

if TYPE_CHECKING:
    from .onnx import to_onnx as to_onnx
    from .state_dict import from_torch as from_torch
    from .torch import to_torch as to_torch

__version__ = _core.version()

# What not every program needs is imported when it is named: the names and their modules.
_ON_DEMAND = {"from_torch": "state_dict", "to_onnx": "onnx", "to_torch": "torch"}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_DEMAND})


def set_num_threads(threads: int) -> None:
    """Sets the threads of trainings and scorings that do not say; at first the cores this process may use.

    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    """
    _core.set_num_threads(_checks.integer("threads", threads, 1, 1024))


def get_num_threads() -> int:
    """Threads of trainings and scorings that do not say."""
    return _core.num_threads()


def backend() -> str:
    """The instruction set in use: the machine's best, or what FUSEDVAE_BACKEND forces (ValueError if impossible)."""
    return _core.backend()


def available_backends() -> tuple[str, ...]:
    """The instruction sets that this build holds and this machine can run."""
    return tuple(_core.available_backends().split(","))


def available_precisions() -> tuple[str, ...]:
    """The precisions that `Trainer` takes here: "float32", and "bfloat16" where the processor gains by it."""
    return ("float32", "bfloat16") if _core.has_bfloat16() else ("float32",)


__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BadFileError",
    "Bernoulli",
    "Callback",
    "Column",
    "Config",
    "Constant",
    "Cosine",
    "CyclicalBeta",
    "Detector",
    "Gaussian",
    "History",
    "LinearBeta",
    "Losses",
    "Model",
    "NonFiniteError",
    "Progress",
    "Sampler",
    "StepDecay",
    "Trainer",
    "available_backends",
    "available_precisions",
    "backend",
    "get_num_threads",
    "kernels",
    "load",
    "set_num_threads",
]
