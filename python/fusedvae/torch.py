# SPDX-License-Identifier: MIT
"""A model as a PyTorch module with the same numbers, to go on with there; `from_torch` (state_dict.py) leads back."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from ._column_arrays import column_arrays, log_jacobian
from .config import Bernoulli
from .model import Model, check_model

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise ImportError('fusedvae.to_torch needs torch: pip install "fusedvae[torch]"') from error

ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


class Terms(NamedTuple):
    """The terms of each row, in nats: the loss is their sum's mean, the KL weighted by beta."""

    reconstruction: Tensor
    """-log p(x|z) of raw rows (n), the mean over draws of z."""
    kl: Tensor
    """KL(q(z|x) || N(0, I)) (n), analytic."""

    @property
    def elbo(self) -> Tensor:
        """-(reconstruction + kl) (n); higher is better."""
        return -(self.reconstruction + self.kl)


class VAE(nn.Module):  # type: ignore[misc]
    """A copy of a fusedvae model in PyTorch's own layers, named as `Model.parameters`; see `to_torch`.

    `config` is the model's. The columns of a table are constants beside the parameters: they move with the module and
    stay out of its state_dict. A value that the engine refuses, such as a category that is unknown, becomes NaN.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        config = self.config = model.config
        likelihood = config.likelihood
        self.activation = ACTIVATIONS[config.activation]()
        hidden, decoder_hidden = [config.encoded_width, *config.hidden], [config.latent, *config.decoder_hidden]
        self.encoder = _layers(hidden)
        self.encoder_mean = _layer(hidden[-1], config.latent)
        self.encoder_logvar = _layer(hidden[-1], config.latent)
        self.decoder = _layers(decoder_hidden)
        if isinstance(likelihood, Bernoulli):
            self.decoder_logits = _layer(decoder_hidden[-1], config.encoded_width)
        else:
            self.decoder_mean = _layer(decoder_hidden[-1], config.encoded_width)
            if likelihood.variance == "element":
                self.decoder_logvar = _layer(decoder_hidden[-1], config.encoded_width)
            if likelihood.variance == "feature":
                self.log_variance = nn.Parameter(torch.empty(config.encoded_width, device="meta"))
        values = {name: torch.from_numpy(value) for name, value in model.parameters().items()}
        self.load_state_dict(values, assign=True)
        arrays = column_arrays(config)
        self._categorical = [] if arrays is None else arrays.categorical
        for name in ("source", "high", "low", "inverse", "index", "count", "filled", "first", "scale"):
            array = None if arrays is None else torch.from_numpy(getattr(arrays, name))
            self.register_buffer(f"_{name}", array, persistent=False)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x): raw rows x (n, D) or (n, *input_shape) -> mu (n, Z), logvar (n, Z)."""
        return self._posterior(self._encoded(x))

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x|z) in raw units: z (..., Z) -> (..., *input_shape); a category is its index, without gradient."""
        mean = self._output(z)[0]
        if isinstance(self.config.likelihood, Bernoulli):
            mean = torch.sigmoid(mean)
        return self._raw(mean).unflatten(-1, self.config.input_shape)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Terms:
        """The ELBO's terms of raw rows x (n, D); noise (n, Z) or (S, n, Z), None: one draw from PyTorch's generator."""
        encoded = self._encoded(x)
        mu, logvar = self._posterior(encoded)
        noise = torch.randn_like(mu) if noise is None else noise
        nll = self._nll(mu + torch.exp(logvar / 2) * noise, encoded)
        # Kingma and Welling 2013, appendix B
        kl = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum(-1)
        return Terms(nll.mean(0) if nll.dim() == 2 else nll, kl)

    def _encoded(self, x: Tensor) -> Tensor:
        if math.prod(x.shape[1:]) != self.config.width:
            raise ValueError(f"x has shape {tuple(x.shape)}; the model reads {self.config.width} columns")
        rows = torch.flatten(x, 1)
        dtype = self.encoder_mean.weight.dtype
        if self._source is None:
            return rows.to(dtype) * self.config.uint8_scale if rows.dtype == torch.uint8 else rows.to(dtype)
        if not rows.is_floating_point():
            rows = rows.to(dtype)
        value = rows[:, self._source]
        encoded = ((value - self._high) - self._low) * self._inverse
        if self._categorical:
            known = (value >= 0) & (value < self._count) & (value == value.floor())
            one_hot = torch.where(known, (value == self._index).to(encoded.dtype), math.nan)
            encoded = torch.where(self._count > 0, one_hot, encoded)
        return torch.where(value.isnan(), self._filled, encoded).to(dtype)

    def _posterior(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        h = self._tower(self.encoder, encoded)
        return self.encoder_mean(h), self.encoder_logvar(h)

    def _output(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and None, or means and their variance, of encoded columns."""
        h = self._tower(self.decoder, z)
        likelihood = self.config.likelihood
        if isinstance(likelihood, Bernoulli):
            return self.decoder_logits(h), None
        mean = self.decoder_mean(h)
        if likelihood.variance == "fixed":
            return mean, torch.full_like(mean, likelihood.fixed_variance)
        log_variance = self.log_variance if likelihood.variance == "feature" else self.decoder_logvar(h)
        return mean, likelihood.min_variance + log_variance.clamp(max=88).exp()  # e^88 is the last that is finite

    def _nll(self, z: Tensor, encoded: Tensor) -> Tensor:
        output, variance = self._output(z)
        if variance is None:
            target = encoded.expand_as(output)
            return nn.functional.binary_cross_entropy_with_logits(output, target, reduction="none").sum(-1)
        terms = (encoded - output).square() / variance + variance.log() + math.log(2 * math.pi)
        return 0.5 * terms.sum(-1) - log_jacobian(self.config)

    def _raw(self, mean: Tensor) -> Tensor:
        if self._source is None:
            return mean
        first = self._first
        raw = (mean[..., first] * self._scale + self._low[first]) + self._high[first]
        for column, start, count in self._categorical:
            raw[..., column] = mean[..., start : start + count].argmax(-1).to(raw.dtype)
        return raw

    def _tower(self, layers: nn.ModuleList, h: Tensor) -> Tensor:
        for layer in layers:
            h = self.activation(layer(h))
        return h


def to_torch(model: Model) -> VAE:
    """A copy of `model` as a `torch.nn.Module` of float32 parameters on the CPU, with gradients.

    Its numbers are the model's to float32 accuracy: `encode`, `decode`, and `forward`, which gives the ELBO's terms of
    each row for a training loop. Parameters have the names and shapes of `Model.parameters`, so that
    `model.set_parameters(module.state_dict())` or `from_torch(module)` brings them back. The detector stays behind.
    TypeError for what is no model.

    >>> import torch, fusedvae as fv
    >>> module = to_torch(fv.Model(fv.Config(input_shape=6, hidden=(8,), latent=2)))
    >>> optimizer = torch.optim.Adam(module.parameters())
    >>> reconstruction, kl = module(torch.rand(3, 6))
    >>> (reconstruction + 0.5 * kl).mean().backward()
    >>> optimizer.step()
    >>> fv.from_torch(module).config.hidden
    (8,)
    """
    check_model(model)
    return VAE(model)


def _layer(inputs: int, outputs: int) -> nn.Linear:
    # Without storage: the values are the model's, and PyTorch's generator draws none.
    return nn.Linear(inputs, outputs, device="meta")


def _layers(widths: list[int]) -> nn.ModuleList:
    return nn.ModuleList(_layer(inputs, outputs) for inputs, outputs in pairwise(widths))
