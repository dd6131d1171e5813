# SPDX-License-Identifier: MIT
"""Pictures of images in rows of tiles: originals, their reconstructions below them, samples. matplotlib draws them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ._readers import require

# Tiles are enlarged by whole pixels to about this many, so that 8 x 8 digits can be seen.
TILE_PIXELS = 48
DPI = 100
# The grey between tiles.
GAP = 0.85
SUFFIXES = (".png", ".pdf", ".svg")


def as_image(x: np.ndarray) -> np.ndarray:
    """x (n, Y, X), (n, Y, X, 1|3|4) or (n, 1|3|4, Y, X) -> (n, Y, X) or (n, Y, X, 3|4)."""
    if x.ndim == 4 and x.shape[3] not in (1, 3, 4) and x.shape[1] in (1, 3, 4):
        x = np.moveaxis(x, 1, 3)
    if x.ndim == 4 and x.shape[3] == 1:
        x = x[..., 0]
    if x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (3, 4)):
        return x
    raise ValueError(f"rows of shape {x.shape[1:]} are no images; expected (Y, X), (Y, X, 1|3|4) or (1|3|4, Y, X)")


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape can be drawn."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[2] in (1, 3, 4) or shape[0] in (1, 3, 4)))


def mosaic(x: np.ndarray, columns: int) -> np.ndarray:
    """Images (n, Y, X[, C]) as one, `columns` to a row, NaN between them: float in the images' own scale."""
    x = as_image(np.asarray(x, np.float32))
    rows, (height, width) = -(-len(x) // columns), x.shape[1:3]
    page = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *x.shape[3:]), np.nan, np.float32)
    for i, tile in enumerate(x):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        page[top : top + height, left : left + width] = tile
    return page


def save(path: str | os.PathLike[str], panels: Mapping[str, np.ndarray], columns: int = 16) -> None:
    """Draws each panel's images (n, Y, X[, C]) under its title, all in one grey scale: the range of the first panel.

    Every image pixel becomes a square of whole screen pixels. The suffix of `path` chooses the format.
    """
    # Figure and its Agg canvas, not pyplot: no window system and no global state.
    figures = require("matplotlib.figure", "demo", "drawing a picture")
    first = np.asarray(next(iter(panels.values())), np.float32)
    low, high = float(first.min()), float(first.max())
    pages = {title: (mosaic(x, columns) - low) / max(high - low, 1e-12) for title, x in panels.items()}
    widest = max(page.shape[1] for page in pages.values())
    scale = max(1, round(TILE_PIXELS * columns / widest))
    title_pixels, margin = 26, 10
    width = widest * scale + 2 * margin
    height = sum(page.shape[0] * scale + title_pixels for page in pages.values()) + margin
    figure = figures.Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    top = 0
    for title, page in pages.items():
        figure.text(margin / width, 1 - (top + title_pixels - 7) / height, title, fontsize=10, va="baseline")
        top += title_pixels
        size = (page.shape[1] * scale / width, page.shape[0] * scale / height)
        axes = figure.add_axes((margin / width, 1 - top / height - size[1], *size))
        shown = np.clip(np.nan_to_num(page, nan=GAP), 0, 1)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        top += page.shape[0] * scale
    figure.savefig(path, dpi=DPI)


def check(path: str | os.PathLike[str]) -> None:
    """Raises now what save() would raise only after the work that its picture shows."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission to write in {folder}")
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: pictures are written as {', '.join(SUFFIXES)}")
    require("matplotlib.figure", "demo", "drawing a picture")
