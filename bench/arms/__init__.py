# SPDX-License-Identifier: MIT
"""Arms: the same training step written once for each framework, timed side by side.

An arm is a class made with `threads`; each runs in a process of its own (see worker.py) and answers

    about() -> dict              names and versions for the record
    prepare(problem)             the model at problem.parameters(), Adam, and the data in memory
    losses(count) -> list        `count` verified steps on the first batch with problem.noise(i): the loss before each
    train(epochs) -> float       timed: passes over the data, batches in order, own noise; the last epoch's mean loss

Loss is the mean over the batch's rows of reconstruction + KL in nats, constants included.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import NamedTuple


class Entry(NamedTuple):
    module: str
    kind: str
    needs: str  # the package without which the arm is left out
    title: str
    precision: str = "float32"


class Unavailable(Exception):
    """What an arm's prepare() raises where it cannot run here: it is left out, and the reason is printed."""


ARMS = {
    "fusedvae": Entry("arms.fused", "Fused", "fusedvae", "fusedvae"),
    "fusedvae.bf16": Entry("arms.fused", "FusedBfloat16", "fusedvae", "fusedvae, bfloat16", "bfloat16"),
    "torch": Entry("arms.pytorch", "Eager", "torch", "PyTorch eager"),
    "torch.compile": Entry("arms.pytorch", "Compiled", "torch", "torch.compile"),
    "torch.bf16": Entry("arms.pytorch", "CompiledBfloat16", "torch", "torch.compile, bfloat16", "bfloat16"),
    "jax": Entry("arms.jax_scan", "Scan", "jax", "JAX, scan of steps"),
    "reference": Entry("arms.reference", "Reference", "numpy", "NumPy, double"),
    "serving": Entry("arms.serving", "Native", "fusedvae", "fusedvae, in C"),
    "serving.bf16": Entry("arms.serving", "NativeBfloat16", "fusedvae", "fusedvae, in C, bfloat16 weights", "bfloat16"),
    "serving.python": Entry("arms.serving", "Python", "fusedvae", "fusedvae, Python"),
    "serving.onnx": Entry("arms.serving", "OnnxRuntime", "onnxruntime", "ONNX Runtime"),
    "serving.torch": Entry("arms.serving", "InferenceMode", "torch", "PyTorch, inference mode"),
    "serving.reference": Entry("arms.serving", "Reference", "numpy", "NumPy, double"),
    "likelihood": Entry("arms.likelihood", "Fused", "fusedvae", "fusedvae"),
    "likelihood.torch": Entry("arms.likelihood", "Torch", "torch", "PyTorch, inference mode"),
    "memory": Entry("arms.memory", "Memory", "numpy", "NumPy, bandwidth"),
    "fashion": Entry("arms.fashion", "Fused", "fusedvae", "fusedvae"),
    "fashion.bfloat16": Entry("arms.fashion", "FusedBfloat16", "fusedvae", "fusedvae, bfloat16"),
    "fashion.torch": Entry("arms.fashion", "Loop", "torch", "PyTorch's usual loop"),
    "fashion.tensors": Entry("arms.fashion", "TensorLoop", "torch", "PyTorch, TensorDataset"),
    "fashion.pythae": Entry("arms.pythae", "Pipeline", "pythae", "pythae's TrainingPipeline"),
    "table": Entry("arms.table", "Fused", "fusedvae", "fusedvae"),
    "table.single": Entry("arms.table", "Single", "fusedvae", "fusedvae, one thread"),
    "table.pyod": Entry("arms.pyod", "Elbo", "pyod", "PyOD's VAE, set to the ELBO"),
    "table.default": Entry("arms.pyod", "Default", "pyod", "PyOD's VAE as it comes"),
    "held_out": Entry("arms.held_out", "HeldOut", "numpy", "NumPy scorer"),
}


def installed(name: str) -> bool:
    return find_spec(ARMS[name].needs) is not None


def create(name: str, threads: int):
    """The arm of that name; imports its framework, so call it only in the arm's own process."""
    entry = ARMS[name]
    return getattr(importlib.import_module(entry.module), entry.kind)(threads)
