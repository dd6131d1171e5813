# SPDX-License-Identifier: MIT
"""`fusedvae sample`: new rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import fusedvae as fv

from .. import picture
from .._checks import counted
from . import sink
from .options import add_command, add_json, amount, count, names, seed
from .rows import add_out, check, data_field, finish
from .source import read_rows


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    command = add_command(commands, "sample", run, "draw samples from a trained model")
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file")
    add_out(command, ", .png for images")
    command.add_argument("--n", type=count, default=64, help="how many (default %(default)s)")
    command.add_argument("--temperature", type=amount, default=1.0, help="standard deviation of the codes (default 1)")
    command.add_argument(
        "--observation-noise",
        action="store_true",
        help="draws from p(x|z) instead of its means: rows of a table as various as its data",
    )
    command.add_argument(
        "--like",
        metavar="DATA",
        help="draw codes from a Gaussian mixture fitted to the codes of these rows instead of from the prior",
    )
    command.add_argument("--drop", type=names, default=(), metavar="A,B", help="columns of that table to leave out")
    command.add_argument("--components", type=count, default=10, metavar="K", help="of that mixture (default 10)")
    command.add_argument("--seed", type=seed, default=0, help="default 0")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Runs it."""
    drawn = options.out.suffix.lower() == ".png"
    if drawn:
        picture.check(options.out)
    else:
        check(options)
    model = fv.load(options.model)
    if drawn and not picture.is_image_shape(model.config.input_shape):
        raise ValueError(f"rows of shape {model.config.input_shape} are no images: write .npy, .npz, .csv or .parquet")
    sampler = fv.Sampler(model, seed=options.seed)
    if options.like is not None:
        rows = read_rows(options.like, model.config, drop=options.drop)
        sampler.fit_codes(rows.parts[0] if len(rows.parts) == 1 else np.concatenate(rows.parts), options.components)
    x = sampler.sample(options.n, temperature=options.temperature, observation_noise=options.observation_noise)
    if drawn:
        picture.save(options.out, {f"{options.n} samples of {options.model.name}": x})
    else:
        with sink.opened(options.out, [data_field(model)], len(x)) as write:
            write(x)
    return finish(options, f"wrote {counted(len(x), 'sample')} to {options.out}", rows=len(x))
