# SPDX-License-Identifier: MIT
"""What the tests of train_ensemble share: trainings that all differ, and whether two of them ended alike."""

from collections.abc import Callable
from typing import Any

import fusedvae as fv
from bits import same_bits


def trainers(count: int, *, device: str = "cpu", **options: Any) -> list[fv.Trainer]:
    """Of three widths and three batch sizes; betas, rates and seeds differ too."""
    configs = [fv.Config(input_shape=12, hidden=(width,), latent=3) for width in (16, 24, 70)]
    return [
        fv.Trainer(
            fv.Model(configs[i % 3], seed=i, device=device),
            **{
                "optimizer": fv.Adam(1e-3 * (1 + i % 2)),
                "beta": 0.5 * (1 + i),
                "batch_size": (16, 19, 32)[i // 2 % 3],
                "seed": i,
                **options,
            },
        )
        for i in range(count)
    ]


def same(a: fv.Trainer, b: fv.Trainer) -> bool:
    """Whether two trainings have the same history and parameters, to the bit."""
    return same_bits(a.history, b.history) and same_bits(a.model.parameters(), b.model.parameters())


def assert_as_alone(make: Callable[[], list[fv.Trainer]], x: Any, **options: Any) -> None:
    """Trainings together end with the bits of a fit each of its own; `threads` is the ensemble's alone."""
    threads = options.pop("threads", None)
    together = fv.train_ensemble(make(), x, threads=threads, **options)
    for mine, alone in zip(together, make(), strict=True):
        alone.fit(x, **options)
        assert same(mine, alone)
        assert mine.failure is None
