# SPDX-License-Identifier: MIT
"""Small models and data that the tests share."""

import signal
from collections.abc import Callable
from typing import Any

import fusedvae as fv
import numpy as np
import pytest

LIKELIHOODS = {
    "bernoulli": fv.Bernoulli(),
    "fixed": fv.Gaussian("fixed", fixed_variance=0.5),
    "feature": fv.Gaussian("feature"),
    "element": fv.Gaussian("element"),
}


@pytest.fixture
def interruptible() -> Callable[[], Any]:
    """For Popen's preexec_fn: a shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    return lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def x() -> np.ndarray:
    """Rows (90, 12) with structure to learn, in [0, 1]."""
    rng = np.random.default_rng(7)
    code = rng.standard_normal((90, 2))
    return (1 / (1 + np.exp(-code @ rng.standard_normal((2, 12)) * 3))).astype(np.float32)


@pytest.fixture
def make_model() -> Callable[..., fv.Model]:
    """A 12-16-3 model; keywords change its configuration, `device` where it is."""

    def make(seed: int = 0, device: str = "cpu", **changes: Any) -> fv.Model:
        options: dict[str, Any] = {"input_shape": 12, "hidden": (16,), "latent": 3, **changes}
        return fv.Model(fv.Config(**options), seed=seed, device=device)

    return make


@pytest.fixture(params=list(LIKELIHOODS))
def likelihood(request: pytest.FixtureRequest) -> fv.Bernoulli | fv.Gaussian:
    """Each likelihood in turn."""
    return LIKELIHOODS[request.param]


@pytest.fixture
def same_bits() -> Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], bool]:
    """Whether two models' parameters are equal to the bit."""

    def compare(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
        return list(a) == list(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)

    return compare
