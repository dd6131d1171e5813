# SPDX-License-Identifier: MIT
"""The description of a model: widths, activation, likelihood, initialisation. Immutable and checked when made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from . import _checks, _core
from .columns import Column, checked

# Each in the order of its codes in fusedvae.h.
ACTIVATIONS = ("identity", "relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus")
LIKELIHOODS = ("bernoulli", "gaussian")
PRECISIONS = ("float32", "bfloat16", "auto", "tf32")
VARIANCES = ("fixed", "feature", "element")
INITS = ("pytorch", "glorot", "he")


@dataclass(frozen=True)
class Bernoulli:
    """p(x|z) of independent Bernoulli columns with predicted logits; targets are probabilities in [0, 1].

    >>> Config(input_shape=64, likelihood=Bernoulli()) == Config(input_shape=64, likelihood="bernoulli")
    True
    """


@dataclass(frozen=True)
class Gaussian:
    """p(x|z) of independent normal columns with predicted means; densities include every constant, in nats.

    variance: "fixed" (`fixed_variance` for every column), "feature" (one learned value for each column) or "element"
    (predicted beside the mean for each value). Learned variances are `min_variance + exp(log variance)`, so that none
    collapses to zero. ValueError for a variance that is not positive or an unknown kind.

    >>> Gaussian(variance="feature", min_variance=1e-3)
    Gaussian(variance='feature', fixed_variance=1.0, min_variance=0.001)
    """

    variance: str = "fixed"
    fixed_variance: float = 1.0
    min_variance: float = 1e-4

    def __post_init__(self) -> None:
        _checks.choice("variance", self.variance, VARIANCES)
        _set(self, "fixed_variance", _checks.number("fixed_variance", self.fixed_variance, open_low=True))
        _set(self, "min_variance", _checks.number("min_variance", self.min_variance, open_low=True))


@dataclass(frozen=True, init=False)  # __init__ takes more types than the fields keep
class Config:
    """What a model is made of.

    - input_shape: one row's shape, an integer or a tuple such as (28, 28); its product is the data width D
    - hidden: widths of the encoder's hidden layers, first to last (an integer for one layer, () for none)
    - decoder_hidden: the decoder's widths; None mirrors the encoder's
    - latent: width Z of the code; activation: of the hidden layers, by name
    - likelihood: "bernoulli", "gaussian", `Bernoulli()` or `Gaussian(...)`
    - init: "pytorch" (as torch.nn.Linear), "glorot" or "he"; uint8_scale: uint8 inputs are multiplied by it
    - columns: how to read a table, one `Column` for each of its columns, None: as they are. Rows stay as the caller has
      them everywhere, scores included, which for Gaussians are densities of those rows; the network sees
      `encoded_width` values

    Raises ValueError for a value out of range or an unknown name (the known ones are listed, nearest first) and
    TypeError for a width that is not an integer.

    >>> Config(input_shape=(28, 28), hidden=(400, 200), latent=20).decoder_hidden
    (200, 400)
    """

    input_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    decoder_hidden: tuple[int, ...]
    latent: int
    activation: str
    likelihood: Bernoulli | Gaussian
    init: str
    uint8_scale: float
    columns: tuple[Column, ...] | None

    def __init__(
        self,
        input_shape: int | Sequence[int] = 784,
        hidden: int | Sequence[int] = (400,),
        decoder_hidden: int | Sequence[int] | None = None,
        latent: int = 20,
        activation: str = "relu",
        likelihood: str | Bernoulli | Gaussian = "bernoulli",
        init: str = "pytorch",
        uint8_scale: float = 1 / 255,
        columns: Sequence[Column] | None = None,
    ) -> None:
        _set(self, "input_shape", _checks.widths("input_shape", input_shape))
        if not self.input_shape:
            raise ValueError("input_shape must have at least one extent")
        _checks.width("the product of input_shape", self.width)
        _set(self, "hidden", _checks.widths("hidden", hidden))
        mirrored = decoder_hidden is None
        _set(
            self, "decoder_hidden", self.hidden[::-1] if mirrored else _checks.widths("decoder_hidden", decoder_hidden)
        )
        _set(self, "latent", _checks.width("latent", latent))
        _set(self, "activation", _checks.choice("activation", activation, ACTIVATIONS))
        _set(self, "likelihood", _likelihood(likelihood))
        _set(self, "init", _checks.choice("init", init, INITS))
        _set(self, "uint8_scale", _checks.number("uint8_scale", uint8_scale, open_low=True))
        _set(self, "columns", checked(columns, self.width))
        _checks.width("the columns' width together", self.encoded_width)

    @property
    def width(self) -> int:
        """The values of one row, the product of the input's shape."""
        product = 1
        for extent in self.input_shape:
            product *= extent
        return product

    @property
    def encoded_width(self) -> int:
        """The values of one row as the network reads it, D: more than `width` where columns hold categories."""
        return self.width if self.columns is None else sum(column.width for column in self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of a row's `width` values, in order; "x0", "x1", … where they have none.

        >>> Config(input_shape=2, columns=[Column("age"), Column()]).column_names
        ('age', 'x1')
        """
        names = [""] * self.width if self.columns is None else [column.name for column in self.columns]
        return tuple(name or f"x{j}" for j, name in enumerate(names))

    def to_dict(self) -> dict[str, Any]:
        """This configuration in plain values that JSON can hold.

        >>> Config.from_dict(Config(latent=3).to_dict()).latent
        3
        """
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        name = type(self.likelihood).__name__.lower()
        plain["likelihood"] = {"name": name, **asdict(self.likelihood)}
        if self.columns is not None:
            plain["columns"] = [asdict(column) for column in self.columns]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Config:
        """The configuration that `to_dict` wrote; ValueError for a key that is not known."""
        values = dict(plain)
        known = [field.name for field in fields(cls)]
        for key in values:
            _checks.choice("key", key, known)
        likelihood = values.get("likelihood")
        if isinstance(likelihood, dict):
            options = dict(likelihood)
            kind = {"bernoulli": Bernoulli, "gaussian": Gaussian}[
                _checks.choice("likelihood", options.pop("name", None), LIKELIHOODS)
            ]
            for key in options:
                _checks.choice(f"{kind.__name__} key", key, [field.name for field in fields(kind)])
            values["likelihood"] = kind(**options)
        return cls(**values)

    def _to_core(self) -> _core.Config:
        core = _core.Config()
        core.input_shape = list(self.input_shape)
        core.hidden = list(self.hidden)
        core.decoder_hidden = list(self.decoder_hidden)
        core.latent = self.latent
        core.activation = ACTIVATIONS.index(self.activation)
        if isinstance(self.likelihood, Gaussian):
            core.likelihood = LIKELIHOODS.index("gaussian")
            core.variance = VARIANCES.index(self.likelihood.variance)
            core.fixed_variance = self.likelihood.fixed_variance
            core.min_variance = self.likelihood.min_variance
        core.init = INITS.index(self.init)
        core.uint8_scale = self.uint8_scale
        core.columns = [column._to_core() for column in self.columns or ()]
        return core

    @classmethod
    def _from_core(cls, core: _core.Config) -> Config:
        likelihood: Bernoulli | Gaussian = Bernoulli()
        if LIKELIHOODS[core.likelihood] == "gaussian":
            likelihood = Gaussian(VARIANCES[core.variance], core.fixed_variance, core.min_variance)
        return cls(
            input_shape=core.input_shape,
            hidden=core.hidden,
            decoder_hidden=core.decoder_hidden,
            latent=core.latent,
            activation=ACTIVATIONS[core.activation],
            likelihood=likelihood,
            init=INITS[core.init],
            uint8_scale=core.uint8_scale,
            columns=tuple(map(Column._from_core, core.columns)) or None,
        )


def _set(frozen: object, name: str, value: Any) -> None:
    object.__setattr__(frozen, name, value)


def _likelihood(value: Any) -> Bernoulli | Gaussian:
    if isinstance(value, (Bernoulli, Gaussian)):
        return value
    return Gaussian() if _checks.choice("likelihood", value, LIKELIHOODS) == "gaussian" else Bernoulli()
