# SPDX-License-Identifier: MIT
"""Generation: samples, interpolations, traversals and a grid, as means of p(x|z), and a check against copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _arrays, _checks, _core
from ._frames import is_table
from .model import Floats, Model, check_model

if TYPE_CHECKING:  # each costs a millisecond that only those who use it should pay
    from .mixture import Mixture
    from .neighbours import Neighbours

SOURCES = ("prior", "mixture")
PATHS = ("linear", "spherical")
# Codes whose directions differ by less than this many radians are joined by a line: its error is the square of it.
PARALLEL = 1e-4


class Sampler:
    """Draws from a model; successive calls of `sample` go on in the stream that `seed` names.

    Codes come from the prior, or from a `Mixture` that `fit_codes` fits to the codes of data or that is given here. A
    single row or code may be given as it is, without an axis of length one. What has Z values is a code, unless D = Z.

    >>> import fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=(4, 4), hidden=(8,), latent=2))
    >>> sampler = fv.Sampler(model, seed=0)
    >>> sampler.sample(5).shape
    (5, 4, 4)
    """

    def __init__(self, model: Model, seed: int = 0, mixture: Mixture | None = None) -> None:
        check_model(model)
        if mixture is not None:
            from .mixture import checked

            checked(mixture, model.config.latent)
        self.model = model
        self.mixture = mixture
        self._seed = _checks.seed(seed)
        self._drawn = 0

    def fit_codes(self, x: Any, components: int = 10) -> Sampler:
        """Fits `mixture` to codes of x (n, D), one draw from each row's q(z|x); from then on `sample` draws from it.

        The aggregate posterior, of which the decoder has seen every part, in place of the prior: better samples (Ghosh
        et al. 2020). Needs scikit-learn. Errors as those of `Model.encode`; ValueError for fewer rows than components.

        >>> import numpy as np, fusedvae as fv
        >>> x = np.random.default_rng(0).random((200, 6))
        >>> fv.Sampler(fv.Model(fv.Config(input_shape=6, latent=2))).fit_codes(x, components=3).mixture
        Mixture(3 components of 2 dimensions)
        """
        from .mixture import Mixture

        mu, logvar = self.model.encode(x)
        noise = _core.sample_latent(self._seed, 0, len(mu), mu.shape[1], 1.0)
        self.mixture = Mixture.fit(mu + np.exp(0.5 * logvar) * noise, components, self._seed)
        return self

    def sample(
        self, n: int, temperature: float = 1.0, source: str | None = None, observation_noise: bool = False
    ) -> Floats:
        """Decodes n codes of the mixture, where there is one, else of N(0, I): (n, *input_shape).

        source: "prior" or "mixture" asks for one of them. temperature multiplies standard deviations, around 0 or
        around the components' means; below 1 samples become more typical and less various. observation_noise: draws
        from p(x|z) instead of its mean, which varies less than rows do. A table's rows are then as various as its
        data's: numbers with the Gaussian's variance, in their own units, categories by their probabilities; a
        Bernoulli's values are 0 or 1. The i-th draw depends on the seed and i alone. ValueError for the mixture where
        there is none.
        """
        n = _checks.integer("n", n, 1)
        temperature = _checks.number("temperature", temperature)
        if source is None:
            source = "prior" if self.mixture is None else "mixture"
        if _checks.choice("source", source, SOURCES) == "mixture":
            z = self._fitted().draw(n, temperature, self._seed, self._drawn)
        else:
            z = _core.sample_latent(self._seed, self._drawn, n, self.model.config.latent, temperature)
        if _checks.flag("observation_noise", observation_noise):
            from .observation import draw

            rows = draw(self.model, z, self._seed, self._drawn)
        else:
            rows = self.model.decode(z)
        self._drawn += n
        return rows

    def interpolate(self, a: Any, b: Any, steps: int = 8, path: str = "linear") -> Floats:
        """Decodes `steps` codes on the way from a's to b's, ends included: (steps, *input_shape).

        a and b are data rows (their mean codes are taken) or codes. path: "linear", or "spherical": the direction turns
        evenly (Shoemake 1985) while the length goes evenly from one to the other, so that codes between stay as far
        from 0 as typical ones (White 2016). Parallel codes, and any with 0, are joined by the line; ValueError for
        codes in opposite directions, which no one arc joins.

        >>> import fusedvae as fv
        >>> sampler = fv.Sampler(fv.Model(fv.Config(input_shape=(4, 4), latent=2)))
        >>> sampler.interpolate([-1.0, 0.0], [0.0, 1.0], steps=5, path="spherical").shape
        (5, 4, 4)
        """
        steps = _checks.integer("steps", steps, 2)
        between = spherical if _checks.choice("path", path, PATHS) == "spherical" else linear
        return self.model.decode(between(self._code(a, "a"), self._code(b, "b"), steps))

    def traverse(
        self,
        x: Any = None,
        dim: int = 0,
        steps: int = 8,
        low: float = -3.0,
        high: float = 3.0,
        unit: str = "prior",
    ) -> Floats:
        """Decodes x's code with dimension `dim` set to `steps` values from low to high: (steps, *input_shape).

        x is a data row, a code, or None for the prior's (the mixture's) mean. unit: in standard deviations of the
        "prior", which are the values of z themselves, or of the "mixture" around its mean, the range that codes of
        data take. ValueError for the mixture where there is none.

        >>> import fusedvae as fv
        >>> fv.Sampler(fv.Model(fv.Config(input_shape=(4, 4), latent=2))).traverse(dim=1, steps=3).shape
        (3, 4, 4)
        """
        latent = self.model.config.latent
        mean, deviation = np.zeros(latent), np.ones(latent)
        if _checks.choice("unit", unit, SOURCES) == "mixture":
            mean, deviation = self._fitted().mean, self._fitted().deviation
        dim = _checks.integer("dim", dim, 0, latent - 1)
        start = mean[None].astype(np.float32) if x is None else self._code(x, "x")
        z = np.repeat(start, _checks.integer("steps", steps, 1), axis=0)
        low, high = _checks.number("low", low, -np.inf), _checks.number("high", high, -np.inf)
        z[:, dim] = mean[dim] + deviation[dim] * np.linspace(low, high, len(z))
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

    def nearest(self, samples: Any, x: Any, held_out: Any = None) -> Neighbours:
        """The training row of x (m, D) nearest to each of samples (n, D): does the model repeat its training data?

        Distances are Euclidean, between rows as the network reads them (uint8 scaled, columns shifted and scaled).
        held_out: rows (k, D) that the model was not trained on; the distances of their reconstructions are what the
        samples' are to be compared with, see `Neighbours.copying`. Exact; takes n m D multiplications.

        >>> import numpy as np, fusedvae as fv
        >>> sampler = fv.Sampler(fv.Model(fv.Config(input_shape=3, latent=2)))
        >>> sampler.nearest([[0.0, 0.0, 1.0]], np.eye(3))
        Neighbours(1 samples, median distance 0)
        """
        from .neighbours import Neighbours, nearest

        config = self.model.config
        named = {"samples": samples, "x": x} | ({} if held_out is None else {"held_out": held_out})
        rows = {name: _arrays.rows_of(values, config, name).array for name, values in named.items()}

        def as_doubles(values: Any) -> Any:
            return self.model._core.encoded_rows(_core.Rows(values)).astype(np.float64)

        try:
            drawn = as_doubles(rows["samples"])
        except ValueError as refusal:
            raise ValueError(f"samples: {refusal}") from None
        index, distance = nearest(drawn, rows["x"], as_doubles)
        if held_out is None:
            return Neighbours(index, distance)
        seen = self.model.reconstruct(held_out).reshape(len(rows["held_out"]), -1)
        return Neighbours(index, distance, nearest(as_doubles(seen), rows["x"], as_doubles)[1])

    def _fitted(self) -> Mixture:
        if self.mixture is None:
            raise ValueError("the sampler has no mixture of codes: call fit_codes(x) first")
        return self.mixture

    def _code(self, point: Any, name: str) -> Floats:
        """The code (1, Z) of one data row or code."""
        config = self.model.config
        named = any(column.name for column in config.columns or ())
        if named and hasattr(point, "to_frame") and np.size(point) == config.width:  # a DataFrame's row
            point = point.to_frame().T
        if named and is_table(point) and len(point) == 1:
            return self.model.encode(point)[0]
        values = np.asarray(point)
        if values.size == config.width:
            return self.model.encode(values.reshape(1, config.width))[0]
        if values.size == config.latent:
            return _arrays.as_codes(values.reshape(1, config.latent), config.latent, name)
        raise ValueError(
            f"{name} has shape {values.shape}; expected one data row of {config.width} values "
            f"or one code of {config.latent}"
        )


def linear(a: Floats, b: Floats, steps: int) -> Floats:
    """`steps` codes evenly on the line from a (1, Z) to b (1, Z)."""
    t = np.linspace(0.0, 1.0, steps, dtype=np.float32)[:, None]
    return (1 - t) * a + t * b


def spherical(a: Floats, b: Floats, steps: int) -> Floats:
    """`steps` codes from a (1, Z) to b (1, Z), evenly in angle and in length."""
    lengths = [float(np.linalg.norm(code.astype(np.float64))) for code in (a, b)]
    if min(lengths) == 0:
        return linear(a, b, steps)
    one, other = a / lengths[0], b / lengths[1]
    # The angle by half chords: an arc cosine loses half the digits near 0 and pi.
    angle = 2 * np.arctan2(np.linalg.norm(one - other), np.linalg.norm(one + other))
    if angle < PARALLEL:
        return linear(a, b, steps)
    if angle > np.pi - PARALLEL:
        raise ValueError('a and b lie in opposite directions, which no one arc joins; use path="linear"')
    t = np.linspace(0.0, 1.0, steps)[:, None]
    direction = (np.sin((1 - t) * angle) * one + np.sin(t * angle) * other) / np.sin(angle)
    codes: Floats = (((1 - t) * lengths[0] + t * lengths[1]) * direction).astype(np.float32)
    return codes
