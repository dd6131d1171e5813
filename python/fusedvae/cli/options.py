# SPDX-License-Identifier: MIT
"""Arguments that several commands share, and the types they are read as."""

from __future__ import annotations

import argparse
from typing import Any

import fusedvae as fv

from ..config import ACTIVATIONS, VARIANCES
from ..data import NAMES

DATA_HELP = f"{', '.join(NAMES)}, or a .npy, .npz, IDX(.gz), .csv or .parquet file, or a folder of images"


def add_command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """A command that `run` executes."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(run=run)
    return parser


def add_json(parser: Any) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_threads(parser: Any) -> None:
    """--threads, which `use_threads` obeys."""
    parser.add_argument("--threads", type=count, metavar="N", help="default: the cores that this process may use")


def add_device(parser: Any) -> None:
    """--device."""
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="where to compute: cpu, cuda, cuda:1 (default %(default)s)"
    )


def use_threads(options: argparse.Namespace) -> None:
    """Obeys --threads."""
    if options.threads is not None:
        fv.set_num_threads(options.threads)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Options of how the data is read and split."""
    group = parser.add_argument_group("data")
    group.add_argument("--test-fraction", type=float, default=0.1, metavar="F", help="rows to hold out (default 0.1)")
    group.add_argument("--image-shape", type=extents, metavar="YxX", help="the images that rows are, e.g. 28x28")
    group.add_argument("--key", help=".npz: the array to read")
    group.add_argument("--label", metavar="COLUMN", help="tables: the column of labels, which training leaves out")
    group.add_argument("--drop", type=names, default=(), metavar="A,B", help="tables: columns to leave out")
    group.add_argument("--size", type=extents, metavar="YxX", help="folders of images: resize to this")
    group.add_argument("--grey", action="store_true", help="folders of images: drop colour")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options of what the model is made of."""
    group = parser.add_argument_group("model (defaults follow the data)")
    group.add_argument("--hidden", type=counts, metavar="H,H", help="widths of the encoder's hidden layers")
    group.add_argument("--latent", type=count, metavar="Z", help="width of the code")
    group.add_argument("--activation", choices=ACTIVATIONS, default="relu", help="default %(default)s")
    group.add_argument(
        "--likelihood",
        choices=("auto", "bernoulli", "gaussian"),
        default="auto",
        help="auto: Bernoulli for data in [0, 1], else Gaussian",
    )
    group.add_argument("--variance", choices=VARIANCES, default="feature", help="Gaussian only (default %(default)s)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of a training run."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=count, metavar="N", help="passes over the data")
    group.add_argument("--batch-size", type=count, default=128, metavar="B", help="default %(default)s")
    group.add_argument("--learning-rate", type=float, default=1e-3, metavar="R", help="default %(default)s")
    add_threads(group)
    add_device(group)
    group.add_argument("--seed", type=int, default=0, help="of parameters, split, shuffle and noise (default 0)")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_json(group)


def count(text: str) -> int:
    """A positive integer."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def names(text: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(word for word in text.split(",") if word)


def counts(text: str) -> tuple[int, ...]:
    """Positive integers separated by commas."""
    return tuple(count(part) for part in text.split(",") if part)


def extents(text: str) -> tuple[int, ...]:
    """Positive integers separated by x."""
    return tuple(count(part) for part in text.replace(",", "x").split("x"))


# argparse names a converter in its message "invalid ... value".
count.__name__, counts.__name__, extents.__name__ = "positive integer", "list of integers", "image shape"
