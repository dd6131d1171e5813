# SPDX-License-Identifier: MIT
"""Numbers over epochs and over rows: training curves and histograms of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .axes import COLOURS, as_labels, axes_for, plain, whole_ticks, word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = {"loss": "loss", "reconstruction": "reconstruction", "kl": "KL"}


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
    ax = axes_for(ax)
    # A line of one epoch has no length: its end is marked.
    style: dict[str, Any] = {"marker": "o", "markersize": 4, "markevery": [-1], "linewidth": 1.6}
    for name, colour in zip(names, COLOURS, strict=False):
        ax.plot(epochs, history[name], color=colour, label=f"{_SHOWN[name]}, training", **style)
        held_out = np.asarray(history[f"val_{name}"])
        if np.isfinite(held_out).any():
            ax.plot(epochs, held_out, color=colour, linestyle="--", label=f"{_SHOWN[name]}, held out", **style)
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"{_SHOWN[names[0]] if len(names) == 1 else 'losses'}, nats per row")
    whole_ticks(ax.xaxis)
    ax.legend()
    return plain(ax)


def score_histogram(
    scores: Any,
    threshold: float | None = None,
    labels: Any = None,
    bins: int | None = None,
    xlabel: str = "score, nats per row (lower is more abnormal)",
    ax: Axes | None = None,
) -> Axes:
    """Counts of scores (n,), one outline for each of labels (n,), and the threshold as a line.

    bins: how many; None: as the rows allow, 10 to 50 (twice the cube root of their number, Rice's rule).

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
    groups = np.zeros(len(values), int) if labels is None else as_labels(labels, len(values))
    kinds = np.unique(groups)
    if len(kinds) > len(COLOURS):
        raise ValueError(f"labels have {len(kinds)} different values; at most {len(COLOURS)} can be told apart")
    first, third = np.quantile(values, [0.25, 0.75])
    low = max(values.min(), first - 5 * (third - first))
    high = min(values.max(), third + 5 * (third - first))
    if threshold is not None and values.min() < threshold <= low:
        low = threshold - 0.05 * (high - threshold)  # rows below the threshold count in a bin below it
    count = round(float(np.clip(2 * np.cbrt(len(values)), 10, 50))) if bins is None else bins
    edges = np.linspace(low, high if high > low else low + 1, _checks.integer("bins", count, 1) + 1).tolist()
    ax = axes_for(ax)
    for kind, colour in zip(kinds, COLOURS, strict=False):
        some = values[groups == kind]
        name = None if labels is None else f"{word(kind)} ({_checks.counted(len(some), 'row')})"
        inside = np.clip(some, low, high)
        ax.hist(inside, edges, histtype="stepfilled", facecolor=colour, alpha=0.35)
        ax.hist(inside, edges, histtype="step", color=colour, linewidth=1.5, label=name)
    if threshold is not None:
        below = _checks.counted(int((values < threshold).sum()), "row")
        ax.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4g}, {below} below")
    if labels is not None or threshold is not None:
        ax.legend()
    beyond = int((values < low).sum() + (values > high).sum())
    ax.set_xlabel(xlabel + (f"; {_checks.counted(beyond, 'row')} beyond the ends" if beyond else ""))
    ax.set_ylabel("rows")
    whole_ticks(ax.yaxis)
    return plain(ax)
