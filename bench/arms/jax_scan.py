# SPDX-License-Identifier: MIT
"""JAX's arm: one jitted function that scans the steps of a whole epoch, its state donated; weights are kept (in, out),
as Flax keeps them, and Adam is written out. JAX on CPUs takes its threads from the process's affinity (worker.py)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import jaxlib
from problems import BETA1, BETA2, EPSILON, Problem


class Scan:
    def __init__(self, threads: int):
        self.key = jax.random.key(0)

    def about(self) -> dict:
        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}

    def prepare(self, problem: Problem) -> None:
        self.problem = problem
        values = {name: jnp.asarray(v.T if v.ndim == 2 else v) for name, v in problem.parameters().items()}
        zeros = partial(jax.tree.map, jnp.zeros_like)
        self.state = (values, zeros(values), zeros(values), jnp.zeros((), jnp.int32))
        self.batches = jnp.asarray(problem.data().reshape(problem.steps(), problem.batch, problem.width))
        self.verified_step = jax.jit(self._step)
        self.epoch = jax.jit(self._epoch, donate_argnums=0)

    def losses(self, count: int) -> list[float]:
        values = []
        for i in range(count):
            self.state, loss = self.verified_step(self.state, self.batches[0], jnp.asarray(self.problem.noise(i)))
            values.append(float(loss))
        return values

    def train(self, epochs: int) -> float:
        for _ in range(epochs):
            self.key, key = jax.random.split(self.key)
            self.state, loss = self.epoch(self.state, self.batches, key)
        return float(loss)  # waits for the last epoch, and so for all of them

    def _epoch(self, state, batches, key):
        def body(carry, x):
            state, key = carry
            key, drawn = jax.random.split(key)
            state, loss = self._step(state, x, jax.random.normal(drawn, (self.problem.batch, self.problem.latent)))
            return (state, key), loss

        (state, _), losses = jax.lax.scan(body, (state, key), batches)
        return state, losses.mean()

    def _step(self, state, x, noise):
        values, first, second, count = state
        loss, gradients = jax.value_and_grad(self._loss)(values, x, noise)
        count = count + 1
        first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
        rate, correction = self.problem.learning_rate / (1 - BETA1**count), 1 / (1 - BETA2**count)
        values = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v * correction) + EPSILON), values, first, second
        )
        return (values, first, second, count), loss

    def _loss(self, values, x, noise):
        def linear(name, a):
            return a @ values[f"{name}.weight"] + values[f"{name}.bias"]

        a = x
        for i in range(len(self.problem.hidden)):
            a = jax.nn.relu(linear(f"encoder.{i}", a))
        mu, logvar = linear("encoder_mean", a), linear("encoder_logvar", a)
        a = mu + jnp.exp(0.5 * logvar) * noise
        for i in range(len(self.problem.hidden)):
            a = jax.nn.relu(linear(f"decoder.{i}", a))
        y = linear(self.problem.output, a)
        if self.problem.likelihood == "bernoulli":
            reconstruction = jnp.maximum(y, 0) - x * y + jnp.log1p(jnp.exp(-jnp.abs(y)))
        else:
            reconstruction = 0.5 * (jnp.log(2 * jnp.pi) + (x - y) ** 2)
        kl = -0.5 * (1 + logvar - mu**2 - jnp.exp(logvar))
        return (reconstruction.sum() + kl.sum()) / x.shape[0]
