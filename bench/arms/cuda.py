# SPDX-License-Identifier: MIT
"""The arms on a GPU: fusedvae's, PyTorch's eager, compiled, compiled with CUDA graphs, and as one graph, and JAX's.

fusedvae's is the faster of its two ways, replayed graphs or one launch for many steps; each is an arm of its own too.
All begin with the same parameters, take the same batches in the same order out of the GPU's memory and draw their own
noise. `epochs()` times passes over them, their losses read at the end of each. Of PyTorch's arms the last is the fair
one: forward, backward and Adam in a single replayed graph, after torch.compile.
"""

from __future__ import annotations

import os
import time

import fusedvae as fv
import numpy as np
from problems import BETA1, BETA2, EPSILON, Problem

PRECISIONS = ("float32", "tf32", "bfloat16")


class Fused:
    """Trainer.fit on rows in the GPU's memory; an epoch is what lies between two of its callbacks."""

    steps = ""  # FUSEDVAE_GPU_STEPS

    def __init__(self, problem: Problem, precision: str):
        model = fv.Model(problem.config(), device="cuda")
        model.set_parameters(problem.parameters())
        optimizer = fv.Adam(problem.learning_rate, eps=EPSILON)
        self.problem = problem
        self.trainer = fv.Trainer(model, optimizer, problem.batch, precision=precision, shuffle=False)
        self.data = problem.data()
        self.x = fv.DeviceArray(self.data)

    def losses(self, count: int) -> list[float]:
        batch = self.data[: self.problem.batch]
        os.environ["FUSEDVAE_GPU_STEPS"] = self.steps  # read before the first step
        return [self.trainer.step(batch, noise=self.problem.noise(i)).loss for i in range(count)]

    def epochs(self, count: int) -> list[float]:
        """Seconds of each of `count` epochs."""
        ends: list[float] = []
        self.trainer.fit(self.x, epochs=1 + count, callbacks=lambda trainer, progress: ends.append(time.perf_counter()))
        return [float(seconds) for seconds in np.diff(ends)]


class Graphs(Fused):
    steps = "graphs"


class Programs(Fused):
    steps = "programs"


class Eager:
    def __init__(self, problem: Problem, precision: str):
        import torch

        from arms.pytorch import VAE

        self.torch, self.problem, self.precision = torch, problem, precision
        self.model = VAE(problem)
        self.model.load_state_dict({name: torch.from_numpy(value) for name, value in problem.parameters().items()})
        self.model.cuda()
        betas = (BETA1, BETA2)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=problem.learning_rate, betas=betas, eps=EPSILON, fused=True, capturable=True
        )
        self.batches = torch.from_numpy(problem.data()).cuda().split(problem.batch)
        self.prepare()

    def prepare(self) -> None:
        """What an arm does before its first step."""

    def loss(self, x, noise=None):
        reconstruction, kl = self.model.losses(x, noise)
        return (reconstruction + kl) / x.shape[0]

    def step(self, x, noise=None):
        self.optimizer.zero_grad()
        with self.torch.autocast("cuda", dtype=self.torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss = self.loss(x, noise)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def turn(self) -> None:
        """Sets what PyTorch keeps for the whole process; called before the arm runs."""
        self.torch.backends.cuda.matmul.allow_tf32 = self.precision != "float32"

    def losses(self, count: int) -> list[float]:
        self.turn()
        noise = [self.torch.from_numpy(self.problem.noise(i)).cuda() for i in range(count)]
        return [float(self.step(self.batches[0], one)) for one in noise]

    def train(self):
        total = self.torch.zeros((), device="cuda")
        for x in self.batches:
            total += self.step(x)
        return total

    def epochs(self, count: int) -> list[float]:
        """Seconds of each of `count` epochs, by events; the losses are read at the end of each."""
        self.turn()
        seconds = []
        for i in range(1 + count):
            begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            total = self.train()
            end.record()
            float(total)
            if i > 0:  # the first warms up
                seconds.append(begin.elapsed_time(end) / 1e3)
        return seconds


class Compiled(Eager):
    mode = "default"

    def prepare(self) -> None:
        # All arms share one function: beyond the usual limit of eight versions of it, the others would run eagerly and
        # in silence, and from the second network on the shapes would be compiled as variables.
        self.torch._dynamo.config.recompile_limit = 256
        # forward and loss; backward is compiled with them
        self.loss = self.torch.compile(super().loss, mode=self.mode, fullgraph=True, dynamic=False)


class ReduceOverhead(Compiled):
    mode = "reduce-overhead"


class WholeGraph(Compiled):
    """The compiled step, Adam included, captured once and replayed; each batch is copied to where the graph reads."""

    graph = None

    def capture(self) -> None:
        torch = self.torch
        self.x = self.batches[0].clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # compiles, and settles the optimiser's state
                super().step(self.x)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.captured = super().step(self.x)

    def train(self):
        if self.graph is None:
            self.capture()
        total = self.torch.zeros((), device="cuda")
        for x in self.batches:
            self.x.copy_(x)
            self.graph.replay()
            total += self.captured
        return total


class Jax:
    """arms/jax_scan.py with its products in the precision asked for, which is not JAX's own choice on a GPU."""

    def __init__(self, problem: Problem, precision: str):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # it would take most of the memory
        import jax

        from arms.jax_scan import Scan

        if jax.default_backend() != "gpu":
            raise RuntimeError("JAX finds no GPU")
        algorithm = {"float32": "highest", "tf32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"}[precision]
        self.products = lambda: jax.default_matmul_precision(algorithm)
        self.scan = Scan(threads=1)
        self.scan.prepare(problem)

    def losses(self, count: int) -> list[float]:
        with self.products():
            return self.scan.losses(count)

    def epochs(self, count: int) -> list[float]:
        """Seconds of each of `count` epochs; the loss of each is waited for."""
        seconds = []
        with self.products():
            self.scan.train(1)  # compiles
            for _ in range(count):
                begin = time.perf_counter()
                self.scan.train(1)
                seconds.append(time.perf_counter() - begin)
        return seconds


ARMS = {
    "fusedvae": Fused,
    "fusedvae.graphs": Graphs,
    "fusedvae.programs": Programs,
    "torch": Eager,
    "torch.compile": Compiled,
    "torch.reduce-overhead": ReduceOverhead,
    "torch.whole-step-graph": WholeGraph,
    "jax": Jax,
}
