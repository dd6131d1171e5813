# SPDX-License-Identifier: MIT
"""Is the randomness random, and are the scores what the mathematics says? Philox against its authors' vectors, normals
by moments and Kolmogorov-Smirnov, KL and likelihood estimates against closed forms and quadrature, shuffles.

Every test is deterministic (fixed seeds). A bound of k standard errors is named where it stands: a correct generator
misses 4.5 of them once in 150 000 checks, so that a seed that does is not to be expected among the hundreds here.
"""

from __future__ import annotations

import math

import fusedvae as fv
import numpy as np
import pytest

STANDARD_ERRORS = 4.5


# ---- Philox and normals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (  # the digits of pi
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    """Random123's kat_vectors for philox4x32-10 (Salmon et al. 2011)."""
    assert [int(word) for word in fv.kernels.philox(counter, key)] == words


def training_noise(seed, step, rows=2000, latent=50):
    """The noise of one training step: the head at mu = 0, logvar = 0 returns it as z."""
    zeros = np.zeros((rows, 1)), np.zeros((2 * latent, 1)), np.zeros(2 * latent)
    return fv.kernels.reparameterize_kl(*zeros, seed=seed, step=step)[2].astype(np.float64)


def sampled_codes(seed, rows=2000, latent=50):
    """The codes behind samples: a linear decoder of weight 1 returns them as they are."""
    model = fv.Model(fv.Config(input_shape=latent, hidden=(), latent=latent, likelihood="gaussian"))
    model.set_parameters(
        model.parameters()
        | {
            "decoder_mean.weight": np.eye(latent, dtype=np.float32),
            "decoder_mean.bias": np.zeros(latent, dtype=np.float32),
        }
    )
    return fv.Sampler(model, seed=seed).sample(rows).astype(np.float64)


DRAWS = {
    "training": lambda: training_noise(seed=7, step=3),
    "training, late step": lambda: training_noise(seed=7, step=(1 << 32) + 5),
    "samples": lambda: sampled_codes(seed=7),
    "one column": lambda: training_noise(seed=1, step=0, rows=100_000, latent=1),
    "one row": lambda: training_noise(seed=1, step=0, rows=1, latent=100_000),
}


@pytest.mark.parametrize("name", DRAWS)
def test_normals_have_the_normal_distributions_moments(name):
    draws = DRAWS[name]().ravel()
    n = draws.size
    assert n == 100_000
    # moment, its value, and the variance of one draw's contribution (E x^2k - (E x^k)^2 of a standard normal)
    for power, value, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        moment = np.mean(draws**power)
        assert abs(moment - value) < STANDARD_ERRORS * math.sqrt(variance / n), f"moment {power} is {moment}"


@pytest.mark.parametrize("name", DRAWS)
def test_normals_pass_kolmogorov_and_smirnov(name):
    """sqrt(n) D exceeds 1.95 with probability 2 exp(-2 * 1.95^2) = 0.001 (Kolmogorov 1933)."""
    draws = np.sort(DRAWS[name]().ravel())
    n = draws.size
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in draws])
    distance = max(np.max(np.arange(1, n + 1) / n - cdf), np.max(cdf - np.arange(n) / n))
    assert math.sqrt(n) * distance < 1.95


def correlation(a, b):
    return float(np.mean(a * b)) * math.sqrt(a.size)


def test_draws_of_different_rows_columns_steps_and_seeds_are_unrelated():
    base = training_noise(seed=7, step=3)
    others = {
        "next row": (base[:-1], base[1:]),
        "next column": (base[:, :-1], base[:, 1:]),  # the two halves of one Box-Muller pair among them
        "next step": (base, training_noise(seed=7, step=4)),
        "next seed": (base, training_noise(seed=8, step=3)),
        "samples": (base, sampled_codes(seed=7)),
    }
    for name, (a, b) in others.items():
        assert abs(correlation(a.ravel(), b.ravel())) < STANDARD_ERRORS, name
        assert abs(correlation(a.ravel() ** 2 - 1, b.ravel() ** 2 - 1)) < 2 * STANDARD_ERRORS, name
    assert len(np.unique(base.view(np.void))) > 0.999 * base.size


# ---- KL and likelihoods ----------------------------------------------------------------------------------------------


def test_kl_in_closed_form_equals_a_monte_carlo_estimate():
    """KL = E_q[log q(z) - log p(z)]: 200 000 draws of each row's own posterior."""
    random = np.random.default_rng(3)
    mu, logvar = random.normal(size=(6, 4)), random.normal(size=(6, 4))
    head = np.concatenate([mu, logvar], axis=1)
    _, _, _, kl = fv.kernels.reparameterize_kl(head, np.eye(8), np.zeros(8), noise=np.zeros((6, 4)))
    noise = random.standard_normal((200_000, 1, 4))
    z = mu + np.exp(logvar / 2) * noise
    terms = np.sum(0.5 * z**2 - 0.5 * noise**2 - 0.5 * logvar, axis=2)  # log q - log p, constants cancel
    error = terms.std(axis=0) / math.sqrt(len(terms))
    assert np.all(np.abs(terms.mean(axis=0) - kl) < STANDARD_ERRORS * error)


def linear_gaussian_model(posterior=True, width=7, latent=3, variance=0.3):
    """x = W z + b + noise: log p(x) is known. W has orthogonal columns, so that the exact posterior is a diagonal
    Gaussian, which the encoder is set to (posterior=True), or to something wider and shifted.
    """
    random = np.random.default_rng(4)
    directions = np.linalg.qr(random.normal(size=(width, latent)))[0]
    scales = np.array([2.0, 0.7, 0.1])
    weight, bias = directions * scales, random.normal(size=width)
    config = fv.Config(input_shape=width, hidden=(), latent=latent, likelihood=fv.Gaussian(fixed_variance=variance))
    model = fv.Model(config)
    posterior_variance = variance / (scales**2 + variance)
    to_mean = (weight / variance * posterior_variance).T
    shift = 0.0 if posterior else 0.3
    model.set_parameters(
        {
            "encoder_mean.weight": to_mean,
            "encoder_mean.bias": -to_mean @ bias + shift,
            "encoder_logvar.weight": np.zeros((latent, width)),
            "encoder_logvar.bias": np.log(posterior_variance) + shift,
            "decoder_mean.weight": weight,
            "decoder_mean.bias": bias,
        }
    )
    x = random.normal(size=(40, latent)) @ weight.T + bias + math.sqrt(variance) * random.normal(size=(40, width))
    x = x.astype(np.float32)
    covariance = weight @ weight.T + variance * np.eye(width)
    centred = x - bias
    exact = -0.5 * (
        np.sum(centred * np.linalg.solve(covariance, centred.T).T, axis=1)
        + np.linalg.slogdet(covariance)[1]
        + width * math.log(2 * math.pi)
    )
    return model, x, exact


def test_linear_gaussian_likelihood_with_the_exact_posterior():
    """With q = p(z|x) every importance weight is p(x): one draw is enough, and the ELBO's mean is log p(x) too."""
    model, x, exact = linear_gaussian_model()
    np.testing.assert_allclose(model.log_likelihood(x, samples=1), exact, atol=2e-4)
    np.testing.assert_allclose(model.log_likelihood(x, samples=300), exact, atol=2e-4)
    # log p(x|z) = log p(x) + log q(z|x) - log p(z), where log q - log p = (z^2 - eps^2) / 2 + constant varies
    elbo = model.elbo(x, samples=20_000)
    mu, logvar = (part.astype(np.float64) for part in model.encode(x))
    variance = np.exp(logvar)
    deviation = np.sqrt(np.sum(mu**2 * variance + (variance - 1) ** 2 / 2, axis=1) / 20_000)
    assert np.all(np.abs(elbo - exact) < STANDARD_ERRORS * deviation + 2e-4)


def test_linear_gaussian_likelihood_with_another_posterior():
    model, x, exact = linear_gaussian_model(posterior=False)
    estimate = model.log_likelihood(x, samples=50_000)
    # the weights' relative deviation is below 2 here, so the estimate's is below 2 / sqrt(50 000) = 0.009
    np.testing.assert_allclose(estimate, exact, atol=STANDARD_ERRORS * 0.009)
    # E[elbo] = log p(x) - KL(q || p(z|x)), the KL in closed form: equal shifts of mean and log-variance by 0.3
    variance = np.exp(model.parameters()["encoder_logvar.bias"].astype(np.float64) - 0.3)
    gap = 0.5 * np.sum(math.exp(0.3) - 1 - 0.3 + 0.3**2 / variance)
    elbo = model.elbo(x, samples=50_000)
    assert np.all(elbo < exact)
    np.testing.assert_allclose(elbo, exact - gap, atol=0.05)


def numpy_decoder(model, z):
    """Bernoulli logits of a decoder with tanh layers, in double."""
    p = {name: value.astype(np.float64) for name, value in model.parameters().items()}
    for i in range(len(model.config.decoder_hidden)):
        z = np.tanh(z @ p[f"decoder.{i}.weight"].T + p[f"decoder.{i}.bias"])
    return z @ p["decoder_logits.weight"].T + p["decoder_logits.bias"]


def test_likelihood_of_a_nonlinear_model_equals_its_integral():
    """One latent dimension: log of the integral of p(x|z) p(z) by the trapezoid rule on [-10, 10]."""
    model = fv.Model(fv.Config(input_shape=6, hidden=(9,), latent=1, activation="tanh"), seed=8)
    parameters = {name: 3.0 * value for name, value in model.parameters().items() if name.startswith("decoder")}
    model.set_parameters(model.parameters() | parameters)
    x = np.random.default_rng(5).integers(0, 2, size=(30, 6)).astype(np.float32)
    z = np.linspace(-10, 10, 20_001)
    logits = numpy_decoder(model, z[:, None])
    log_joint = -np.logaddexp(0, logits).sum(axis=1) + x.astype(np.float64) @ logits.T - 0.5 * z**2  # (n, grid)
    exact = np.log(np.exp(log_joint).sum(axis=1) * (z[1] - z[0]) / math.sqrt(2 * math.pi))
    np.testing.assert_allclose(model.log_likelihood(x, samples=50_000), exact, atol=0.05)
    assert np.all(model.elbo(x, samples=5_000) < exact + 0.01)


@pytest.mark.parametrize("likelihood", ["bernoulli", fv.Gaussian(fixed_variance=0.05), fv.Gaussian(variance="element")])
def test_the_elbo_is_below_the_likelihoods_estimate(likelihood):
    """E[elbo] = E[log w] <= E[log mean of S w] <= log p(x), growing with S (Burda et al. 2015, theorem 1)."""
    x = np.random.default_rng(6).random((20, 12), dtype=np.float32)
    model = fv.Model(fv.Config(input_shape=12, hidden=(15,), latent=2, likelihood=likelihood), seed=9)
    # larger weights: a posterior away from the prior, so that the bounds have gaps
    model.set_parameters({name: 2.0 * value for name, value in model.parameters().items()})
    elbo = model.elbo(x, samples=20_000)
    estimates = {
        samples: np.array([model.log_likelihood(x, samples, seed=seed) for seed in range(seeds)])
        for samples, seeds in ((1, 600), (10, 200), (500, 20))
    }
    means = {samples: values.mean(axis=0) for samples, values in estimates.items()}
    errors = {samples: values.std(axis=0) / math.sqrt(len(values)) for samples, values in estimates.items()}
    assert np.all(np.abs(means[1] - elbo) < STANDARD_ERRORS * errors[1])
    for fewer, more in ((1, 10), (10, 500)):
        gap, error = means[more] - means[fewer], errors[more] + errors[fewer]
        assert np.all(gap > -STANDARD_ERRORS * error)
        assert np.mean(gap) > 0


def test_scores_of_one_seed_are_one_seeds():
    model, x, _ = linear_gaussian_model(posterior=False)
    first = model.elbo(x, samples=2, seed=1)
    np.testing.assert_array_equal(model.elbo(x, samples=2, seed=1), first)
    assert np.all(model.elbo(x, samples=2, seed=2) != first)


# ---- training's draws ------------------------------------------------------------------------------------------------


def test_training_draws_the_noise_of_its_seed_and_step():
    """A trainer's step t has the loss of the noise at (seed, t), row by row: not one row's nor one step's for all."""
    model = fv.Model(fv.Config(input_shape=10, hidden=(8,), latent=5, activation="tanh"), seed=3)
    x = np.random.default_rng(7).random((12, 10), dtype=np.float32)
    trainer = fv.Trainer(model, optimizer=fv.SGD(0.0), seed=21)
    taken = [trainer.step(x).loss for _ in range(4)]
    for step, loss in enumerate(taken):
        noise = training_noise(seed=21, step=step, rows=12, latent=5)
        assert model.gradients(x, noise=noise)[0].loss == pytest.approx(loss, rel=1e-6)
    assert len(set(taken)) == 4
    assert model.gradients(x, seed=21)[0].loss == pytest.approx(taken[0], rel=1e-6)


class OrderOfRows:
    """Collects which row each batch of one held: the model's loss of row i is i^2 / 2, whatever the noise."""

    def __init__(self):
        self.epochs = []

    def on_epoch_begin(self, trainer, progress):
        self.epochs.append([])

    def on_batch_end(self, trainer, progress):
        value = progress.batch_losses.reconstruction - 0.5 * math.log(2 * math.pi)
        self.epochs[-1].append(round(math.sqrt(2 * max(value, 0.0))))


def orders(rows, epochs, **options):
    model = fv.Model(fv.Config(input_shape=1, hidden=(), latent=1, likelihood="gaussian"))
    model.set_parameters({name: np.zeros_like(value) for name, value in model.parameters().items()})
    trainer = fv.Trainer(model, optimizer=fv.SGD(0.0), batch_size=1, **options)
    order = OrderOfRows()
    trainer.fit(np.arange(rows, dtype=np.float32)[:, None], epochs=epochs, callbacks=[order])
    return np.array(order.epochs)


def test_every_epoch_is_another_permutation_of_the_rows():
    order = orders(rows=100, epochs=30, seed=1)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(100), (30, 1)))
    assert len(np.unique(order, axis=0)) == 30
    np.testing.assert_array_equal(orders(rows=100, epochs=3, seed=1), order[:3])
    assert np.any(orders(rows=100, epochs=1, seed=2) != order[:1])


def fisher_yates(rows, epoch, seed):
    """The order that philox.h's kShuffle stream gives: two draws of 64 bits from each counter."""
    order = list(range(rows))
    for draw, left in enumerate(range(rows, 1, -1)):
        words = fv.kernels.philox([draw // 2, 0, epoch, 1], [seed, 0])
        low, high = (int(word) for word in words[2 * (draw % 2) : 2 * (draw % 2) + 2])
        place = (high << 32 | low) % left
        order[left - 1], order[place] = order[place], order[left - 1]
    return order


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 65, 66, 128, 129, 200])  # places are drawn 64 at a time
def test_the_order_is_fisher_and_yates(rows):
    expected = [fisher_yates(rows, epoch, seed=7) for epoch in range(2)]
    np.testing.assert_array_equal(orders(rows=rows, epochs=2, seed=7), expected)


def test_without_shuffle_rows_come_in_order():
    np.testing.assert_array_equal(orders(rows=9, epochs=3, shuffle=False), np.tile(np.arange(9), (3, 1)))


def test_shuffles_favour_no_place():
    """Chi-square of (row, place) counts over 2000 epochs of 5 rows: 16 degrees of freedom, 49 has probability 3e-5."""
    order = orders(rows=5, epochs=2000, seed=4)
    counts = np.array([[np.sum(order[:, place] == row) for place in range(5)] for row in range(5)])
    assert np.sum((counts - 400.0) ** 2 / 400.0) < 49
    # and of all 120 orders: 119 degrees of freedom, 194 has probability 2e-5
    _, seen = np.unique(order, axis=0, return_counts=True)
    expected = 2000 / 120
    assert np.sum((seen - expected) ** 2) / expected + (120 - len(seen)) * expected < 194
