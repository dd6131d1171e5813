# SPDX-License-Identifier: MIT
"""From options to data and a configuration: what `train` and `demo` share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusedvae as fv

from .. import demo
from .._checks import counted, listed
from .._readers import require
from ..data import Dataset, load, split
from .options import use_threads
from .source import check_names, names_in, read_table, spooled
from .terminal import UsageError, note

SCALES = ("standard", "robust")
IMPUTES = ("mean", "median", "most_frequent")


def read_data(options: argparse.Namespace) -> Dataset:
    """The rows to train on and those held out."""
    use_threads(options)
    names = ("test_fraction", "seed", "image_shape", "key", "label", "drop", "size", "grey")
    return load(options.data, **{name: getattr(options, name) for name in names})


def read_columns(options: argparse.Namespace) -> tuple[Dataset, tuple[fv.Column, ...] | None]:
    """The same rows, those of a table as raw rows, and how the model is to read their columns."""
    table = None if options.image_shape else read_table(options.data)
    if table is not None:
        return _table(options, table)
    data = read_data(options)
    names = names_in(options.data) if options.image_shape is None and spooled(options.data) else []
    scale = None if options.scale in ("auto", "none") else options.scale
    if names and options.scale == "auto":
        likelihood = demo.likelihood_for(data.train, options.likelihood)
        scale = "standard" if isinstance(likelihood, fv.Gaussian) else None
    if scale is None and options.impute is None and not names:
        return data, None
    from .. import tables

    columns = tables.fit_columns(data.train.reshape(len(data.train), -1), scale, options.impute)
    left = [name for name in names if name not in (*options.drop, options.label)]
    return data, tuple(
        replace(column, name=name) for column, name in zip(columns, left or [""] * len(columns), strict=True)
    )


def _table(options: argparse.Namespace, table: dict[str, NDArray[Any]]) -> tuple[Dataset, tuple[fv.Column, ...]]:
    for name in ("key", "size", "grey"):
        if getattr(options, name):
            raise ValueError(f"--{name} does not apply to a table")
    label = () if options.label is None else (options.label,)
    check_names(options.data, table, (*options.drop, *label))
    left = {name: values for name, values in table.items() if name not in (*options.drop, *label)}
    if not left:
        raise ValueError(f"{options.data} has no data columns left")
    rows = len(next(iter(left.values())))
    if rows < 1 + (options.test_fraction > 0):
        raise ValueError(f"{options.data} has {counted(rows, 'row')}; two are needed to train on one and hold one out")
    use_threads(options)
    kept, held = split(rows, options.test_fraction, options.seed) if options.test_fraction else (np.arange(rows), None)
    raw, columns = _fit_table(options, left, kept)
    labels = table[options.label] if options.label else None
    return (
        Dataset(
            "stdin" if options.data == "-" else Path(options.data).name,
            raw[kept],
            None if held is None else raw[held],
            None if labels is None else labels[kept],
            None if labels is None or held is None else labels[held],
        ),
        columns,
    )


def _fit_table(
    options: argparse.Namespace, table: dict[str, NDArray[Any]], kept: NDArray[Any]
) -> tuple[NDArray[Any], tuple[fv.Column, ...]]:
    """Raw rows (n, R), and columns whose statistics are those of the rows `kept`."""
    from .. import tables

    pandas = require("pandas", "data", "training on a table")
    scale = None if options.scale == "none" else options.scale
    if _is_bernoulli(options.likelihood, scale, table):
        if text := [name for name, values in table.items() if values.dtype.kind not in "fiub"]:
            raise ValueError(f"{options.data}: not numeric: {listed(text)}; a Gaussian likelihood reads categories")
        table = {name: values.astype(np.float64) for name, values in table.items()}  # bools are numbers here
        scale = None
    elif scale == "auto":
        scale = "standard"
    frame = pandas.DataFrame(table)
    try:
        # A rare category may be among the rows held out alone.
        words = tables.fit_columns(frame, None, options.impute)
        columns = tuple(
            every if every.categories else column
            for every, column in zip(words, tables.fit_columns(frame.iloc[kept], scale, options.impute), strict=True)
        )
    except (TypeError, ValueError) as error:
        reason = str(error).replace('impute="median"', "--impute median")
        reason = reason.partition(", or make it pandas'")[0].replace("; leave it out", "; leave it out with --drop")
        raise type(error)(f"{options.data}: {reason}") from error
    return tables.raw_rows(frame, columns), columns


def _is_bernoulli(likelihood: str, scale: str | None, table: dict[str, NDArray[Any]]) -> bool:
    if likelihood != "auto":
        if likelihood == "bernoulli" and scale in SCALES:
            raise UsageError(f"--scale {scale} is for a Gaussian likelihood; Bernoulli reads values in [0, 1]")
        return likelihood == "bernoulli"
    numeric = all(values.dtype.kind in "fiub" for values in table.values())
    return scale not in SCALES and numeric and not any((v < 0).any() or (v > 1).any() for v in table.values())


def configure(options: argparse.Namespace, data: Dataset, columns: tuple[fv.Column, ...] | None = None) -> fv.Config:
    """The model asked for, the data's recipe where nothing was."""
    chosen = demo.recipe(data, options.batch_size)
    words = any(column.categories for column in columns or ())
    name = "gaussian" if (scaled(columns) or words) and options.likelihood == "auto" else options.likelihood
    likelihood = demo.likelihood_for(data.train, name, options.variance, options.min_variance)
    if isinstance(likelihood, fv.Gaussian) and not scaled(columns) and (hint := demo.scale_hint(data.train)):
        note(f"hint: {hint}")
    return fv.Config(
        input_shape=data.input_shape,
        hidden=chosen.hidden if options.hidden is None else options.hidden,
        latent=options.latent or chosen.latent,
        activation=options.activation,
        likelihood=likelihood,
        columns=columns,
    )


def scaled(columns: tuple[fv.Column, ...] | None) -> bool:
    """Whether columns are numbers that the model standardises."""
    return any(column.scale != 1 or column.shift != 0 for column in columns or ())


def progress(options: argparse.Namespace) -> list[Any]:
    """The callback that shows a bar, unless --quiet."""
    from ..progress import ProgressBar

    return [] if options.quiet else [ProgressBar()]


def widths(config: fv.Config) -> str:
    """The network in a line."""
    read = config.encoded_width  # in which a category is one-hot
    path = (read, *config.hidden, f"[{config.latent}]", *config.decoder_hidden, read)
    return f"{' - '.join(map(str, path))}, {config.activation}, {type(config.likelihood).__name__}"
