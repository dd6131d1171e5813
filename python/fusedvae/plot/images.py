# SPDX-License-Identifier: MIT
"""Images: reconstructions, samples, the latent plane, traversals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from ..model import Model, check_model
from ..picture import GAP, is_image_shape, mosaic
from ..sampler import Sampler
from .axes import axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More rows of tiles than this are no longer seen as one picture.
TRAVERSED = 10


def reconstructions(model: Model, x: Any, columns: int = 10, ax: Axes | None = None) -> Axes:
    """Images x (n, *input_shape) and below each the mean of p(x|z) at its mean code, `columns` to a line.

    ValueError where the model's rows are no images, else as `Model.reconstruct`.

    >>> import numpy as np, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=(4, 4), latent=2))
    >>> ax = fv.plot.reconstructions(model, np.zeros((5, 4, 4)))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['data', 'model']
    """
    check_model(model)
    shape = _image_shape(model)
    decoded = model.reconstruct(x)
    columns = min(_checks.integer("columns", columns, 1), len(decoded))
    originals = np.asarray(x)
    scale = model.config.uint8_scale if originals.dtype == np.uint8 else 1.0
    originals = originals.reshape(-1, *shape) * np.float32(scale)
    blank = np.full((-len(decoded) % columns, *shape), np.nan, np.float32)
    lines = [np.concatenate((part, blank)).reshape(-1, columns, *shape) for part in (originals, decoded)]
    tiles = np.stack(lines, axis=1).reshape(-1, *shape)
    ax = _tiles(ax, tiles, columns, originals)
    _mark(ax, "y", ["data", "model"] * len(lines[0]), len(tiles) // columns)
    return ax


def samples(
    sampler: Sampler,
    n: int = 64,
    temperature: float = 1.0,
    source: str | None = None,
    columns: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """n images that `sampler` draws, as many to a line as make a square unless `columns` says.

    temperature and source are `Sampler.sample`'s. ValueError where the model's rows are no images.

    >>> import fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=(4, 4), latent=2))
    >>> ax = fv.plot.samples(fv.Sampler(model, seed=0), n=9)
    >>> ax.images[0].get_array().shape  # 3 x 3 tiles and the gaps between them
    (14, 14)
    """
    _sampled_shape(sampler)
    drawn = sampler.sample(n, temperature, source)
    wide = int(np.ceil(np.sqrt(len(drawn)))) if columns is None else _checks.integer("columns", columns, 1)
    return _tiles(ax, drawn, wide)


def latent_grid(sampler: Sampler, n: int = 15, ax: Axes | None = None) -> Axes:
    """Images over the plane of a two-dimensional latent, n by n at evenly spaced probabilities of the prior.

    ValueError unless Z = 2 and the model's rows are images.

    >>> import fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=(4, 4), latent=2))
    >>> fv.plot.latent_grid(fv.Sampler(model), n=5).get_xlabel()
    'z1'
    """
    from statistics import NormalDist

    shape = _sampled_shape(sampler)
    images = sampler.grid(n)
    ax = _tiles(ax, images.reshape(-1, *shape), n)
    quantiles = [f"{NormalDist().inv_cdf((i + 0.5) / n):.1f}" for i in range(n)]
    _mark(ax, "x", quantiles, n)
    _mark(ax, "y", quantiles, n)
    ax.set_xlabel("z1")
    ax.set_ylabel("z0")
    return ax


def traversals(
    sampler: Sampler,
    x: Any = None,
    dims: Sequence[int] | None = None,
    steps: int = 9,
    low: float = -3.0,
    high: float = 3.0,
    unit: str = "prior",
    ax: Axes | None = None,
) -> Axes:
    """A line of images for each latent dimension, set to `steps` values from low to high, the others as in x's code.

    x, steps, low, high and unit are `Sampler.traverse`'s. dims: which dimensions; None draws the ten that change the
    images most, the strongest first. ValueError where the model's rows are no images.

    >>> import fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=(4, 4), latent=3))
    >>> ax = fv.plot.traversals(fv.Sampler(model), dims=[2, 0])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['z2', 'z0']
    """
    shape = _sampled_shape(sampler)
    chosen = list(range(sampler.model.config.latent) if dims is None else dims)
    if not chosen:
        raise ValueError("dims names no dimension")
    lines = [sampler.traverse(x, dim, steps, low, high, unit) for dim in chosen]
    if dims is None:
        strongest = np.argsort([-line.var(axis=0).sum() for line in lines], kind="stable")[:TRAVERSED]
        chosen, lines = [chosen[i] for i in strongest], [lines[i] for i in strongest]
    ax = _tiles(ax, np.concatenate(lines).reshape(-1, *shape), steps)
    _mark(ax, "x", [f"{value:.3g}" for value in np.linspace(low, high, steps)], steps)
    _mark(ax, "y", [f"z{dim}" for dim in chosen], len(chosen))
    ax.set_xlabel(f"value of the code's dimension, standard deviations of the {unit}")
    return ax


def _sampled_shape(sampler: Sampler) -> tuple[int, ...]:
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be a fusedvae.Sampler, such as Sampler(model), not {type(sampler).__name__}")
    return _image_shape(sampler.model)


def _image_shape(model: Model) -> tuple[int, ...]:
    shape = model.config.input_shape
    if not is_image_shape(shape):
        raise ValueError(
            f"the model's rows have shape {shape} and are no images; a model of images has an input_shape such as "
            "(28, 28) or (32, 32, 3)"
        )
    return shape


def _tiles(ax: Axes | None, images: NDArray[Any], columns: int, scale_of: NDArray[Any] | None = None) -> Axes:
    """Images (n, Y, X[, C]) side by side, in the grey scale that `scale_of` (default: they) spans."""
    page = mosaic(images, columns)
    known = images if scale_of is None else scale_of
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    shown = np.clip(np.nan_to_num((page - low) / max(high - low, 1e-12), nan=GAP), 0, 1)
    longest = 7.0 / max(page.shape[:2])
    ax = axes_for(ax, (page.shape[1] * longest + 0.6, page.shape[0] * longest + 0.4))
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def _mark(ax: Axes, axis: str, names: Sequence[str], tiles: int) -> None:
    """Names below or beside the tiles; where they would touch, every second one, every third, …"""
    length = np.asarray(ax.images[0].get_array()).shape[0 if axis == "y" else 1]
    centres = (np.arange(tiles) + 0.5) * (length + 1) / tiles - 1
    step = -(-tiles // 20)
    (ax.set_yticks if axis == "y" else ax.set_xticks)(centres[::step], list(names[::step]), fontsize=8)
    ax.tick_params(length=0)
