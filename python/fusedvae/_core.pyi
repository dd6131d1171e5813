# SPDX-License-Identifier: MIT
"""The compiled module, as python/bindings defines it; tests/python/test_package.py holds the two together."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Floats = NDArray[np.float32]
_Doubles = NDArray[np.float64]
_Losses = tuple[float, float, float]
_Detector = tuple[int, int, int, float, float, _Doubles | None, _Doubles | None]

class BadFileError(ValueError): ...
class NonFiniteError(RuntimeError): ...

class Column:
    name: str
    shift: float
    scale: float
    fill: float
    categories: list[str]
    def __init__(self) -> None: ...

class Config:
    input_shape: list[int]
    hidden: list[int]
    decoder_hidden: list[int] | None
    latent: int
    activation: int
    likelihood: int
    variance: int
    fixed_variance: float
    min_variance: float
    init: int
    uint8_scale: float
    columns: list[Column]
    def __init__(self) -> None: ...

class TrainerOptions:
    optimizer: int
    learning_rate: float
    momentum: float
    nesterov: int
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    schedule: int
    warmup_steps: int
    schedule_steps: int
    schedule_factor: float
    clip_norm: float
    batch_size: int
    beta: float
    beta_schedule: int
    beta_steps: int
    beta_ratio: float
    free_bits: float
    threads: int
    seed: int
    shuffle: int
    drop_last: int
    snapshot: int
    precision: int
    def __init__(self) -> None: ...

class Rows:
    def __init__(self, array: NDArray[Any], streamed: bool = False) -> None: ...
    @property
    def array(self) -> NDArray[Any]: ...

class Model:
    def __init__(self, config: Config, seed: int) -> None: ...
    @staticmethod
    def load(path: str | bytes) -> Model: ...
    def copy(self, weights: int) -> Model: ...
    def weights(self) -> int: ...
    def config(self) -> Config: ...
    def parameter_info(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def get_parameter(self, index: int) -> _Floats: ...
    def set_parameter(self, index: int, values: _Floats) -> None: ...
    def init_output_bias(self, x: Rows) -> None: ...
    def save(self, path: str | bytes) -> None: ...
    def encode(self, x: Rows) -> tuple[_Floats, _Floats]: ...
    def decode(self, z: _Floats) -> _Floats: ...
    def reconstruct(self, x: Rows) -> _Floats: ...
    def encode_into(self, x: _Floats, mu: _Floats, logvar: _Floats | None) -> _Floats: ...
    def decode_into(self, z: _Floats, out: _Floats) -> _Floats: ...
    def reconstruct_into(self, x: _Floats, out: _Floats) -> _Floats: ...
    def elbo(self, x: Rows, samples: int, seed: int) -> _Doubles: ...
    def log_likelihood(self, x: Rows, samples: int, seed: int) -> _Doubles: ...
    def score(self, x: Rows, detector: _Detector) -> _Doubles: ...
    def detector(self) -> _Detector | None: ...
    def set_detector(self, detector: _Detector | None) -> None: ...
    def contributions(self, x: Rows) -> _Doubles: ...
    def gradients(
        self, x: Rows, noise: _Floats | None, seed: int, beta: float, free_bits: float, precision: int
    ) -> tuple[_Losses, list[_Floats]]: ...

class Trainer:
    def __init__(self, model: Model, options: TrainerOptions) -> None: ...
    @staticmethod
    def resume(path: str | bytes) -> Trainer: ...
    def model(self) -> Model: ...
    def options(self) -> TrainerOptions: ...
    def set_learning_rate(self, learning_rate: float) -> None: ...
    def fit(
        self,
        x: Rows,
        epochs: int,
        validation: Rows | None,
        callback: Callable[[int, tuple[Any, ...]], bool],
        events: int,
    ) -> None: ...
    def fit_source(
        self,
        source: Callable[[int, int], Rows | None],
        epochs: int,
        validation: Rows | None,
        callback: Callable[[int, tuple[Any, ...]], bool],
        events: int,
    ) -> None: ...
    def step(self, batch: Rows, noise: _Floats | None) -> _Losses: ...
    def evaluate(self, x: Rows, seed: int) -> _Losses: ...
    def epochs(self) -> int: ...
    def steps(self) -> int: ...
    def history(self) -> list[tuple[int, int, float, float, _Losses, _Losses]]: ...
    def memory(self) -> dict[str, int]: ...
    def save(self, path: str | bytes) -> None: ...

def linear_act(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, activation: int, backend: str | None = None
) -> tuple[_Floats, _Floats]: ...
def reparameterize_kl(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    noise: ArrayLike | None,
    seed: int,
    step: int,
    backend: str | None = None,
) -> tuple[_Floats, _Floats, _Floats, _Floats]: ...
def bernoulli_nll(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike, target: ArrayLike, backend: str | None = None
) -> tuple[_Floats, _Floats]: ...
def gaussian_nll(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    target: ArrayLike,
    log_variance: ArrayLike | None,
    fixed_variance: float,
    min_variance: float,
    backend: str | None = None,
) -> tuple[_Floats, _Floats]: ...
def gaussian_element_nll(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    target: ArrayLike,
    min_variance: float,
    backend: str | None = None,
) -> tuple[_Floats, _Floats, _Floats]: ...
def act_grad(
    dy: ArrayLike, weight: ArrayLike, saved: ArrayLike, activation: int, backend: str | None = None
) -> _Floats: ...
def reparameterize_grad(
    dy: ArrayLike,
    weight: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    noise: ArrayLike | None,
    seed: int,
    step: int,
    kl_weight: float,
    backend: str | None = None,
) -> tuple[_Floats, _Floats]: ...
def store(x: ArrayLike, dy: ArrayLike, backend: str | None = None) -> tuple[_Floats, _Floats]: ...
def sgd(
    x: ArrayLike,
    dy: ArrayLike,
    options: TrainerOptions,
    weight: ArrayLike,
    bias: ArrayLike,
    weight_m: ArrayLike,
    bias_m: ArrayLike,
    backend: str | None = None,
) -> tuple[_Floats, _Floats, _Floats, _Floats]: ...
def adam(
    x: ArrayLike,
    dy: ArrayLike,
    options: TrainerOptions,
    step: int,
    weight: ArrayLike,
    bias: ArrayLike,
    weight_m: ArrayLike,
    bias_m: ArrayLike,
    weight_v: ArrayLike,
    bias_v: ArrayLike,
    backend: str | None = None,
) -> tuple[_Floats, _Floats, _Floats, _Floats, _Floats, _Floats]: ...
def sample_latent(seed: int, first: int, n: int, latent: int, temperature: float) -> _Floats: ...
def philox(counter: Sequence[int], key: Sequence[int]) -> NDArray[np.uint32]: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def backend() -> str: ...
def available_backends() -> str: ...
def has_bfloat16() -> bool: ...
def measure_peak(threads: int, seconds: float, precision: int = 0) -> float: ...
def version() -> str: ...
