# SPDX-License-Identifier: MIT
"""Every fused kernel of the training step, one function each, under the names of the engine's list.

Each is a matrix product with what finishes it. Letters: B batch rows, K and N the product's widths, Z latent width.
Arguments are array-likes, read as float32; weights are (out, in); results are fresh float32 arrays. `backend` forces
one of `available_backends()`. Shapes that do not fit one another are a ValueError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _core, optimizers
from .config import ACTIVATIONS
from .optimizers import SGD, Adam, AdamW

Floats = NDArray[np.float32]


def linear_act(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    activation: str = "identity",
    backend: str | None = None,
) -> tuple[Floats, Floats]:
    """y = act(x W^T + b) and its slope act': x (B, K), weight (N, K), bias (N) -> y (B, N), slope (B, N).

    >>> y, slope = linear_act([[1.0, -2.0]], [[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5], "relu")
    >>> y.tolist(), slope.tolist()
    ([[1.5, 0.0]], [[1.0, 0.0]])
    """
    return _core.linear_act(x, weight, bias, _activation(activation), backend)


def reparameterize_kl(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    noise: ArrayLike | None = None,
    seed: int = 0,
    step: int = 0,
    backend: str | None = None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """The head: mu and logvar from two stacked layers, z = mu + exp(logvar / 2) * noise, and the KL to N(0, I).

    kl_b = -1/2 sum_j (1 + logvar - mu^2 - exp(logvar)), in nats (Kingma and Welling 2013, appendix B).
    x (B, K), weight (2Z, K): mu's rows, then logvar's; bias (2Z); noise (B, Z), None: drawn from (seed, step, row)
    -> mu (B, Z), logvar (B, Z), z (B, Z), kl (B).

    >>> mu, logvar, z, kl = reparameterize_kl([[1.0]], [[2.0], [0.0]], [0.0, 0.0], noise=[[0.5]])
    >>> z.tolist(), kl.tolist()
    ([[2.5]], [2.0])
    """
    return _core.reparameterize_kl(x, weight, bias, noise, _checks.seed(seed), _checks.integer("step", step), backend)


def bernoulli_nll(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike, target: ArrayLike, backend: str | None = None
) -> tuple[Floats, Floats]:
    """-log p(target | logits = x W^T + b) summed over columns, in nats, and its gradient by the logits.

    nll_b = sum_j softplus(logit_j) - target_j logit_j (Kingma and Welling 2013, appendix C.1).

    x (B, K), weight (N, K), bias (N), target (B, N) in [0, 1] -> nll (B), dlogits (B, N).

    >>> nll, dlogits = bernoulli_nll([[0.0]], [[1.0]], [0.0], [[1.0]])
    >>> dlogits.tolist()
    [[-0.5]]
    """
    return _core.bernoulli_nll(x, weight, bias, target, backend)


def gaussian_nll(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    target: ArrayLike,
    log_variance: ArrayLike | None = None,
    fixed_variance: float = 1.0,
    min_variance: float = 1e-4,
    backend: str | None = None,
) -> tuple[Floats, Floats]:
    """-log N(target; mean = x W^T + b, variance) summed over columns, in nats, and its gradient by the mean.

    nll_b = 1/2 sum_j log(2 pi variance_j) + (target_j - mean_j)^2 / variance_j (Kingma and Welling 2013, appendix C.2).
    The variance is fixed_variance, or min_variance + exp(log_variance) where log_variance (N) is given.
    x (B, K), weight (N, K), bias (N), target (B, N) -> nll (B), dmean (B, N).

    >>> nll, dmean = gaussian_nll([[0.0]], [[1.0]], [1.0], [[3.0]], fixed_variance=0.5)
    >>> dmean.tolist()
    [[-4.0]]
    """
    return _core.gaussian_nll(x, weight, bias, target, log_variance, fixed_variance, min_variance, backend)


def gaussian_element_nll(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    target: ArrayLike,
    min_variance: float = 1e-4,
    backend: str | None = None,
) -> tuple[Floats, Floats, Floats]:
    """The same with variance min_variance + exp(logvar), logvar predicted beside the mean.

    x (B, K), weight (2N, K): the mean's rows, then logvar's; bias (2N), target (B, N)
    -> nll (B), dmean (B, N), dlogvar (B, N).

    >>> nll, dmean, dlogvar = gaussian_element_nll([[0.0]], [[0.0], [0.0]], [1.0, 0.0], [[3.0]], min_variance=1.0)
    >>> dmean.tolist()  # the variance is 1 + exp(0)
    [[-1.0]]
    """
    return _core.gaussian_element_nll(x, weight, bias, target, min_variance, backend)


def act_grad(
    dy: ArrayLike, weight: ArrayLike, saved: ArrayLike, activation: str = "identity", backend: str | None = None
) -> Floats:
    """dx = (dy W) * act'(saved): dy (B, N), weight (N, K), saved (B, K) -> dx (B, K).

    saved is the activation's output y, or act' itself (`linear_act`'s slope) for gelu and silu.

    >>> act_grad([[1.0]], [[2.0, 3.0]], [[0.5, 0.0]], "relu").tolist()
    [[2.0, 0.0]]
    """
    return _core.act_grad(dy, weight, saved, _activation(activation), backend)


def reparameterize_grad(
    dy: ArrayLike,
    weight: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    noise: ArrayLike | None = None,
    seed: int = 0,
    step: int = 0,
    kl_weight: float = 1.0,
    backend: str | None = None,
) -> tuple[Floats, Floats]:
    """The head's gradient, from that of the layer behind z.

    With dz = dy W: dmu = dz + kl_weight * mu and
    dlogvar = dz * noise * exp(logvar / 2) / 2 + kl_weight * (exp(logvar) - 1) / 2.
    dy (B, N), weight (N, Z), mu, logvar and noise (B, Z) -> dmu (B, Z), dlogvar (B, Z)
    (Kingma and Welling 2013, section 2.4).

    >>> dmu, dlogvar = reparameterize_grad([[1.0]], [[2.0]], [[0.5]], [[0.0]], noise=[[3.0]], kl_weight=1.0)
    >>> dmu.tolist(), dlogvar.tolist()
    ([[2.5]], [[3.0]])
    """
    return _core.reparameterize_grad(
        dy, weight, mu, logvar, noise, _checks.seed(seed), _checks.integer("step", step), kl_weight, backend
    )


def store(x: ArrayLike, dy: ArrayLike, backend: str | None = None) -> tuple[Floats, Floats]:
    """dweight = dy^T x and dbias = column sums of dy: x (B, K), dy (B, N) -> dweight (N, K), dbias (N).

    >>> dweight, dbias = store([[1.0, 2.0]], [[3.0]])
    >>> dweight.tolist(), dbias.tolist()
    ([[3.0, 6.0]], [3.0])
    """
    return _core.store(x, dy, backend)


def sgd(
    x: ArrayLike,
    dy: ArrayLike,
    optimizer: SGD,
    weight: ArrayLike,
    bias: ArrayLike,
    weight_m: ArrayLike,
    bias_m: ArrayLike,
    backend: str | None = None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """`store`'s gradient finished by a step of SGD.

    weight and its velocity weight_m (N, K), bias and bias_m (N) -> weight, bias, weight_m, bias_m, stepped.

    >>> from fusedvae import SGD
    >>> weight, *_ = sgd([[1.0]], [[2.0]], SGD(0.5), [[3.0]], [0.0], [[0.0]], [0.0])
    >>> weight.tolist()
    [[2.0]]
    """
    return _core.sgd(x, dy, _options(optimizer), weight, bias, weight_m, bias_m, backend)


def adam(
    x: ArrayLike,
    dy: ArrayLike,
    optimizer: Adam | AdamW,
    step: int,
    weight: ArrayLike,
    bias: ArrayLike,
    weight_m: ArrayLike,
    bias_m: ArrayLike,
    weight_v: ArrayLike,
    bias_v: ArrayLike,
    backend: str | None = None,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """`store`'s gradient finished by Adam's (Kingma and Ba 2015) or AdamW's step number `step`, counted from 1.

    weight and its moments (N, K), bias and its moments (N)
    -> weight, bias, weight_m, bias_m, weight_v, bias_v, stepped.

    >>> from fusedvae import Adam
    >>> zero = [[0.0]], [0.0]
    >>> weight, *_ = adam([[1.0]], [[2.0]], Adam(0.5), 1, [[3.0]], [0.0], *zero, *zero)
    >>> weight.round(4).tolist()
    [[2.5]]
    """
    number = _checks.integer("step", step, 1)
    return _core.adam(x, dy, _options(optimizer), number, weight, bias, weight_m, bias_m, weight_v, bias_v, backend)


def philox(counter: ArrayLike, key: ArrayLike) -> NDArray[np.uint32]:
    """The four words of Philox4x32-10 (Salmon et al. 2011) for a counter of four words and a key of two.

    >>> [hex(word) for word in philox([0, 0, 0, 0], [0, 0])]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    return _core.philox([int(word) for word in np.ravel(counter)], [int(word) for word in np.ravel(key)])


def _activation(name: str) -> int:
    return ACTIVATIONS.index(_checks.choice("activation", name, ACTIVATIONS))


def _options(optimizer: Any) -> _core.TrainerOptions:
    options = _core.TrainerOptions()
    optimizers.write_optimizer(options, optimizer)
    return options
