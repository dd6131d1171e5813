# SPDX-License-Identifier: MIT
"""Which score of a model tells anomalies, and from where on: kept with the model and in its file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _checks

# In the order of fvae_score.
SCORES = ("elbo", "log_likelihood", "reconstruction", "kl", "mahalanobis")
# Log-densities of a row, from draws of its code; a distance may be taken off them as from another expert's.
NATS = SCORES[:2]


@dataclass(frozen=True, eq=False)
class Detector:
    """A score by name, and the threshold below which a row is an anomaly. Higher is more normal, for every score.

    - "elbo": nats, the mean over `samples` draws of the same noise for every row (Kingma and Welling 2013, eq. 3)
    - "log_likelihood": nats, importance-weighted, from `samples` draws (Burda et al. 2015, eq. 8)
    - "reconstruction": minus the mean squared error of the mean code's reconstruction, in columns as the network reads
      them
    - "kl": minus KL(q(z|x) || N(0, I)), nats
    - "mahalanobis": minus the squared distance of the mean code from `latent_mean` (Z) in the metric
      `latent_precision` (Z, Z), the inverse of the codes' covariance

    distance: this times half the squared norm of the row, in columns as the network reads them, is taken off. With a
    table's standardised columns, a score in nats is then the logarithm of a product of two experts (Hinton 2002), the
    model and a normal distribution of independent columns; the second cannot learn a group of anomalies by heart.

    All are deterministic. threshold None: none chosen. ValueError for an unknown score and values out of range.

    >>> Detector("kl", threshold=-12.5)
    Detector('kl', threshold=-12.5)
    """

    score: str = "elbo"
    samples: int = 32
    seed: int = 0
    threshold: float | None = None
    distance: float = 0.0
    latent_mean: NDArray[np.float64] | None = None
    latent_precision: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        _checks.choice("score", self.score, SCORES)
        _checks.integer("samples", self.samples, 1, 1_000_000)
        _checks.seed(self.seed)
        if self.threshold is not None:
            _set(self, "threshold", _checks.number("threshold", self.threshold, -math.inf))
        _set(self, "distance", _checks.number("distance", self.distance, 0.0, 1e30))
        if self.score == "mahalanobis" and (self.latent_mean is None or self.latent_precision is None):
            raise ValueError("the mahalanobis score needs latent_mean and latent_precision; see Detector.of_codes")
        for name in ("latent_mean", "latent_precision"):
            if getattr(self, name) is not None:
                _set(self, name, np.array(getattr(self, name), dtype=np.float64, order="C"))

    @classmethod
    def of_codes(cls, mu: Any, threshold: float | None = None) -> Detector:
        """The Mahalanobis score for the mean codes mu (n, Z) of normal rows: their mean and inverse covariance.

        The covariance is regularised by a millionth of its mean diagonal, so that unused dimensions do no harm.

        >>> import numpy as np
        >>> Detector.of_codes(np.eye(3)).latent_mean.round(3).tolist()
        [0.333, 0.333, 0.333]
        """
        codes = np.asarray(mu, dtype=np.float64)
        if codes.ndim != 2 or len(codes) < 2:
            raise ValueError(f"mu has shape {codes.shape}; expected the codes of two rows or more, (n, Z)")
        covariance = np.atleast_2d(np.cov(codes, rowvar=False))
        covariance += 1e-6 * max(float(np.trace(covariance)) / len(covariance), 1e-30) * np.eye(len(covariance))
        return cls(
            "mahalanobis",
            threshold=threshold,
            latent_mean=codes.mean(axis=0),
            latent_precision=np.linalg.inv(covariance).astype(np.float64),
        )

    def _to_core(self) -> Any:
        threshold = math.nan if self.threshold is None else self.threshold
        return (
            SCORES.index(self.score),
            self.samples,
            self.seed,
            threshold,
            self.distance,
            self.latent_mean,
            self.latent_precision,
        )

    @classmethod
    def _from_core(cls, core: Any) -> Detector:
        score, samples, seed, threshold, distance, mean, precision = core
        return cls(
            SCORES[score], samples, seed, None if math.isnan(threshold) else threshold, distance, mean, precision
        )

    def __repr__(self) -> str:
        sampled = f", samples={self.samples}" if self.score in NATS else ""
        threshold = "" if self.threshold is None else f", threshold={self.threshold:g}"
        distance = f", distance={self.distance:g}" if self.distance else ""
        return f"Detector({self.score!r}{sampled}{threshold}{distance})"


def _set(frozen: object, name: str, value: Any) -> None:
    object.__setattr__(frozen, name, value)
