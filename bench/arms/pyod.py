# SPDX-License-Identifier: MIT
"""PyOD's VAE on the table: `VAE(...).fit(X)` and `decision_function(X)`, 30-128-64-32-2 and back, batch 32, Adam 1e-3.

What PyOD minimises is the squared error's mean over rows and columns plus beta * clamp(KL, 0, capacity). As it comes
(Default) capacity is 0, which removes the KL and its gradient; dropout is 0.2 and Adam's weight decay 1e-5. Elbo sets
what PyOD lets its users set so that the same code maximises the ELBO: the squared error's mean is 2/D of -log p(x|z)
under a Gaussian of unit variance (constants aside), so beta = 2/D and no cap make its loss 2/D of the -ELBO, a factor
that Adam does not feel. No dropout and no decay, since neither is in the ELBO.

Its scores are distances from a decoded random draw of the code: another call, other scores.
"""

from __future__ import annotations

import math
import time
from typing import Any, ClassVar

import numpy as np
import pyod
import torch
from problems import LEARNING_RATE
from pyod.models.vae import VAE

from arms import table
from arms.laps import Laps


class Clocked(VAE):
    """Ends a lap at PyOD's own hook after each epoch."""

    laps: Laps

    def epoch_update(self) -> None:
        self.laps.end(self.parameters)

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies under fusedvae's names; PyOD's are encoder.0.linear.weight, encoder_mu.weight and so on."""
        last = len(self.decoder_neuron_list)
        renamed = {}
        for name, value in self.model.state_dict().items():
            name = name.replace(".linear.", ".").replace("encoder_mu.", "encoder_mean.")
            renamed[name.replace(f"decoder.{last}.", "decoder_mean.")] = value.numpy().copy()
        return renamed


class Elbo:
    options: ClassVar[dict[str, Any]] = {
        "beta": 2 / table.WIDTH,
        "capacity": math.inf,
        "dropout_rate": 0.0,
        "optimizer_params": {"weight_decay": 0.0},
    }

    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        self.raw = table.raw("train")

    def about(self) -> dict:
        return {"pyod": pyod.__version__, "torch": torch.__version__, "numpy": np.__version__}

    def run(self, seed: int, epochs: int, folder: str) -> list[float]:
        laps = Laps(folder)
        self.detector = Clocked(
            encoder_neuron_list=list(table.HIDDEN),
            decoder_neuron_list=list(reversed(table.HIDDEN)),
            latent_dim=table.LATENT,
            lr=LEARNING_RATE,
            batch_size=table.BATCH,
            epoch_num=epochs,
            random_state=seed,
            verbose=0,
            **self.options,
        )
        self.detector.laps = laps
        self.detector.fit(self.raw)
        return laps.seconds

    def score(self, way: str) -> tuple[float, float]:
        start = time.perf_counter()
        scores = self.detector.decision_function(self.raw, batch_size=int(way.split()[1]))
        return time.perf_counter() - start, float(scores.mean())


class Default(Elbo):
    options: ClassVar[dict[str, Any]] = {}
