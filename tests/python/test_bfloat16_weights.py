# SPDX-License-Identifier: MIT
"""Models whose weights are held in bfloat16: the float32 model of the rounded weights, to the bit, and its error."""

import copy
import pickle

import fusedvae as fv
import numpy as np
import pytest

U = 2.0**-8  # bfloat16's unit roundoff: eight significant bits, to nearest


def nearest(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, ties to even: eight significant bits."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.round(fraction * 256), exponent - 8).astype(np.float32)


def test_it_is_the_model_of_the_rounded_weights(make_model, likelihood, x, same_bits):
    model = make_model(likelihood=likelihood, hidden=(16, 33))
    served = model.copy(weights="bfloat16")
    expected = {n: nearest(v) if n.endswith(".weight") else v for n, v in model.parameters().items()}
    assert same_bits(served.parameters(), expected)
    assert not same_bits(expected, model.parameters())
    rounded = make_model(likelihood=likelihood, hidden=(16, 33))
    rounded.set_parameters(expected)
    for rows in (x, x[:2], x[:1]):
        for call in (
            lambda m, rows=rows: np.hstack(m.encode(rows)),
            lambda m, rows=rows: m.decode(m.encode(rows)[0]),
            lambda m, rows=rows: m.reconstruct(rows),
            lambda m, rows=rows: m.reconstruct_into(rows, np.empty_like(rows)),
            lambda m, rows=rows: m.elbo(rows, samples=3),
            lambda m, rows=rows: m.log_likelihood(rows, samples=4),
            lambda m, rows=rows: m.score(rows, "kl"),
            lambda m, rows=rows: m.contributions(rows),
        ):
            assert call(served).tobytes() == call(rounded).tobytes()
    assert np.array_equal(served.reconstruct(x)[3], served.reconstruct(x[3:4])[0])


def test_the_error_stays_within_its_bound(make_model, x):
    # Rounding changes each weight by at most U of it. A layer's sums are then off by U |W| |h| for its input h, plus
    # what h itself is off by, times the rounded |W|; relu passes on no more than it gets. float32's own roundings, K
    # terms of 2^-24 in either model, are a thousandth of that.
    model = make_model(hidden=(40, 24), latent=2)
    weights = {n: np.abs(v.astype(np.float64)) for n, v in model.parameters().items() if n.endswith(".weight")}
    values = {n: v.astype(np.float64) for n, v in model.parameters().items()}
    h, off = x.astype(np.float64), np.zeros(x.shape)
    for name in ("encoder.0", "encoder.1", "encoder_mean"):
        w = weights[f"{name}.weight"].T
        off = off @ w * (1 + U) + U * (np.abs(h) @ w)
        h = h @ values[f"{name}.weight"].T + values[f"{name}.bias"]
        if name != "encoder_mean":
            h = np.maximum(h, 0)
    difference = np.abs(model.copy(weights="bfloat16").encode(x)[0] - model.encode(x)[0])
    assert difference.max() > 0
    assert (difference <= 1.001 * off).all()


def test_copies_and_files(make_model, x, tmp_path, same_bits):
    model = make_model()
    model.detector = fv.Detector("kl", threshold=-2.0)
    served = model.copy(weights="bfloat16")
    assert (model.weights, served.weights, served.copy().weights) == ("float32", "bfloat16", "bfloat16")
    assert repr(served.detector) == repr(model.detector)
    assert "bfloat16 weights" in repr(served)
    assert "weights" not in repr(model)

    served.save(tmp_path / "m.safetensors")
    back = fv.load(tmp_path / "m.safetensors")
    assert back.weights == "float32"
    assert same_bits(back.parameters(), served.parameters())
    model.save(tmp_path / "m.safetensors")
    loaded = fv.load(tmp_path / "m.safetensors", weights="bfloat16")
    for other in (loaded, pickle.loads(pickle.dumps(served)), copy.deepcopy(served)):
        assert other.weights == "bfloat16"
        assert same_bits(other.parameters(), served.parameters())
        assert repr(other.detector) == repr(model.detector)


def test_a_copy_does_not_follow_its_model(make_model, x):
    model = make_model()
    served = model.copy(weights="bfloat16")
    before = served.reconstruct(x)
    fv.Trainer(model).fit(x, epochs=1)
    assert np.array_equal(served.reconstruct(x), before)
    served.set_parameters(model.parameters())  # rounds them
    assert np.array_equal(served.reconstruct(x), model.copy(weights="bfloat16").reconstruct(x))


def test_what_is_refused(make_model, x, tmp_path):
    model = make_model()
    served = model.copy(weights="bfloat16")
    for train in (lambda: fv.Trainer(served), lambda: served.gradients(x)):
        with pytest.raises(ValueError, match="bfloat16, for serving; train the model that they were copied from"):
            train()
    fv.Trainer(served.copy(weights="float32")).fit(x, epochs=1)

    model.save(tmp_path / "m.safetensors")
    for ask in (model.copy, lambda weights: fv.load(tmp_path / "m.safetensors", weights=weights)):
        with pytest.raises(ValueError, match="unknown weights 'auto'; known are"):
            ask("auto")
        with pytest.raises(TypeError, match="weights must be one of 'float32', 'bfloat16', not 16"):
            ask(16)
    huge = {name: np.full_like(values, 3.4e38) for name, values in model.parameters().items()}
    before = served.reconstruct(x)
    with pytest.raises(ValueError, match=r"'encoder\.0\.weight' holds a value too large for bfloat16 at element 0"):
        served.set_parameters(huge)
    assert np.array_equal(served.reconstruct(x), before)
    model.set_parameters(huge)
    with pytest.raises(ValueError, match="too large for bfloat16"):
        model.copy(weights="bfloat16")
