# SPDX-License-Identifier: MIT
"""`--resume`: a checkpoint's run goes on as it was begun, and options that say otherwise are wrong usage."""

from __future__ import annotations

import argparse
from typing import Any

import fusedvae as fv

from .options import settle
from .terminal import UsageError


def settle_by(options: argparse.Namespace, trainer: fv.Trainer) -> None:
    """Fills in what was not asked for from the trainer of the checkpoint; UsageError for what contradicts it."""
    begun = _begun_with(trainer)
    if options.lr_find:
        options.learning_rate = None  # the rate found then, which the checkpoint holds
    for name, value in begun.items():
        asked = getattr(options, name)
        if asked not in (None, "auto", value):
            raise UsageError(
                f"{_option(name, asked)} contradicts {options.checkpoint}, which was begun {_with(name, value)}; leave "
                "it out, or train anew without --resume"
            )
    options.likelihood = begun["likelihood"]
    settle(options, begun)


def check_columns(options: argparse.Namespace, trainer: fv.Trainer, columns: tuple[fv.Column, ...] | None) -> None:
    """UsageError where a table's columns are not those that the checkpoint's run learned."""
    if columns != trainer.model.config.columns:
        raise UsageError(
            f"{options.data} is read otherwise than when {options.checkpoint} was begun; DATA, --label, --drop, "
            "--scale, --impute and --test-fraction must be what they were"
        )


def _begun_with(trainer: fv.Trainer) -> dict[str, Any]:
    """The options, by name, that a run like this one would have been begun with; None: without."""
    config, settings = trainer.model.config, trainer._core.options()
    beta, likelihood = trainer.beta, config.likelihood
    begun = {
        "hidden": config.hidden,
        "latent": config.latent,
        "activation": config.activation,
        "likelihood": type(likelihood).__name__.lower(),
        "batch_size": trainer.batch_size,
        "learning_rate": trainer.learning_rate,
        "optimizer": type(trainer.optimizer).__name__.lower(),
        "beta": beta if isinstance(beta, float) else beta.final,
        "beta_warmup": beta.steps if isinstance(beta, fv.LinearBeta) else None,
        "clip_norm": settings.clip_norm or None,
        "precision": trainer.precision,
        "seed": settings.seed,
    }
    if isinstance(likelihood, fv.Gaussian):
        begun |= {"variance": likelihood.variance, "min_variance": likelihood.min_variance}
    return begun


def _with(name: str, value: Any) -> str:
    return f"without {_option(name, '')}".rstrip() if value is None else f"with {_option(name, value)}"


def _option(name: str, value: Any) -> str:
    words = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"--{name.replace('_', '-')} {words}"
