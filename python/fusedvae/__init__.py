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
from ._gpu import DeviceArray, usable_gpus
from .callbacks import Callback, History, Losses, Progress
from .columns import Column
from .config import Bernoulli, Config, Gaussian
from .detector import Detector
from .model import Model, load
from .optimizers import SGD, Adam, AdamW, Constant, Cosine, CyclicalBeta, LinearBeta, StepDecay
from .sampler import Sampler
from .trainer import Trainer

if TYPE_CHECKING:
    from . import plot, report
    from .anomaly import AnomalyDetector as AnomalyDetector
    from .checkpoint import Checkpoint
    from .diagnostics import CollapseReport as CollapseReport
    from .diagnostics import collapse_report as collapse_report
    from .ensemble import train_ensemble
    from .estimators import VAE as VAE
    from .initial import init_variance as init_variance
    from .learning_rate import find_learning_rate
    from .loggers import CSVLogger, TensorBoard
    from .mixture import Mixture as Mixture
    from .neighbours import Neighbours as Neighbours
    from .onnx import to_onnx as to_onnx
    from .state_dict import from_torch
    from .stopping import EarlyStopping
    from .torch import to_torch as to_torch

__version__ = _core.version()

# What not every program needs is imported when it is named: the names and their modules.
_ON_DEMAND = {
    "AnomalyDetector": "anomaly",
    "CSVLogger": "loggers",
    "Checkpoint": "checkpoint",
    "CollapseReport": "diagnostics",
    "EarlyStopping": "stopping",
    "Mixture": "mixture",
    "Neighbours": "neighbours",
    "TensorBoard": "loggers",
    "VAE": "estimators",
    "collapse_report": "diagnostics",
    "find_learning_rate": "learning_rate",
    "from_torch": "state_dict",
    "init_variance": "initial",
    "plot": "plot",
    "report": "report",
    "to_onnx": "onnx",
    "to_torch": "torch",
    "train_ensemble": "ensemble",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if _ON_DEMAND[name] in ("anomaly", "estimators"):
        from ._readers import require

        require("sklearn", "sklearn", f"fusedvae.{name}")
    module = import_module(f".{_ON_DEMAND[name]}", __name__)
    return module if name == _ON_DEMAND[name] else getattr(module, name)


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


def available_precisions(device: str = "cpu") -> tuple[str, ...]:
    """The precisions that `Trainer` takes: "float32", "bfloat16" where the processor gains by it, GPUs "tf32" too."""
    if device != "cpu":
        return ("float32", "tf32", "bfloat16")
    return ("float32", "bfloat16") if _core.has_bfloat16() else ("float32",)


def available_devices() -> tuple[str, ...]:
    """Where models can be: "cpu", and each GPU that can be used. `Model.to("cuda")` says why there is none.

    >>> available_devices()[0]
    'cpu'
    """
    return ("cpu", *usable_gpus())


__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BadFileError",
    "Bernoulli",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "CollapseReport",
    "Column",
    "Config",
    "Constant",
    "Cosine",
    "CyclicalBeta",
    "Detector",
    "DeviceArray",
    "EarlyStopping",
    "Gaussian",
    "History",
    "LinearBeta",
    "Losses",
    "Mixture",
    "Model",
    "Neighbours",
    "NonFiniteError",
    "Progress",
    "Sampler",
    "StepDecay",
    "TensorBoard",
    "Trainer",
    "available_backends",
    "available_devices",
    "available_precisions",
    "backend",
    "collapse_report",
    "find_learning_rate",
    "from_torch",
    "get_num_threads",
    "init_variance",
    "kernels",
    "load",
    "plot",
    "report",
    "set_num_threads",
    "train_ensemble",
]
