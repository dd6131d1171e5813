# SPDX-License-Identifier: MIT
"""One HTML page about a model: its configuration, training, pictures and, for tables, the quality of each column.

The page is self-contained: no script, no request to anywhere, pictures inside. matplotlib draws them and Jinja2 fills
in report.html, which escapes whatever comes from the data. The same arguments give the same bytes.
"""

from __future__ import annotations

import base64
import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _core, plot
from ._atomic import replacing
from ._readers import require
from .detector import NATS, Detector
from .diagnostics import collapse_report
from .model import Model, check_model
from .picture import is_image_shape
from .plot.axes import as_labels
from .plot.codes import mean_kl
from .sampler import Sampler

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Enough rows for steady figures and a full embedding; a memory map is not read whole.
ROWS = 2000
ELBO_SAMPLES = 10
EPOCHS_LISTED = 12
COLUMNS_LISTED = 200
# Histograms of more groups than this hide one another.
MOST_GROUPS = 4
SCORES_SHOWN = {
    "elbo": ("ELBO", ", nats"),
    "log_likelihood": ("log-likelihood", ", nats"),
    "reconstruction": ("minus the mean squared error", ""),
    "kl": ("minus the KL", ", nats"),
    "mahalanobis": ("minus the squared Mahalanobis distance", ""),
}
TILES = 40
DPI = 100


class Picture(NamedTuple):
    """A picture as a data URI, its size on the page, and what is said about it."""

    title: str
    note: str
    source: str
    width: int
    height: int


class Quality(NamedTuple):
    """How well one column comes back, in words, and `level`: the share explained or right within [0, 1]."""

    name: str
    deviation: str
    error: str
    share: str
    level: float


def write(
    path: str | os.PathLike[str],
    model: Model,
    history: Mapping[str, NDArray[Any]] | None = None,
    x: Any = None,
    labels: Any = None,
    title: str = "A variational autoencoder",
    seed: int = 0,
) -> None:
    """Writes the page to `path`, atomically: what the model is, how it trained, and what it does with rows x (n, D).

    history: what `Trainer.fit` returned. x: held-out rows, of which 2000 spread over all are looked at; None leaves
    out everything that needs rows. labels (n,) colour the embedding. seed: of samples and scores.

    ValueError and TypeError for rows or labels that do not fit, OSError's kinds where the system refuses, ImportError
    where matplotlib or Jinja2 is missing.

    >>> import pathlib, tempfile, numpy as np, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fv.report.write(f"{folder}/out.html", model, x=np.zeros((20, 6)))
    ...     pathlib.Path(folder, "out.html").read_text()[:15]
    '<!DOCTYPE html>'
    """
    page = render(model, history, x, labels, title, seed)
    with replacing(path) as written:
        written.write_text(page, encoding="utf-8")


def render(
    model: Model,
    history: Mapping[str, NDArray[Any]] | None = None,
    x: Any = None,
    labels: Any = None,
    title: str = "A variational autoencoder",
    seed: int = 0,
) -> str:
    """The page that `write` writes, as text.

    >>> import fusedvae as fv
    >>> "&lt;b&gt;" in render(fv.Model(fv.Config(input_shape=6, latent=2)), title="<b>")
    True
    """
    check_model(model)
    jinja2 = require("jinja2", "report", "writing a report")
    if history is not None and not isinstance(history, Mapping):
        raise TypeError(f"history must be what Trainer.fit returns, not {type(history).__name__}; rows are x=")
    trained = history is not None and len(history["epoch"]) > 0
    rows = None if x is None else _arrays.rows_of(x, model.config).array
    if rows is not None:
        names = None if labels is None else as_labels(labels, len(rows))
        chosen = np.unique(np.linspace(0, len(rows) - 1, ROWS).round().astype(int))
        rows, labels = rows[chosen], None if names is None else names[chosen]
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    )
    page: str = template.render(
        title=title,
        version=_core.version(),
        figures=_figures(model, history if trained else None, rows, seed),
        settings=_settings(model),
        epochs=_epochs(history) if trained and history else None,
        curves=_curves(history) if trained and history else None,
        sections=[*_sections(model, rows, labels, seed)],
        columns=None if rows is None or is_image_shape(model.config.input_shape) else _columns(model, rows),
    )
    return page


def check() -> None:
    """Raises now the ImportError that `write` would raise after the work that its page shows."""
    require("matplotlib.figure", "report", "writing a report")
    require("jinja2", "report", "writing a report")


# ---- figures and tables ---------------------------------------------------------------------------------------------


def _figures(
    model: Model, history: Mapping[str, NDArray[Any]] | None, rows: NDArray[Any] | None, seed: int
) -> list[tuple[str, str]]:
    figures = []
    if history is not None:
        figures.append(("epochs", f"{len(history['epoch'])}"))
        figures.append(("training loss", f"{history['loss'][-1]:.2f}"))
        if math.isfinite(history["val_loss"][-1]):
            figures.append(("held-out loss", f"{history['val_loss'][-1]:.2f}"))
    if rows is not None:
        elbo = model.elbo(rows, samples=ELBO_SAMPLES, seed=seed).mean()
        kl = mean_kl(model, rows).sum()
        figures += [
            (f"ELBO of {len(rows)} rows", f"{elbo:.2f}"),
            ("their reconstruction", f"{-elbo - kl:.2f}"),
            ("their KL", f"{kl:.2f}"),
        ]
    return figures


def _settings(model: Model) -> list[tuple[str, str]]:
    config = model.config

    def widths(values: tuple[int, ...]) -> str:
        return " × ".join(map(str, values))

    read = "" if config.columns is None else f" columns, read as {config.encoded_width} values"
    return [
        ("input", f"{widths(config.input_shape)}{read}"),
        ("encoder", f"{widths(config.hidden) or 'linear'}, {config.activation}"),
        ("latent", f"{config.latent}"),
        ("decoder", f"{widths(config.decoder_hidden) or 'linear'}, {config.activation}"),
        ("likelihood", f"{config.likelihood}"),
        ("detector", f"{model.detector or 'none'}"),
        ("parameters", f"{model.parameter_count:,}"),
    ]


def _epochs(history: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    validated = bool(np.isfinite(history["val_loss"]).any())
    names = {"epoch": "epoch", "step": "step", "loss": "loss", "reconstruction": "reconstruction", "kl": "KL"}
    if validated:
        names |= {"val_loss": "held-out loss", "val_kl": "held-out KL"}
    names |= {"learning_rate": "learning rate", "beta": "beta"}
    last = len(history["epoch"]) - 1
    listed = np.unique(np.linspace(0, last, EPOCHS_LISTED).round().astype(int))
    rows = [[_number(history[name][i]) for name in names] for i in listed]
    return {"names": list(names.values()), "rows": rows}


def _number(value: Any) -> str:
    if isinstance(value, np.integer):
        return str(value)
    if math.isnan(value):  # an epoch without held-out rows
        return "–"
    return f"{value:.2f}" if 0.1 <= abs(value) < 1e6 else f"{value:.3g}"


def _columns(model: Model, rows: NDArray[Any]) -> dict[str, Any]:
    """The quality of each column, the worst first."""
    config = model.config
    scale = config.uint8_scale if rows.dtype == np.uint8 else 1.0
    values = rows.astype(np.float64) * scale
    decoded = model.reconstruct(rows).reshape(values.shape).astype(np.float64)
    found: list[tuple[float, Quality]] = []
    categorical = {j for j, column in enumerate(config.columns or ()) if column.categories}
    for j, (name, column, back) in enumerate(zip(config.column_names, values.T, decoded.T, strict=True)):
        if j in categorical:
            right = float((column == back).mean())
            found.append((right, Quality(name, "", "", f"{right:.1%} right", right)))
            continue
        known = np.isfinite(column)
        error, variance = float(((column - back)[known] ** 2).mean()), float(column[known].var())
        share = 1 - error / variance if variance > 0 else math.nan
        quality = Quality(
            name,
            f"{math.sqrt(variance):.4g}",
            f"{math.sqrt(error):.4g}",
            "constant" if math.isnan(share) else f"{share:.3f}",
            0.0 if math.isnan(share) else min(1.0, max(0.0, share)),
        )
        found.append((share, quality))
    found.sort(key=lambda pair: (math.isnan(pair[0]), pair[0]))
    return {"rows": [quality for _, quality in found[:COLUMNS_LISTED]], "hidden": max(0, len(found) - COLUMNS_LISTED)}


# ---- pictures -------------------------------------------------------------------------------------------------------


def _curves(history: Mapping[str, NDArray[Any]]) -> Picture:
    figure: Figure = require("matplotlib.figure", "report", "drawing a picture").Figure(
        figsize=(9.0, 3.2), layout="constrained"
    )
    for ax, term in zip(figure.subplots(1, 3), ("loss", "reconstruction", "kl"), strict=True):
        plot.training_curves(history, term, ax)
    return _picture(figure, "Training curves", "Means over the rows of each epoch; dashed: held-out rows.")


def _sections(model: Model, rows: NDArray[Any] | None, labels: Any, seed: int) -> Iterator[Picture]:
    config = model.config

    def drawn(ax: Axes, title: str, note: str) -> Picture:
        assert ax.figure is not None
        return _picture(ax.figure, title, note)

    if is_image_shape(config.input_shape):
        sampler = Sampler(model, seed=seed)
        if rows is not None:
            images = rows[np.unique(np.linspace(0, len(rows) - 1, TILES).round().astype(int))]
            yield drawn(
                plot.reconstructions(model, images),
                "Reconstructions",
                "Rows of data and below each the mean of p(x|z) at its mean code.",
            )
        yield drawn(
            plot.samples(sampler, TILES, columns=10),
            "Samples",
            "Means of p(x|z) at codes drawn from the prior N(0, I).",
        )
        yield drawn(
            plot.traversals(sampler, None if rows is None else rows[0]),
            "Traversals",
            "One dimension of a code at a time, from -3 to 3; the dimensions that change the image most.",
        )
        if config.latent == 2:
            yield drawn(
                plot.latent_grid(sampler),
                "The latent plane",
                "Means of p(x|z) at codes of evenly spaced probability under the prior.",
            )
    if rows is None:
        return
    yield drawn(plot.embedding(model, rows, labels), "Embedding", f"Mean codes of {len(rows)} rows.")
    if len(rows) > 1:
        found = collapse_report(model, rows, seed=seed)
        idle = "; the others carry nothing of the data" if found.active_units < config.latent else ""
        yield drawn(
            plot.kl_by_dimension(model, rows),
            "Use of the latent dimensions",
            f"Mean KL(q(z|x) ‖ N(0, I)) of each dimension. {found.active_units} of {config.latent} are active: "
            f"their mean codes vary by more than 0.01{idle}. Of the KL's "
            f"{found.total_kl:.2f} nats {found.mutual_information:.2f} tell rows apart (mutual information of row and "
            f"code, at most the logarithm of the number of rows, {math.log(found.rows):.2f}); {found.aggregate_kl:.2f} "
            "are the distance of all codes together from the prior.",
        )
    detector = model.detector or Detector("elbo", ELBO_SAMPLES, seed)
    name, unit = SCORES_SHOWN[detector.score]
    if detector.distance > 0:
        name += f" less {detector.distance:g} × ½ ‖row‖²"
    drawn_by = f", from {detector.samples} draws of z" if detector.score in NATS else ""
    several = labels is not None and len(np.unique(labels)) <= MOST_GROUPS
    yield drawn(
        plot.score_histogram(
            model.score(rows, detector),
            detector.threshold,
            labels if several else None,
            xlabel=f"{name}{unit} (lower is more abnormal)",
        ),
        "Scores",
        f"{name} of each row{drawn_by}.",
    )


def _picture(figure: Any, title: str, note: str) -> Picture:
    """`figure` as a PNG with twice the pixels that the page shows, for fine screens."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of labels in scripts that matplotlib's font lacks
        figure.savefig(content, format="png", dpi=2 * DPI, metadata={"Software": None})
    width, height = (round(inches * DPI) for inches in figure.get_size_inches())
    return Picture(title, note, "data:image/png;base64," + base64.b64encode(content.getvalue()).decode(), width, height)
