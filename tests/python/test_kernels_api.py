# SPDX-License-Identifier: MIT
"""fusedvae.kernels: every kernel on every backend against its formula in NumPy's double, and what is refused."""

import inspect
import math
import re
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import kernels
from fusedvae.config import ACTIVATIONS

B, K, N, Z = 7, 33, 50, 9
erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


FORMULAS = {
    "identity": lambda a: (a, np.ones_like(a)),
    "relu": lambda a: (np.maximum(a, 0), (a > 0) * 1.0),
    "leaky_relu": lambda a: (np.where(a > 0, a, 0.01 * a), np.where(a > 0, 1, 0.01)),
    "elu": lambda a: (np.where(a > 0, a, np.expm1(a)), np.where(a > 0, 1, np.exp(a))),
    "gelu": lambda a: (
        a * 0.5 * (1 + erf(a / math.sqrt(2))),
        0.5 * (1 + erf(a / math.sqrt(2))) + a * np.exp(-a * a / 2) / math.sqrt(2 * math.pi),
    ),
    "silu": lambda a: (a * sigmoid(a), sigmoid(a) * (1 + a * (1 - sigmoid(a)))),
    "tanh": lambda a: (np.tanh(a), 1 - np.tanh(a) ** 2),
    "sigmoid": lambda a: (sigmoid(a), sigmoid(a) * (1 - sigmoid(a))),
    "softplus": lambda a: (np.logaddexp(0, a), sigmoid(a)),
}


@pytest.fixture(params=fv.available_backends())
def backend(request) -> str:
    return request.param


@pytest.fixture
def draw():
    rng = np.random.default_rng(3)
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == np.float32
    assert got.shape == want.shape
    # A product of K or N terms of size one, and formulas with slopes of about one: a few hundred roundings.
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(want).max())))


def f64(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(array.astype(np.float64) for array in arrays)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_act_and_its_gradient(activation: str, backend: str, draw):
    x, weight, bias = draw(B, K), draw(N, K) / 6, draw(N)
    a = f64(x)[0] @ f64(weight)[0].T + bias
    want, want_slope = FORMULAS[activation](a)
    y, slope = kernels.linear_act(x, weight, bias, activation, backend=backend)
    close(y, want)
    close(slope, want_slope)
    dy, behind = draw(B, N), draw(N, K) / 6
    inner, inner_slope = FORMULAS[activation](f64(draw(B, K))[0])
    saved = inner_slope if activation in ("gelu", "silu") else inner
    dx = kernels.act_grad(dy, behind, saved, activation, backend=backend)
    close(dx, f64(dy)[0] @ f64(behind)[0] * inner_slope)


def test_bias_may_be_left_out(backend: str, draw):
    x, weight = draw(B, K), draw(N, K)
    np.testing.assert_array_equal(
        kernels.linear_act(x, weight, backend=backend)[0],
        kernels.linear_act(x, weight, np.zeros(N), backend=backend)[0],
    )


def test_reparameterize_kl_and_its_gradient(backend: str, draw):
    x, weight, bias, noise = draw(B, K), draw(2 * Z, K) / 6, draw(2 * Z), draw(B, Z)
    both = f64(x)[0] @ f64(weight)[0].T + bias
    mu, logvar = both[:, :Z], both[:, Z:]
    got = kernels.reparameterize_kl(x, weight, bias, noise, backend=backend)
    kl = -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(1)
    for value, want in zip(got, (mu, logvar, mu + np.exp(logvar / 2) * noise, kl), strict=True):
        close(value, want)
    dy, behind = draw(B, N), draw(N, Z) / 6
    dz = f64(dy)[0] @ f64(behind)[0]
    dmu, dlogvar = kernels.reparameterize_grad(dy, behind, got[0], got[1], noise, kl_weight=0.25, backend=backend)
    close(dmu, dz + 0.25 * mu)
    close(dlogvar, dz * noise * np.exp(logvar / 2) / 2 + 0.25 * (np.exp(logvar) - 1) / 2)


def test_drawn_noise_is_the_same_forward_and_backward(backend: str, draw):
    x, weight, bias = draw(B, K), draw(2 * Z, K) / 6, draw(2 * Z)
    mu, logvar, z, _ = kernels.reparameterize_kl(x, weight, bias, seed=5, step=9, backend=backend)
    noise = (z - mu) / np.exp(logvar / 2)
    assert abs(noise.mean()) < 5 / math.sqrt(noise.size)
    assert (z != kernels.reparameterize_kl(x, weight, bias, seed=5, step=10, backend=backend)[2]).all()
    dy, behind = draw(B, N), draw(N, Z) / 6
    drawn = kernels.reparameterize_grad(dy, behind, mu, logvar, None, seed=5, step=9, backend=backend)
    given = kernels.reparameterize_grad(dy, behind, mu, logvar, noise, backend=backend)
    for a, b in zip(drawn, given, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_bernoulli_nll(backend: str, draw):
    x, weight, bias = draw(B, K), draw(N, K), draw(N)
    target = np.random.default_rng(0).random((B, N))
    logits = f64(x)[0] @ f64(weight)[0].T + bias
    nll, dlogits = kernels.bernoulli_nll(x, weight, bias, target, backend=backend)
    close(nll, (np.logaddexp(0, logits) - target * logits).sum(1))
    close(dlogits, sigmoid(logits) - target)


@pytest.mark.parametrize("kind", ["fixed", "feature", "element"])
def test_gaussian_nll(kind: str, backend: str, draw):
    x, weight, bias, target = draw(B, K), draw(2 * N, K) / 6, draw(2 * N), draw(B, N)
    both = f64(x)[0] @ f64(weight)[0].T + bias
    mean = both[:, :N]
    log_variance = draw(N) if kind == "feature" else both[:, N:]
    variance = 0.5 if kind == "fixed" else 0.01 + np.exp(log_variance.astype(np.float64))
    nll = (0.5 * (np.log(2 * np.pi * variance) + (target - mean) ** 2 / variance)).sum(1)
    dmean = (mean - target) / variance
    if kind == "element":
        got = kernels.gaussian_element_nll(x, weight, bias, target, min_variance=0.01, backend=backend)
        dlogvar = 0.5 * (1 / variance - (target - mean) ** 2 / variance**2) * np.exp(log_variance)
        close(got[2], dlogvar)
    else:
        learned = log_variance if kind == "feature" else None
        got = kernels.gaussian_nll(x, weight[:N], bias[:N], target, learned, 0.5, 0.01, backend=backend)
    close(got[0], nll)
    close(got[1], dmean)


def test_store(backend: str, draw):
    x, dy = draw(B, K), draw(B, N)
    dweight, dbias = kernels.store(x, dy, backend=backend)
    close(dweight, f64(dy)[0].T @ f64(x)[0])
    close(dbias, f64(dy)[0].sum(0))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_sgd(options: dict, backend: str, draw):
    x, dy, weight, bias, weight_m, bias_m = draw(B, K), draw(B, N), draw(N, K), draw(N), draw(N, K), draw(N)
    optimizer = fv.SGD(0.1, **options)
    got = kernels.sgd(x, dy, optimizer, weight, bias, weight_m, bias_m, backend=backend)
    gradients = f64(dy)[0].T @ f64(x)[0], f64(dy)[0].sum(0)
    for value, velocity, gradient, w, m in zip(
        got[:2], got[2:], gradients, (weight, bias), (weight_m, bias_m), strict=True
    ):
        gradient = gradient + optimizer.weight_decay * w
        direction = gradient
        if optimizer.momentum:
            m = optimizer.momentum * m + gradient
            direction = gradient + optimizer.momentum * m if optimizer.nesterov else m
            close(velocity, m)
        close(value, w - 0.1 * direction)


@pytest.mark.parametrize("kind", [fv.Adam, fv.AdamW])
@pytest.mark.parametrize("step", [1, 1000])
def test_adam(kind, step: int, backend: str, draw):
    x, dy = draw(B, K), draw(B, N)
    state = [draw(N, K), draw(N), draw(N, K), draw(N), draw(N, K) ** 2, draw(N) ** 2]
    kept = [array.copy() for array in state]
    optimizer = kind(0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    got = kernels.adam(x, dy, optimizer, step, *state, backend=backend)
    for before, after in zip(kept, state, strict=True):
        np.testing.assert_array_equal(before, after)
    gradients = f64(dy)[0].T @ f64(x)[0], f64(dy)[0].sum(0)
    for i, gradient in enumerate(gradients):
        w, m, v = f64(state[i], state[2 + i], state[4 + i])
        if kind is fv.Adam:
            gradient = gradient + 0.1 * w
        else:
            w = w * (1 - 0.01 * 0.1)
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        close(got[2 + i], m)
        close(got[4 + i], v)
        close(got[i], w - 0.01 * (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.95**step)) + 1e-6))


def test_lists_and_other_dtypes_are_read():
    y, _ = kernels.linear_act([[1, 2]], np.eye(2, dtype=np.float64))
    assert y.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kernels.linear_act(np.ones((2, 3)), np.ones((4, 5))), r"weight has shape \(4, 5\).*\(4, 3\)"),
        (lambda: kernels.linear_act(np.ones((2, 3)), np.ones((4, 3)), np.ones(5)), r"bias has shape \(5,\).*\(4,\)"),
        (lambda: kernels.linear_act(np.ones(3), np.ones((4, 3))), "x must be a matrix"),
        (lambda: kernels.reparameterize_kl(np.ones((2, 3)), np.ones((5, 3)), np.ones(5)), "even number of rows"),
        (lambda: kernels.store(np.ones((2, 3)), np.ones((4, 5))), r"dy has shape \(4, 5\).*\(2, 5\)"),
        (lambda: kernels.linear_act([[1.0]], [[1.0]], activation="relo"), "unknown activation 'relo'.*'relu'"),
        (lambda: kernels.linear_act([[1.0]], [[1.0]], backend="sse9"), "sse9"),
        (lambda: kernels.linear_act(np.ones((0, 3)), np.ones((4, 3))), "sizes must be between 1"),
    ],
)
def test_what_does_not_fit(call, words: str):
    with pytest.raises(ValueError, match=words):
        call()


def test_every_kernel_of_the_list_is_there():
    public = {name for name, value in vars(kernels).items() if inspect.isfunction(value) and not name.startswith("_")}
    pairs = Path(__file__).parents[2] / "csrc" / "layer" / "pairs.inc"
    names = re.findall(r"^PAIR\(\w+, \w+, (\w+)\)$", pairs.read_text(), re.MULTILINE)
    assert len(names) >= 10
    assert public == {*names, "philox"}
