# SPDX-License-Identifier: MIT
"""The variance that a Gaussian model begins with, which decides whether its code collapses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _checks, _core
from .config import Gaussian
from .model import Model, check_model

# Rows that the principal components are taken from: the variance is one number, and needs no more.
ROWS = 2000
# Of the data's variance; an exactly linear table would otherwise start at a variance that no first step survives.
LEAST = 1e-3


def init_variance(model: Model, x: Any, seed: int = 0) -> float:
    """Sets a learned variance to what the first Z principal components leave of x (n, D), and returns it.

    In units of the rows as the network reads them, one value for all columns. A variance that begins at 1 hides all
    that varies less: the code then collapses to the prior before the variance can fall (Lucas et al. 2019). This is
    the likeliest variance of the linear VAE (Tipping and Bishop 1999, eq. 8, spread over D columns): training begins
    where the code pays. At most 2000 rows are looked at, chosen by `seed`.

    ValueError for a model whose variance is not learned, TypeError and ValueError for bad rows.

    >>> import numpy as np, fusedvae as fv
    >>> x = np.random.default_rng(0).standard_normal((500, 4)) * [3.0, 2.0, 0.1, 0.1]
    >>> model = fv.Model(fv.Config(input_shape=4, latent=2, likelihood=fv.Gaussian("feature")))
    >>> round(fv.init_variance(model, x), 4)
    0.0052
    """
    check_model(model)
    _checks.seed(seed)
    likelihood = model.config.likelihood
    if not isinstance(likelihood, Gaussian) or likelihood.variance == "fixed":
        raise ValueError('the model learns no variance; give it likelihood=Gaussian("feature") or Gaussian("element")')
    rows = _arrays.rows_of(x, model.config).array
    looked_at = ""
    if len(rows) > ROWS:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), ROWS, replace=False))]
        looked_at = f"of the {ROWS} rows that were looked at, "
    try:
        values = model._core.encoded_rows(_core.Rows(rows)).astype(np.float64)
    except ValueError as refusal:
        raise ValueError(f"{looked_at}{refusal}") from None
    variance = max(residual_variance(values, model.config.latent), LEAST * float(values.var(0).mean()))
    variance = max(variance, (1 + LEAST) * likelihood.min_variance)
    parameters = model.parameters()
    name = "log_variance" if likelihood.variance == "feature" else "decoder_logvar.bias"
    parameters[name][:] = np.log(variance - likelihood.min_variance)
    if likelihood.variance == "element":
        parameters["decoder_logvar.weight"][:] = 0  # no row differs from another yet
    model.set_parameters(parameters)
    return variance


def residual_variance(x: NDArray[np.float64], components: int) -> float:
    """Mean variance of a column of x (n, D) around its first principal components; 0 where they take up everything."""
    n, width = x.shape
    freedom = n - 1 - components
    if freedom <= 0 or components >= width:
        return 0.0
    centred = x - x.mean(0)
    product = centred.T @ centred if width <= n else centred @ centred.T
    left = np.linalg.eigvalsh(product)[: max(0, len(product) - components)]
    return float(max(0.0, left.sum()) / (freedom * width))
