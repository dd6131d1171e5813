# SPDX-License-Identifier: MIT
"""Quality of samples on Fashion-MNIST: their Frechet distance to the test images in a classifier's features.

    python bench/generation.py --json bench/results/generation.json --picture bench/results/generation.png

A small convolutional classifier is trained first; its 128 penultimate features take the place of Inception's (Heusel et
al. 2017, eq. 6). fusedvae and PyTorch then train the same VAE as often (784-400-20, Bernoulli, batch 128, Adam 1e-3,
the framework's own initialisation and noise), and every arm draws as many samples as there are test images: from the
prior, and from the mixture of ten normals fitted to the codes, by the same code for both. Two bounds stand beside them:
training images, which only a perfect generator reaches, and each VAE's reconstructions of the test images, which show
what its decoder costs when every code is right.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import fusedvae as fv
import numpy as np
import torch
from arms.pytorch import VAE
from fusedvae.data import load
from problems import PROBLEMS
from report import machine, table, write
from torch import nn

BATCH, RATE, COMPONENTS = 128, 1e-3, 10
# A classifier below this has no features to speak of.
ACCURACY = 0.90
SHOWN = 16
# Rows of each side of the check against copying; a distance in 784 dimensions to 60 000 rows for each.
CHECKED = 500


def epochs_of(x: torch.Tensor, seed: int, epochs: int):
    """Shuffled batches' indices, `epochs` times through the rows."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(len(x), generator=generator).split(BATCH)


class Features:
    """The penultimate layer of a small convolutional network, trained on the training images' labels."""

    def __init__(self, x: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
        torch.manual_seed(0)
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU()),
        )
        self.head = nn.Linear(128, 10)
        optimizer = torch.optim.Adam([*self.body.parameters(), *self.head.parameters()], 2 * RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // BATCH))
        for index in epochs_of(x, 0, epochs):
            loss = nn.functional.cross_entropy(self.head(self.body(x[index].view(-1, 1, 28, 28))), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Images (n, 784) in [0, 1] -> features (n, 128)."""
        return torch.cat([self.body(part.view(-1, 1, 28, 28)) for part in torch.from_numpy(images).split(1000)])

    @torch.no_grad()
    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        return float((self.head(self(images)).argmax(1).numpy() == labels).mean())


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features a (n, F), b (m, F), in double precision.

    The last trace is that of the square root of C_a^(1/2) C_b C_a^(1/2), which is symmetric.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    crossed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * crossed)


class Fused:
    """fusedvae's arm."""

    def __init__(self, train: np.ndarray, epochs: int, seed: int) -> None:
        self.train = train
        model = fv.Model(fv.Config(input_shape=784, hidden=(400,), latent=20), seed=seed)
        fv.Trainer(model, fv.Adam(RATE), batch_size=BATCH, threads=1, seed=seed).fit(train, epochs)
        self.sampler = fv.Sampler(model, seed)

    def images(self, test: np.ndarray) -> dict[str, np.ndarray]:
        """Samples of each kind and reconstructions, as many as test images: (m, 784)."""
        self.sampler.fit_codes(self.train, components=COMPONENTS)
        samples = {source: self.sampler.sample(len(test), source=source) for source in ("prior", "mixture")}
        return samples | {"reconstructions": self.sampler.model.reconstruct(test)}


class Torch:
    """PyTorch's arm: the same network, loss, optimiser and number of steps."""

    def __init__(self, train: np.ndarray, epochs: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.seed, self.model, self.train = seed, VAE(PROBLEMS["mnist"]), torch.from_numpy(train)
        optimizer = torch.optim.Adam(self.model.parameters(), RATE, fused=True)
        for index in epochs_of(self.train, seed, epochs):
            loss = sum(self.model.losses(self.train[index])) / len(index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def images(self, test: np.ndarray) -> dict[str, np.ndarray]:
        """The same, with fusedvae's mixture on this model's codes."""
        mu, logvar = self.model.encode(self.train)
        mixture = fv.Mixture.fit((mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)).numpy(), COMPONENTS, self.seed)
        codes = {
            "prior": torch.randn(len(test), mu.shape[1]),
            "mixture": torch.from_numpy(mixture.draw(len(test), seed=self.seed)),
            "reconstructions": self.model.encode(torch.from_numpy(test))[0],
        }
        return {kind: torch.sigmoid(self.model.decode(z)).numpy() for kind, z in codes.items()}


def copying(arm: Fused, kinds: dict[str, np.ndarray], test: np.ndarray) -> dict[str, float]:
    """The probability that a sample lies nearer to the training images than a test image's reconstruction does."""
    return {
        kind: arm.sampler.nearest(kinds[kind][:CHECKED], arm.train, held_out=test[:CHECKED]).copying
        for kind in ("prior", "mixture")
    }


def draw(panels: dict[str, np.ndarray], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.82 * len(panels)), layout="constrained")
    for axes, (title, images) in zip(figure.subplots(len(panels)), panels.items(), strict=True):
        axes.imshow(np.hstack(images[:SHOWN].reshape(-1, 28, 28)), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=8, loc="left", pad=2)
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="of each VAE (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each VAE (%(default)s)")
    parser.add_argument("--classifier-epochs", type=int, default=6, help="(%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the record there")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="also draw samples of each arm there")
    arguments = parser.parse_args()

    where = machine()
    torch.set_num_threads(1)
    fv.set_num_threads(1)
    data = load("fashion-mnist")
    train, test = (x.reshape(len(x), 784).astype(np.float32) / 255 for x in (data.train, data.test))
    classifier = Features(
        torch.from_numpy(train), torch.from_numpy(data.labels.astype(np.int64)), arguments.classifier_epochs
    )
    accuracy = classifier.accuracy(test, data.test_labels)
    print(f"classifier: {100 * accuracy:.2f} % of the test images", flush=True)
    if accuracy < ACCURACY:
        raise SystemExit(f"the classifier must know {100 * ACCURACY:.0f} % of the test images")
    target = classifier(test).numpy()

    def distance(images: np.ndarray) -> float:
        return frechet(classifier(images).numpy(), target)

    found: dict[str, list[float]] = {"training images": [distance(train[: len(test)])]}
    repeats: dict[str, list[float]] = {}
    panels = {"test images": test}
    for seed in range(arguments.seeds):
        for name, kind in (("fusedvae", Fused), ("PyTorch", Torch)):
            arm = kind(train, arguments.epochs, seed)
            kinds = arm.images(test)
            for title, images in kinds.items():
                found.setdefault(f"{name}, {title}", []).append(distance(images))
                panels.setdefault(f"{name}, {title}", images)
            if name == "fusedvae":
                for title, value in copying(arm, kinds, test).items():
                    repeats.setdefault(title, []).append(value)
        print(f"seed {seed}: " + ", ".join(f"{title} {values[-1]:.1f}" for title, values in found.items()), flush=True)

    rows = [
        [title, f"{statistics.mean(values):.1f}", f"{min(values):.1f} - {max(values):.1f}"]
        for title, values in found.items()
    ]
    print(table(["Frechet distance to the test images", "mean", "range"], rows))
    print(table(["copying", "mean"], [[title, f"{statistics.mean(values):.3f}"] for title, values in repeats.items()]))
    if arguments.picture:
        draw(panels, arguments.picture)
    if arguments.json:
        record = {
            "benchmark": "generation",
            "machine": where,
            "epochs": arguments.epochs,
            "classifier_accuracy": accuracy,
            "frechet": found,
            "copying": repeats,
            "versions": {"fusedvae": fv.__version__, "torch": torch.__version__, "numpy": np.__version__},
        }
        write(arguments.json, record)


if __name__ == "__main__":
    main()
