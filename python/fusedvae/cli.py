# SPDX-License-Identifier: MIT
"""The command `fusedvae`: demo, train, sample, info, bench.

Results go to stdout, progress and notes to stderr. Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong
usage, 130 stopped by Ctrl-C, which keeps the model trained so far.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import fusedvae as fv

from .config import ACTIVATIONS, PRECISIONS, VARIANCES
from .data import NAMES, Dataset, load

INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended: 128 + SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments (default: the process's) and returns its exit status."""
    try:
        options = _parser().parse_args(arguments)  # which names the backend, an error where a wrong one is forced
        return int(options.run(options))
    except KeyboardInterrupt:
        _note("interrupted")
        return INTERRUPTED
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, MemoryError) as error:
        _note(f"error: {_one_line(error)}")
        return 1


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _note(line: str) -> None:
    print(f"fusedvae: {line}", file=sys.stderr, flush=True)


# ---- commands -------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from . import demo

    data = _data(options)
    config, epochs = _config(options, data)
    result = demo.run(
        data,
        config,
        epochs=epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        output=options.output,
        callbacks=_progress(options),
        log=_note,
    )
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
        print(f"data         {result.data}: {result.rows} rows to train on, {result.held_out} held out")
        print(f"model        {_widths(config)}")
        print(f"training     {result.epochs} epochs, {result.steps} steps in {result.seconds:.2f} s")
        print(f"ELBO         {result.elbo:.2f} nats per held-out row")
        print(f"throughput   {result.rows_per_second:,.0f} rows/s, {result.steps_per_second:,.0f} steps/s")
        print(
            f"arithmetic   {result.gflops:.1f} GFLOP/s, {result.fraction_of_peak:.0%} of the {result.peak_gflops:.0f} "
            f"that {threads} reach here ({result.backend})"
        )
        if result.picture:
            print(f"picture      {result.picture}")
    return INTERRUPTED if result.interrupted else 0


def _train(options: argparse.Namespace) -> int:
    data = _data(options)
    for path in filter(None, (options.out, options.checkpoint)):
        _check_folder(path)
    if options.resume:
        if options.checkpoint is None:
            raise ValueError("--resume goes on from a checkpoint: name it with --checkpoint")
        trainer = fv.Trainer.resume(options.checkpoint)
        epochs = max(0, (options.epochs or _recipe(options, data).epochs) - trainer.epoch)
    else:
        config, epochs = _config(options, data)
        trainer = fv.Trainer(
            fv.Model(config, seed=options.seed),
            optimizer=_optimizer(options),
            batch_size=options.batch_size,
            beta=fv.LinearBeta(options.beta, steps=options.beta_warmup) if options.beta_warmup else options.beta,
            clip_norm=options.clip_norm,
            precision=options.precision,
            seed=options.seed,
            snapshot=True,
        )
    callbacks = _progress(options)
    if options.checkpoint:
        callbacks.append(lambda trainer, progress: trainer.save(options.checkpoint))
    status, state = 0, "trained"
    try:
        if epochs:
            trainer.fit(data.train, epochs=epochs, validation_data=data.test, callbacks=callbacks)
    except KeyboardInterrupt:
        status, state = INTERRUPTED, "interrupted"
    except fv.NonFiniteError:
        trainer.model.save(options.out)  # the last good parameters
        raise
    trainer.model.save(options.out)
    if options.checkpoint:
        trainer.save(options.checkpoint)
    history = trainer.history
    figures = {name: float(values[-1]) for name, values in history.items() if len(values) and np.isfinite(values[-1])}
    if options.json:
        print(json.dumps({"state": state, "model": str(options.out), "steps": trainer.global_step, **figures}))
    else:
        held_out = f", {figures['val_loss']:.2f} held out" if "val_loss" in figures else ""
        loss = f": loss {figures['loss']:.2f} nats per row{held_out}" if "loss" in figures else ""
        print(f"{state} {trainer.epoch} epochs, {trainer.global_step} steps{loss}; wrote {options.out}")
    return status


def _sample(options: argparse.Namespace) -> int:
    _check_folder(options.out)
    suffix = options.out.suffix.lower()
    if suffix not in (".npy", ".csv", ".png"):
        raise ValueError(f"{options.out}: samples are written as .npy, .csv or .png")
    model = fv.load(options.model)
    shape = model.config.input_shape
    if suffix == ".png":
        from . import picture

        if not picture.is_image_shape(shape):
            raise ValueError(f"rows of shape {shape} are no images: write them to a .npy or .csv file")
        picture.check(options.out)
    x = fv.Sampler(model, seed=options.seed).sample(options.n, temperature=options.temperature)
    if suffix == ".png":
        picture.save(options.out, {f"{options.n} samples of {options.model.name}": x})
    elif suffix == ".npy":
        np.save(options.out, x)
    else:
        np.savetxt(options.out, x.reshape(len(x), -1), delimiter=",", fmt="%.9g")
    print(f"wrote {len(x)} samples to {options.out}")
    return 0


def _info(options: argparse.Namespace) -> int:
    model = fv.load(options.model)
    shapes = {name: list(values.shape) for name, values in model.parameters().items()}
    count = model.parameter_count
    config = model.config
    if options.json:
        print(json.dumps({"config": config.to_dict(), "parameters": count, "tensors": shapes}))
        return 0
    print(f"model        {_widths(config)}")
    print(f"input        {' x '.join(map(str, config.input_shape))}")
    print(f"activation   {config.activation}")
    print(f"likelihood   {config.likelihood}")
    print(f"parameters   {count:,} ({4 * count / 1e6:.1f} MB)")
    for name, shape in shapes.items():
        print(f"  {name:24} {' x '.join(map(str, shape))}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from . import bench

    names = options.configs or tuple(bench.NETWORKS)
    if unknown := [name for name in names if name not in bench.NETWORKS]:
        raise ValueError(f"no network {unknown[0]!r}; there are {', '.join(bench.NETWORKS)}")
    threads = options.threads or sorted({1, fv.get_num_threads()})
    networks = [bench.NETWORKS[name] for name in names]
    seconds = options.seconds or (0.15 if options.quick else 1.0)
    rows: list[bench.Row] = []
    for row in bench.run(networks, threads, seconds, 3 if options.quick else bench.ROUNDS, options.precision):
        if not options.json:
            if not rows:
                print(f"fusedvae {fv.__version__} ({fv.backend()}), {options.precision}, one training step")
                print(bench.HEADER)
            print(bench.line(row), flush=True)
        rows.append(row)
    if options.json:
        print(json.dumps(bench.record(rows)))
    return 0


# ---- what they share ------------------------------------------------------------------------------------------------


def _data(options: argparse.Namespace) -> Dataset:
    if options.threads is not None:
        fv.set_num_threads(options.threads)
    names = ("test_fraction", "seed", "image_shape", "key", "label", "drop", "size", "grey")
    return load(options.data, **{name: getattr(options, name) for name in names})


def _recipe(options: argparse.Namespace, data: Dataset) -> Any:
    from . import demo

    return demo.recipe(data, options.batch_size)


def _config(options: argparse.Namespace, data: Dataset) -> tuple[fv.Config, int]:
    """The model and the epochs asked for, the data's recipe where nothing was."""
    from . import demo

    chosen = _recipe(options, data)
    likelihood = demo.likelihood_for(data.train, options.likelihood, options.variance)
    if isinstance(likelihood, fv.Gaussian) and (hint := demo.scale_hint(data.train)):
        _note(f"hint: {hint}")
    config = fv.Config(
        input_shape=data.input_shape,
        hidden=chosen.hidden if options.hidden is None else options.hidden,
        latent=options.latent or chosen.latent,
        activation=options.activation,
        likelihood=likelihood,
    )
    return config, options.epochs or chosen.epochs


def _optimizer(options: argparse.Namespace) -> Any:
    kind = {"adam": fv.Adam, "adamw": fv.AdamW, "sgd": fv.SGD}[options.optimizer]
    return kind(options.learning_rate)


def _progress(options: argparse.Namespace) -> list[Any]:
    from .progress import ProgressBar

    return [] if options.quiet else [ProgressBar()]


def _widths(config: fv.Config) -> str:
    path = (config.width, *config.hidden, f"[{config.latent}]", *config.decoder_hidden, config.width)
    return f"{' - '.join(map(str, path))}, {config.activation}, {type(config.likelihood).__name__}"


def _check_folder(path: Path) -> None:
    """What cannot be written is found before the work, not after it."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: {path.absolute().parent} is no folder")
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")


# ---- arguments ------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fusedvae",
        description="Trains variational autoencoders and samples from them.",
        epilog="Terms are nats per row: loss = reconstruction + beta KL, ELBO = -(reconstruction + KL).",
    )
    parser.add_argument("--version", action="version", version=f"fusedvae {fv.__version__} ({fv.backend()})")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _command(commands, "demo", _demo, "train on real images, print ELBO and speed, draw a picture")
    command.add_argument("--data", default="digits", metavar="DATA", help=_DATA_HELP + " (default digits)")
    command.add_argument(
        "--output",
        type=Path,
        default=Path("fusedvae-demo.png"),
        metavar="FILE",
        help="picture of originals, reconstructions and samples (default %(default)s)",
    )
    _add_data(command)
    _add_model(command)
    _add_run(command)

    command = _command(commands, "train", _train, "train a model and save it")
    command.add_argument("data", metavar="DATA", help=_DATA_HELP)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model, a .safetensors file")
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of products: auto is bfloat16 where the processor gains by it (default %(default)s)",
    )
    command.add_argument("--optimizer", choices=("adam", "adamw", "sgd"), default="adam", help="default %(default)s")
    command.add_argument("--beta", type=float, default=1.0, help="final weight of the KL (default 1)")
    command.add_argument("--beta-warmup", type=_count, metavar="STEPS", help="steps in which beta rises from 0")
    command.add_argument("--clip-norm", type=float, metavar="NORM", help="limit of the gradient's global norm")
    command.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="also keep the training's state here, each epoch"
    )
    command.add_argument("--resume", action="store_true", help="go on from --checkpoint, to --epochs in all")
    _add_data(command)
    _add_model(command)
    _add_run(command)

    command = _command(commands, "sample", _sample, "draw samples from a trained model")
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npy, .csv, or .png for images")
    command.add_argument("--n", type=_count, default=64, help="how many (default %(default)s)")
    command.add_argument("--temperature", type=float, default=1.0, help="standard deviation of the codes (default 1)")
    command.add_argument("--seed", type=int, default=0, help="default 0")

    command = _command(commands, "info", _info, "describe a model file")
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file")
    command.add_argument("--json", action="store_true", help="print one JSON object")

    command = _command(commands, "bench", _bench, "time training steps of eight networks on this machine")
    command.add_argument("--configs", type=_names, metavar="A,B", help="of tiny, tabular, … (default: all eight)")
    command.add_argument("--threads", type=_counts, metavar="N,N", help="counts to compare (default 1 and all)")
    command.add_argument("--seconds", type=float, metavar="S", help="timed, for each row (default 1)")
    command.add_argument("--precision", default="float32", help="default %(default)s")
    command.add_argument("--quick", action="store_true", help="a look within a few seconds")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


_DATA_HELP = f"{', '.join(NAMES)}, or a .npy, .npz, IDX(.gz), .csv or .parquet file, or a folder of images"


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(run=run)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--test-fraction", type=float, default=0.1, metavar="F", help="rows to hold out (default 0.1)")
    group.add_argument("--image-shape", type=_extents, metavar="YxX", help="the images that rows are, e.g. 28x28")
    group.add_argument("--key", help=".npz: the array to read")
    group.add_argument("--label", metavar="COLUMN", help="tables: the column of labels, which training leaves out")
    group.add_argument("--drop", type=_names, default=(), metavar="A,B", help="tables: columns to leave out")
    group.add_argument("--size", type=_extents, metavar="YxX", help="folders of images: resize to this")
    group.add_argument("--grey", action="store_true", help="folders of images: drop colour")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model (defaults follow the data)")
    group.add_argument("--hidden", type=_counts, metavar="H,H", help="widths of the encoder's hidden layers")
    group.add_argument("--latent", type=_count, metavar="Z", help="width of the code")
    group.add_argument("--activation", choices=ACTIVATIONS, default="relu", help="default %(default)s")
    group.add_argument(
        "--likelihood",
        choices=("auto", "bernoulli", "gaussian"),
        default="auto",
        help="auto: Bernoulli for data in [0, 1], else Gaussian",
    )
    group.add_argument("--variance", choices=VARIANCES, default="feature", help="Gaussian only (default %(default)s)")


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=_count, metavar="N", help="passes over the data")
    group.add_argument("--batch-size", type=_count, default=128, metavar="B", help="default %(default)s")
    group.add_argument("--learning-rate", type=float, default=1e-3, metavar="R", help="default %(default)s")
    group.add_argument("--threads", type=_count, metavar="N", help="default: the cores that this process may use")
    group.add_argument("--seed", type=int, default=0, help="of parameters, split, shuffle and noise (default 0)")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    group.add_argument("--json", action="store_true", help="print one JSON object")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(",") if part)


def _extents(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.replace(",", "x").split("x"))


# argparse names a converter in its message "invalid ... value".
_count.__name__, _counts.__name__, _extents.__name__ = "positive integer", "list of integers", "image shape"
