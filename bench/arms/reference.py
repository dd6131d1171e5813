# SPDX-License-Identifier: MIT
"""The yardstick: the training step in NumPy and double precision, written out by hand. It is never timed; every other
arm's losses over the first few Adam steps must equal these, which checks forward, backward and update together.

For bfloat16, how far is "equal" comes from the same step with bfloat16's rounding put in, at every place where an arm
may round: what each product reads and what it writes. bench/README.md has the argument."""

from __future__ import annotations

import numpy as np
from problems import BETA1, BETA2, EPSILON, Problem

# Independent ones, and what their greatest error is multiplied by: four draws tell the size of an error that is as good
# as normal only to within a factor of about two, and a right arm must stay inside with another draw of its own.
ROUNDINGS, MARGIN = 4, 4


class Reference:
    dtype = np.float64

    def __init__(self, threads: int):
        self.step = 0

    def about(self) -> dict:
        return {"numpy": np.__version__}

    def prepare(self, problem: Problem) -> None:
        self.problem = problem
        self.values = {name: value.astype(self.dtype) for name, value in problem.parameters().items()}
        self.first = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.x = problem.data()[: problem.batch].astype(self.dtype)

    def losses(self, count: int) -> list[float]:
        return [self._step(self.problem.noise(i).astype(self.dtype)) for i in range(count)]

    def bfloat16_tolerance(self, expected: list[float]) -> float:
        """Relative, of a bfloat16 arm's losses: MARGIN times the greatest error of ROUNDINGS rounded steps."""
        worst = 0.0
        for seed in range(ROUNDINGS):
            rounded = Bfloat16(seed)
            rounded.prepare(self.problem)
            losses = rounded.losses(len(expected))
            worst = max(worst, *(abs(loss / right - 1) for loss, right in zip(losses, expected, strict=True)))
        return MARGIN * worst

    def rounded(self, a: np.ndarray) -> np.ndarray:
        return a

    def _step(self, noise: np.ndarray) -> float:
        loss, gradients = self._gradients(noise)
        self.step += 1
        for name, g in gradients.items():
            self.first[name] += (1 - BETA1) * (g - self.first[name])
            self.second[name] += (1 - BETA2) * (g * g - self.second[name])
            m, v = self.first[name] / (1 - BETA1**self.step), self.second[name] / (1 - BETA2**self.step)
            self.values[name] -= self.problem.learning_rate * m / (np.sqrt(v) + EPSILON)
        return loss

    def _gradients(self, noise: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        x, B, depth, output = self.x, self.problem.batch, len(self.problem.hidden), self.problem.output
        gradients = {}

        def linear(name, a):
            weight = self.rounded(self.values[f"{name}.weight"])
            return self.rounded(self.rounded(a) @ weight.T + self.values[f"{name}.bias"])

        def backward(name, a, dy):  # -> da, and the layer's gradients
            dy = self.rounded(dy)
            gradients[f"{name}.weight"], gradients[f"{name}.bias"] = self.rounded(dy.T @ self.rounded(a)), dy.sum(0)
            return self.rounded(dy @ self.rounded(self.values[f"{name}.weight"]))

        encoder = [x]  # what each layer reads
        for i in range(depth):
            encoder.append(np.maximum(linear(f"encoder.{i}", encoder[-1]), 0))
        mu, logvar = linear("encoder_mean", encoder[-1]), linear("encoder_logvar", encoder[-1])
        deviation = np.exp(logvar / 2)
        decoder = [mu + deviation * noise]
        for i in range(depth):
            decoder.append(np.maximum(linear(f"decoder.{i}", decoder[-1]), 0))
        y = linear(output, decoder[-1])

        if self.problem.likelihood == "bernoulli":  # -log p = softplus(y) - x y, softplus in its stable form
            reconstruction = np.maximum(y, 0) + np.log1p(np.exp(-np.abs(y))) - x * y
            dy = 1 / (1 + np.exp(-y)) - x
        else:  # unit variance
            reconstruction = (np.log(2 * np.pi) + (x - y) ** 2) / 2
            dy = y - x
        kl = (mu**2 + deviation**2 - 1 - logvar) / 2
        loss = (reconstruction.sum(dtype=np.float64) + kl.sum(dtype=np.float64)) / B

        da = backward(output, decoder[-1], dy / B)
        for i in reversed(range(depth)):
            da = backward(f"decoder.{i}", decoder[i], da * (decoder[i + 1] > 0))
        dmu = da + mu / B
        dlogvar = da * noise * deviation / 2 + (deviation**2 - 1) / (2 * B)
        da = backward("encoder_mean", encoder[-1], dmu) + backward("encoder_logvar", encoder[-1], dlogvar)
        for i in reversed(range(depth)):
            da = backward(f"encoder.{i}", encoder[i], da * (encoder[i + 1] > 0))
        return float(loss), gradients


class Bfloat16(Reference):
    """The step in float32 whose products read and write bfloat16, rounded up or down at random in proportion to the
    distance: without bias, as rounding to nearest is, but different with each seed."""

    dtype = np.float32

    def __init__(self, seed: int):
        super().__init__(threads=0)
        self.rng = np.random.default_rng((4, seed))

    def rounded(self, a: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
        carried = bits + self.rng.integers(0, 2**16, a.shape, np.uint16)  # bfloat16 is float32's upper half
        return (carried & np.uint32(0xFFFF0000)).view(np.float32)
