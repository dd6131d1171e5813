# SPDX-License-Identifier: MIT
"""`fusedvae demo`: a first look."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._checks import counted
from .fitting import configure, progress, read_data, widths
from .options import DATA_HELP, DEFAULTS, add_command, add_data, add_model, add_run, settle
from .terminal import INTERRUPTED, note, print_json

if TYPE_CHECKING:
    from ..demo import Result


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    command = add_command(commands, "demo", run, "train on real images, print ELBO and speed, draw a picture")
    command.add_argument("--data", default="digits", metavar="DATA", help=DATA_HELP + " (default digits)")
    command.add_argument(
        "--output",
        type=Path,
        default=Path("fusedvae-demo.png"),
        metavar="FILE",
        help="picture of originals, reconstructions and samples (default %(default)s)",
    )
    add_data(command)
    add_model(command)
    add_run(command)


def run(options: argparse.Namespace) -> int:
    """Runs it."""
    from .. import demo

    settle(options, DEFAULTS)
    data = read_data(options)
    config = configure(options, data)
    result = demo.run(
        data,
        config,
        epochs=options.epochs or demo.recipe(data, options.batch_size).epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        device=options.device,
        output=options.output,
        callbacks=progress(options),
        log=note,
    )
    if options.json:
        print_json(asdict(result))
    else:
        print(f"data         {result.data}: {result.rows} rows to train on, {result.held_out} held out")
        print(f"model        {widths(config)}")
        done = f"{counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}"
        print(f"training     {done} in {result.seconds:.2f} s")
        print(f"ELBO         {result.elbo:.2f} nats per held-out row")
        print(f"throughput   {result.rows_per_second:,.0f} rows/s, {result.steps_per_second:,.0f} steps/s")
        print(f"arithmetic   {result.gflops:.1f} GFLOP/s{_share(result)}")
        if result.picture:
            print(f"picture      {result.picture}")
    return INTERRUPTED if result.interrupted else 0


def _share(result: Result) -> str:
    """Of the processor's peak, or where it was not the processor that trained."""
    if result.fraction_of_peak is None:
        return f" on {result.device}"
    threads = f"{result.threads} threads reach" if result.threads > 1 else "1 thread reaches"
    return f", {result.fraction_of_peak:.0%} of the {result.peak_gflops:.0f} that {threads} here ({result.backend})"
