# SPDX-License-Identifier: MIT
"""Config: defaults equal to the engine's, checks at the moment of making, round trips."""

import dataclasses
import json

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core
from fusedvae.config import ACTIVATIONS


def attributes(core: object) -> dict[str, object]:
    return {name: getattr(core, name) for name in dir(core) if not name.startswith("_")}


def test_defaults_are_the_engines():
    ours, engines = attributes(fv.Config()._to_core()), attributes(_core.Config())
    assert engines.pop("decoder_hidden") in (None, [400])
    assert ours.pop("decoder_hidden") == [400]
    assert ours == engines


def test_gaussian_defaults_are_the_engines():
    engines = _core.Config()
    gaussian = fv.Gaussian()
    assert gaussian.variance == "fixed"
    assert engines.variance == 0
    assert (gaussian.fixed_variance, gaussian.min_variance) == (engines.fixed_variance, engines.min_variance)


def test_values_are_normalised():
    config = fv.Config(input_shape=[2, np.int64(3)], hidden=5, latent=np.int32(2), likelihood="gaussian")
    assert config.input_shape == (2, 3)
    assert config.width == 6
    assert config.hidden == config.decoder_hidden == (5,)
    assert config.likelihood == fv.Gaussian()
    assert type(config.latent) is int


def test_decoder_mirrors_unless_given():
    assert fv.Config(hidden=(8, 4)).decoder_hidden == (4, 8)
    assert fv.Config(hidden=(8, 4), decoder_hidden=()).decoder_hidden == ()


def test_is_immutable_and_hashable():
    config = fv.Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.latent = 3  # type: ignore[misc]
    assert hash(config) == hash(fv.Config())
    assert config == fv.Config()
    assert config != fv.Config(latent=21)
    assert dataclasses.replace(config, latent=3).latent == 3


@pytest.mark.parametrize(
    "config",
    [
        fv.Config(),
        fv.Config(input_shape=(4, 5), hidden=(), decoder_hidden=(3,), latent=1, activation="gelu", init="he"),
        fv.Config(likelihood=fv.Gaussian("element", min_variance=0.25), uint8_scale=1.0),
        fv.Config(likelihood=fv.Gaussian("fixed", fixed_variance=2.0)),
    ],
)
def test_round_trips(config: fv.Config):
    assert fv.Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert fv.Config._from_core(config._to_core()) == config
    assert fv.Model(config).config == config


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"latent": 0}, ValueError, ["latent", "between 1 and", "not 0"]),
        ({"latent": -3}, ValueError, ["latent", "-3"]),
        ({"latent": 10**30}, ValueError, ["latent", "between 1 and"]),
        ({"latent": 2.0}, TypeError, ["latent", "integer", "2.0"]),
        ({"latent": True}, TypeError, ["latent", "integer"]),
        ({"latent": "20"}, TypeError, ["latent", "'20'"]),
        ({"hidden": (400, 0)}, ValueError, ["hidden[1]", "not 0"]),
        ({"hidden": "400"}, TypeError, ["hidden", "integer"]),
        ({"hidden": None}, TypeError, ["hidden", "integer"]),
        ({"decoder_hidden": (1.5,)}, TypeError, ["decoder_hidden[0]", "1.5"]),
        ({"input_shape": ()}, ValueError, ["input_shape", "at least one"]),
        ({"input_shape": (28, 0)}, ValueError, ["input_shape[1]"]),
        ({"input_shape": (2**20, 2**20)}, ValueError, ["product of input_shape"]),
        ({"activation": "rleu"}, ValueError, ["unknown activation 'rleu'", "known are 'relu'", "softplus"]),
        ({"activation": "swish"}, ValueError, ["unknown activation 'swish'", "silu"]),
        ({"activation": 1}, TypeError, ["activation", "'relu'"]),
        (
            {"likelihood": "bernouli"},
            ValueError,
            ["unknown likelihood 'bernouli'", "known are 'bernoulli', 'gaussian'"],
        ),
        ({"likelihood": fv.Gaussian}, TypeError, ["likelihood"]),
        ({"init": "xavier"}, ValueError, ["unknown init", "'pytorch'", "'glorot'", "'he'"]),
        ({"uint8_scale": 0}, ValueError, ["uint8_scale", "greater than 0"]),
        ({"uint8_scale": float("nan")}, ValueError, ["uint8_scale", "nan"]),
    ],
)
def test_impossible_values(arguments: dict, error: type[Exception], words: list[str]):
    with pytest.raises(error) as caught:
        fv.Config(**arguments)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"variance": "features"}, "known are 'feature'"),
        ({"fixed_variance": 0.0}, "fixed_variance"),
        ({"min_variance": -1.0}, "min_variance"),
        ({"min_variance": float("inf")}, "finite"),
    ],
)
def test_impossible_variances(arguments: dict, word: str):
    with pytest.raises(ValueError, match=word):
        fv.Gaussian(**arguments)


def test_from_dict_names_unknown_keys():
    with pytest.raises(ValueError, match="unknown key 'latnet'; known are 'latent'"):
        fv.Config.from_dict({"latnet": 3})
    with pytest.raises(ValueError, match="unknown Gaussian key 'vairance'; known are 'variance'"):
        fv.Config.from_dict({"likelihood": {"name": "gaussian", "vairance": "fixed"}})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_makes_a_model(name: str):
    assert fv.Model(fv.Config(input_shape=3, hidden=2, latent=1, activation=name)).config.activation == name


def test_model_wants_a_config():
    with pytest.raises(TypeError, match=r"fusedvae\.Config"):
        fv.Model({"latent": 3})  # type: ignore[arg-type]
