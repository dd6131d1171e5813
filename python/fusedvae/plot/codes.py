# SPDX-License-Identifier: MIT
"""Codes: where they lie in a plane, and what each of their dimensions carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from ..diagnostics import collapse_report
from ..model import Model, check_model
from .axes import COLOURS, as_labels, axes_for, plain, word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROJECTIONS = ("pca", "kl")
# Where all dimensions have collapsed, their remains are not to look like much: nats per row.
LEAST_KL = 0.1


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
    check_model(model)
    _checks.choice("projection", projection, PROJECTIONS)
    mu, logvar = model.encode(x)
    points, names = _plane(mu.astype(np.float64), logvar.astype(np.float64), projection)
    ax = axes_for(ax, (6.0, 5.0))
    # Many points are drawn small, so that those below still show.
    dots: dict[str, Any] = {"s": float(np.clip(12000 / len(points), 4, 30)), "linewidths": 0, "alpha": 0.9}
    _scatter(ax, points, None if labels is None else as_labels(labels, len(points)), dots)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return plain(ax)


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
    ax = axes_for(ax)
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
    return plain(ax)


def mean_kl(model: Model, x: Any) -> NDArray[Any]:
    """Mean KL(q(z_j|x) || N(0, 1)) of each latent dimension over x (n, D): (Z,) nats per row."""
    mu, logvar = model.encode(x)
    return _kl(mu.astype(np.float64), logvar.astype(np.float64))


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
        ax.scatter(some[:, 0], some[:, 1], color=colour, label=word(kind), **dots)
        ax.annotate(
            word(kind),
            tuple(np.median(some, axis=0)),
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "alpha": 0.85},
        )
    # Beside the points, never on them.
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2, frameon=False)
