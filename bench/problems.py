# SPDX-License-Identifier: MIT
"""The networks that are timed: those of `fusedvae bench` and the sweeps over batch and width, with first parameters.

Everything comes from a seed alone, so that each arm, in a process of its own, starts from the same numbers. Letters as
in the engine: B rows of a batch, D data width, H hidden widths, Z latent width; weights are (out, in).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from fusedvae.bench import NETWORKS, Network

LEARNING_RATE, BETA1, BETA2 = 1e-3, 0.9, 0.999
# Not the usual 1e-8: Adam's first steps then turn the gradients of a unit that is all but dead, which are as small as
# their rounding errors, into whole steps, and two right float32 programs differ by 4e-6 in `mnist`'s fourth loss. A
# step takes as long with either.
EPSILON = 1e-4


@dataclass(frozen=True)
class Problem(Network):
    """A network with what it takes to compare arms on it."""

    @property
    def output(self) -> str:
        return "decoder_logits" if self.likelihood == "bernoulli" else "decoder_mean"

    def layers(self) -> dict[str, tuple[int, int]]:
        """The linear layers: name -> (out, in), in the order of the forward pass."""
        shapes = {}
        reads = self.width
        for i, units in enumerate(self.hidden):
            shapes[f"encoder.{i}"], reads = (units, reads), units
        shapes["encoder_mean"] = shapes["encoder_logvar"] = (self.latent, reads)
        reads = self.latent
        for i, units in enumerate(reversed(self.hidden)):
            shapes[f"decoder.{i}"], reads = (units, reads), units
        shapes[self.output] = (self.width, reads)
        return shapes

    def weights(self) -> int:
        """Parameters, biases included."""
        return sum(outs * (ins + 1) for outs, ins in self.layers().values())

    def state_bytes(self) -> int:
        """Weights and Adam's two moments in float32: what a step cannot do without."""
        return 3 * 4 * self.weights()

    def step_bytes(self) -> int:
        """The least that a step moves when no cache keeps anything: the state read and written once, the batch read."""
        return 2 * self.state_bytes() + 4 * self.batch * self.width

    def parameters(self) -> dict[str, np.ndarray]:
        """First parameters, float32, uniform in +-1/sqrt(in): "encoder.0.weight" (out, in), "encoder.0.bias" (out) …"""
        rng = np.random.default_rng(1)
        values = {}
        for name, (outs, ins) in self.layers().items():
            bound = ins**-0.5
            values[f"{name}.weight"] = rng.uniform(-bound, bound, (outs, ins)).astype(np.float32)
            values[f"{name}.bias"] = rng.uniform(-bound, bound, outs).astype(np.float32)
        return values

    def noise(self, step: int) -> np.ndarray:
        """(B, Z) float32 standard normals for the verified steps; timed steps draw their own."""
        return np.random.default_rng((3, step)).standard_normal((self.batch, self.latent), dtype=np.float32)


PROBLEMS = {name: Problem(**asdict(network)) for name, network in NETWORKS.items()}

# The batch sweep keeps mnist's network; the width sweep makes data and hidden layer equally wide at mnist's batch.
SWEEPS = {
    "batch": [Problem(f"batch {b}", 784, (400,), 20, b, "bernoulli") for b in (1, 4, 16, 64, 256, 1024, 4096, 16384)],
    "width": [Problem(f"width {w}", w, (w,), 32, 128, "gaussian") for w in (64, 128, 256, 512, 1024, 2048, 4096)],
}
