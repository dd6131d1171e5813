# SPDX-License-Identifier: MIT
"""From options to data and a configuration: what `train` and `demo` share."""

from __future__ import annotations

import argparse
from typing import Any

import fusedvae as fv

from .. import demo
from ..data import Dataset, load
from .options import use_threads
from .terminal import note

SCALES = ("standard", "robust")
IMPUTES = ("mean", "median", "most_frequent")


def read_data(options: argparse.Namespace) -> Dataset:
    """The rows to train on and those held out."""
    use_threads(options)
    names = ("test_fraction", "seed", "image_shape", "key", "label", "drop", "size", "grey")
    return load(options.data, **{name: getattr(options, name) for name in names})


def configure(options: argparse.Namespace, data: Dataset) -> tuple[fv.Config, int]:
    """The model and the epochs asked for, the data's recipe where nothing was."""
    chosen = demo.recipe(data, options.batch_size)
    likelihood = demo.likelihood_for(data.train, options.likelihood, options.variance)
    if isinstance(likelihood, fv.Gaussian) and (hint := demo.scale_hint(data.train)):
        note(f"hint: {hint}")
    config = fv.Config(
        input_shape=data.input_shape,
        hidden=chosen.hidden if options.hidden is None else options.hidden,
        latent=options.latent or chosen.latent,
        activation=options.activation,
        likelihood=likelihood,
    )
    return config, options.epochs or chosen.epochs


def progress(options: argparse.Namespace) -> list[Any]:
    """The callback that shows a bar, unless --quiet."""
    from ..progress import ProgressBar

    return [] if options.quiet else [ProgressBar()]


def widths(config: fv.Config) -> str:
    """The network in a line."""
    path = (config.width, *config.hidden, f"[{config.latent}]", *config.decoder_hidden, config.width)
    return f"{' - '.join(map(str, path))}, {config.activation}, {type(config.likelihood).__name__}"
