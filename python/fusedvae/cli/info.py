# SPDX-License-Identifier: MIT
"""`fusedvae info`: what a model file holds, or without one what this machine offers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import fusedvae as fv

from .. import _core
from .._checks import counted
from .._gpu import why_no_gpu
from .fitting import widths
from .options import add_command, add_json
from .terminal import print_json

# Categories named in a line.
WORDS = 5


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    command = add_command(commands, "info", run, "describe a model file, or this installation")
    command.add_argument(
        "model", type=Path, nargs="?", metavar="MODEL", help="a .safetensors file; none: what fusedvae finds here"
    )
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Runs it."""
    if options.model is None:
        return _installation(options)
    model = fv.load(options.model)
    config, detector, count = model.config, model.detector, model.parameter_count
    shapes = {name: list(values.shape) for name, values in model.parameters().items()}
    if options.json:
        chosen = ("score", "samples", "seed", "threshold", "distance")
        kept = detector and {name: getattr(detector, name) for name in chosen}
        print_json({"config": config.to_dict(), "parameters": count, "tensors": shapes, "detector": kept})
        return 0
    print(f"model        {widths(config)}")
    print(f"input        {' x '.join(map(str, config.input_shape))}")
    print(f"activation   {config.activation}")
    print(f"likelihood   {config.likelihood}")
    print(f"detector     {detector or 'none'}")
    print(f"parameters   {count:,} ({4 * count / 1e6:.1f} MB)")
    for name, shape in shapes.items():
        print(f"  {name:24} {' x '.join(map(str, shape))}")
    if config.columns is not None:
        print(f"columns      {len(config.columns)}, which the network reads as {config.encoded_width} values")
        for name, column in zip(config.column_names, config.columns, strict=True):
            print(f"  {name:24} {_column(column)}")
    return 0


def _installation(options: argparse.Namespace) -> int:
    gpus = {name: _core.device_properties(name) for name in fv.available_devices()[1:]}
    if options.json:
        precisions = {name: fv.available_precisions(name) for name in fv.available_devices()}
        print_json({"version": fv.__version__, "backend": fv.backend(), "precisions": precisions, "gpus": gpus})
        return 0
    print(f"fusedvae     {fv.__version__}")
    threads = counted(fv.get_num_threads(), "thread")
    print(f"cpu          {fv.backend()}, {', '.join(fv.available_precisions())}, {threads}")
    for name, gpu in gpus.items():
        size, free = gpu["total_bytes"] / 1e9, gpu["free_bytes"] / 1e9
        print(
            f"{name:12} {gpu['name']}, {size:.1f} GB ({free:.1f} GB free), {', '.join(fv.available_precisions(name))}"
        )
    if not gpus:
        print(f"cuda         {why_no_gpu()}")
    return 0


def _column(column: fv.Column) -> str:
    if column.categories is None:
        fill = "" if column.fill is None else f", {column.fill:.6g} where it is missing"
        sign = "+" if column.shift < 0 else "-"
        return f"(x {sign} {abs(column.shift):.6g}) / {column.scale:.6g}{fill}"
    fill = "" if column.fill is None else f", {column.categories[int(column.fill)]!r} where it is missing"
    words = column.categories[:WORDS]
    more = f", … ({len(column.categories)})" if len(column.categories) > WORDS else ""
    return f"one of {', '.join(map(repr, words))}{more}{fill}"
