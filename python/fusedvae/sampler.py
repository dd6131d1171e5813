# SPDX-License-Identifier: MIT
"""Pictures of the latent space: prior samples, interpolations, traversals and a grid, all as means of p(x|z)."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _arrays, _checks, _core
from .model import Floats, Model


class Sampler:
    """Draws from a model; successive calls of `sample` go on in the stream that `seed` names.

    A single row or code may be given as it is, without an axis of length one. What has Z values is
    a code, unless D = Z.

    >>> import fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=(4, 4), hidden=(8,), latent=2))
    >>> sampler = fv.Sampler(model, seed=0)
    >>> sampler.sample(5).shape
    (5, 4, 4)
    """

    def __init__(self, model: Model, seed: int = 0) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model must be a fusedvae.Model, not {type(model).__name__}")
        self.model = model
        self._seed = _checks.seed(seed)
        self._drawn = 0

    def sample(self, n: int, temperature: float = 1.0) -> Floats:
        """Decodes n codes drawn from N(0, temperature^2): (n, *input_shape).

        The i-th draw depends on the seed and i alone.
        """
        n = _checks.integer("n", n, 1)
        scale = _checks.number("temperature", temperature)
        z = _core.sample_latent(self._seed, self._drawn, n, self.model.config.latent, scale)
        images = self.model.decode(z)
        self._drawn += n
        return images

    def interpolate(self, a: Any, b: Any, steps: int = 8) -> Floats:
        """Decodes `steps` codes on the line from a's to b's, ends included: (steps, *input_shape).

        a and b are data rows (their mean codes are taken) or codes.

        >>> import fusedvae as fv
        >>> sampler = fv.Sampler(fv.Model(fv.Config(input_shape=(4, 4), latent=2)))
        >>> sampler.interpolate([-1.0, 0.0], [1.0, 0.0], steps=5).shape
        (5, 4, 4)
        """
        t = np.linspace(0.0, 1.0, _checks.integer("steps", steps, 2), dtype=np.float32)[:, None]
        return self.model.decode((1 - t) * self._code(a, "a") + t * self._code(b, "b"))

    def traverse(self, x: Any = None, dim: int = 0, steps: int = 8, low: float = -3.0, high: float = 3.0) -> Floats:
        """Decodes x's code with dimension `dim` set to `steps` values from low to high: (steps, *input_shape).

        x is a data row, a code, or None for the zero code.

        >>> import fusedvae as fv
        >>> fv.Sampler(fv.Model(fv.Config(input_shape=(4, 4), latent=2))).traverse(dim=1, steps=3).shape
        (3, 4, 4)
        """
        latent = self.model.config.latent
        dim = _checks.integer("dim", dim, 0, latent - 1)
        start = np.zeros((1, latent), dtype=np.float32) if x is None else self._code(x, "x")
        z = np.repeat(start, _checks.integer("steps", steps, 1), axis=0)
        low, high = _checks.number("low", low, -np.inf), _checks.number("high", high, -np.inf)
        z[:, dim] = np.linspace(low, high, len(z))
        return self.model.decode(z)

    def grid(self, n: int = 20) -> Floats:
        """Decodes an n by n grid of evenly spaced probabilities of a two-dimensional latent: (n, n, *input_shape).

        Entry [i, j] is at z = (q_i, q_j), where q_i is the normal quantile of (i + 1/2) / n. ValueError unless Z = 2.

        >>> import fusedvae as fv
        >>> fv.Sampler(fv.Model(fv.Config(input_shape=(4, 4), latent=2))).grid(3).shape
        (3, 3, 4, 4)
        """
        from statistics import NormalDist  # some milliseconds to import

        config = self.model.config
        if config.latent != 2:
            raise ValueError(f"grid needs a latent width of 2; this model has {config.latent} (see traverse)")
        n = _checks.integer("n", n, 1)
        quantiles = [NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]
        z = np.array([(first, second) for first in quantiles for second in quantiles], dtype=np.float32)
        return self.model.decode(z).reshape(n, n, *config.input_shape)

    def _code(self, point: Any, name: str) -> Floats:
        """The code (1, Z) of one data row or code."""
        config = self.model.config
        values = np.asarray(point)
        if values.size == config.width:
            return self.model.encode(values.reshape(1, config.width))[0]
        if values.size == config.latent:
            return _arrays.as_codes(values.reshape(1, config.latent), config.latent, name)
        raise ValueError(
            f"{name} has shape {values.shape}; expected one data row of {config.width} values "
            f"or one code of {config.latent}"
        )
