# SPDX-License-Identifier: MIT
"""Small models and data that the tests share."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bits
import fusedvae as fv
import numpy as np
import pytest
from command import X
from fusedvae import _blocks

LIKELIHOODS = {
    "bernoulli": fv.Bernoulli(),
    "fixed": fv.Gaussian("fixed", fixed_variance=0.5),
    "feature": fv.Gaussian("feature"),
    "element": fv.Gaussian("element"),
}


@pytest.fixture
def interruptible() -> Callable[[], Any]:
    """For Popen's preexec_fn: a shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    return lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def x() -> np.ndarray:
    """Rows (90, 12) with structure to learn, in [0, 1]."""
    rng = np.random.default_rng(7)
    code = rng.standard_normal((90, 2))
    return (1 / (1 + np.exp(-code @ rng.standard_normal((2, 12)) * 3))).astype(np.float32)


@pytest.fixture
def make_model() -> Callable[..., fv.Model]:
    """A 12-16-3 model; keywords change its configuration, `device` where it is."""

    def make(seed: int = 0, device: str = "cpu", **changes: Any) -> fv.Model:
        options: dict[str, Any] = {"input_shape": 12, "hidden": (16,), "latent": 3, **changes}
        return fv.Model(fv.Config(**options), seed=seed, device=device)

    return make


@pytest.fixture(params=list(LIKELIHOODS))
def likelihood(request: pytest.FixtureRequest) -> fv.Bernoulli | fv.Gaussian:
    """Each likelihood in turn."""
    return LIKELIHOODS[request.param]


@pytest.fixture
def same_bits() -> Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], bool]:
    """Whether two models' parameters, or histories, are equal to the bit."""
    return bits.same_bits


@pytest.fixture
def noisy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(train, held out): too few rows to learn from, so that the held-out loss turns within some epochs."""
    rows = (np.random.default_rng(3).random(x.shape) < x).astype(np.float32)
    return rows[:20], rows[20:]


@pytest.fixture
def make_trainer(make_model: Callable[..., fv.Model]) -> Callable[..., fv.Trainer]:
    """A trainer that overfits after about ten epochs."""

    def make(seed: int = 0, **options: Any) -> fv.Trainer:
        return fv.Trainer(make_model(seed=seed), fv.Adam(0.03), **{"batch_size": 5, "beta": 0.1, **options})

    return make


class KeepEpochs(fv.Callback):
    """Each epoch's parameters."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, np.ndarray]] = []

    def on_epoch_end(self, trainer: fv.Trainer, progress: fv.Progress) -> None:
        self.epochs.append(trainer.model.parameters())


@pytest.fixture
def keep() -> KeepEpochs:
    """A callback that keeps each epoch's parameters."""
    return KeepEpochs()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test writes into the user's folders; every temporary file of spool is seen here."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FUSEDVAE_CACHE", str(folder))
    return folder


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows of 12 columns a block, so that small data has many."""
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", 7 * 12 * 8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """images.npy: 120 uint8 images (5, 4) of one white row each, or two."""
    rng = np.random.default_rng(0)
    x = np.zeros((120, 5, 4), np.uint8)
    x[np.arange(120), rng.integers(0, 5, 120)] = 255
    np.save(tmp_path / "images.npy", x)
    return tmp_path / "images.npy"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """table.csv: 90 rows of the numbers a and b, one a hundred times as large, and the words of kind."""
    rng = np.random.default_rng(0)
    path = tmp_path / "table.csv"
    lines = [f"{a:.4f},{100 * b:.4f},{'xy'[i % 2]}" for i, (a, b) in enumerate(rng.standard_normal((90, 2)))]
    path.write_text("\n".join(["a,b,kind", *lines]))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unnamed(here: None) -> fv.Model:
    """Reads three columns without names; saved as m.safetensors, its data as x.npy."""
    model = fv.Model(fv.Config(input_shape=3, hidden=(8,), latent=2), seed=3)
    model.save("m.safetensors")
    np.save("x.npy", X)
    return model


@pytest.fixture
def named(here: None) -> tuple[fv.Model, np.ndarray]:
    """Reads the columns age, pet and size of a table; saved as n.safetensors, its data as t.csv."""
    rng = np.random.default_rng(0)
    columns = [fv.Column("age", 40, 10), fv.Column("pet", categories=("cat", "big, dog")), fv.Column("size")]
    config = fv.Config(input_shape=3, hidden=(8,), latent=2, likelihood="gaussian", columns=columns)
    model = fv.Model(config, seed=3)
    model.detector = fv.Detector("elbo", samples=4, seed=1, threshold=-8.0)
    model.save("n.safetensors")
    raw = np.column_stack((rng.normal(40, 10, 20), rng.integers(0, 2, 20), rng.random(20)))
    lines = [
        f'r{i},{size!r},"{columns[1].categories[int(pet)]}",{age!r}' for i, (age, pet, size) in enumerate(raw.tolist())
    ]
    Path("t.csv").write_text("\n".join(["id,size,pet,age", *lines]) + "\n", encoding="utf-8")
    return model, raw
