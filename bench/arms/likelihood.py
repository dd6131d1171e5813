# SPDX-License-Identifier: MIT
"""Arms of log_likelihood.py: the importance-weighted estimate of log p(x) (Burda et al. 2015, eq. 8). Each answers

about() -> dict              names and versions for the record
prepare(problem)             the network at problem.parameters()
estimate(images, samples)    the estimate of each image, in nats
"""

from __future__ import annotations

import time

import numpy as np
from problems import Problem


def images(problem: Problem, count: int) -> np.ndarray:
    """(count, D) float32, zeros and ones."""
    return (np.random.default_rng(5).random((count, problem.width)) < 0.3).astype(np.float32)


class Fused:
    device = "cpu"

    def __init__(self, threads: int):
        import fusedvae

        self.fv, self.threads = fusedvae, threads
        fusedvae.set_num_threads(threads)

    def about(self) -> dict:
        from arms.fused import compilers

        return {"fusedvae": self.fv.__version__, "backend": self.fv.backend(), "compilers": compilers()}

    def prepare(self, problem: Problem) -> None:
        self.problem = problem
        self.model = self.fv.Model(problem.config(), device=self.device)
        self.model.set_parameters(problem.parameters())

    def estimate(self, count: int, samples: int) -> list[float]:
        return self.model.log_likelihood(images(self.problem, count), samples=samples, seed=1).tolist()

    def peak(self, seconds: float) -> float:
        return self.fv._core.measure_peak(self.threads, seconds)


class Torch:
    """One image's samples at a time in inference mode, in pieces of the size that is fastest here."""

    device = "cpu"
    PIECES = (5000, 1000, 500, 250, 125)
    TRIED_ON = 4  # images

    def __init__(self, threads: int):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)

    def about(self) -> dict:
        return {"torch": self.torch.__version__, "samples_at_a_time": self.piece}

    def prepare(self, problem: Problem) -> None:
        from arms.pytorch import VAE

        self.problem = problem
        self.model = VAE(problem).to(self.device)
        self.model.load_state_dict({n: self.torch.from_numpy(value) for n, value in problem.parameters().items()})
        self.torch.manual_seed(1)
        self.piece = min(self.PIECES, key=self._seconds)

    def _seconds(self, piece: int) -> float:
        self.piece = piece
        self.estimate(self.TRIED_ON, 5000)
        start = time.perf_counter()
        self.estimate(self.TRIED_ON, 5000)
        return time.perf_counter() - start

    def log_weights(self, x, mu, logvar, noise):
        """log p(x, z) / q(z | x) of z = mu + sigma * noise (..., Z), in nats, shape (...); the rest broadcasts."""
        z = mu + self.torch.exp(0.5 * logvar) * noise
        logits = self.model.decode(z).float()
        nll = self.torch.nn.functional.binary_cross_entropy_with_logits
        log_p = -nll(logits, x.expand_as(logits), reduction="none").sum(-1)
        return log_p + 0.5 * (noise.square() + logvar - z.square()).sum(-1)

    def estimate(self, count: int, samples: int) -> list[float]:
        torch = self.torch
        with torch.inference_mode():
            x = torch.from_numpy(images(self.problem, count))
            mu, logvar = self.model.encode(x)
            found = []
            for row, mean, lv in zip(x, mu, logvar, strict=True):
                weights = []
                for first in range(0, samples, self.piece):
                    noise = torch.randn(min(self.piece, samples - first), len(mean))
                    weights.append(self.log_weights(row, mean, lv, noise))
                found.append(torch.logsumexp(torch.cat(weights), 0) - np.log(samples))
            return torch.stack(found).tolist()
