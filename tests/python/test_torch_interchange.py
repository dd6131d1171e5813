# SPDX-License-Identifier: MIT
"""to_torch and back: the module's numbers and gradients are the engine's. Skipped where torch is not installed."""

import copy
import pickle
import sys

import fusedvae as fv
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from fusedvae.config import ACTIVATIONS  # noqa: E402

# A product of K terms errs by at most (K + 1) 2^-24 of its terms' sizes: for the layers of these networks, 60 inputs
# together, 4e-6, twice as much for the two programs. Curved activations and sums of terms are within the rest.
TOLERANCE = 1e-5
COLUMNS = (
    fv.Column("income", shift=1e6 + 0.3, scale=10.0, fill=1e6),
    fv.Column("colour", categories=("blue", "green", "red"), fill=1),
    fv.Column("angle", shift=-3.0, scale=0.01),
    fv.Column("answer", categories=("no", "yes")),
)


def close(got, expected, axis=None):
    """Within TOLERANCE of the values' scale, that of each column for axis=0."""
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    scale = np.maximum(np.abs(expected).max(axis=axis), 1.0)
    error = np.abs(got - expected).max(axis=axis)
    assert (error <= TOLERANCE * scale).all(), f"error {error} at scale {scale}"


def table(rows=40):
    rng = np.random.default_rng(0)
    x = [rng.normal(1e6, 10, rows), rng.integers(0, 3, rows), rng.normal(-3, 0.01, rows), rng.integers(0, 2, rows)]
    return np.column_stack(x).astype(np.float32)


def check(model, x):
    """Codes, means, terms and gradients of the module against the engine's; the module."""
    module = fv.to_torch(model)
    rows = torch.from_numpy(x)
    mu, logvar = model.encode(x)
    for got, expected in zip(module.encode(rows), (mu, logvar), strict=True):
        close(got, expected)
    mean = module.decode(torch.from_numpy(mu))
    assert mean.shape == (len(x), *model.config.input_shape)
    close(mean.flatten(1), model.decode(mu).reshape(len(x), -1), axis=0)
    noise = np.random.default_rng(1).standard_normal((2, len(x), mu.shape[1])).astype(np.float32)
    losses, gradients = model.gradients(x, noise=noise, beta=0.7)
    terms = module(rows, torch.from_numpy(noise))
    (terms.reconstruction + 0.7 * terms.kl).mean().backward()
    close(terms.kl, -model.score(x, "kl"))
    close(terms.reconstruction.mean(), losses.reconstruction)
    close(terms.elbo, -(terms.reconstruction + terms.kl).detach())
    assert {name for name, _ in module.named_parameters()} == gradients.keys()
    for name, parameter in module.named_parameters():
        close(parameter.grad, gradients[name])
    return module


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numbers_and_gradients_are_the_engines(make_model, likelihood, x, activation):
    check(make_model(seed=2, hidden=(16, 9), likelihood=likelihood, activation=activation), x)


@pytest.mark.parametrize("options", [{"hidden": ()}, {"input_shape": (3, 4)}, {"decoder_hidden": (5,)}])
def test_other_shapes(make_model, x, options):
    model = make_model(**options)
    check(model, x.reshape(-1, *model.config.input_shape))


def test_columns_are_part_of_the_module(likelihood):
    x = table()
    x[:, 2] = np.clip(x[:, 2], -3.0, -2.99)  # what a Bernoulli likelihood takes, once scaled
    x[:, 0] = np.float32(1e6 + 5) if isinstance(likelihood, fv.Bernoulli) else x[:, 0]
    x[0, 1] = np.nan
    if not isinstance(likelihood, fv.Bernoulli):
        x[1, 0] = np.nan
    model = fv.Model(fv.Config(input_shape=4, columns=COLUMNS, hidden=(9,), latent=3, likelihood=likelihood), seed=3)
    module = check(model, x)
    assert module.state_dict().keys() == model.parameters().keys()
    doubles, floats = (module.encode(torch.from_numpy(x.astype(dtype)))[0] for dtype in (np.float64, np.float32))
    close(doubles, floats.detach())
    assert doubles.dtype == torch.float32


def test_what_the_engine_refuses_is_nan():
    model = fv.Model(fv.Config(input_shape=4, columns=COLUMNS, hidden=(9,), latent=3), seed=3)
    x = table(6)
    x[0, 1], x[1, 1], x[2, 3], x[3, 2], x[4, 3] = 3, -1, 0.5, np.nan, np.nan
    mu = fv.to_torch(model).encode(torch.from_numpy(x))[0]
    assert mu.isnan().all(dim=1).tolist() == [True] * 5 + [False]


def test_wrong_widths_are_refused(make_model, x):
    module = fv.to_torch(make_model())
    with pytest.raises(ValueError, match=r"x has shape \(90, 11\); the model reads 12 columns"):
        module.encode(torch.from_numpy(x[:, :11].copy()))
    with pytest.raises(ValueError, match=r"x has shape \(12,\); the model reads 12 columns"):
        module.encode(torch.from_numpy(x[0]))
    with pytest.raises(TypeError, match="must be Tensor, not"):
        module.encode(x)
    with pytest.raises(TypeError, match=r"model must be a fusedvae\.Model, not Config"):
        fv.to_torch(fv.Config())


def test_bytes_are_scaled_as_the_engine_does(make_model):
    x = np.arange(36, dtype=np.uint8).reshape(3, 12)
    model = make_model()
    close(fv.to_torch(model).encode(torch.from_numpy(x))[0], model.encode(x)[0])


def test_the_module_is_a_copy_and_draws_no_random_numbers(make_model, x, same_bits):
    model = make_model()
    before = model.parameters()
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    module = fv.to_torch(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in module.parameters())
    with torch.no_grad():
        module.encoder_mean.weight += 1
    assert same_bits(model.parameters(), before)


def test_training_goes_on_there_and_comes_back(make_model, x, likelihood):
    model = make_model(seed=5, likelihood=likelihood)
    module = fv.to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    trainer = fv.Trainer(model, optimizer=fv.SGD(0.01))
    for step in range(3):
        noise = np.random.default_rng(step).standard_normal((len(x), 3)).astype(np.float32)
        trainer.step(x, noise=noise)
        optimizer.zero_grad()
        reconstruction, kl = module(torch.from_numpy(x), torch.from_numpy(noise))
        (reconstruction + kl).mean().backward()
        optimizer.step()
    back = fv.from_torch(module)
    assert back.config == model.config
    for name, values in model.parameters().items():
        close(back.parameters()[name], values)


def test_round_trips_keep_every_bit(make_model, likelihood, same_bits):
    model = make_model(likelihood=likelihood, activation="gelu")
    module = fv.to_torch(model)
    sources = [module, copy.deepcopy(module), pickle.loads(pickle.dumps(module)), module.double()]
    for source in sources:
        back = fv.from_torch(source)
        assert back.config == model.config
        assert same_bits(back.parameters(), model.parameters())
    other = make_model(seed=1, likelihood=likelihood, activation="gelu")
    other.set_parameters(module.float().state_dict())
    assert same_bits(other.parameters(), model.parameters())


def test_one_draw_of_noise_is_pytorchs(make_model, x):
    module, rows = fv.to_torch(make_model()), torch.from_numpy(x)
    torch.manual_seed(3)
    drawn = module(rows)
    torch.manual_seed(3)
    given = module(rows, torch.randn(len(x), 3))
    assert torch.equal(drawn.reconstruction, given.reconstruction)


class Example(torch.nn.Module):
    """The usual VAE of PyTorch's examples, written anew."""

    def __init__(self, width, hidden, latent):
        super().__init__()
        self.fc1 = torch.nn.Linear(width, hidden)
        self.fc21 = torch.nn.Linear(hidden, latent)
        self.fc22 = torch.nn.Linear(hidden, latent)
        self.fc3 = torch.nn.Linear(latent, hidden)
        self.fc4 = torch.nn.Linear(hidden, width)

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        mu = self.fc21(h)
        return torch.sigmoid(self.fc4(torch.relu(self.fc3(mu)))), mu, self.fc22(h)


class Sequential(torch.nn.Module):
    """Encoder and decoder as nn.Sequential; one layer gives mean and log-variance."""

    def __init__(self, width, hidden, latent):
        super().__init__()
        nn = torch.nn
        self.net = nn.ModuleDict(
            {
                "down": nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent)),
                "up": nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, width)),
            }
        )

    def forward(self, x):
        mu, logvar = self.net["down"](x).chunk(2, dim=1)
        return self.net["up"](mu), mu, logvar


SEQUENTIAL = {
    "names": {
        "net.down.0": "encoder.0",
        "net.down.2": ("encoder_mean", "encoder_logvar"),
        "net.up.0": "decoder.0",
        "net.up.2": "decoder_mean",
    },
    "activation": "tanh",
}


@pytest.mark.parametrize(("kind", "options"), [(Example, {}), (Sequential, SEQUENTIAL)])
def test_users_modules_give_their_numbers(x, kind, options):
    torch.manual_seed(1)
    module = kind(12, 16, 3)
    model = fv.from_torch(module, **options)
    mean, mu, logvar = module(torch.from_numpy(x))
    close(mean, model.reconstruct(x))
    close(mu, model.encode(x)[0])
    close(logvar, model.encode(x)[1])
    half = fv.from_torch(module.bfloat16(), **options)
    assert half.config == model.config


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fusedvae.torch", raising=False)
    with pytest.raises(ImportError, match=r'needs torch: pip install "fusedvae\[torch\]"'):
        fv.to_torch(fv.Model(fv.Config(input_shape=2, latent=1)))
