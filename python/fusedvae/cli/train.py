# SPDX-License-Identifier: MIT
"""`fusedvae train`: from data to a model file."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusedvae as fv

from .. import demo
from .._checks import counted
from ..config import PRECISIONS
from ..data import Dataset
from ..detector import NATS, SCORES
from .fitting import IMPUTES, SCALES, configure, progress, read_columns, scaled
from .options import (
    DATA_HELP,
    DEFAULTS,
    add_command,
    add_data,
    add_model,
    add_run,
    amount,
    count,
    default,
    positive,
    settle,
)
from .resuming import check_columns, settle_by
from .source import Source
from .terminal import INTERRUPTED, STDOUT, UsageError, check_apart, check_output, note, print_json

OPTIMIZERS: dict[str, Any] = {"adam": fv.Adam, "adamw": fv.AdamW, "sgd": fv.SGD}


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    command = add_command(commands, "train", run, "train a model and save it")
    command.add_argument("data", metavar="DATA", help=f"{DATA_HELP}, or - for CSV on stdin")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model, a .safetensors file")
    command.add_argument("--report", type=Path, metavar="FILE", help="also one .html page of figures and pictures")
    add_data(command)
    group = command.add_argument_group("tables")
    group.add_argument(
        "--scale",
        choices=("auto", *SCALES, "none"),
        default="auto",
        help="of columns, kept in the model: standard (mean 0, deviation 1), robust (median, interquartile range); "
        "auto: standard for a table under a Gaussian likelihood, else none",
    )
    group.add_argument(
        "--impute", choices=IMPUTES, help="of each column, stands for missing values; default: they are an error"
    )
    add_model(command)
    add_run(command)
    group = command.add_argument_group("optimisation")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help=f"of products: auto is bfloat16 where the processor gains by it ({default('precision')})",
    )
    group.add_argument("--optimizer", choices=tuple(OPTIMIZERS), help=default("optimizer"))
    group.add_argument("--lr-find", action="store_true", help="first look for a learning rate, then train at it")
    group.add_argument("--beta", type=amount, help=f"final weight of the KL ({default('beta')})")
    group.add_argument("--beta-warmup", type=count, metavar="STEPS", help="steps in which beta rises from 0")
    group.add_argument("--clip-norm", type=positive, metavar="NORM", help="limit of the gradient's global norm")
    group = command.add_argument_group(
        "anomalies",
        "With --score and a table of scaled columns, network, variance, batch size, learning rate, epochs, samples and "
        "distance have AnomalyDetector's defaults.",
    )
    group.add_argument("--score", choices=SCORES, help="keep this score in the model, as `score` takes it by default")
    group.add_argument("--samples", type=count, metavar="S", help=f"its draws of z ({default('samples')})")
    group.add_argument(
        "--distance",
        type=amount,
        metavar="W",
        help="take W times half the squared norm of the row, as the network reads it, off that score "
        f"({default('distance')})",
    )
    group.add_argument(
        "--contamination",
        type=float,
        metavar="F",
        help="and the threshold below which this share of the training rows lies (default: none)",
    )
    group = command.add_argument_group("during the run")
    group.add_argument(
        "--early-stopping",
        type=count,
        metavar="N",
        help="stop after N epochs without a better held-out loss and keep the best epoch's model",
    )
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help="also keep the training's state here")
    group.add_argument(
        "--checkpoint-every", type=count, default=1, metavar="N", help="epochs between two (default %(default)s)"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from --checkpoint, to --epochs in all, with the options that it was begun with",
    )
    group.add_argument("--log-csv", type=Path, metavar="FILE", help="write each epoch's losses here")
    group.add_argument("--tensorboard", type=Path, metavar="DIR", help="write them for TensorBoard here")


def run(options: argparse.Namespace) -> int:
    """Runs it."""
    _check(options)
    trainer = fv.Trainer.resume(options.checkpoint) if options.resume else None
    if trainer is not None:
        settle_by(options, trainer)
    settle(options, {"seed": DEFAULTS["seed"]})
    data, columns = read_columns(options)
    if options.early_stopping and data.test is None:
        raise ValueError("--early-stopping watches held-out rows: give a --test-fraction above 0")
    settle(options, _defaults(options, data, columns))
    if trainer is None:
        trainer = _new(options, data, columns)
    else:
        check_columns(options, trainer, columns)
    epochs = max(0, options.epochs - trainer.epoch)
    status, state = 0, "trained"
    callbacks = _callbacks(options)
    try:
        if epochs:
            trainer.fit(data.train, epochs=epochs, validation_data=data.test, callbacks=callbacks)
    except KeyboardInterrupt:
        status, state = INTERRUPTED, "interrupted"
    except fv.NonFiniteError:
        trainer.model.save(options.out)
        note(f"{options.out} holds the last good parameters")
        raise
    if options.score:
        trainer.model.detector = _detector(options, trainer.model, data.train)
    trainer.model.save(options.out)
    if options.report:
        rows, labels = (data.train, data.labels) if data.test is None else (data.test, data.test_labels)
        title = f"{options.out.name}: a variational autoencoder of {data.name}"
        fv.report.write(options.report, trainer.model, trainer.history, rows, labels, title, options.seed)
    best = next((one.best_epoch for one in callbacks if isinstance(one, fv.EarlyStopping) and state == "trained"), None)
    _say(options, trainer, state, best)
    return status


def _check(options: argparse.Namespace) -> None:
    """What would fail only after the work."""
    for path in filter(None, (options.out, options.checkpoint, options.report, options.log_csv)):
        if path == STDOUT:
            raise UsageError("a model, its checkpoint, log and report are files; stdout takes none of them")
        check_output(path)
        check_apart(path, options.data)
    if options.resume and options.checkpoint is None:
        raise UsageError("--resume goes on from a checkpoint: name it with --checkpoint")
    if options.score is None and any(getattr(options, name) for name in ("contamination", "distance", "samples")):
        raise UsageError("--contamination, --distance and --samples belong to a score: name it with --score")
    if options.contamination is not None and not 0 < options.contamination <= 0.5:
        raise UsageError(f"--contamination must be in (0, 0.5], it is {options.contamination:g}")
    if options.report:
        fv.report.check()


def _defaults(options: argparse.Namespace, data: Dataset, columns: tuple[fv.Column, ...] | None) -> dict[str, Any]:
    """What stands for options that were not given: what AnomalyDetector would take, where it could be at work."""
    if not _detects(options, columns):
        return DEFAULTS | {"epochs": demo.recipe(data, options.batch_size or DEFAULTS["batch_size"]).epochs}
    from .._estimator import default_epochs
    from ..anomaly import AnomalyDetector

    own = AnomalyDetector().get_params() | {"min_variance": AnomalyDetector.gaussian.min_variance}
    own = {name: own[name] for name in (*DEFAULTS, "hidden", "latent") if name in own}
    if options.score not in NATS:
        own["distance"] = 0.0
    batches = -(-len(data.train) // (options.batch_size or own["batch_size"]))
    return DEFAULTS | own | {"epochs": default_epochs(batches)}


def _detects(options: argparse.Namespace, columns: tuple[fv.Column, ...] | None) -> bool:
    return options.score is not None and scaled(columns)


def _new(options: argparse.Namespace, data: Dataset, columns: tuple[fv.Column, ...] | None) -> fv.Trainer:
    config = configure(options, data, columns)
    model = fv.Model(config, seed=options.seed)
    learned = isinstance(config.likelihood, fv.Gaussian) and config.likelihood.variance != "fixed"
    if learned and not _detects(options, columns):  # AnomalyDetector's begins at the columns' own
        with contextlib.suppress(ValueError):  # of bad rows, which fit names more exactly
            fv.init_variance(model, data.train, options.seed)  # so that the code pays from the start: no collapse
    kind = OPTIMIZERS[options.optimizer]
    settings: dict[str, Any] = {
        "batch_size": options.batch_size,
        "beta": fv.LinearBeta(options.beta, steps=options.beta_warmup) if options.beta_warmup else options.beta,
        "clip_norm": options.clip_norm,
        "precision": options.precision,
        "seed": options.seed,
    }
    rate = options.learning_rate
    if options.lr_find:
        rate = fv.find_learning_rate(model, data.train, kind(rate), **settings).suggestion
        note(f"the learning rate found is {rate:.3g}")
    return fv.Trainer(model, optimizer=kind(rate), snapshot=True, **settings)


def _detector(options: argparse.Namespace, model: fv.Model, x: NDArray[Any]) -> fv.Detector:
    """The score that --score names, with the threshold that --contamination asks for."""
    blocks = [block for _, block in Source([x]).blocks()]
    detector = (
        fv.Detector.of_codes(np.concatenate([model.encode(block)[0] for block in blocks]))
        if options.score == "mahalanobis"
        else fv.Detector(options.score, samples=options.samples)
    )
    detector = replace(detector, distance=options.distance)
    if options.contamination is None:
        return detector
    scores = np.concatenate([model.score(block, detector) for block in blocks])
    return replace(detector, threshold=float(np.quantile(scores, options.contamination)))


def _callbacks(options: argparse.Namespace) -> list[Any]:
    callbacks = progress(options)
    if options.early_stopping:
        # Beside a checkpoint, so that a resumed run still has the best epoch before it.
        best = options.checkpoint and options.checkpoint.with_name(options.checkpoint.name + ".best")
        callbacks.append(fv.EarlyStopping(patience=options.early_stopping, best=best))
    if options.checkpoint:
        callbacks.append(fv.Checkpoint(options.checkpoint, every=options.checkpoint_every))
    if options.log_csv:
        callbacks.append(fv.CSVLogger(options.log_csv))
    if options.tensorboard:
        callbacks.append(fv.TensorBoard(options.tensorboard))
    return callbacks


def _say(options: argparse.Namespace, trainer: fv.Trainer, state: str, best: int | None) -> None:
    """The figures of the last epoch, or of the best one where early stopping went back to it."""
    history = trainer.history
    last = len(history["epoch"]) - 1 if best is None else best - 1
    figures = {name: float(values[last]) for name, values in history.items() if last >= 0 and np.isfinite(values[last])}
    if options.json:
        more: dict[str, Any] = {} if best is None else {"best_epoch": best}
        if options.report:
            more["report"] = str(options.report)
        print_json({"state": state, "model": str(options.out), **more, "steps": trainer.global_step, **figures})
        return
    held_out = f", {figures['val_loss']:.2f} held out" if "val_loss" in figures else ""
    of_best = "" if best is None else f"epoch {best} was best, "
    loss = f": {of_best}loss {figures['loss']:.2f} nats per row{held_out}" if "loss" in figures else ""
    wrote = f"{options.out} and {options.report}" if options.report else options.out
    print(f"{state} {counted(trainer.epoch, 'epoch')}, {counted(trainer.global_step, 'step')}{loss}; wrote {wrote}")
