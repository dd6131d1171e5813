# SPDX-License-Identifier: MIT
"""The whole job on Fashion-MNIST: uint8 images in memory, 784-400-20, batch 128, Adam 1e-3, shuffled each epoch.

    start(seed)                    a new model with its framework's own initialisation
    epoch() -> float               timed: one pass over the 60 000 images; its mean loss in nats per image
    held_out(samples, path)        -ELBO of the 10 000 test images, mean over `samples` draws for each, in nats;
                                   with a path, of the parameters in that .npz
    store(path)                    writes the parameters to an .npz
    run(seed, epochs, folder)      a whole training: seconds from the images to each epoch's end; see laps.py

Loop is the loop of the tutorials: a Dataset that turns one image at a time into a float tensor, a DataLoader, an eager
model, Adam as it comes and a running sum of loss.item(). TensorLoop spares it the work per image: floats made once.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from problems import LEARNING_RATE, Problem

from arms.laps import Laps

FOLDER = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))  # Debian: dataset-fashion-mnist
IMAGES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}


def images(part: str) -> np.ndarray:
    """(n, 784) uint8, from the IDX file: magic 0x803, count, rows, columns as big-endian int32, then the pixels."""
    content = gzip.decompress((FOLDER / IMAGES[part]).read_bytes())
    magic, count, rows, columns = np.frombuffer(content, ">i4", 4).tolist()
    if magic != 0x803:
        raise ValueError(f"{FOLDER / IMAGES[part]} is not an IDX file of images")
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, rows * columns)


class Fused:
    device, precision = "cpu", "float32"

    def __init__(self, threads: int):
        import fusedvae

        self.fv, self.threads = fusedvae, threads
        self.train, self.test = images("train"), images("test")

    def about(self) -> dict:
        from arms import fused

        return fused.Fused(self.threads).about()

    def start(self, seed: int) -> None:
        fv = self.fv
        self.model = fv.Model(fv.Config(input_shape=784, hidden=(400,), latent=20), seed=seed, device=self.device)
        self.trainer = fv.Trainer(
            self.model,
            optimizer=fv.Adam(LEARNING_RATE),
            batch_size=128,
            precision=self.precision,
            threads=self.threads,
            seed=seed,
        )

    def epoch(self) -> float:
        return float(self.trainer.fit(self.train, epochs=1)["loss"][-1])

    def held_out(self, samples: int = 1) -> float:
        # Not Model.elbo: it serves every row with the same noise, which makes rows comparable but their mean noisy (16
        # draws: 0.4 nats). Here each image has draws of its own, as in the peer, and one draw is good to 0.01 nats.
        draws = [self.trainer.evaluate(self.test, seed=seed) for seed in range(samples)]
        return sum(draw.reconstruction + draw.kl for draw in draws) / samples

    def store(self, path: str) -> None:
        np.savez(path, **self.model.parameters())

    def run(self, seed: int, epochs: int, folder: str) -> list[float]:
        laps = Laps(folder)
        self.start(seed)
        self.trainer.fit(self.train, epochs, callbacks=lambda *_: laps.end(self.model.parameters))
        return laps.seconds


class FusedBfloat16(Fused):
    precision = "bfloat16"


class Loop:
    def __init__(self, threads: int):
        import torch

        from arms.pytorch import VAE

        torch.set_num_threads(threads)
        self.torch, self.new_model = torch, lambda: VAE(Problem("mnist", 784, (400,), 20, 128, "bernoulli"))
        self.test = torch.from_numpy(images("test").copy()).float() / 255

    def about(self) -> dict:
        return {"torch": self.torch.__version__, "numpy": np.__version__}

    def dataset(self):
        torch = self.torch

        class FashionMNIST(torch.utils.data.Dataset):
            def __init__(self):
                self.images = images("train")

            def __len__(self):
                return len(self.images)

            def __getitem__(self, index):
                return torch.tensor(self.images[index], dtype=torch.float32) / 255

        return FashionMNIST()

    def unpack(self, batch):
        return batch

    def start(self, seed: int) -> None:
        torch = self.torch
        torch.manual_seed(seed)
        self.model = self.new_model()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.loader = torch.utils.data.DataLoader(self.dataset(), batch_size=128, shuffle=True)

    def epoch(self) -> float:
        self.model.train()
        total = 0.0
        for batch in self.loader:
            x = self.unpack(batch)
            self.optimizer.zero_grad()
            reconstruction, kl = self.model.losses(x)
            loss = (reconstruction + kl) / len(x)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(x)
        return total / len(self.loader.dataset)

    def run(self, seed: int, epochs: int, folder: str) -> list[float]:
        laps = Laps(folder)
        self.start(seed)
        for _ in range(epochs):
            self.epoch()
            laps.end(lambda: {name: value.numpy() for name, value in self.model.state_dict().items()})
        return laps.seconds

    def held_out(self, samples: int, path: str | None = None) -> float:
        torch = self.torch
        model = self.model
        if path is not None:
            model = self.new_model()
            model.load_state_dict({name: torch.from_numpy(value) for name, value in np.load(path).items()})
        model.eval()
        total = 0.0
        with torch.no_grad():
            for x in self.test.split(1000):
                for _ in range(samples):
                    reconstruction, kl = model.losses(x)
                    total += (reconstruction.double() + kl.double()).item()
        return total / samples / len(self.test)


class TensorLoop(Loop):
    def dataset(self):
        return self.torch.utils.data.TensorDataset(self.torch.from_numpy(images("train").copy()).float() / 255)

    def unpack(self, batch):
        return batch[0]
