# SPDX-License-Identifier: MIT
"""What the pictures share: their axes, colours and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._readers import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ten colours that differ for colour-blind readers too (Petroff 2021, arXiv:2107.02270, the sequence of ten).
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
# Longer labels would leave no room for what they label.
LONGEST_LABEL = 24


def axes_for(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """`ax`, or the one axes of a new figure of this size in inches, which pyplot does not know."""
    if ax is not None:
        return ax
    figure = require("matplotlib.figure", "plot", "drawing a picture").Figure(figsize=size, layout="constrained")
    axes: Axes = figure.subplots()
    return axes


def plain(ax: Axes) -> Axes:
    """`ax` without the frame's upper and right line."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def whole_ticks(axis: Any) -> None:
    """At most seven ticks, at whole numbers, so that they do not touch where axes are small."""
    axis.set_major_locator(require("matplotlib.ticker", "plot", "drawing a picture").MaxNLocator(6, integer=True))


def as_labels(labels: Any, rows: int) -> NDArray[Any]:
    """One label for each row (rows,); ValueError for another number of them."""
    array = np.asarray(labels)
    if array.shape != (rows,):
        raise ValueError(f"labels have shape {array.shape}; expected one for each of {rows} rows, ({rows},)")
    return array.astype(str) if array.dtype == object else array


def word(label: Any) -> str:
    """A label as matplotlib shows it: short, no $ as the start of a formula, no _ as a sign to leave it out."""
    text = " ".join(str(label).split()) or "(empty)"
    text = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    return (" " + text if text.startswith("_") else text).replace("$", r"\$")
