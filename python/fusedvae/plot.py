# SPDX-License-Identifier: MIT
"""Pictures of a training, a model and its scores, drawn by matplotlib: `fusedvae.plot.training_curves(history)`, …

Each function draws on `ax`, or on the one axes of a new figure where it is None, and returns the axes; `.figure` of it
is what to show in a notebook or to save. pyplot and its global state are never touched. Losses, scores and KLs are in
nats per row. Colours are told apart by colour-blind readers too, and images are shown in the grey scale of the
first ones given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _checks
from ._readers import require
from .diagnostics import collapse_report
from .model import Model
from .picture import GAP, is_image_shape, mosaic
from .sampler import Sampler

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ten colours that differ for colour-blind readers too (Petroff 2021, arXiv:2107.02270, the sequence of ten).
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
PROJECTIONS = ("pca", "kl")
_SHOWN = {"loss": "loss", "reconstruction": "reconstruction", "kl": "KL"}
# More rows of tiles than this are no longer seen as one picture.
TRAVERSED = 10
# Where all dimensions have collapsed, their remains are not to look like much: nats per row.
LEAST_KL = 0.1
# Longer labels would leave no room for what they label.
LONGEST_LABEL = 24


def training_curves(
    history: Mapping[str, NDArray[Any]], terms: str | Sequence[str] = "loss", ax: Axes | None = None
) -> Axes:
    """Losses over epochs in nats per row, of the training rows and, dashed, of the held-out ones.

    history: what `Trainer.fit` returns. terms: of "loss", "reconstruction", "kl". ValueError for a history without
    epochs or an unknown term.

    >>> import numpy as np, fusedvae as fv
    >>> trainer = fv.Trainer(fv.Model(fv.Config(input_shape=6, latent=2)))
    >>> ax = fv.plot.training_curves(trainer.fit(np.zeros((20, 6)), epochs=3))
    >>> ax.get_ylabel()
    'loss, nats per row'
    """
    names = [_checks.choice("term", term, tuple(_SHOWN)) for term in ([terms] if isinstance(terms, str) else terms)]
    epochs = np.asarray(history["epoch"])
    if not len(epochs):
        raise ValueError("the history has no finished epoch to draw")
    ax = _axes(ax)
    # A line of one epoch has no length: its end is marked.
    style: dict[str, Any] = {"marker": "o", "markersize": 4, "markevery": [-1], "linewidth": 1.6}
    for name, colour in zip(names, COLOURS, strict=False):
        ax.plot(epochs, history[name], color=colour, label=f"{_SHOWN[name]}, training", **style)
        held_out = np.asarray(history[f"val_{name}"])
        if np.isfinite(held_out).any():
            ax.plot(epochs, held_out, color=colour, linestyle="--", label=f"{_SHOWN[name]}, held out", **style)
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"{_SHOWN[names[0]] if len(names) == 1 else 'losses'}, nats per row")
    ax.xaxis.set_major_locator(require("matplotlib.ticker", "plot", "drawing a picture").MaxNLocator(integer=True))
    ax.legend()
    return _plain(ax)


def reconstructions(model: Model, x: Any, columns: int = 10, ax: Axes | None = None) -> Axes:
    """Images x (n, *input_shape) and below each the mean of p(x|z) at its mean code, `columns` to a line.

    ValueError where the model's rows are no images, else as `Model.reconstruct`.

    >>> import numpy as np, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=(4, 4), latent=2))
    >>> ax = fv.plot.reconstructions(model, np.zeros((5, 4, 4)))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['data', 'model']
    """
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


def embedding(model: Model, x: Any, labels: Any = None, projection: str = "pca", ax: Axes | None = None) -> Axes:
    """The mean codes of x (n, D) in the plane, coloured by labels (n,) where given.

    A two-dimensional latent is drawn as it is. Of more dimensions `projection` draws the codes' first two principal
    components ("pca") or the two dimensions of largest mean KL ("kl"); of one, the code and its posterior's standard
    deviation. The axes say which. Up to ten labels have a colour each; more numbers are a scale, of more names the nine
    most frequent keep a colour. ValueError for labels of another length.

    >>> import numpy as np, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
    >>> ax = fv.plot.embedding(model, np.random.default_rng(0).random((30, 6)), labels=["cat", "dog"] * 15)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_legend().get_texts()]
    ('z0', ['cat', 'dog'])
    """
    _checks.choice("projection", projection, PROJECTIONS)
    mu, logvar = model.encode(x)
    points, names = _plane(mu.astype(np.float64), logvar.astype(np.float64), projection)
    ax = _axes(ax, (6.0, 5.0))
    # Many points are drawn small, so that those below still show.
    dots: dict[str, Any] = {"s": float(np.clip(12000 / len(points), 4, 30)), "linewidths": 0, "alpha": 0.9}
    _scatter(ax, points, None if labels is None else _labels(labels, len(points)), dots)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return _plain(ax)


def kl_by_dimension(model: Model, x: Any, ax: Axes | None = None) -> Axes:
    """The mean KL of each latent dimension over x (n, D), nats per row, the largest first.

    Those whose posterior has collapsed to the prior, as `collapse_report` finds them, are grey. Errors as its own.

    >>> import numpy as np, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=6, latent=3))
    >>> ax = fv.plot.kl_by_dimension(model, np.zeros((5, 6)))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['3 collapsed']
    """
    report = collapse_report(model, x)
    kl = report.kl
    order = np.argsort(-kl, kind="stable")
    ax = _axes(ax)
    for active, colour, name in ((True, COLOURS[0], "active"), (False, COLOURS[3], "collapsed")):
        places = np.flatnonzero(report.active[order] == active)
        if len(places):
            ax.bar(places, kl[order][places], color=colour, label=f"{len(places)} {name}")
    ax.set_ylim(0, max(1.05 * float(kl.max()), LEAST_KL))
    ax.legend()
    step = -(-len(kl) // 32)  # every name where they fit
    ax.set_xticks(np.arange(len(kl))[::step], [f"z{dim}" for dim in order[::step]], rotation=90 if len(kl) > 16 else 0)
    ax.set_xlabel("latent dimension")
    ax.set_ylabel("KL, nats per row")
    return _plain(ax)


def score_histogram(
    scores: Any,
    threshold: float | None = None,
    labels: Any = None,
    bins: int = 50,
    xlabel: str = "score, nats per row (lower is more abnormal)",
    ax: Axes | None = None,
) -> Axes:
    """Counts of scores (n,), one outline for each of labels (n,), and the threshold as a line.

    Far outliers would leave one bar for all the rest: bins end five interquartile ranges beyond the quartiles, the rows
    beyond them count in the last bins, and the axis says how many they are. ValueError for scores that are not finite,
    no scores, labels of another length or more than ten different ones.

    >>> import numpy as np, fusedvae as fv
    >>> ax = fv.plot.score_histogram([-1.0, -2.0, -1.5, -9.0], threshold=-5.0, labels=[0, 0, 0, 1])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['0 (3 rows)', '1 (1 row)', 'threshold -5, 1 row below']
    """
    values = np.asarray(scores, np.float64).ravel()
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("scores must be finite numbers, one or more" if len(values) else "there are no scores to draw")
    groups = np.zeros(len(values), int) if labels is None else _labels(labels, len(values))
    kinds = np.unique(groups)
    if len(kinds) > len(COLOURS):
        raise ValueError(f"labels have {len(kinds)} different values; at most {len(COLOURS)} can be told apart")
    first, third = np.quantile(values, [0.25, 0.75])
    low = max(values.min(), first - 5 * (third - first))
    high = min(values.max(), third + 5 * (third - first))
    if threshold is not None and values.min() < threshold <= low:
        low = threshold - 0.05 * (high - threshold)  # rows below the threshold count in a bin below it
    edges = np.linspace(low, high if high > low else low + 1, _checks.integer("bins", bins, 1) + 1).tolist()
    ax = _axes(ax)
    for kind, colour in zip(kinds, COLOURS, strict=False):
        some = values[groups == kind]
        name = None if labels is None else f"{_word(kind)} ({_rows(len(some))})"
        inside = np.clip(some, low, high)
        ax.hist(inside, edges, histtype="stepfilled", facecolor=colour, alpha=0.35)
        ax.hist(inside, edges, histtype="step", color=colour, linewidth=1.5, label=name)
    if threshold is not None:
        below = _rows(int((values < threshold).sum()))
        ax.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4g}, {below} below")
    if labels is not None or threshold is not None:
        ax.legend()
    beyond = int((values < low).sum() + (values > high).sum())
    ax.set_xlabel(xlabel + (f"; {_rows(beyond)} beyond the ends" if beyond else ""))
    ax.set_ylabel("rows")
    return _plain(ax)


# ---- what they share ------------------------------------------------------------------------------------------------


def _axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    if ax is not None:
        return ax
    figure = require("matplotlib.figure", "plot", "drawing a picture").Figure(figsize=size, layout="constrained")
    axes: Axes = figure.subplots()
    return axes


def _plain(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


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
    ax = _axes(ax, (page.shape[1] * longest + 0.6, page.shape[0] * longest + 0.4))
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def _mark(ax: Axes, axis: str, names: Sequence[str], tiles: int) -> None:
    """Names below or beside the tiles; where they would touch, every second one, every third, …"""
    length = ax.images[0].get_array().shape[0 if axis == "y" else 1]  # type: ignore[union-attr]
    centres = (np.arange(tiles) + 0.5) * (length + 1) / tiles - 1
    step = -(-tiles // 20)
    (ax.set_yticks if axis == "y" else ax.set_xticks)(centres[::step], list(names[::step]), fontsize=8)
    ax.tick_params(length=0)


def _labels(labels: Any, rows: int) -> NDArray[Any]:
    array = np.asarray(labels)
    if array.shape != (rows,):
        raise ValueError(f"labels have shape {array.shape}; expected one for each of {rows} rows, ({rows},)")
    return array.astype(str) if array.dtype == object else array


def mean_kl(model: Model, x: Any) -> NDArray[Any]:
    """Mean KL(q(z_j|x) || N(0, 1)) of each latent dimension over x (n, D): (Z,) nats per row."""
    mu, logvar = model.encode(x)
    return _kl(mu.astype(np.float64), logvar.astype(np.float64))


def _word(label: Any) -> str:
    """A label as matplotlib shows it: short, no $ as the start of a formula, no _ as a sign to leave it out."""
    text = " ".join(str(label).split()) or "(empty)"
    text = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    return (" " + text if text.startswith("_") else text).replace("$", r"\$")


def _kl(mu: NDArray[Any], logvar: NDArray[Any]) -> NDArray[Any]:
    # Kingma and Welling 2013, appendix B.
    kl: NDArray[Any] = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).mean(axis=0)
    return kl


def _plane(mu: NDArray[Any], logvar: NDArray[Any], projection: str) -> tuple[NDArray[Any], tuple[str, str]]:
    """Two coordinates (n, 2) for codes (n, Z), and the names of their axes."""
    latent = mu.shape[1]
    if latent == 1:
        return np.hstack((mu, np.exp(0.5 * logvar))), ("z0", "standard deviation of q(z0|x)")
    if latent == 2:
        return mu, ("z0", "z1")
    if projection == "kl":
        kl = _kl(mu, logvar)
        i, j = np.argsort(-kl, kind="stable")[:2]
        return mu[:, [i, j]], (f"z{i} (KL {kl[i]:.2f} nats per row)", f"z{j} (KL {kl[j]:.2f} nats per row)")
    centred = mu - mu.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # an eigenvector's sign is chance: fix it
    shares = variances[:-3:-1] / max(variances.sum(), 1e-300)
    names = [f"principal component {i + 1} of {latent} code dimensions ({shares[i]:.0%})" for i in (0, 1)]
    return centred @ axes, (names[0], names[1])


def _scatter(ax: Axes, points: NDArray[Any], labels: NDArray[Any] | None, dots: dict[str, Any]) -> None:
    if labels is None:
        ax.scatter(points[:, 0], points[:, 1], color=COLOURS[0], **dots)
        return
    kinds, counts = np.unique(labels, return_counts=True)
    if len(kinds) > len(COLOURS) and labels.dtype.kind in "fiu":
        drawn = ax.scatter(points[:, 0], points[:, 1], c=labels, cmap="viridis", **dots)
        ax.figure.colorbar(drawn, ax=ax, label="label")
        return
    if len(kinds) > len(COLOURS):
        frequent = kinds[np.sort(np.argsort(-counts, kind="stable")[: len(COLOURS) - 1])]
        labels = np.where(np.isin(labels, frequent), labels, "(others)")
        kinds = np.append(frequent, "(others)")
    for kind, colour in zip(kinds, COLOURS, strict=False):
        some = points[labels == kind]
        ax.scatter(some[:, 0], some[:, 1], color=colour, label=_word(kind), **dots)
        ax.annotate(
            _word(kind),
            tuple(np.median(some, axis=0)),
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "alpha": 0.85},
        )
    # Beside the points, never on them.
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2, frameon=False)
