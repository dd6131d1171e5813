# SPDX-License-Identifier: MIT
"""PyTorch's arms: eager, compiled, and compiled under bfloat16 autocast. The usual module, summed losses over the batch
size, Adam(fused=True), and the batches already cut from a tensor in memory (no DataLoader: fashion_mnist.py times
that). Compiled, the whole of noise, forward and loss is one function, and autograd's backward is compiled with it.
Compiling the optimiser too, or the step as a whole, was tried on `tabular` and `mnist` and was no faster than the
fused Adam."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from problems import BETA1, BETA2, EPSILON, Problem
from torch import nn


class VAE(nn.Module):
    """A multilayer VAE whose state_dict has the names and shapes of Problem.parameters()."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.likelihood, self.output = problem.likelihood, problem.output
        layers = {name: nn.Linear(ins, outs) for name, (outs, ins) in problem.layers().items()}
        depth = len(problem.hidden)
        self.encoder = nn.ModuleList(layers.pop(f"encoder.{i}") for i in range(depth))
        self.decoder = nn.ModuleList(layers.pop(f"decoder.{i}") for i in range(depth))
        for name, layer in layers.items():  # encoder_mean, encoder_logvar and the output layer
            self.add_module(name, layer)

    def encode(self, x):
        for layer in self.encoder:
            x = F.relu(layer(x))
        return self.encoder_mean(x), self.encoder_logvar(x)

    def decode(self, z):
        for layer in self.decoder:
            z = F.relu(layer(z))
        return getattr(self, self.output)(z)

    def losses(self, x, noise=None):
        """Reconstruction and KL, summed over the rows of x (B, D); noise (B, Z), drawn where it is None."""
        mu, logvar = self.encode(x)
        if noise is None:
            noise = torch.randn_like(mu)
        y = self.decode(mu + torch.exp(0.5 * logvar) * noise)
        if self.likelihood == "bernoulli":
            reconstruction = F.binary_cross_entropy_with_logits(y, x, reduction="sum")
        else:
            reconstruction = 0.5 * F.mse_loss(y, x, reduction="sum") + 0.5 * math.log(2 * math.pi) * x.numel()
        return reconstruction, -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


class Eager:
    def __init__(self, threads: int):
        torch.set_num_threads(threads)

    def about(self) -> dict:
        return {"torch": torch.__version__, "blas": "mkl" if torch.backends.mkl.is_available() else "other"}

    def prepare(self, problem: Problem) -> None:
        torch.manual_seed(0)
        self.problem = problem
        self.model = VAE(problem)
        self.model.load_state_dict({name: torch.from_numpy(value) for name, value in problem.parameters().items()})
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=problem.learning_rate, betas=(BETA1, BETA2), eps=EPSILON, fused=True
        )
        self.batches = torch.from_numpy(problem.data()).split(problem.batch)

    def loss(self, x, noise=None):
        reconstruction, kl = self.model.losses(x, noise)
        return (reconstruction + kl) / x.shape[0]

    def step(self, x, noise=None):
        self.optimizer.zero_grad()
        loss = self.loss(x, noise)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def losses(self, count: int) -> list[float]:
        return [float(self.step(self.batches[0], torch.from_numpy(self.problem.noise(i)))) for i in range(count)]

    def train(self, epochs: int) -> float:
        for _ in range(epochs):
            total = torch.zeros(())
            for x in self.batches:
                total += self.step(x)
        return float(total) / len(self.batches)


class Compiled(Eager):
    def prepare(self, problem: Problem) -> None:
        super().prepare(problem)
        self.loss = torch.compile(super().loss)


class CompiledBfloat16(Compiled):
    """Autocast around forward and loss, as PyTorch's guide says: products in bfloat16, weights and Adam in float32."""

    def step(self, x, noise=None):
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.loss(x, noise)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
