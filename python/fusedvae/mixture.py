# SPDX-License-Identifier: MIT
"""A Gaussian mixture of codes, the aggregate posterior's stand-in: scikit-learn fits it, drawing needs NumPy alone.

Codes of data seldom fill the prior: between and beside them lie codes that no training row has shown to the decoder.
A density fitted to the codes after training leaves those out (Ghosh et al. 2020, section 4, "ex-post density
estimation").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _arrays, _checks, _core
from .model import Doubles, Floats

# More codes hardly change ten components; expectation maximisation's time is proportional to them.
CODES_FITTED = 20_000


@dataclass(frozen=True, eq=False)
class Mixture:
    """Weights (K,), means (K, Z) and covariances (K, Z, Z) of K normal components; ValueError for what is none.

    Three plain arrays, for `np.savez`:

    >>> import io, numpy as np, fusedvae as fv
    >>> mixture = fv.Mixture(weights=[0.5, 0.5], means=[[-1.0], [1.0]], covariances=[[[0.1]], [[0.1]]])
    >>> file = io.BytesIO()
    >>> np.savez(file, **mixture.to_dict())
    >>> _ = file.seek(0)
    >>> fv.Mixture(**np.load(file))
    Mixture(2 components of 1 dimensions)
    """

    weights: Doubles
    means: Doubles
    covariances: Doubles
    _roots: Doubles = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights, means, covariances = (_as_doubles(values, name) for name, values in self.to_dict().items())
        if weights.ndim != 1 or means.ndim != 2 or len(means) != len(weights):
            raise ValueError(f"weights have shape {weights.shape}, means {means.shape}; expected (K,) and (K, Z)")
        if covariances.shape != (*means.shape, means.shape[1]):
            raise ValueError(f"covariances have shape {covariances.shape}; expected {(*means.shape, means.shape[1])}")
        if (weights < 0).any() or not np.isclose(weights.sum(), 1.0):
            raise ValueError(f"weights must be at least 0 and add up to 1, not to {weights.sum():g}")
        try:
            roots = np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError:
            roots = None
        if roots is None or not np.allclose(covariances, covariances.transpose(0, 2, 1)):
            raise ValueError("covariances must be symmetric and positive definite")
        named = {"weights": weights, "means": means, "covariances": covariances, "_roots": roots}
        for name, values in named.items():
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    @classmethod
    def fit(cls, z: Any, components: int = 10, seed: int = 0) -> Mixture:
        """The mixture of `components` normals of full covariance likeliest to give codes z (n, Z).

        By scikit-learn's GaussianMixture; of more than 20 000 codes it sees as many, chosen by `seed`. ValueError for
        fewer codes than components, ImportError without scikit-learn.

        >>> import numpy as np, fusedvae as fv
        >>> fv.Mixture.fit(np.random.default_rng(0).standard_normal((100, 3)), components=2)
        Mixture(2 components of 3 dimensions)
        """
        from ._readers import require  # drawing does without what it imports

        codes = _arrays.as_codes(z, np.shape(z)[-1] if np.ndim(z) else 1)
        components = _checks.integer("components", components, 1)
        state = _checks.seed(seed) % 2**32  # as much as NumPy's old generators, scikit-learn's, take
        if len(codes) > CODES_FITTED:
            codes = codes[np.sort(np.random.default_rng(seed).choice(len(codes), CODES_FITTED, replace=False))]
        kind = require("sklearn.mixture", "sklearn", "fitting a mixture to codes").GaussianMixture
        found = kind(components, max_iter=500, random_state=state).fit(codes.astype(np.float64))
        return cls(found.weights_ / found.weights_.sum(), found.means_, found.covariances_)

    @property
    def mean(self) -> Doubles:
        """Of the whole: (Z,)."""
        return self.weights @ self.means

    @property
    def deviation(self) -> Doubles:
        """Standard deviation of each dimension of the whole: (Z,)."""
        second = self.weights @ (np.diagonal(self.covariances, axis1=1, axis2=2) + self.means**2)
        return np.sqrt(second - self.mean**2)

    def draw(self, n: int, temperature: float = 1.0, seed: int = 0, first: int = 0) -> Floats:
        """n codes (n, Z), numbers `first` and on of the stream `seed`; covariances are multiplied by temperature^2.

        >>> import fusedvae as fv
        >>> fv.Mixture([1.0], [[3.0, 4.0]], [[[1.0, 0.0], [0.0, 1.0]]]).draw(2, temperature=0.0).tolist()
        [[3.0, 4.0], [3.0, 4.0]]
        """
        from statistics import NormalDist  # some milliseconds to import

        n, latent = _checks.integer("n", n, 1), self.means.shape[1]
        temperature = _checks.number("temperature", temperature)
        first = _checks.integer("first", first)
        normals = _core.sample_latent(_checks.seed(seed), first, n, latent + 1, 1.0).astype(np.float64)
        # The last normal chooses the component: between which quantiles of the cumulated weights it falls.
        edges = np.cumsum(self.weights)[:-1]
        quantiles = [NormalDist().inv_cdf(p) if 0 < p < 1 else np.copysign(np.inf, p - 0.5) for p in edges]
        chosen = np.searchsorted(quantiles, normals[:, -1])
        codes = np.empty((n, latent), np.float32)
        for k, (mean, root) in enumerate(zip(self.means, self._roots, strict=True)):
            own = chosen == k
            # Not a matrix product, whose last bits depend on how many rows there are.
            codes[own] = mean + temperature * np.einsum("ij,nj->ni", root, normals[own, :-1])
        return codes

    def to_dict(self) -> dict[str, Doubles]:
        """The three arrays by name."""
        return {"weights": self.weights, "means": self.means, "covariances": self.covariances}

    def __repr__(self) -> str:
        return f"Mixture({len(self.weights)} components of {self.means.shape[1]} dimensions)"


def checked(mixture: Any, latent: int) -> None:
    """TypeError for what is no mixture, ValueError for one of codes of another width."""
    if not isinstance(mixture, Mixture):
        raise TypeError(f"mixture must be a fusedvae.Mixture, not {type(mixture).__name__}")
    if mixture.means.shape[1] != latent:
        raise ValueError(f"mixture has {mixture.means.shape[1]} dimensions; the model's code {latent}")


def _as_doubles(values: Any, name: str) -> Doubles:
    array = np.array(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array
