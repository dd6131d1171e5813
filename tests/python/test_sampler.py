# SPDX-License-Identifier: MIT
"""Sampler: one stream of draws however it is cut, and codes on lines, axes and grids."""

import sys
from statistics import NormalDist

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import neighbours
from fusedvae.sampler import linear, spherical


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


# ---- the mixture of codes -------------------------------------------------------------------------------------------

WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[-3.0, 0.0], [2.0, 1.0], [0.0, 4.0]])
ROOTS = np.array([[[0.5, 0.0], [0.2, 0.3]], [[1.0, 0.0], [-0.5, 0.4]], [[0.3, 0.0], [0.0, 0.6]]])


def known_mixture() -> fv.Mixture:
    return fv.Mixture(WEIGHTS, MEANS, ROOTS @ ROOTS.transpose(0, 2, 1))


def test_a_mixture_draws_its_moments():
    mixture, n = known_mixture(), 40_000
    z = mixture.draw(n, seed=1).astype(np.float64)
    covariance = np.einsum("k,kij->ij", WEIGHTS, mixture.covariances + MEANS[:, :, None] * MEANS[:, None, :])
    covariance -= np.outer(mixture.mean, mixture.mean)
    # Five standard errors; those of a covariance's entries are below those of normals by the kurtosis of a mixture.
    np.testing.assert_allclose(z.mean(0), WEIGHTS @ MEANS, atol=5 * np.sqrt(covariance.max() / n))
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=5 * covariance.max() * np.sqrt(3 / n))
    np.testing.assert_allclose(mixture.deviation, np.sqrt(np.diag(covariance)))
    nearest = ((z[:, None] - MEANS) ** 2).sum(2).argmin(1)
    np.testing.assert_allclose(np.bincount(nearest) / n, WEIGHTS, atol=0.02)


def test_a_mixtures_draws_do_not_depend_on_how_many_there_are():
    rng = np.random.default_rng(0)
    roots = np.tril(rng.standard_normal((5, 33, 33))) + 6 * np.eye(33)
    mixture = fv.Mixture(np.full(5, 0.2), rng.standard_normal((5, 33)), roots @ roots.transpose(0, 2, 1))
    whole = mixture.draw(200, seed=4)
    for first, n in ((0, 1), (1, 2), (3, 16), (19, 181)):
        np.testing.assert_array_equal(mixture.draw(n, seed=4, first=first), whole[first : first + n])


def test_temperature_scales_a_mixtures_covariances():
    mixture = known_mixture()
    means, whole, half = (mixture.draw(100, temperature, seed=2) for temperature in (0.0, 1.0, 0.5))
    assert {tuple(z) for z in means.tolist()} == {tuple(z) for z in MEANS.tolist()}
    np.testing.assert_allclose(half - means, (whole - means) / 2, atol=1e-6)


def test_fitting_finds_a_known_mixture():
    pytest.importorskip("sklearn")
    fitted = fv.Mixture.fit(known_mixture().draw(4000, seed=3), components=3)
    order = np.argsort(fitted.means[:, 0])[[0, 2, 1]]
    np.testing.assert_allclose(fitted.weights[order], WEIGHTS, atol=0.04)
    np.testing.assert_allclose(fitted.means[order], MEANS, atol=0.1)
    np.testing.assert_allclose(fitted.covariances[order], known_mixture().covariances, atol=0.1)


def test_a_fitted_sampler_draws_where_the_codes_are(make_model, x):
    pytest.importorskip("sklearn")
    model = make_model(hidden=(), decoder_hidden=(), likelihood="gaussian")
    parameters = model.parameters()
    parameters["encoder_mean.bias"] += 5  # far from the prior
    model.set_parameters(parameters)
    sampler = fv.Sampler(model, seed=3)
    assert sampler.fit_codes(x, components=2) is sampler
    np.testing.assert_allclose(sampler.mixture.mean, model.encode(x)[0].mean(0), atol=0.5)
    whole = sampler.sample(10)
    cut = fv.Sampler(model, seed=3, mixture=sampler.mixture)
    np.testing.assert_array_equal(np.concatenate([cut.sample(4), cut.sample(6)]), whole)
    np.testing.assert_array_equal(whole, model.decode(sampler.mixture.draw(10, seed=3)))
    prior = fv.Sampler(model, seed=3)
    np.testing.assert_array_equal(
        fv.Sampler(model, seed=3, mixture=sampler.mixture).sample(10, source="prior"), prior.sample(10)
    )
    again = fv.Sampler(model, seed=3).fit_codes(x, components=2)
    np.testing.assert_array_equal(again.mixture.means, sampler.mixture.means)


def test_fitting_without_scikit_learn_names_the_extra(make_model, x, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(
        ImportError, match=r'fitting a mixture to codes needs sklearn: pip install "fusedvae\[sklearn\]"'
    ):
        fv.Sampler(make_model()).fit_codes(x, components=2)


def test_a_mixture_of_weight_zero_is_never_drawn():
    mixture = fv.Mixture([0.0, 1.0, 0.0], [[-9.0], [0.0], [9.0]], np.full((3, 1, 1), 1e-6))
    assert np.abs(mixture.draw(1000)).max() < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [0.5, 0.4, 0.3]}, "add up to 1"),
        ({"weights": [1.5, -0.3, -0.2]}, "at least 0"),
        ({"weights": [0.5, 0.5]}, r"expected \(K,\) and \(K, Z\)"),
        ({"means": [[0.0], [1.0], [np.nan]]}, "means must be finite"),
        ({"covariances": np.ones((3, 2))}, r"expected \(3, 2, 2\)"),
        ({"covariances": -ROOTS @ ROOTS.transpose(0, 2, 1)}, "positive definite"),
        ({"covariances": np.eye(2) + np.triu(np.ones((3, 2, 2)), 1)}, "symmetric"),
    ],
)
def test_what_is_no_mixture(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        fv.Mixture(**{**known_mixture().to_dict(), **changes})


def test_mixture_refusals(make_model, x):
    sampler = fv.Sampler(make_model())
    for ask in (lambda: sampler.sample(2, source="mixture"), lambda: sampler.traverse(unit="mixture")):
        with pytest.raises(ValueError, match=r"fit_codes\(x\) first"):
            ask()
    with pytest.raises(ValueError, match="unknown source 'priors'; known are 'prior'"):
        sampler.sample(2, source="priors")
    with pytest.raises(ValueError, match="mixture has 2 dimensions; the model's code 3"):
        fv.Sampler(make_model(), mixture=known_mixture())
    with pytest.raises(TypeError, match=r"fusedvae\.Mixture"):
        fv.Sampler(make_model(), mixture="ten")  # type: ignore[arg-type]
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="n_samples"):
        sampler.fit_codes(x[:3], components=10)
    assert sampler.mixture is None
    with pytest.raises(ValueError, match=r"z has shape \(4,\)"):
        fv.Mixture.fit(np.zeros(4))


# ---- ways between codes and along an axis ---------------------------------------------------------------------------


def test_spherical_interpolation_keeps_the_length_and_turns_evenly():
    a, b = np.array([[3.0, 0.0, 0.0]], np.float32), np.array([[0.0, 3.0, 0.0]], np.float32)
    z = spherical(a, b, 7)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 3, rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(z[:, 1], z[:, 0]), np.linspace(0, np.pi / 2, 7), atol=1e-6)
    longer = spherical(a, 2 * b, 7)
    np.testing.assert_allclose(np.linalg.norm(longer, axis=1), np.linspace(3, 6, 7), rtol=1e-6)
    np.testing.assert_array_equal(longer[[0, -1]], np.concatenate([a, 2 * b]))


@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], [2.0, 4.0]), ([0.0, 0.0], [1.0, 1.0]), ([1.0, 0.0], [1.0, 1e-6])])
def test_spherical_falls_back_to_the_line(a: list[float], b: list[float]):
    codes = [np.array([code], np.float32) for code in (a, b)]
    np.testing.assert_array_equal(spherical(*codes, 5), linear(*codes, 5))


def test_spherical_meets_the_line_where_it_falls_back():
    a, b = (np.array([code], np.float32) for code in ([1.0, 0.0], [1.0, 2e-4]))
    np.testing.assert_allclose(spherical(a, b, 5), linear(a, b, 5), atol=1e-7)


def test_spherical_between_rows_and_its_refusals(make_model, x):
    model = make_model()
    codes = model.encode(x[:2])[0]
    images = fv.Sampler(model).interpolate(x[0], x[1], steps=4, path="spherical")
    np.testing.assert_array_equal(images, model.decode(spherical(codes[:1], codes[1:], 4)))
    with pytest.raises(ValueError, match=r'opposite directions.*path="linear"'):
        fv.Sampler(model).interpolate([1.0, 2.0, 3.0], [-2.0, -4.0, -6.0], path="spherical")
    with pytest.raises(ValueError, match="unknown path 'sphere'; known are 'spherical'"):
        fv.Sampler(model).interpolate(x[0], x[1], path="sphere")


def test_traversal_in_the_mixtures_units():
    model = fv.Model(fv.Config(input_shape=5, latent=2, hidden=(), likelihood="gaussian"))
    mixture = known_mixture()
    images = fv.Sampler(model, mixture=mixture).traverse(dim=1, steps=3, low=-2, high=2, unit="mixture")
    codes = np.repeat(mixture.mean[None], 3, axis=0)
    codes[:, 1] += [-2 * mixture.deviation[1], 0, 2 * mixture.deviation[1]]
    np.testing.assert_allclose(images, model.decode(codes), rtol=1e-6)


# ---- copying --------------------------------------------------------------------------------------------------------


def test_nearest_rows_are_the_nearest(make_model, x, monkeypatch: pytest.MonkeyPatch):
    sampler = fv.Sampler(make_model())
    samples = sampler.sample(20)
    apart = np.sqrt(((samples[:, None].astype(np.float64) - x) ** 2).sum(2))
    monkeypatch.setattr(neighbours, "BLOCK", 12 * 20)  # several blocks of 12 rows, and a shorter last one
    found = sampler.nearest(samples, x, held_out=x[:30])
    np.testing.assert_array_equal(found.index, apart.argmin(1))
    np.testing.assert_allclose(found.distance, apart.min(1), rtol=1e-12)
    seen = sampler.model.reconstruct(x[:30])[:, None].astype(np.float64)
    np.testing.assert_allclose(found.held_out_distance, np.sqrt(((seen - x) ** 2).sum(2)).min(1), rtol=1e-12)


def test_copying_tells_repeated_rows_from_new_ones():
    rng = np.random.default_rng(0)
    x, held_out = rng.random((200, 4)), rng.random((100, 4)).astype(np.float32)
    # An identity of a model: reconstructions are the rows themselves.
    model = fv.Model(fv.Config(input_shape=4, hidden=(), latent=4, likelihood="gaussian"))
    identity = {name: np.zeros_like(values) for name, values in model.parameters().items()}
    identity["encoder_mean.weight"] = identity["decoder_mean.weight"] = np.eye(4)
    model.set_parameters(identity)
    sampler = fv.Sampler(model)
    copies = sampler.nearest(x[:50], x, held_out)
    assert copies.copying == 1.0
    np.testing.assert_array_equal(copies.index, np.arange(50))
    assert "copying 1.00" in repr(copies)
    assert 0.35 < sampler.nearest(rng.random((100, 4)), x, held_out).copying < 0.65
    assert sampler.nearest(x[:50] + 5, x, held_out).copying == 0.0
    assert sampler.nearest(held_out, x, held_out).copying == pytest.approx(0.5, abs=1e-9)
    assert sampler.nearest(x[:5], x).copying is None


def test_bytes_are_compared_in_the_models_scale():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 2, 3), dtype=np.uint8)
    sampler = fv.Sampler(fv.Model(fv.Config(input_shape=(2, 3), latent=2)))
    found = sampler.nearest((images[4:6] / 255).astype(np.float32), images)
    assert found.index.tolist() == [4, 5]
    np.testing.assert_allclose(found.distance, 0, atol=1e-6)
