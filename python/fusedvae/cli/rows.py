# SPDX-License-Identifier: MIT
"""`fusedvae encode`, `decode`, `reconstruct`, `score`: rows of a file through a model, to a file or to stdout."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusedvae as fv

from .._checks import counted
from ..detector import SCORES
from . import sink
from .options import add_command, add_json, add_threads, count, names, seed, use_threads
from .sink import Field
from .source import PARTS, Source, read_codes, read_rows
from .terminal import STDOUT, UsageError, check_apart, print_json

INPUT_HELP = (
    ".npy, .npz, IDX(.gz), .csv(.gz) or .parquet file, folder of images, data set's name, or - for CSV on stdin"
)


def add(commands: Any) -> None:
    """Adds the commands' arguments."""
    command = _add(commands, "encode", _encode, "write the codes of rows: the means z0, z1, … of q(z|x)")
    command.add_argument("--logvar", action="store_true", help="also the log-variances logvar0, … (.npz: always)")

    _add(commands, "decode", _decode, "write the rows that codes stand for: the means of p(x|z)", data="codes")

    _add(commands, "reconstruct", _reconstruct, "write each row as the model gives it back from its mean code")

    command = _add(commands, "score", _score, "write a score for each row: the lower, the more abnormal")
    command.add_argument(
        "--score",
        choices=SCORES,
        help="elbo and log_likelihood (importance-weighted): nats; reconstruction: minus the mean squared error; kl: "
        "minus the KL, nats; mahalanobis: minus the code's squared distance (default: that of the model's detector, "
        "else elbo)",
    )
    command.add_argument("--samples", type=count, metavar="S", help="draws of z for elbo and log_likelihood")
    command.add_argument("--seed", type=seed, metavar="N", help="of these draws (default 0)")
    command.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="also a column abnormal: 1 where the score is below T, else 0; write --threshold=-1e3 for numbers with an "
        "exponent (default: the detector's, if it has one)",
    )
    command.add_argument(
        "--contributions",
        action="store_true",
        help="also -log p(x_j | mean code) of each column, nats: why a row is so",
    )


def add_out(command: argparse.ArgumentParser, more: str = "") -> None:
    """--out, where results go."""
    command.add_argument(
        "--out",
        type=Path,
        default=STDOUT,
        metavar="FILE",
        help=f".npy, .npz, .csv or .parquet{more}; - for CSV on stdout (default)",
    )


def data_field(model: fv.Model) -> Field:
    """Data rows as a result."""
    config = model.config
    words = [column.categories for column in config.columns or ()]
    return Field("x", config.column_names, config.input_shape, np.float32, words)


def check(options: argparse.Namespace, results: int = 1) -> None:
    """Raises before the work what --out and --json do not allow; results: the arrays that are asked for."""
    if options.json and options.out == STDOUT:
        raise UsageError("--json describes the results on stdout: name a file for them with --out")
    sink.check(options.out, results)
    check_apart(options.out, options.model, getattr(options, "data", None), getattr(options, "like", None))


def finish(options: argparse.Namespace, line: str, **figures: Any) -> int:
    """Says what was done, where stdout does not hold the results."""
    if options.json:
        print_json({"out": str(options.out), **figures})
    elif options.out != STDOUT:
        print(line)
    return 0


def _add(commands: Any, name: str, run: Any, summary: str, data: str = "rows") -> argparse.ArgumentParser:
    command = add_command(commands, name, run, summary)
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file")
    command.add_argument("data", metavar="DATA", help=f"{data}: a {INPUT_HELP}")
    add_out(command)
    command.add_argument("--key", help=".npz: the array to read")
    command.add_argument("--drop", type=names, default=(), metavar="A,B", help="tables: columns to leave out")
    command.add_argument(
        "--keep", type=names, default=(), metavar="A,B", help="tables: columns to copy to the results, such as an id"
    )
    if data == "rows":
        command.add_argument(
            "--part", choices=PARTS, default="all", help="of sources with test rows of their own (default %(default)s)"
        )
    add_threads(command)
    add_json(command)
    return command


def _encode(options: argparse.Namespace) -> int:
    model = _model(options, 1 + options.logvar)
    latent = range(model.config.latent)
    fields = [Field("mu", [f"z{j}" for j in latent], (len(latent),))]
    if options.logvar or options.out.suffix.lower() == ".npz":
        fields.append(Field("logvar", [f"logvar{j}" for j in latent], (len(latent),)))
    return _run(options, model, fields, lambda x: model.encode(x)[: len(fields)])


def _decode(options: argparse.Namespace) -> int:
    model = _model(options)
    return _run(options, model, [data_field(model)], lambda z: [model.decode(z)])


def _reconstruct(options: argparse.Namespace) -> int:
    model = _model(options)
    return _run(options, model, [data_field(model)], lambda x: [model.reconstruct(x)])


def _score(options: argparse.Namespace) -> int:
    model = _model(options, 1 + options.contributions + (options.threshold is not None))
    detector = _detector(options, model)
    name = "score" if detector.distance > 0 else detector.score
    fields = [Field(name, [name], (), np.float64)]
    if detector.threshold is not None:
        fields.append(Field("abnormal", ["abnormal"], (), np.uint8))
    if options.contributions:
        columns = [f"contribution_{name}" for name in model.config.column_names]
        fields.append(Field("contributions", columns, (len(columns),), np.float64))
    found: list[NDArray[np.float64]] = []

    def compute(x: NDArray[Any]) -> list[NDArray[Any]]:
        scores = model.score(x, detector)
        found.append(scores)
        results: list[NDArray[Any]] = [scores]
        if detector.threshold is not None:
            results.append((scores < detector.threshold).astype(np.uint8))
        if options.contributions:
            results.append(model.contributions(x))
        return results

    def figures() -> dict[str, Any]:
        scores = np.concatenate(found)
        values = {name: float(getattr(scores, name)()) for name in ("mean", "min", "max")}
        described = {"score": detector.score, "distance": detector.distance, **values}
        if detector.threshold is None:
            return described
        abnormal = int((scores < detector.threshold).sum())
        return {**described, "threshold": detector.threshold, "abnormal": abnormal}

    return _run(options, model, fields, compute, figures)


def _detector(options: argparse.Namespace, model: fv.Model) -> fv.Detector:
    """The model's detector with what the options change; a score that is asked for is that one and no more."""
    own = model.detector
    detector = fv.Detector() if own is None else own
    if options.score is not None and (options.score != detector.score or detector.distance > 0):
        if options.score == "mahalanobis" and detector.latent_mean is None:
            raise ValueError(f"{options.model} keeps no codes to compare with: train it with --score mahalanobis")
        detector = replace(detector, score=options.score, threshold=None, distance=0.0)
    changes = {name: getattr(options, name) for name in ("samples", "seed", "threshold")}
    return replace(detector, **{name: value for name, value in changes.items() if value is not None})


def _model(options: argparse.Namespace, results: int = 1) -> fv.Model:
    check(options, results + len(options.keep))
    use_threads(options)
    return fv.load(options.model)


def _run(
    options: argparse.Namespace,
    model: fv.Model,
    fields: Sequence[Field],
    compute: Callable[[NDArray[Any]], Sequence[NDArray[Any]]],
    figures: Callable[[], dict[str, Any]] = dict,
) -> int:
    """Reads, computes and writes block by block."""
    read: dict[str, Any] = {name: getattr(options, name) for name in ("key", "drop", "keep")}
    source: Source
    if options.run is _decode:
        source = read_codes(options.data, model.config, **read)
    else:
        source = read_rows(options.data, model.config, part=options.part, **read)
    kept = [Field(name, [name], (), values.dtype) for name, values in source.kept.items()]
    with sink.opened(options.out, [*kept, *fields], len(source)) as write:
        for place, block in source.blocks():
            try:
                results = compute(block)
            except ValueError as error:
                if place.start == 0:
                    raise
                raise ValueError(f"in the block that begins at row {place.start}: {error}") from error
            write(*(values[place] for values in source.kept.values()), *results)
    return finish(options, f"wrote {counted(len(source), 'row')} to {options.out}", rows=len(source), **figures())
