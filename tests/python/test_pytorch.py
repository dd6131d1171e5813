# SPDX-License-Identifier: MIT
"""fusedvae against PyTorch: gradients against autograd in double, training curves against torch.optim, schedules
against torch.optim.lr_scheduler, and initialisation against torch.nn.Linear. Skipped where torch is not installed.
"""

from __future__ import annotations

import math

import fusedvae as fv
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch), so nothing to compare with")
F = torch.nn.functional
distributions = torch.distributions

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}
LIKELIHOODS = {
    "bernoulli": fv.Bernoulli(),
    "gaussian-fixed": fv.Gaussian(variance="fixed", fixed_variance=0.4),
    "gaussian-feature": fv.Gaussian(variance="feature", min_variance=0.02),
    "gaussian-element": fv.Gaussian(variance="element", min_variance=0.02),
}


def make_model(activation="relu", likelihood="bernoulli", width=37, hidden=(23, 17), latent=6, seed=1):
    config = fv.Config(
        input_shape=width, hidden=hidden, latent=latent, activation=activation, likelihood=LIKELIHOODS[likelihood]
    )
    return fv.Model(config, seed=seed)


def make_batch(model, rows=29, samples=1, seed=2):
    """Rows in [0, 1], which every likelihood takes, and noise of shape (S, n, Z)."""
    random = np.random.default_rng(seed)
    x = random.random((rows, model.config.width), dtype=np.float32)
    noise = random.standard_normal((samples, rows, model.config.latent)).astype(np.float32)
    return x, noise


def leaves(model):
    """The model's parameters as double leaves of an autograd graph."""
    return {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in model.parameters().items()
    }


def losses(config, parameters, x, noise, beta=1.0, free_bits=0.0):
    """The model written with PyTorch's own layers and distributions: loss, reconstruction and KL, means over rows."""
    act = ACTIVATIONS[config.activation]
    x, noise = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(noise, dtype=torch.float64)

    def linear(layer, h):
        return F.linear(h, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])

    def tower(prefix, h, depth):
        for i in range(depth):
            h = act(linear(f"{prefix}.{i}", h))
        return h

    h = tower("encoder", x, len(config.hidden))
    mu, logvar = linear("encoder_mean", h), linear("encoder_logvar", h)
    posterior = distributions.Normal(mu, torch.exp(logvar / 2))
    kl = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0))  # (n, Z)
    g = tower("decoder", posterior.mean + posterior.stddev * noise, len(config.decoder_hidden))  # (S, n, H)
    likelihood = config.likelihood
    if isinstance(likelihood, fv.Bernoulli):
        logits = linear("decoder_logits", g)
        terms = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
    else:
        variance = {
            "fixed": lambda: torch.tensor(likelihood.fixed_variance, dtype=torch.float64),
            "feature": lambda: likelihood.min_variance + torch.exp(parameters["log_variance"]),
            "element": lambda: likelihood.min_variance + torch.exp(linear("decoder_logvar", g)),
        }[likelihood.variance]()
        terms = -distributions.Normal(linear("decoder_mean", g), variance.sqrt()).log_prob(x)
    reconstruction = terms.sum(-1).mean()
    optimised_kl = kl.mean(0).clamp(min=free_bits).sum()
    return reconstruction + beta * optimised_kl, reconstruction, kl.sum(-1).mean()


def check_gradients(model, x, noise, beta=1.0, free_bits=0.0):
    """Each gradient within 1e-5 of autograd's in norm; where a parameter's terms cancel, of 1% of the whole's."""
    result, gradients = model.gradients(x, noise=noise, beta=beta, free_bits=free_bits)
    parameters = leaves(model)
    expected = losses(model.config, parameters, x, noise, beta, free_bits)
    expected[0].backward()
    np.testing.assert_allclose([result.loss, result.reconstruction, result.kl], [e.item() for e in expected], rtol=5e-6)
    assert gradients.keys() == parameters.keys()
    truth = {name: parameter.grad.numpy() for name, parameter in parameters.items()}
    whole = math.sqrt(sum(np.sum(g**2) for g in truth.values()))
    for name, gradient in gradients.items():
        assert gradient.shape == truth[name].shape
        error = np.linalg.norm(gradient - truth[name]) / max(np.linalg.norm(truth[name]), 0.01 * whole)
        assert error <= 1e-5, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_match_autograd_in_double(activation, likelihood):
    model = make_model(activation, likelihood)
    check_gradients(model, *make_batch(model))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_with_samples_beta_and_free_bits(likelihood):
    model = make_model("tanh", likelihood)
    x, noise = make_batch(model, samples=3)
    check_gradients(model, x, noise, beta=0.3)
    kl = losses(model.config, leaves(model), x, noise)[2]
    # near the mean KL of a dimension, so that some are silenced and some are not
    check_gradients(model, x, noise, beta=1.7, free_bits=kl.item() / model.config.latent)


@pytest.mark.parametrize("hidden", [(), (1,), (64,), (40, 30, 20)])
def test_gradients_of_other_depths(hidden):
    model = make_model("elu", "gaussian-element", width=50, hidden=hidden, latent=9)
    check_gradients(model, *make_batch(model, rows=70))


# ---- ten steps -------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": (fv.Adam(3e-3), lambda p: torch.optim.Adam(p, lr=3e-3)),
    "adam-betas-decay": (
        fv.Adam(3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
        lambda p: torch.optim.Adam(p, lr=3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
    ),
    "adamw": (fv.AdamW(3e-3, weight_decay=0.5), lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.5)),
    "sgd": (fv.SGD(5e-3), lambda p: torch.optim.SGD(p, lr=5e-3)),
    "sgd-momentum-decay": (
        fv.SGD(2e-3, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.9, weight_decay=0.1),
    ),
    "sgd-nesterov": (
        fv.SGD(2e-3, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.9, nesterov=True),
    ),
}


def ten_steps(model, optimizer, torch_optimizer, clip_norm=None):
    """Both train ten steps on the same batches and noise; returns the two loss curves and both sets of parameters."""
    parameters = leaves(model)
    peer = torch_optimizer(list(parameters.values()))
    trainer = fv.Trainer(model, optimizer=optimizer, clip_norm=clip_norm)
    ours, theirs, norms = [], [], []
    for step in range(10):
        x, noise = make_batch(model, rows=32, seed=100 + step)
        ours.append(trainer.step(x, noise=noise[0]).loss)
        peer.zero_grad()
        loss = losses(model.config, parameters, x, noise)[0]
        loss.backward()
        if clip_norm is not None:
            norms.append(torch.nn.utils.clip_grad_norm_(list(parameters.values()), clip_norm).item())
        peer.step()
        theirs.append(loss.item())
    return ours, theirs, parameters, norms


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian-feature", "gaussian-element"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_have_pytorchs_losses(name, likelihood):
    model = make_model("relu", likelihood)
    start = model.parameters()
    ours, theirs, parameters, _ = ten_steps(model, *OPTIMIZERS[name])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert ours[-1] < ours[0]
    for key, value in model.parameters().items():
        travelled = np.linalg.norm(parameters[key].detach().numpy() - start[key])
        assert np.linalg.norm(value - parameters[key].detach().numpy()) <= 1e-2 * travelled, key


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd-momentum-decay"])
def test_clipping_is_pytorchs(name):
    model = make_model("tanh", "gaussian-fixed")
    _, gradients = model.gradients(*make_batch(model, rows=32, seed=100))
    limit = 0.5 * math.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in gradients.values()))
    ours, theirs, parameters, norms = ten_steps(model, *OPTIMIZERS[name], clip_norm=limit)
    assert max(norms) > 1.5 * limit  # it did limit
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for key, value in model.parameters().items():
        np.testing.assert_allclose(value, parameters[key].detach().numpy(), atol=1e-5, err_msg=key)


def test_a_loose_clip_changes_nothing():
    plain, clipped = make_model("tanh"), make_model("tanh")
    ten_steps(plain, *OPTIMIZERS["adam"])
    ten_steps(clipped, *OPTIMIZERS["adam"], clip_norm=1e6)
    for key, value in plain.parameters().items():
        np.testing.assert_allclose(clipped.parameters()[key], value, atol=1e-6, err_msg=key)


# ---- schedules -------------------------------------------------------------------------------------------------------


def taken_rates(schedule, steps, learning_rate=0.01):
    """The rate of each step, measured: SGD moves by -rate * gradient."""
    model = make_model("tanh", width=12, hidden=(7,), latent=3)
    trainer = fv.Trainer(model, optimizer=fv.SGD(learning_rate), schedule=schedule)
    x, noise = make_batch(model, rows=16)
    rates = []
    for _ in range(steps):
        _, gradients = model.gradients(x, noise=noise)
        before = model.parameters()
        trainer.step(x, noise=noise[0])
        after = model.parameters()
        moved = sum(float(np.sum((before[k].astype(np.float64) - after[k]) * gradients[k])) for k in gradients)
        rates.append(moved / sum(float(np.sum(gradients[k].astype(np.float64) ** 2)) for k in gradients))
    return np.array(rates)


def pytorch_rates(schedulers, steps, learning_rate=0.01):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    scheduler = schedulers(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def test_cosine_is_pytorchs():
    expected = pytorch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.01 * 0.1), 21)
    measured = taken_rates(fv.Cosine(steps=20, final=0.1), 25)
    np.testing.assert_allclose(measured[:21], expected, atol=2e-6)
    np.testing.assert_allclose(measured[21:], 0.001, atol=2e-6)  # and stays there


def test_step_decay_is_pytorchs():
    expected = pytorch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, 7, gamma=0.3), 25)
    np.testing.assert_allclose(taken_rates(fv.StepDecay(steps=7, factor=0.3), 25), expected, atol=2e-6)


@pytest.mark.parametrize("schedule", [fv.Constant(warmup=5), fv.Cosine(steps=10, warmup=5), fv.StepDecay(4, 0.5, 5)])
def test_warm_up_rises_linearly_then_the_schedule_starts(schedule):
    rates = taken_rates(schedule, 18)
    np.testing.assert_allclose(rates[:5], 0.01 * np.arange(1, 6) / 5, atol=2e-6)
    after = np.arange(13)
    expected = {
        "Constant": np.ones(13),
        "Cosine": 0.5 * (1 + np.cos(np.pi * np.minimum(after, 10) / 10)),
        "StepDecay": 0.5 ** (after // 4),
    }[type(schedule).__name__]
    np.testing.assert_allclose(rates[5:], 0.01 * expected, atol=2e-6)


def taken_betas(beta, steps):
    """The KL's weight of each step, from the losses it returns; the rate is zero, so the model stands still."""
    model = make_model("tanh", width=12, hidden=(7,), latent=3)
    parameters = model.parameters()
    parameters["encoder_mean.bias"] += 2.0  # a KL of some nats, to divide by
    model.set_parameters(parameters)
    trainer = fv.Trainer(model, optimizer=fv.SGD(0.0), beta=beta)
    x, noise = make_batch(model, rows=16)
    taken = [trainer.step(x, noise=noise[0]) for _ in range(steps)]
    return np.array([(t.loss - t.reconstruction) / t.kl for t in taken])


def test_linear_beta_rises_from_zero_to_its_final_value():
    measured = taken_betas(fv.LinearBeta(final=0.8, steps=10), 14)
    np.testing.assert_allclose(measured, 0.8 * np.minimum(np.arange(14) / 10, 1.0), atol=1e-5)


def test_cyclical_beta_rises_and_rests_in_every_cycle():
    measured = taken_betas(fv.CyclicalBeta(final=1.5, steps=10, ratio=0.5), 25)
    within = np.arange(25) % 10 / 10
    np.testing.assert_allclose(measured, 1.5 * np.minimum(within / 0.5, 1.0), atol=1e-5)


# ---- initialisation --------------------------------------------------------------------------------------------------


def uniform_distance(values, bound):
    """Kolmogorov's distance between the values and the uniform distribution on [-bound, bound], times sqrt(n)."""
    ordered = np.sort(values.ravel() / (2 * bound) + 0.5)
    n = ordered.size
    above = np.max(np.arange(1, n + 1) / n - ordered)
    below = np.max(ordered - np.arange(n) / n)
    return math.sqrt(n) * max(above, below)


# P(sqrt(n) D > 1.95) = 0.001 (Kolmogorov's distribution); the seeds are fixed.
KOLMOGOROV_LIMIT = 1.95


def test_default_initialisation_is_nn_linears():
    model = make_model("relu", "gaussian-element", width=300, hidden=(200, 100), latent=30, seed=5)
    torch.manual_seed(0)
    for name, weight in model.parameters().items():
        if not name.endswith(".weight"):
            continue
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        bound = 1 / math.sqrt(weight.shape[1])
        for ours, theirs in ((weight, layer.weight), (model.parameters()[name[:-6] + "bias"], layer.bias)):
            assert ours.shape == tuple(theirs.shape)
            # the same distribution: inside the bound, and as uniform as PyTorch's own draw
            for values in (ours.astype(np.float64), theirs.detach().numpy().astype(np.float64)):
                assert np.abs(values).max() <= bound * (1 + 1e-6)
                assert uniform_distance(values, bound) < KOLMOGOROV_LIMIT, name


def test_glorot_and_he_initialisation():
    for init in ("glorot", "he"):
        config = fv.Config(input_shape=300, hidden=(200,), latent=30, init=init)
        parameters = fv.Model(config, seed=6).parameters()
        for name, value in parameters.items():
            if name.endswith(".bias"):
                assert not value.any(), name
                continue
            outputs, inputs = value.shape
            if init == "glorot":
                bound = math.sqrt(6 / (inputs + outputs))
                assert np.abs(value).max() <= bound * (1 + 1e-6)
                assert uniform_distance(value.astype(np.float64), bound) < KOLMOGOROV_LIMIT, name
            else:
                deviation = math.sqrt(2 / inputs)
                # the standard error of a standard deviation is 1 / sqrt(2 n) of it
                assert abs(value.std() / deviation - 1) < 4 / math.sqrt(2 * value.size), name
                assert abs(value.mean()) < 4 * deviation / math.sqrt(value.size), name


def test_initialisation_is_the_seeds():
    one, same, other = make_model(seed=1), make_model(seed=1), make_model(seed=2)
    for name, value in one.parameters().items():
        np.testing.assert_array_equal(value, same.parameters()[name])
        assert (value != other.parameters()[name]).any(), name
