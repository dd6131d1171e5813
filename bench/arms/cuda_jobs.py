# SPDX-License-Identifier: MIT
"""Arms of gpu_jobs.py, each made with a precision. An epoch of Fashion-MNIST, made with a number of images too:

    epochs(count) -> list     seconds of each of `count` passes over them, after one that is not counted
    epoch() -> float          one more pass: its mean loss in nats per image

and log-likelihoods, as in arms/likelihood.py:

    estimate(count, samples) -> list     of each of the first `count` images, in nats
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
from problems import PROBLEMS, Problem

from arms import cuda, fashion, likelihood


class FusedEpoch(fashion.Fused):
    """The whole job: bytes in the GPU's memory, shuffled there, the short batch at the end too."""

    device = "cuda"

    def __init__(self, precision: str, images: int):
        super().__init__(threads=1)
        self.precision = precision
        self.train = self.train[:images]
        self.start(seed=0)

    def epochs(self, count: int) -> list[float]:
        ends: list[float] = []  # of one call, which uploads the images before the first

        def end(trainer, progress) -> None:
            ends.append(time.perf_counter())

        self.trainer.fit(self.train, epochs=1 + count, callbacks=end)
        return [float(seconds) for seconds in np.diff(ends)]


@dataclass(frozen=True)
class Images(Problem):
    """`mnist` on the images, as floats made beforehand; without the last ones, which are no whole batch."""

    images: int

    @classmethod
    def of(cls, images: int) -> Images:
        return cls(**asdict(PROBLEMS["mnist"]), images=images)

    def steps(self) -> int:
        return self.images // self.batch

    def data(self) -> np.ndarray:
        return fashion.images("train")[: self.steps() * self.batch].astype(np.float32) / 255


class EagerEpoch:
    """An arm of gpu.py on Images in their order: it is spared the shuffle and the bytes."""

    kind = cuda.Eager

    def __init__(self, precision: str, images: int):
        self.arm = self.kind(Images.of(images), precision)

    def epochs(self, count: int) -> list[float]:
        return self.arm.epochs(count)

    def epoch(self) -> float:
        self.arm.turn()
        return float(self.arm.train()) / self.arm.problem.steps()


class GraphEpoch(EagerEpoch):
    kind = cuda.WholeGraph


class LoopEpoch(fashion.Loop):
    """The loop of the tutorials, each batch sent to the GPU."""

    def __init__(self, precision: str, images: int):
        super().__init__(threads=1)
        if precision == "bfloat16":
            raise RuntimeError("the loop of the tutorials has no autocast")
        self.precision, self.images = precision, images
        new_model = self.new_model
        self.new_model = lambda: new_model().cuda()
        self.start(seed=0)

    def dataset(self):
        return self.torch.utils.data.Subset(super().dataset(), range(self.images))

    def unpack(self, batch):
        return batch.cuda()

    def epoch(self) -> float:
        self.torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        return super().epoch()

    def epochs(self, count: int) -> list[float]:
        seconds = []
        for _ in range(1 + count):
            begin = time.perf_counter()
            self.epoch()
            seconds.append(time.perf_counter() - begin)
        return seconds[1:]


EPOCH = {"fusedvae": FusedEpoch, "torch": EagerEpoch, "torch.whole-step-graph": GraphEpoch, "torch.loop": LoopEpoch}


class FusedLikelihood(likelihood.Fused):
    device = "cuda"

    def __init__(self, precision: str):
        super().__init__(threads=1)
        if precision == "tf32":
            raise RuntimeError("models serve in float32 or with bfloat16 weights")
        self.prepare(PROBLEMS["iwae"])
        self.model = self.model.copy(weights=precision)


class TorchLikelihood(likelihood.Torch):
    """All samples of some images at a time, as many as are fastest."""

    device = "cuda"
    PIECES = (1, 4, 16, 64)  # images: the last one's logits are 1 GB
    TRIED_ON = 64

    def __init__(self, precision: str):
        super().__init__(threads=1)
        self.precision = precision
        self.prepare(PROBLEMS["iwae"])

    def estimate(self, count: int, samples: int) -> list[float]:
        torch = self.torch
        torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        autocast = torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.precision == "bfloat16")
        found = []
        with torch.inference_mode(), autocast:
            for x in torch.from_numpy(likelihood.images(self.problem, count)).cuda().split(self.piece):
                mu, logvar = (each.float().unsqueeze(1) for each in self.model.encode(x))
                noise = torch.randn(len(x), samples, mu.shape[-1], device="cuda")
                weights = self.log_weights(x.unsqueeze(1), mu, logvar, noise)
                found.append(torch.logsumexp(weights, 1) - np.log(samples))
            return torch.cat(found).tolist()


LIKELIHOOD = {"fusedvae": FusedLikelihood, "torch": TorchLikelihood}
