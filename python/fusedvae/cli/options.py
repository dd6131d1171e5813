# SPDX-License-Identifier: MIT
"""Arguments that several commands share, and the types they are read as."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

import fusedvae as fv

from ..config import ACTIVATIONS, VARIANCES
from ..data import NAMES

# Filled in by `settle`: until then None tells what was not asked for, so that a checkpoint or a detector may say it.
DEFAULTS: dict[str, Any] = {
    "activation": "relu",
    "variance": "feature",
    "min_variance": 1e-4,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "seed": 0,
    "precision": "float32",
    "optimizer": "adam",
    "beta": 1.0,
    "samples": fv.Detector.samples,
    "distance": fv.Detector.distance,
}
DATA_HELP = f"{', '.join(NAMES)}, or a .npy, .npz, IDX(.gz), .csv(.gz) or .parquet file, or a folder of images"


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


def use_threads(options: argparse.Namespace) -> None:
    """Obeys --threads."""
    if options.threads is not None:
        fv.set_num_threads(options.threads)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Options of how the data is read and split."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--test-fraction", type=fraction, default=0.1, metavar="F", help="rows to hold out (default %(default)s)"
    )
    group.add_argument("--image-shape", type=extents, metavar="YxX", help="the images that rows are, e.g. 28x28")
    group.add_argument("--key", help=".npz: the array to read")
    group.add_argument("--label", metavar="COLUMN", help="tables: the column of labels, which training leaves out")
    group.add_argument("--drop", type=names, default=(), metavar="A,B", help="tables: columns to leave out")
    group.add_argument("--size", type=size, metavar="YxX", help="folders of images: resize to this")
    group.add_argument("--grey", action="store_true", help="folders of images: drop colour")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options of what the model is made of."""
    group = parser.add_argument_group("model (defaults follow the data)")
    group.add_argument("--hidden", type=counts, metavar="H,H", help="widths of the encoder's hidden layers")
    group.add_argument("--latent", type=count, metavar="Z", help="width of the code")
    group.add_argument("--activation", choices=ACTIVATIONS, help=default("activation"))
    group.add_argument(
        "--likelihood",
        choices=("auto", "bernoulli", "gaussian"),
        default="auto",
        help="auto: Bernoulli for data in [0, 1], else Gaussian",
    )
    group.add_argument("--variance", choices=VARIANCES, help=f"Gaussian only ({default('variance')})")
    group.add_argument(
        "--min-variance", type=positive, metavar="V", help=f"least of a learned variance ({default('min_variance')})"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of a training run."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=count, metavar="N", help="passes over the data")
    group.add_argument("--batch-size", type=count, metavar="B", help=default("batch_size"))
    group.add_argument("--learning-rate", type=positive, metavar="R", help=default("learning_rate"))
    add_threads(group)
    group.add_argument("--seed", type=seed, help=f"of parameters, split, shuffle and noise ({default('seed')})")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_json(group)


def default(name: str) -> str:
    """What the help says of an option that `settle` fills in."""
    return f"default {DEFAULTS[name]}"


def settle(options: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Fills in what was not asked for."""
    for name, value in defaults.items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)


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


def size(text: str) -> tuple[int, int]:
    """Two positive integers separated by x."""
    y, x = extents(text)
    return y, x


def seed(text: str) -> int:
    """An unsigned integer of 64 bits."""
    value = int(text)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 2^64 - 1")
    return value


def amount(text: str) -> float:
    """A number that is not negative."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def fraction(text: str) -> float:
    """A number within [0, 1)."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


# argparse names a converter in its message "invalid ... value".
count.__name__, counts.__name__, extents.__name__ = "positive integer", "list of integers", "image shape"
size.__name__, seed.__name__ = "size, YxX such as 32x32,", "integer"
amount.__name__ = positive.__name__ = fraction.__name__ = "number"
