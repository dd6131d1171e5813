# SPDX-License-Identifier: MIT
"""The demonstration behind `fusedvae demo`: trains on real data, scores held-out rows, measures speed, draws a picture.

Everything that it chooses itself, likelihood, widths and epochs, is chosen from the data by the functions below, which
`fusedvae train` shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import fusedvae as fv

from . import _core, picture
from .data import Dataset

# Ten epochs of Fashion-MNIST in batches of 128: enough for a first good model of any data set, seconds of work.
DEFAULT_STEPS = 4690
# Choices look at no more rows than this, so that a memory map is not read whole; the engine checks every row it reads.
ROWS_LOOKED_AT = 10_000
# Few held-out rows are scored with several draws of noise, so that the mean is steady.
ROWS_SCORED = 10_000
# Columns further than this from mean 0 and deviation 1, either way, are worth a hint.
STANDARD_RANGE = 3.0
PICTURE_COLUMNS = 16


@dataclass(frozen=True)
class Recipe:
    """Widths and epochs for a data set."""

    hidden: tuple[int, ...]
    latent: int
    epochs: int


def recipe(data: Dataset, batch_size: int) -> Recipe:
    """What works for the named data sets; for others the digits' widths and about DEFAULT_STEPS steps."""
    named = {"digits": Recipe((256, 128), 16, 400), "fashion-mnist": Recipe((400,), 20, 10)}
    if data.name in named:
        return named[data.name]
    batches = -(-len(data.train) // batch_size)
    width = int(np.prod(data.input_shape))
    return Recipe((256, 128), min(16, width), min(400, max(1, round(DEFAULT_STEPS / batches))))


def likelihood_for(
    x: np.ndarray, name: str = "auto", variance: str = "feature", min_variance: float = 1e-4
) -> fv.Bernoulli | fv.Gaussian:
    """The likelihood called `name`; "auto": Bernoulli for x (n, ...) in [0, 1], else Gaussian."""
    if name == "auto":
        some = x[:ROWS_LOOKED_AT]
        probabilities = x.dtype.kind in "bu" or (some.size > 0 and some.min() >= 0 and some.max() <= 1)
        name = "bernoulli" if probabilities else "gaussian"
    return fv.Bernoulli() if name == "bernoulli" else fv.Gaussian(variance=variance, min_variance=min_variance)


def scale_hint(x: np.ndarray) -> str | None:
    """A sentence for data that a Gaussian model would fit better after standardising, else None."""
    some = np.asarray(x[:ROWS_LOOKED_AT], np.float64).reshape(min(len(x), ROWS_LOOKED_AT), -1)
    with np.errstate(invalid="ignore"):  # of infinite values, which the training will name
        mean, deviation = some.mean(0), some.std(0)
    varying = deviation[deviation > 0]
    if not varying.size or not np.isfinite(deviation).all():
        return None
    low, high = varying.min(), varying.max()
    if low >= 1 / STANDARD_RANGE and high <= STANDARD_RANGE and np.abs(mean).max() <= STANDARD_RANGE:
        return None
    return (
        f"the columns' means reach {np.abs(mean).max():.3g} and their standard deviations {low:.3g} to {high:.3g}; "
        "a model learns better from columns of mean 0 and deviation 1"
    )


def flops_per_row(config: fv.Config) -> int:
    """Multiplications and additions that one row of a training step needs: 2 (3 sum(K N) - D H1).

    Each layer's product runs three times, forward, for its input's and for its weights' gradient, except that nothing
    wants the gradient of the data.
    """
    per_column = 2 if getattr(config.likelihood, "variance", None) == "element" else 1
    encoder = (config.width, *config.hidden, 2 * config.latent)
    decoder = (config.latent, *config.decoder_hidden, per_column * config.width)
    products = [a * b for widths in (encoder, decoder) for a, b in pairwise(widths)]
    return 2 * (3 * sum(products) - products[0])


@dataclass(frozen=True)
class Result:
    """What a demonstration found: elbo in nats per held-out row, higher is better; rates of the training alone.

    The peak is of the processor's threads; None where a GPU trained.
    """

    data: str
    rows: int
    held_out: int
    config: dict[str, Any]
    epochs: int
    steps: int
    seconds: float
    elbo: float
    rows_per_second: float
    steps_per_second: float
    gflops: float
    peak_gflops: float | None
    fraction_of_peak: float | None
    device: str
    threads: int
    backend: str
    picture: str | None
    interrupted: bool


def run(
    data: Dataset,
    config: fv.Config,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    output: Path | None = None,
    callbacks: Sequence[Any] = (),
    log: Callable[[str], None] = lambda line: None,
) -> Result:
    """Trains a model of `config` on data.train, scores data.test and draws both to `output` where they are images.

    Ctrl-C ends the training early; the rest then shows the model so far.
    """
    if data.test is None:
        raise ValueError("the demonstration scores held-out rows: hold some out, with test_fraction=0.1 or the like")
    model = fv.Model(config, seed=seed, device=device)
    draws = output is not None and picture.is_image_shape(data.input_shape)
    if output is not None and not draws:
        log("rows of this data are no images: no picture is made")
    if output is not None and draws:
        picture.check(output)  # before the work, not after it
    trainer = fv.Trainer(model, optimizer=fv.Adam(learning_rate), batch_size=batch_size, seed=seed)
    interrupted = False
    start = time.perf_counter()
    try:
        trainer.fit(data.train, epochs=epochs, callbacks=list(callbacks))
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - start
    threads = fv.get_num_threads()
    peak = _core.measure_peak(threads, 0.5) if model.device == "cpu" else None
    batches = -(-len(data.train) // batch_size)
    rows_per_second = trainer.global_step * (len(data.train) / batches) / seconds
    gflops = rows_per_second * flops_per_row(config) / 1e9
    held_out_loss = [trainer.evaluate(data.test, seed + i) for i in range(-(-ROWS_SCORED // len(data.test)))]
    result = Result(
        data=data.name,
        rows=len(data.train),
        held_out=len(data.test),
        config=config.to_dict(),
        epochs=trainer.epoch,
        steps=trainer.global_step,
        seconds=seconds,
        elbo=-float(np.mean([losses.reconstruction + losses.kl for losses in held_out_loss])),
        rows_per_second=rows_per_second,
        steps_per_second=trainer.global_step / seconds,
        gflops=gflops,
        peak_gflops=peak,
        fraction_of_peak=gflops / peak if peak else None,
        device=model.device,
        threads=threads,
        backend=fv.backend(),
        picture=str(output) if draws else None,
        interrupted=interrupted,
    )
    if output is not None and draws:
        draw(output, data, model, seed)
    return result


def draw(output: Path, data: Dataset, model: fv.Model, seed: int = 0) -> None:
    """Two rows of held-out images, their reconstructions below them, four rows of samples."""
    assert data.test is not None
    originals = data.test[: 2 * PICTURE_COLUMNS]
    scale = model.config.uint8_scale if originals.dtype == np.uint8 else 1.0
    panels = {
        f"{data.name}: held-out images": np.asarray(originals, np.float32) * scale,
        "reconstructions: the mean of p(x|z) at each image's mean code": model.reconstruct(originals),
        "samples: the mean of p(x|z) at codes drawn from the prior": fv.Sampler(model, seed=seed).sample(
            4 * PICTURE_COLUMNS
        ),
    }
    picture.save(output, panels, PICTURE_COLUMNS)
