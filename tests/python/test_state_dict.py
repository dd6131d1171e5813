# SPDX-License-Identifier: MIT
"""from_torch: names, numbering and widths of state dicts; arrays stand for tensors, so that PyTorch is not needed."""

import fusedvae as fv
import numpy as np
import pytest


def tensors(layers, seed=0):
    """A state dict of Linear layers {name: (out, in)}."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in layers.items():
        found[f"{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
        found[f"{name}.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
    return found


EXAMPLE = tensors({"fc1": (7, 12), "fc21": (3, 7), "fc22": (3, 7), "fc3": (7, 3), "fc4": (12, 7)})


def test_own_names_need_nothing_else(make_model, likelihood, same_bits):
    model = make_model(seed=4, hidden=(9, 8), decoder_hidden=(7,), likelihood=likelihood, activation="tanh")
    fixed = {"likelihood": likelihood} if likelihood == fv.Gaussian("fixed", 0.5) else {}
    found = fv.from_torch(model.parameters(), activation="tanh", **fixed)
    assert found.config == model.config
    assert same_bits(found.parameters(), model.parameters())
    assert fv.from_torch(model.parameters(), model.config).config == model.config


def test_no_hidden_layers(make_model):
    model = make_model(hidden=())
    assert fv.from_torch(model.parameters()).config == model.config


def test_columns_and_shapes_complete_what_shapes_tell(make_model):
    columns = (fv.Column(scale=2.0), fv.Column(categories=("a", "b", "c")))
    model = make_model(input_shape=2, columns=columns)
    found = fv.from_torch(model.parameters(), columns=columns)
    assert found.config == model.config
    image = make_model(input_shape=(3, 4))
    assert fv.from_torch(image.parameters(), input_shape=(3, 4)).config == image.config


def test_pytorchs_example_is_known():
    model = fv.from_torch(EXAMPLE)
    assert model.config == fv.Config(input_shape=12, hidden=7, latent=3)
    ours = model.parameters()
    for theirs, name in [("fc1", "encoder.0"), ("fc22", "encoder_logvar"), ("fc4", "decoder_logits")]:
        np.testing.assert_array_equal(ours[f"{name}.weight"], EXAMPLE[f"{theirs}.weight"])
        np.testing.assert_array_equal(ours[f"{name}.bias"], EXAMPLE[f"{theirs}.bias"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_seen_through(prefix, same_bits):
    wrapped = {prefix + name: array for name, array in EXAMPLE.items()}
    assert same_bits(fv.from_torch(wrapped).parameters(), fv.from_torch(EXAMPLE).parameters())


def test_names_of_layers_and_of_tensors():
    source = tensors({"enc.0": (7, 12), "mean": (3, 7), "lv": (3, 7), "dec.0": (7, 3), "dec.2": (12, 7)})
    source["spread"] = np.zeros(12, np.float32)
    names = {
        "enc.0": "encoder.0",
        "mean": "encoder_mean",
        "lv.weight": "encoder_logvar.weight",
        "lv.bias": "encoder_logvar.bias",
        "dec.0": "decoder.0",
        "dec.2": "decoder_mean",
        "spread": "log_variance",
    }
    model = fv.from_torch(source, names=names, activation="elu")
    likelihood = fv.Gaussian("feature")
    assert model.config == fv.Config(input_shape=12, hidden=7, latent=3, activation="elu", likelihood=likelihood)
    np.testing.assert_array_equal(model.parameters()["decoder_mean.bias"], source["dec.2.bias"])


def test_numbers_with_gaps_and_one_layer_for_both_heads():
    source = tensors({"encoder.0": (9, 12), "encoder.2": (7, 9), "encoder.4": (6, 7)})
    source |= tensors({"decoder.1": (7, 3), "decoder.10": (9, 7), "decoder.12": (12, 9)}, seed=1)
    names = {"encoder.4": ("encoder_mean", "encoder_logvar"), "decoder.12": "decoder_logits"}
    model = fv.from_torch(source, names=names)
    assert model.config == fv.Config(input_shape=12, hidden=(9, 7), latent=3)
    ours = model.parameters()
    np.testing.assert_array_equal(ours["encoder.1.weight"], source["encoder.2.weight"])
    np.testing.assert_array_equal(ours["encoder_mean.weight"], source["encoder.4.weight"][:3])
    np.testing.assert_array_equal(ours["encoder_logvar.bias"], source["encoder.4.bias"][3:])
    np.testing.assert_array_equal(ours["decoder.1.bias"], source["decoder.10.bias"])


def test_other_precisions_are_converted():
    double = {name: array.astype(np.float64) for name, array in EXAMPLE.items()}
    half = {name: array.astype(np.float16) for name, array in EXAMPLE.items()}
    np.testing.assert_array_equal(
        fv.from_torch(double).parameters()["encoder.0.weight"], fv.from_torch(EXAMPLE).parameters()["encoder.0.weight"]
    )
    np.testing.assert_allclose(
        fv.from_torch(half).parameters()["encoder.0.weight"], EXAMPLE["fc1.weight"], rtol=2**-11, atol=1e-7
    )


def test_layers_without_bias_have_zeros():
    source = {name: array for name, array in EXAMPLE.items() if name != "fc3.bias"}
    parameters = fv.from_torch(source).parameters()
    assert not parameters["decoder.0.bias"].any()
    np.testing.assert_array_equal(parameters["decoder_logits.bias"], EXAMPLE["fc4.bias"])


def changed(**arrays):
    """EXAMPLE with some tensors replaced, or left out where None; __ stands for a dot."""
    named = {name.replace("__", "."): array for name, array in arrays.items()}
    return {name: array for name, array in {**EXAMPLE, **named}.items() if array is not None}


ONE = np.ones(1, np.float32)
CONFIG = fv.Config(input_shape=12, hidden=7, latent=3)
OWN = fv.Model(CONFIG).parameters()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": 3}, TypeError, "an nn.Module or its state dict, not int"),
        ({"source": {}}, ValueError, "the state dict is empty"),
        ({"source": {0: ONE}}, TypeError, "names are strings, not 0"),
        ({"source": {"weight": ONE}}, ValueError, r"names no encoder_mean.*names=\{theirs: ours\}.*weight \(1,\)"),
        ({"source": changed(fc22__weight=None)}, ValueError, r"missing: encoder_logvar\.weight$"),
        ({"source": changed(fc4__scale=ONE)}, ValueError, r"left over: fc4\.scale$"),
        (
            {"source": changed(fc3__weight=np.ones((7, 4), np.float32))},
            ValueError,
            r"fc3\.weight \(our decoder\.0\.weight\) has shape \(7, 4\), expected \(7, 3\)",
        ),
        (
            {"source": changed(fc1__bias=None, fc5__bias=ONE), "names": {"fc1": "encoder.0", "fc21": "encoder_mean"}},
            ValueError,
            "names no encoder_mean and decoder_logits or decoder_mean",
        ),
        ({"source": {**OWN, "extra": ONE}, "config": CONFIG}, ValueError, "left over: extra"),
        ({"source": OWN, "names": ["fc9"]}, TypeError, r"names must map .* not \['fc9'\]"),
        ({"source": OWN, "names": {"encoder_mean": ("a", 2)}}, TypeError, "strings to strings or to tuples"),
        (
            {"source": OWN, "config": fv.Config(input_shape=12, hidden=7, latent=2)},
            ValueError,
            r"encoder_mean\.weight has shape \(3, 7\), expected \(2, 7\); encoder_mean\.bias has",
        ),
        (
            {"source": OWN, "names": {"fc9": "encoder.0"}},
            ValueError,
            r"names holds fc9, .* there are encoder\.0\.weight",
        ),
        (
            {"source": OWN, "names": {"encoder.0": "encoder_mean"}},
            ValueError,
            r"both encoder\.0\.weight and encoder_mean",
        ),
        (
            {"source": OWN, "names": {"encoder_mean": ("encoder_mean", "encoder_logvar")}},
            ValueError,
            r"encoder_mean\.weight has shape \(3, 7\), which is not 2 equal parts",
        ),
        ({"source": OWN, "config": CONFIG, "activation": "tanh"}, TypeError, "activation cannot be given beside it"),
        ({"source": OWN, "activation": "tan"}, ValueError, "unknown activation 'tan'"),
        ({"source": OWN, "hidden_sizes": 3}, TypeError, "hidden_sizes"),
        ({"source": changed(fc1__bias=np.full(7, np.nan))}, ValueError, r"encoder\.0\.bias holds nan"),
        ({"source": changed(fc1__bias=np.array(["a"] * 7))}, TypeError, r"encoder\.0\.bias"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        fv.from_torch(**arguments)
