# SPDX-License-Identifier: MIT
"""Models as ONNX graphs: raw rows in, codes, means and scores out, for any runtime of operator set 17."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

from . import _checks, _core
from ._atomic import replacing
from ._column_arrays import column_arrays, log_jacobian
from ._onnx_graph import ACTIVATIONS, DOUBLE, FLOAT, Graph
from .config import Bernoulli
from .detector import Detector
from .model import Model, check_model

PARTS = ("all", "encoder", "decoder", "scorer")
# 1.5 GiB: a file of protocol buffers holds less than 2 GiB, and noise may take some.
MOST_PARAMETERS = 3 * 2**27
# Values of the widest layer over all samples of one row: 128 MiB.
MOST_SAMPLED = 2**25


def to_onnx(
    model: Model, path: str | os.PathLike[str], part: str = "all", detector: Detector | str | None = None
) -> None:
    """Writes `model` as an ONNX file, atomically: float32 in and out, operator set 17, any number n of rows.

    part: "encoder": x (n, *input_shape) -> mu (n, Z), logvar (n, Z). "decoder": z (n, Z) -> mean (n, *input_shape).
    "scorer": x -> score (n), that of `Model.score`, where `detector` is a `Detector` or a score's name, None: the
    model's own. "all": x -> mu, logvar, mean (at the mean code, as `Model.reconstruct`) and, where there is a detector,
    score.

    Rows are raw: fills, scaling and categories of the columns are part of the graph; uint8 pixels are given as floats,
    times the configuration's uint8_scale. What the engine refuses, such as an unknown category, becomes NaN. The
    sampled scores hold the engine's noise as a constant. Runtimes that compute in float32 agree with the engine within
    1e-5 of the values' scale; a Mahalanobis score within what its metric makes of the codes' rounding. The metadata has
    the configuration and the detector with its threshold as JSON, under "fusedvae.config" and "fusedvae.detector".

    ImportError without the onnx package; ValueError for an unknown part, a scorer without a detector, a model of more
    than 1.5 GiB, and so many samples that a layer takes more than 2^25 values for one row; OSError's kinds where the
    system refuses.

    >>> import tempfile, onnx, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_onnx(model, f"{folder}/m.onnx", "scorer", detector="kl")
    ...     [output.name for output in onnx.load(f"{folder}/m.onnx").graph.output]
    ['score']
    """
    check_model(model)
    _checks.choice("part", part, PARTS)
    _checks.path(path)
    if part in ("encoder", "decoder"):
        detector = None
    else:
        detector = model.detector if detector is None else detector
        detector = Detector(detector) if isinstance(detector, str) else detector
        if detector is not None:
            if not isinstance(detector, Detector):
                raise TypeError(f"detector must be a fusedvae.Detector or a score's name, not {detector!r}")
            _check_detector(model, detector)
        elif part == "scorer":
            raise ValueError('the model has no detector: set model.detector, or say detector="elbo" or another score')
    if model.parameter_count > MOST_PARAMETERS:
        raise ValueError(f"the model has {model.parameter_count} parameters; an ONNX file takes {MOST_PARAMETERS}")
    content: bytes = _Builder(model).build(part, detector).SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _check_detector(model: Model, detector: Detector) -> None:
    config = model.config
    model.copy().detector = detector  # the engine says what is wrong with it
    if detector.score in ("elbo", "log_likelihood"):
        widest = max(config.encoded_width, config.latent, *config.decoder_hidden)
        if detector.samples * widest > MOST_SAMPLED:
            raise ValueError(
                f"{detector.samples} samples of {widest} values for each row are more than {MOST_SAMPLED}; take at "
                f'most {MOST_SAMPLED // widest} samples, or a score without any, such as "reconstruction"'
            )


class _Builder:
    """Writes a model's formulas into a graph; values are names of the graph's."""

    def __init__(self, model: Model) -> None:
        self.config = model.config
        self.likelihood = model.config.likelihood
        self.parameters = model.parameters()
        self.columns = column_arrays(model.config)
        self.graph = Graph()

    def build(self, part: str, detector: Detector | None) -> Any:
        graph, config = self.graph, self.config
        metadata = {"fusedvae.config": json.dumps(config.to_dict())}
        if part == "decoder":
            z = graph.input("z", ["n", config.latent])
            graph.output("mean", self.raw(self.mean(self.output(z))), ["n", *config.input_shape])
        else:
            x = self.encoded(graph.input("x", ["n", *config.input_shape]))
            h = self.tower("encoder", x, len(config.hidden))
            mu, logvar = self.layer("encoder_mean", h), self.layer("encoder_logvar", h)
            if part in ("encoder", "all"):
                graph.output("mu", mu, ["n", config.latent])
                graph.output("logvar", logvar, ["n", config.latent])
            if part == "all":
                graph.output("mean", self.raw(self.mean(self.output(mu))), ["n", *config.input_shape])
            if detector is not None:
                score = self.score(detector, x, mu, logvar)
                if detector.distance:
                    squares = graph.total(graph.add("Mul", x, x), 1)
                    score = graph.add("Sub", score, graph.times(squares, 0.5 * detector.distance))
                graph.output("score", score, ["n"])
                metadata["fusedvae.detector"] = json.dumps(
                    {
                        "score": detector.score,
                        "samples": detector.samples,
                        "seed": str(detector.seed),  # more than a JSON number holds in many readers
                        "threshold": detector.threshold,
                        "distance": detector.distance,
                    }
                )
        return graph.to_model(f"fusedvae_{part}", _core.version(), metadata)

    # ---- columns

    def encoded(self, x: str) -> str:
        """Raw rows as the network reads them, (n, D)."""
        graph, c = self.graph, self.columns
        if len(self.config.input_shape) > 1:
            x = graph.add("Flatten", x)
        if c is None:
            return x
        value = graph.add("Gather", x, graph.constant(c.source), axis=1)
        centred = graph.add("Sub", graph.add("Sub", value, graph.constant(c.high)), graph.constant(c.low))
        encoded = graph.add("Mul", centred, graph.constant(c.inverse))
        if c.categorical:
            low = graph.add("GreaterOrEqual", value, graph.constant(0.0))
            high = graph.add("Less", value, graph.constant(c.count))
            whole = graph.add("Equal", value, graph.add("Floor", value))
            known = graph.add("And", graph.add("And", low, high), whole)
            one_hot = graph.add("Cast", graph.add("Equal", value, graph.constant(c.index)), to=FLOAT)
            one_hot = graph.add("Where", known, one_hot, graph.constant(math.nan))
            encoded = graph.add("Where", graph.constant(c.count > 0), one_hot, encoded)
        return graph.add("Where", graph.add("IsNaN", value), graph.constant(c.filled), encoded)

    def raw(self, mean: str) -> str:
        """Means of encoded columns (n, D) in the caller's columns and shape."""
        graph, c, shape = self.graph, self.columns, self.config.input_shape
        if c is not None:
            numbers = graph.add("Gather", mean, graph.constant(c.first), axis=1)
            numbers = graph.add("Mul", numbers, graph.constant(c.scale))
            numbers = graph.add("Add", numbers, graph.constant(c.low[c.first]))
            found = [graph.add("Add", numbers, graph.constant(c.high[c.first]))]
            order = np.arange(len(c.first))  # where each column is among the numbers (R) and the categories behind them
            for column, start, count in c.categorical:
                values = graph.add("Gather", mean, graph.constant(np.arange(start, start + count)), axis=1)
                order[column] = len(c.first) + len(found) - 1
                found.append(graph.add("Cast", graph.add("ArgMax", values, axis=1), to=FLOAT))
            mean = graph.add("Gather", graph.add("Concat", *found, axis=1), graph.constant(order), axis=1)
        return graph.shaped(mean, [0, *shape]) if len(shape) > 1 else mean

    # ---- the network

    def layer(self, name: str, x: str) -> str:
        weight, bias = (self.graph.constant(self.parameters[key], key) for key in (f"{name}.weight", f"{name}.bias"))
        return self.graph.add("Gemm", x, weight, bias, transB=1)

    def tower(self, name: str, h: str, depth: int) -> str:
        for i in range(depth):
            h = ACTIVATIONS[self.config.activation](self.graph, self.layer(f"{name}.{i}", h))
        return h

    def output(self, z: str) -> tuple[str, str | None]:
        """Logits or means of encoded columns, and the log-variances where they are predicted, from codes (n, Z)."""
        h = self.tower("decoder", z, len(self.config.decoder_hidden))
        if isinstance(self.likelihood, Bernoulli):
            return self.layer("decoder_logits", h), None
        element = self.likelihood.variance == "element"
        return self.layer("decoder_mean", h), self.layer("decoder_logvar", h) if element else None

    def mean(self, output: tuple[str, str | None]) -> str:
        return self.graph.add("Sigmoid", output[0]) if isinstance(self.likelihood, Bernoulli) else output[0]

    # ---- scores, higher for what is more normal

    def score(self, detector: Detector, x: str, mu: str, logvar: str) -> str:
        if detector.score == "reconstruction":
            return self.minus_squared_error(x, mu)
        if detector.score == "kl":
            return self.graph.add("Neg", self.kl(mu, logvar))
        if detector.score == "mahalanobis":
            return self.minus_distance(detector, mu)
        return self.sampled(detector, x, mu, logvar)

    def minus_squared_error(self, x: str, mu: str) -> str:
        difference = self.graph.add("Sub", x, self.mean(self.output(mu)))
        return self.graph.times(
            self.graph.total(self.graph.add("Mul", difference, difference), 1), -1 / self.config.encoded_width
        )

    def kl(self, mu: str, logvar: str) -> str:
        """KL(q(z|x) || N(0, I)) (n): Kingma and Welling 2013, appendix B."""
        graph = self.graph
        squares = graph.add("Add", graph.add("Mul", mu, mu), graph.add("Exp", logvar))
        return graph.times(graph.total(graph.plus(graph.add("Sub", squares, logvar), -1), 1), 0.5)

    def minus_distance(self, detector: Detector, mu: str) -> str:
        # In double: the metric of codes that hardly vary has entries of all magnitudes, which cancel.
        graph = self.graph
        away = graph.add("Sub", graph.add("Cast", mu, to=DOUBLE), graph.constant(detector.latent_mean))
        along = graph.add("MatMul", away, graph.constant(detector.latent_precision))
        return graph.add("Cast", graph.add("Neg", graph.total(graph.add("Mul", along, away), 1)), to=FLOAT)

    def sampled(self, detector: Detector, x: str, mu: str, logvar: str) -> str:
        """The ELBO, or log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x) (Burda et al. 2015, eq. 8), of S draws (n, S, Z)."""
        graph, S, Z = self.graph, detector.samples, self.config.latent
        middle = graph.constant([1])
        noise = _core.score_noise(detector.seed, S, Z)
        sigma = graph.add("Unsqueeze", graph.add("Exp", graph.times(logvar, 0.5)), middle)
        spread = graph.add("Mul", sigma, graph.constant(noise))
        z = graph.add("Add", graph.add("Unsqueeze", mu, middle), spread)
        nll = self.nll(z, graph.add("Unsqueeze", x, middle), S)
        jacobian = log_jacobian(self.config)
        if detector.score == "elbo":
            mean = graph.add("ReduceMean", nll, axes=[1], keepdims=0)
            return graph.plus(graph.add("Neg", graph.add("Add", mean, self.kl(mu, logvar))), jacobian)
        # log p(z) - log q(z|x) = sum_j (eps^2 + logvar - z^2) / 2
        minus_z = graph.add("Sub", graph.constant(np.square(noise)), graph.add("Mul", z, z))
        ratio = graph.times(graph.total(graph.add("Add", minus_z, graph.add("Unsqueeze", logvar, middle)), 2), 0.5)
        weights = graph.add("ReduceLogSumExp", graph.add("Sub", ratio, nll), axes=[1], keepdims=0)
        return graph.plus(weights, jacobian - math.log(S))

    def nll(self, z: str, x: str, samples: int) -> str:
        """-log p(x|z) of encoded columns (n, S): codes z (n, S, Z), rows x (n, 1, D)."""
        graph, likelihood = self.graph, self.likelihood
        D = self.config.encoded_width
        output, log_variance = (
            None if value is None else graph.shaped(value, [-1, samples, D])
            for value in self.output(graph.shaped(z, [-1, self.config.latent]))
        )
        assert output is not None
        if isinstance(likelihood, Bernoulli):
            return graph.total(graph.add("Sub", graph.add("Softplus", output), graph.add("Mul", x, output)), 2)
        difference = graph.add("Sub", x, output)
        squares = graph.add("Mul", difference, difference)
        if log_variance is not None:
            limited = graph.add("Min", log_variance, graph.constant(88.0))  # e^88 is the last power that is finite
            variance = graph.plus(graph.add("Exp", limited), likelihood.min_variance)
            terms = graph.add("Add", graph.add("Div", squares, variance), graph.add("Log", variance))
            return graph.times(graph.plus(graph.total(terms, 2), D * math.log(2 * math.pi)), 0.5)
        fixed = np.full(D, likelihood.fixed_variance)
        if likelihood.variance == "feature":
            fixed = likelihood.min_variance + np.exp(np.minimum(self.parameters["log_variance"].astype(float), 88))
        scaled = graph.total(graph.add("Mul", squares, graph.constant((0.5 / fixed).astype(np.float32))), 2)
        return graph.plus(scaled, 0.5 * float(np.sum(np.log(2 * math.pi * fixed))))
