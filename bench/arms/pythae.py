# SPDX-License-Identifier: MIT
"""pythae's TrainingPipeline on Fashion-MNIST: its VAE with an encoder and a decoder of 784-400-20, bce, batch 128, Adam
1e-3. Laps are read in its callbacks; its progress bar and log are silenced, what it keeps of the best model is not."""

from __future__ import annotations

import logging
import os
import tempfile

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import numpy as np
import torch
import torch.nn.functional as F
from problems import LEARNING_RATE
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn

from arms import fashion
from arms.laps import Laps

NAMES = {  # pythae's state_dict -> fusedvae
    "encoder.hidden": "encoder.0",
    "encoder.mean": "encoder_mean",
    "encoder.logvar": "encoder_logvar",
    "decoder.hidden": "decoder.0",
    "decoder.logits": "decoder_logits",
}


class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.hidden, self.mean, self.logvar = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)

    def forward(self, x):
        h = F.relu(self.hidden(x))
        return ModelOutput(embedding=self.mean(h), log_covariance=self.logvar(h))


class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.hidden, self.logits = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.logits(F.relu(self.hidden(z)))))


class EpochEnds(TrainingCallback):
    def __init__(self, laps: Laps, model: VAE):
        self.laps, self.model = laps, model

    def on_epoch_end(self, training_config, **kwargs) -> None:
        self.laps.end(self.parameters)

    def parameters(self) -> dict[str, np.ndarray]:
        copies = {}
        for name, value in self.model.state_dict().items():
            layer, kind = name.rsplit(".", 1)
            copies[f"{NAMES[layer]}.{kind}"] = value.numpy().copy()
        return copies


class Pipeline:
    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        logging.disable(logging.INFO)
        self.images = fashion.images("train")

    def about(self) -> dict:
        from importlib.metadata import version

        return {"pythae": version("pythae"), "torch": torch.__version__, "numpy": np.__version__}

    def run(self, seed: int, epochs: int, folder: str) -> list[float]:
        torch.manual_seed(seed)
        laps = Laps(folder)
        config = VAEConfig(input_dim=(784,), latent_dim=20, reconstruction_loss="bce")
        model = VAE(config, encoder=Encoder(), decoder=Decoder())
        with tempfile.TemporaryDirectory() as output:
            training = BaseTrainerConfig(
                output_dir=output,
                num_epochs=epochs,
                per_device_train_batch_size=128,
                learning_rate=LEARNING_RATE,
                seed=seed,
                no_cuda=True,
            )
            pipeline = TrainingPipeline(model, training)
            pipeline(train_data=np.float32(self.images) / 255, callbacks=[EpochEnds(laps, model)])
        return laps.seconds
