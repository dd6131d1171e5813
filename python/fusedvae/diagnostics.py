# SPDX-License-Identifier: MIT
"""What the latent code carries: active units, KL per dimension and mutual information, which tell posterior collapse.

The mean KL falls into two parts, KL = I(x; z) + KL(q(z) || N(0, I)) (Hoffman and Johnson 2016, "ELBO surgery"): what a
code says about its row, and how far the codes of all rows together, the aggregate posterior q(z), lie from the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _checks, _core
from .model import Doubles, Model, check_model

# Entries of a block of log-densities: 16 MiB in double precision, whatever the number of rows.
BLOCK = 1 << 21
# Dimensions that are printed.
LINES = 32


@dataclass(frozen=True, eq=False)
class CollapseReport:
    """What `collapse_report` found; vectors have Z entries, terms are in nats per row.

    variance: of the mean codes over the rows. active: whether that exceeds the threshold. kl: of each dimension's
    q(z_j|x) to N(0, 1), the mean over all rows. mutual_information: I(x; z) of `rows` of them, at most log(rows).
    aggregate_kl: KL(q(z) || N(0, I)) of the same rows; the two estimates add up to these rows' mean KL, so that one
    may come out just below zero.
    """

    variance: Doubles
    active: np.ndarray
    kl: Doubles
    mutual_information: float
    aggregate_kl: float
    rows: int

    @property
    def active_units(self) -> int:
        """Dimensions that carry something; Z less this have collapsed to the prior."""
        return int(self.active.sum())

    @property
    def total_kl(self) -> float:
        """The KL of all dimensions, nats per row: the `kl` that training reports."""
        return float(self.kl.sum())

    def to_dict(self) -> dict[str, Any]:
        """The same in plain values that JSON can hold."""
        return {
            "active_units": self.active_units,
            "latent": len(self.kl),
            "total_kl": self.total_kl,
            "mutual_information": self.mutual_information,
            "aggregate_kl": self.aggregate_kl,
            "rows": self.rows,
            "variance": self.variance.tolist(),
            "active": self.active.tolist(),
            "kl": self.kl.tolist(),
        }

    def __repr__(self) -> str:
        # Adding 0 makes a plain zero of -0.0, which estimates round to.
        information, aggregate = (round(value, 3) + 0.0 for value in (self.mutual_information, self.aggregate_kl))
        lines = [
            f"CollapseReport({self.active_units} of {len(self.kl)} dimensions active, nats per row)",
            f"  KL {self.total_kl:.3f}, mutual information {information:.3f} "
            f"(of {self.rows} rows: at most {math.log(self.rows):.3f}), aggregate KL {aggregate:.3f}",
        ]
        for j in np.argsort(-self.kl, kind="stable")[:LINES]:
            state = "" if self.active[j] else "  collapsed"
            lines.append(f"  z{j}: KL {self.kl[j]:.3f}, variance of the mean {self.variance[j]:.4f}{state}")
        if len(self.kl) > LINES:
            lines.append(f"  and {len(self.kl) - LINES} of smaller KL")
        return "\n".join(lines)


def collapse_report(
    model: Model, x: Any, *, rows: int = 2000, threshold: float = 0.01, seed: int = 0
) -> CollapseReport:
    """Active units, KL per dimension and mutual information of the code on x (n, D): does the code carry the data?

    A dimension is active where Var_x(E[z_j|x]) > threshold (Burda et al. 2015, section 5.2). The mutual information is
    Hoffman and Johnson's index-code mutual information, E[log q(z|x) - log q(z)] with q(z) the mixture of the
    posteriors of `rows` rows, chosen by `seed`, and one draw of z for each; it can say no more than log(rows) nats.
    Against collapse: begin training with a small variance (`init_variance`), let the KL's weight rise (`LinearBeta`),
    or set `free_bits`.

    Errors as those of `Model.encode`; ValueError for fewer than two rows. Deterministic.

    >>> import numpy as np, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
    >>> model.set_parameters({name: 0 * values for name, values in model.parameters().items()})
    >>> fv.collapse_report(model, np.eye(6))
    CollapseReport(0 of 2 dimensions active, nats per row)
      KL 0.000, mutual information 0.000 (of 6 rows: at most 1.792), aggregate KL 0.000
      z0: KL 0.000, variance of the mean 0.0000  collapsed
      z1: KL 0.000, variance of the mean 0.0000  collapsed
    """
    check_model(model)
    _checks.integer("rows", rows, 2)
    _checks.number("threshold", threshold)
    _checks.seed(seed)
    mu, logvar = (values.astype(np.float64) for values in model.encode(x))
    if len(mu) < 2:
        raise ValueError("x has one row; what a code says about its row shows from two rows on")
    variance = mu.var(0)
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)
    if len(mu) > rows:
        kept = np.sort(np.random.default_rng(seed).choice(len(mu), rows, replace=False))
    else:
        kept = np.arange(len(mu))
    information = _mutual_information(mu[kept], logvar[kept], seed)
    aggregate = float(kl[kept].sum(1).mean()) - information
    return CollapseReport(variance, variance > threshold, kl.mean(0), information, aggregate, len(kept))


def _mutual_information(mu: Doubles, logvar: Doubles, seed: int) -> float:
    """The mean of log q(z|x) - log q(z) in nats over one draw of each row: mu, logvar (n, Z).

    Both terms take the same draw, though the first is known without: where codes lie apart or have collapsed, the noise
    cancels, and the mean cannot exceed log n.
    """
    n = len(mu)
    z = mu + np.exp(0.5 * logvar) * _core.sample_latent(seed, 0, n, mu.shape[1], 1.0)
    # log q(z|x_k) = bias_k + z . slope_k - z^2 . precision_k / 2, less what all share: all pairs are two products.
    precision = np.exp(-logvar)
    slope = precision * mu
    bias = -0.5 * (slope * mu + logvar).sum(1)
    total = 0.0
    size = max(1, BLOCK // n)
    for first in range(0, n, size):
        block = z[first : first + size]
        log_density = bias + block @ slope.T - 0.5 * block**2 @ precision.T
        top = log_density.max(1)  # e^x overflows at 710
        log_mixture = top + np.log(np.exp(log_density - top[:, None]).sum(1))
        total += float((log_density.diagonal(first) - log_mixture).sum())
    return total / n + math.log(n)
