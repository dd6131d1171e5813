# SPDX-License-Identifier: MIT
"""Does the model repeat its training rows? The nearest ones to what it drew, and how near held-out rows come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import Doubles

# Entries of a block of distances and of a block of rows: 16 MiB each in double precision.
BLOCK = 1 << 21


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of each of n samples the nearest training row: its index (n,) and the Euclidean distance to it (n,).

    held_out_distance (m,): the same distance of held-out rows, or None. Those are seen through the model, as
    reconstructions, since means of p(x|z) are smoother than rows and therefore nearer to everything.
    """

    index: NDArray[np.intp]
    distance: Doubles
    held_out_distance: Doubles | None = None

    @property
    def copying(self) -> float | None:
        """The probability that a sample lies nearer to the training rows than a held-out row does; None without those.

        About 1/2 or less: samples keep the distance that unseen data keeps. Near 1: the model repeats what it has
        seen. It is the Mann-Whitney statistic of Meehan et al. 2020, as a probability.
        """
        if self.held_out_distance is None:
            return None
        ordered = np.sort(self.held_out_distance)
        below, through = (np.searchsorted(ordered, self.distance, side) for side in ("left", "right"))
        return float(1 - (below + through).mean() / (2 * len(ordered)))

    def __repr__(self) -> str:
        text = f"Neighbours({len(self.index)} samples, median distance {np.median(self.distance):.4g}"
        if self.held_out_distance is not None:
            text += f", of held-out rows {np.median(self.held_out_distance):.4g}, copying {self.copying:.2f}"
        return text + ")"


def nearest(
    samples: Doubles, x: NDArray[Any], as_doubles: Callable[[NDArray[Any]], Doubles]
) -> tuple[NDArray[np.intp], Doubles]:
    """Index (n,) and Euclidean distance (n,) of the row of x (m, D) nearest to each of samples (n, D).

    Exact, in blocks: x, which may be a memory map, is read once and never converted whole. `as_doubles` converts rows.
    """
    index, distance = np.zeros(len(samples), np.intp), np.full(len(samples), np.inf)
    size = max(1, BLOCK // max(samples.shape[1], len(samples)))
    for first in range(0, len(x), size):
        rows = as_doubles(x[first : first + size])
        # |s - r|^2 less |s|^2, which all rows share, finds the row; its distance then comes from the difference, since
        # this sum has lost the digits of small ones.
        found = ((rows**2).sum(1) - 2 * samples @ rows.T).argmin(1)
        apart = np.sqrt(((samples - rows[found]) ** 2).sum(1))
        nearer = apart < distance
        index[nearer], distance[nearer] = first + found[nearer], apart[nearer]
    return index, distance
