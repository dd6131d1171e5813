# SPDX-License-Identifier: MIT
"""Draws of rows from p(x|z), with the noise of the observation that its mean leaves out.

Letters: n rows, Z latent width, E values that the network decodes, where a category is one-hot.
"""

from __future__ import annotations

import numpy as np

from . import _core, kernels
from ._noise import uniforms
from .columns import Column
from .config import Bernoulli
from .model import Doubles, Floats, Model


def draw(model: Model, z: Floats, seed: int, first: int) -> Floats:
    """One draw from p(x|z) for each code: z (n, Z) -> (n, *input_shape), in raw units.

    A Gaussian's numbers are drawn from their normal distribution, a Bernoulli's are 0 or 1. A category is drawn with
    the probabilities that its decoded values are, or under a Gaussian stand for: their positive parts, made to sum to
    1. Row i takes the noise of row `first` + i of the stream `seed`, beside that of its code.
    """
    config = model.config
    mean, variance = _decoded(model, z)
    n, width = mean.shape
    group = -(-(config.latent + 1) // 4)  # the first four numbers of a row that neither prior nor mixture takes
    uniform = uniforms(seed, first, n, group, width)
    if variance is None:
        encoded = (uniform < mean).astype(np.float64)
    else:
        start = 4 * group + 4 * (-(-width // 4))
        normal = _core.sample_latent(seed, first, n, start + width, 1.0)[:, start:]
        encoded = mean + np.sqrt(variance) * normal
    if config.columns is not None:
        encoded = _raw(config.columns, encoded, mean, uniform)
    return encoded.astype(np.float32).reshape(n, *config.input_shape)


def _decoded(model: Model, z: Floats) -> tuple[Doubles, Doubles | None]:
    """The probabilities of a Bernoulli and None, or means and variances: (n, E) each."""
    config, parameters = model.config, model.parameters()

    def layer(x: Floats, name: str, activation: str = "identity") -> Floats:
        return kernels.linear_act(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], activation)[0]

    h = z
    for i in range(len(config.decoder_hidden)):
        h = layer(h, f"decoder.{i}", config.activation)
    likelihood = config.likelihood
    if isinstance(likelihood, Bernoulli):
        return 0.5 * (1 + np.tanh(0.5 * layer(h, "decoder_logits").astype(np.float64))), None
    mean = layer(h, "decoder_mean").astype(np.float64)
    if likelihood.variance == "fixed":
        return mean, np.full_like(mean, likelihood.fixed_variance)
    logvar = parameters["log_variance"] if likelihood.variance == "feature" else layer(h, "decoder_logvar")
    variance = likelihood.min_variance + np.exp(np.minimum(logvar, 88.0).astype(np.float64))  # as the engine's floats
    return mean, np.broadcast_to(variance, mean.shape)


def _raw(columns: tuple[Column, ...], encoded: Doubles, mean: Doubles, uniform: Doubles) -> Doubles:
    """Encoded numbers (n, E) in their own units, and for each column with categories one of them, drawn: (n, R)."""
    raw = np.empty((len(encoded), len(columns)))
    first = 0
    for r, column in enumerate(columns):
        place = slice(first, first + column.width)
        if column.categories is None:
            raw[:, r] = encoded[:, first] * column.scale + column.shift
        else:
            share = np.cumsum(np.maximum(mean[:, place], 1e-12), axis=1)
            raw[:, r] = (share < uniform[:, place][:, :1] * share[:, -1:]).sum(axis=1)
        first += column.width
    return raw
