# SPDX-License-Identifier: MIT
"""`fusedvae info`: what a model file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import fusedvae as fv

from .fitting import widths
from .options import add_command, add_json
from .terminal import print_json


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    command = add_command(commands, "info", run, "describe a model file")
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Runs it."""
    model = fv.load(options.model)
    shapes = {name: list(values.shape) for name, values in model.parameters().items()}
    count = model.parameter_count
    config = model.config
    if options.json:
        print_json({"config": config.to_dict(), "parameters": count, "tensors": shapes})
        return 0
    print(f"model        {widths(config)}")
    print(f"input        {' x '.join(map(str, config.input_shape))}")
    print(f"activation   {config.activation}")
    print(f"likelihood   {config.likelihood}")
    print(f"parameters   {count:,} ({4 * count / 1e6:.1f} MB)")
    for name, shape in shapes.items():
        print(f"  {name:24} {' x '.join(map(str, shape))}")
    return 0
