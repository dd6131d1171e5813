# SPDX-License-Identifier: MIT
"""Samples with observation noise are draws from p(x|z): means, variances and shares, and the stream they take."""

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core, cli
from fusedvae._noise import uniforms

N = 20_000
# Standard errors of a mean, and of a variance relative to it, over N draws; five of them are passed once in a million.
MEAN, VARIANCE = 5 / np.sqrt(N), 5 * np.sqrt(2 / N)


def constant(likelihood, columns=None, **biases):
    """A model whose decoder gives the same for every code: the biases of its last layers."""
    width = sum(column.width for column in columns) if columns else len(next(iter(biases.values())))
    config = fv.Config(
        input_shape=len(columns or range(width)), hidden=(4,), latent=2, likelihood=likelihood, columns=columns
    )
    model = fv.Model(config)
    parameters = {name: 0 * values for name, values in model.parameters().items()}
    for name, bias in biases.items():
        parameters[name.replace("__", ".")][:] = bias
    model.set_parameters(parameters)
    return model


@pytest.mark.parametrize(
    ("likelihood", "learned", "variance"),
    [
        (fv.Gaussian("fixed", fixed_variance=0.25), {}, [0.25, 0.25]),
        (fv.Gaussian("feature", min_variance=0.5), {"log_variance": np.log([1.5, 3.5])}, [2, 4]),
        (fv.Gaussian("element", min_variance=0.5), {"decoder_logvar__bias": np.log([1.5, 3.5])}, [2, 4]),
    ],
    ids=["fixed", "feature", "element"],
)
def test_numbers_have_the_models_variance_in_their_own_units(likelihood, learned, variance):
    columns = [fv.Column("a", shift=100, scale=10), fv.Column("b", shift=-1)]
    model = constant(likelihood, columns, decoder_mean__bias=[1, 2], **learned)
    deviation = np.sqrt(variance) * [10, 1]
    rows = fv.Sampler(model, seed=1).sample(N, observation_noise=True)
    assert (np.abs(rows.mean(0) - [110, 1]) < MEAN * deviation).all()
    assert (np.abs(rows.var(0) / deviation**2 - 1) < VARIANCE).all()
    assert abs(np.corrcoef(rows.T)[0, 1]) < MEAN  # columns are independent, given the code
    np.testing.assert_array_equal(fv.Sampler(model, seed=1).sample(3), [[110, 1]] * 3)


@pytest.mark.parametrize("likelihood", [fv.Gaussian("fixed", fixed_variance=0.01), fv.Bernoulli()])
def test_categories_are_drawn_by_their_probabilities(likelihood):
    columns = [fv.Column("pet", categories=("cat", "dog", "fish")), fv.Column("size")]
    shares = np.array([0.1, 0.7, 0.2])
    name = "decoder_mean__bias" if isinstance(likelihood, fv.Gaussian) else "decoder_logits__bias"
    decoded = np.array([*shares, 0.3])
    model = constant(likelihood, columns, **{name: decoded if "mean" in name else np.log(decoded / (1 - decoded))})
    rows = fv.Sampler(model).sample(N, observation_noise=True)
    found = (rows[:, :1] == [0, 1, 2]).mean(0)
    assert (np.abs(found - shares) < MEAN * np.sqrt(shares * (1 - shares))).all()
    assert set(fv.Sampler(model).sample(9)[:, 0]) == {1}  # the mean's likeliest
    assert set(np.unique(rows[:, 1])) == {0, 1} or "mean" in name


def test_images_of_a_bernoulli_are_black_and_white():
    model = fv.Model(fv.Config(input_shape=(3, 5), hidden=(), latent=2), seed=3)
    rows = fv.Sampler(model).sample(N, observation_noise=True)
    assert rows.shape == (N, 3, 5)
    assert set(np.unique(rows)) == {0, 1}
    means = fv.Sampler(model).sample(N)
    assert np.abs(rows - means).mean(0).max() < 0.5
    assert np.abs((rows - means).mean(0)).max() < 0.5 * MEAN  # the codes are the same


def test_little_noise_is_the_mean(make_model):
    """Through hidden layers and activations, as the engine decodes."""
    for activation in ("relu", "gelu", "tanh"):
        likelihood = fv.Gaussian("fixed", fixed_variance=1e-12)
        model = make_model(likelihood=likelihood, hidden=(16, 8), activation=activation)
        for options in ({}, {"temperature": 0.5}):
            drawn = fv.Sampler(model, seed=2).sample(50, observation_noise=True, **options)
            np.testing.assert_allclose(drawn, fv.Sampler(model, seed=2).sample(50, **options), atol=1e-5)


def test_a_draw_depends_on_seed_and_place_alone(make_model):
    model = make_model(likelihood=fv.Gaussian("element"))
    whole = fv.Sampler(model, seed=4).sample(10, observation_noise=True)
    sampler = fv.Sampler(model, seed=4)
    parts = [sampler.sample(n, observation_noise=True) for n in (3, 6, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(fv.Sampler(model, seed=5).sample(10, observation_noise=True), whole)


def test_uniforms_are_the_engines_words():
    """Every second one gives the radius that Box and Muller's transform makes two normals of `sample_latent` from."""
    seed, first = 2**40 + 7, 2**33
    u = uniforms(seed, first, 5, 2, 6)
    normals = _core.sample_latent(seed, first, 5, 14, 1.0)[:, 8:]
    squares = normals[:, ::2].astype(np.float64) ** 2 + normals[:, 1::2].astype(np.float64) ** 2
    # The engine's u is a float32, which moves -2 ln u by 2^-24 at most, and the normals are.
    np.testing.assert_allclose(squares, -2 * np.log(u[:, ::2]), rtol=4 * 2.0**-23, atol=2.0**-23)


def test_the_estimator_and_the_shell_draw_them_too(tmp_path, capsys):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"a": rng.normal(50, 5, 100), "pet": rng.choice(["cat", "dog"], 100)})
    vae = fv.VAE(latent=1, hidden=(8,), epochs=2).fit(table)
    drawn = vae.sample(20, random_state=3, observation_noise=True)
    assert list(drawn.columns) == ["a", "pet"]
    assert not drawn.equals(vae.sample(20, random_state=3))
    vae.save(tmp_path / "m.safetensors")
    out = tmp_path / "s.csv"
    arguments = ["sample", str(tmp_path / "m.safetensors"), "--n", "20", "--seed", "3", "--observation-noise"]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    read = pandas.read_csv(out)
    assert read["pet"].tolist() == drawn["pet"].tolist()
    np.testing.assert_array_equal(read["a"].astype(np.float32), drawn["a"])
