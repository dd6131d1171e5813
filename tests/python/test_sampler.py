# SPDX-License-Identifier: MIT
"""Sampler: one stream of draws however it is cut, and codes on lines, axes and grids."""

from statistics import NormalDist

import fusedvae as fv
import numpy as np
import pytest


def test_calls_go_on_in_one_stream(make_model):
    model = make_model()
    whole = fv.Sampler(model, seed=3).sample(10)
    cut = fv.Sampler(model, seed=3)
    np.testing.assert_array_equal(np.concatenate([cut.sample(1), cut.sample(6), cut.sample(3)]), whole)
    assert (fv.Sampler(model, seed=4).sample(10) != whole).any()


def test_temperature_scales_the_codes(make_model):
    model = make_model(hidden=(), decoder_hidden=(), likelihood="gaussian")
    zero = model.decode(np.zeros((1, 3)))
    np.testing.assert_array_equal(fv.Sampler(model).sample(4, temperature=0.0), np.repeat(zero, 4, axis=0))
    one, half = (fv.Sampler(model).sample(4, temperature=t) for t in (1.0, 0.5))
    np.testing.assert_allclose(half - zero, (one - zero) / 2, rtol=1e-4, atol=1e-6)


def test_samples_have_the_inputs_shape(make_model):
    assert fv.Sampler(make_model(input_shape=(3, 4))).sample(5).shape == (5, 3, 4)


@pytest.mark.parametrize(("n", "temperature"), [(0, 1.0), (-1, 1.0), (2, -1.0), (2, float("nan"))])
def test_impossible_samples(n: int, temperature: float, make_model):
    with pytest.raises(ValueError, match=r"n must|temperature"):
        fv.Sampler(make_model()).sample(n, temperature)


def test_interpolation_runs_between_rows_or_codes(make_model, x):
    model = make_model()
    codes = model.encode(x[:2])[0]
    between = fv.Sampler(model).interpolate(x[0], x[1:2], steps=5)
    assert between.shape == (5, 12)
    np.testing.assert_allclose(between[[0, -1]], model.reconstruct(x[:2]), rtol=1e-5)
    np.testing.assert_allclose(between[2:3], model.decode(codes.mean(0, keepdims=True)), rtol=1e-5)
    np.testing.assert_array_equal(fv.Sampler(model).interpolate(codes[0], codes[1], steps=5), between)


def test_traversal_moves_one_dimension(make_model, x):
    model = make_model(hidden=(), decoder_hidden=(), likelihood="gaussian")
    images = fv.Sampler(model).traverse(x[3], dim=1, steps=3, low=-1.0, high=1.0)
    code = np.repeat(model.encode(x[3:4])[0], 3, axis=0)
    code[:, 1] = (-1.0, 0.0, 1.0)
    np.testing.assert_array_equal(images, model.decode(code))
    start = fv.Sampler(model).traverse(dim=2, steps=2)
    np.testing.assert_array_equal(start, model.decode([[0, 0, -3.0], [0, 0, 3.0]]))


def test_grid_follows_the_normal_quantiles(make_model):
    model = make_model(input_shape=(3, 4), latent=2)
    grid = fv.Sampler(model).grid(4)
    assert grid.shape == (4, 4, 3, 4)
    quantile = [NormalDist().inv_cdf(p) for p in (0.125, 0.375, 0.625, 0.875)]
    np.testing.assert_array_equal(grid[1, 3], model.decode([[quantile[1], quantile[3]]])[0])


def test_clear_refusals(make_model, x):
    sampler = fv.Sampler(make_model())
    with pytest.raises(ValueError, match="latent width of 2; this model has 3"):
        sampler.grid()
    with pytest.raises(ValueError, match="dim must be between 0 and 2"):
        sampler.traverse(x[0], dim=3)
    with pytest.raises(ValueError, match=r"a has shape \(5,\).*12 values or one code of 3"):
        sampler.interpolate(np.zeros(5), x[0])
    with pytest.raises(ValueError, match="steps"):
        sampler.interpolate(x[0], x[1], steps=1)
    with pytest.raises(TypeError, match=r"fusedvae\.Model"):
        fv.Sampler("model")  # type: ignore[arg-type]
