# SPDX-License-Identifier: MIT
"""One scorer for all arms: the held-out -ELBO of a parameter file in NumPy, which no arm trains with.

    -ELBO = mean over rows of  -log p(x | z) + KL(q(z|x) || N(0, 1)),  z = mu + exp(logvar / 2) noise,  nats per row

Parameters have fusedvae's names; ReLU between the layers; `decoder_logits` makes a Bernoulli likelihood, `decoder_mean`
a Gaussian one of unit variance. Every file meets the same noise, one draw for each row.
"""

from __future__ import annotations

import numpy as np

from arms import fashion, table


class HeldOut:
    def __init__(self, threads: int):
        self.rows: dict[str, np.ndarray] = {}

    def score(self, job: str, path: str) -> float:
        """The held-out -ELBO of that job's rows, in nats per row."""
        if job not in self.rows:
            images = job == "fashion"
            self.rows[job] = fashion.images("test") / np.float32(255) if images else table.standardised("test")
        return negative_elbo(Network(path), self.rows[job])

    def distances(self, path: str) -> tuple[float, float]:
        """Mean distance of the table's training rows from what their mean codes decode to, and from drawn codes'."""
        network, x = Network(path), table.standardised("train")
        mu, logvar = network.encode(x)
        return tuple(float(np.linalg.norm(x - network.decode(z), axis=1).mean()) for z in (mu, drawn(mu, logvar)))


class Network:
    def __init__(self, path: str):
        with np.load(path) as parameters:
            self.parameters = dict(parameters)
        self.bernoulli = "decoder_logits.weight" in self.parameters

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = self._hidden("encoder", x)
        return self._linear("encoder_mean", h), self._linear("encoder_logvar", h)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Logits or means."""
        return self._linear("decoder_logits" if self.bernoulli else "decoder_mean", self._hidden("decoder", z))

    def _linear(self, name: str, a: np.ndarray) -> np.ndarray:
        return a @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]

    def _hidden(self, name: str, a: np.ndarray) -> np.ndarray:
        depth = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in self.parameters)
        for i in range(depth):
            a = np.maximum(self._linear(f"{name}.{i}", a), 0)
        return a


def drawn(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    return mu + np.exp(logvar / 2) * np.random.default_rng(0).standard_normal(mu.shape, dtype=np.float32)


def negative_elbo(network: Network, x: np.ndarray) -> float:
    mu, logvar = network.encode(x)
    y = network.decode(drawn(mu, logvar))
    if network.bernoulli:  # -log p = softplus(y) - x y, softplus in its stable form
        reconstruction = np.maximum(y, 0) + np.log1p(np.exp(-np.abs(y))) - x * y
    else:
        reconstruction = (np.log(2 * np.pi) + (x - y) ** 2) / 2
    kl = (mu**2 + np.exp(logvar) - 1 - logvar) / 2
    return float((reconstruction.sum(dtype=np.float64) + kl.sum(dtype=np.float64)) / len(x))
