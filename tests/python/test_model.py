# SPDX-License-Identifier: MIT
"""Model: names and shapes, values against a plain NumPy forward pass in double, parameters in and out, scores' bits."""

import math
import signal
import subprocess
import sys
import textwrap
import threading
import time

import fusedvae as fv
import numpy as np
import pytest

erf = np.vectorize(math.erf, otypes=[float])
ACTIVATIONS = {
    "identity": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "elu": lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "gelu": lambda a: a * 0.5 * (1 + erf(a / math.sqrt(2))),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "softplus": lambda a: np.logaddexp(0, a),
}


def forward(model: fv.Model, x: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
    """Everything a VAE computes, in double: x (n, D), noise (n, Z)."""
    parameters = {name: values.astype(np.float64) for name, values in model.parameters().items()}
    config = model.config
    act = ACTIVATIONS[config.activation]

    def linear(name: str, values: np.ndarray) -> np.ndarray:
        return values @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]

    h = x.astype(np.float64)
    for i in range(len(config.hidden)):
        h = act(linear(f"encoder.{i}", h))
    mu, logvar = linear("encoder_mean", h), linear("encoder_logvar", h)
    z = mu + np.exp(logvar / 2) * noise
    kl = -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(1)
    h = z
    for i in range(len(config.decoder_hidden)):
        h = act(linear(f"decoder.{i}", h))
    if isinstance(config.likelihood, fv.Bernoulli):
        logits = linear("decoder_logits", h)
        mean = 1 / (1 + np.exp(-logits))
        nll = (np.logaddexp(0, logits) - x * logits).sum(1)
    else:
        mean = linear("decoder_mean", h)
        variance = np.full(config.width, config.likelihood.fixed_variance)
        if config.likelihood.variance == "feature":
            variance = config.likelihood.min_variance + np.exp(parameters["log_variance"])
        elif config.likelihood.variance == "element":
            variance = config.likelihood.min_variance + np.exp(linear("decoder_logvar", h))
        nll = 0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance).sum(1)
    return {"mu": mu, "logvar": logvar, "kl": kl, "mean": mean, "reconstruction": nll}


def test_names_and_shapes_are_pytorchs(make_model):
    shapes = {name: values.shape for name, values in make_model(hidden=(16, 8)).parameters().items()}
    assert shapes == {
        "encoder.0.weight": (16, 12),
        "encoder.0.bias": (16,),
        "encoder.1.weight": (8, 16),
        "encoder.1.bias": (8,),
        "encoder_mean.weight": (3, 8),
        "encoder_mean.bias": (3,),
        "encoder_logvar.weight": (3, 8),
        "encoder_logvar.bias": (3,),
        "decoder.0.weight": (8, 3),
        "decoder.0.bias": (8,),
        "decoder.1.weight": (16, 8),
        "decoder.1.bias": (16,),
        "decoder_logits.weight": (12, 16),
        "decoder_logits.bias": (12,),
    }


@pytest.mark.parametrize(
    ("variance", "extra"),
    [("fixed", set()), ("feature", {"log_variance"}), ("element", {"decoder_logvar.weight", "decoder_logvar.bias"})],
)
def test_gaussian_names(variance: str, extra: set[str], make_model):
    names = set(make_model(hidden=(), likelihood=fv.Gaussian(variance)).parameters())
    encoder = {f"encoder_{part}.{kind}" for part in ("mean", "logvar") for kind in ("weight", "bias")}
    assert names == encoder | {"decoder_mean.weight", "decoder_mean.bias"} | extra


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("hidden", [(), (16,), (9, 17)])
def test_values_against_numpy(activation: str, hidden: tuple[int, ...], likelihood, make_model, x):
    model = make_model(seed=3, hidden=hidden, activation=activation, likelihood=likelihood)
    noise = np.random.default_rng(1).standard_normal((90, 3))
    want = forward(model, x, noise)
    mu, logvar = model.encode(x)
    assert mu.dtype == logvar.dtype == np.float32
    np.testing.assert_allclose(mu, want["mu"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logvar, want["logvar"], rtol=1e-4, atol=1e-5)
    reconstruction = forward(model, x, np.zeros_like(noise))["mean"]
    np.testing.assert_allclose(model.reconstruct(x), reconstruction, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.decode(mu), reconstruction, rtol=1e-4, atol=1e-5)
    losses, _ = model.gradients(x, noise=noise, beta=0.5)
    assert losses.kl == pytest.approx(want["kl"].mean(), rel=1e-5)
    assert losses.reconstruction == pytest.approx(want["reconstruction"].mean(), rel=1e-5)
    assert losses.loss == pytest.approx(losses.reconstruction + 0.5 * losses.kl, rel=1e-6)


def test_gradients_have_the_parameters_names_and_average_over_samples(make_model, x, likelihood):
    model = make_model(likelihood=likelihood)
    noise = np.random.default_rng(2).standard_normal((4, 90, 3))
    losses, gradients = model.gradients(x, noise=noise)
    assert {name: g.shape for name, g in gradients.items()} == {n: p.shape for n, p in model.parameters().items()}
    single = [model.gradients(x, noise=eps) for eps in noise]
    assert losses.loss == pytest.approx(np.mean([one.loss for one, _ in single]), rel=1e-6)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, np.mean([g[name] for _, g in single], axis=0), rtol=1e-3, atol=1e-5)


def test_gradients_by_drawn_noise_depend_on_the_seed(make_model, x):
    model = make_model()
    first, again, other = (model.gradients(x, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again != other


def test_free_bits_floor_each_dimension(make_model, x):
    model = make_model()
    noise = np.zeros((90, 3))
    mu, logvar = (values.astype(np.float64) for values in model.encode(x))
    per_dimension = (-0.5 * (1 + logvar - mu**2 - np.exp(logvar))).mean(0)
    floor = float(np.sort(per_dimension)[1])
    losses, _ = model.gradients(x, noise=noise, free_bits=floor)
    expected = losses.reconstruction + np.maximum(per_dimension, floor).sum()
    assert losses.loss == pytest.approx(expected, rel=1e-5)


def test_elbo_is_the_mean_over_draws_and_bounds_the_likelihood(make_model, x, likelihood):
    model = make_model(likelihood=likelihood)
    elbo = model.elbo(x, samples=300)
    assert elbo.shape == (90,)
    assert elbo.dtype == np.float64
    noise = np.random.default_rng(5).standard_normal((300, 90, 3))
    losses, _ = model.gradients(x, noise=noise)
    assert elbo.mean() == pytest.approx(-(losses.reconstruction + losses.kl), rel=0.01)
    assert model.log_likelihood(x, samples=300).mean() >= elbo.mean()


@pytest.mark.parametrize("method", ["elbo", "log_likelihood"])
def test_scores_have_the_same_bits_in_any_company(method: str, make_model, x, likelihood):
    model = make_model(hidden=(40, 17), likelihood=likelihood)

    def score(rows: np.ndarray, seed: int = 4) -> np.ndarray:
        return getattr(model, method)(rows, samples=5, seed=seed)

    together = score(x)
    assert (together != score(x, seed=5)).any()
    np.testing.assert_array_equal(together[::-1], score(x[::-1]))
    np.testing.assert_array_equal(together[:7], score(x[:7]))
    np.testing.assert_array_equal(together[41:42], score(x[41:42]))
    np.testing.assert_array_equal(np.tile(together, 7), score(np.tile(x, (7, 1))))
    before = fv.get_num_threads()
    try:
        for threads in (1, 2, 5):
            fv.set_num_threads(threads)
            np.testing.assert_array_equal(together, score(x))
    finally:
        fv.set_num_threads(before)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_ends_a_long_scoring(interruptible):
    program = textwrap.dedent(
        """
        import numpy as np
        import fusedvae as fv
        model = fv.Model(fv.Config(input_shape=64, hidden=(64,), latent=4))
        print("ready", flush=True)
        try:
            model.{score}(np.zeros((400_000, 64), np.float32), samples=5000)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """
    )
    for score in ("elbo", "log_likelihood"):
        command = [sys.executable, "-c", program.format(score=score)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=interruptible) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.5)  # into the scoring, which as a whole would take many minutes
            child.send_signal(signal.SIGINT)
            try:
                assert child.communicate(timeout=60)[0] == "interrupted\n"
            finally:
                child.kill()


def test_scores_of_many_blocks(make_model):
    model = make_model(hidden=(256, 256))
    x = np.random.default_rng(0).random((130, 12))[::-1]
    samples = 1200  # so many that Ctrl-C is looked for after each 64 rows
    for score in (model.elbo, model.log_likelihood):
        assert score(x, samples)[60:70].tobytes() == score(x[60:70], samples).tobytes()
    x[100, 7] = np.inf
    for score in (model.elbo, model.log_likelihood):
        with pytest.raises(ValueError, match="an infinity in row 100, column 7"):
            score(x, samples)


def test_encode_and_decode_have_the_same_bits_in_any_company(make_model, x):
    model = make_model(hidden=(40, 17))
    mu, _ = model.encode(x)
    images = model.decode(mu)
    for i in (0, 13, 89):
        np.testing.assert_array_equal(model.encode(x[i : i + 1])[0][0], mu[i])
        np.testing.assert_array_equal(model.decode(mu[i : i + 1])[0], images[i])


def test_outputs_have_the_inputs_shape(make_model):
    model = make_model(input_shape=(3, 4))
    rows = np.zeros((5, 3, 4), np.float32)
    assert model.reconstruct(rows).shape == (5, 3, 4)
    assert model.decode(np.zeros((2, 3))).shape == (2, 3, 4)
    np.testing.assert_array_equal(model.reconstruct(rows.reshape(5, 12)), model.reconstruct(rows))


def test_parameters_are_copies(make_model, same_bits):
    model = make_model()
    first = model.parameters()
    for values in first.values():
        values += 1
    assert not same_bits(model.parameters(), first)
    model.set_parameters(first)
    assert same_bits(model.parameters(), first)


def test_seeds_make_models(make_model, same_bits):
    assert same_bits(make_model(seed=5).parameters(), make_model(seed=5).parameters())
    assert not same_bits(make_model(seed=5).parameters(), make_model(seed=6).parameters())
    assert make_model(seed=2**64 - 1)
    with pytest.raises(ValueError, match="seed"):
        make_model(seed=2**64)
    with pytest.raises(ValueError, match="seed"):
        make_model(seed=-1)


def test_copies_are_independent(make_model, same_bits, x):
    model = make_model(likelihood=fv.Gaussian("feature"))
    twin = model.copy()
    assert same_bits(model.parameters(), twin.parameters())
    np.testing.assert_array_equal(model.elbo(x), twin.elbo(x))
    fv.Trainer(twin).step(x)
    assert not same_bits(model.parameters(), twin.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("encoder.0.bias"), ["missing", "encoder.0.bias"]),
        (lambda p: p.update(encoder_maen=np.zeros(3)), ["unknown parameter 'encoder_maen'", "known are 'encoder_"]),
        (lambda p: p.update({"decoder_logits.bias": np.zeros(11)}), ["decoder_logits.bias", "(11,)", "(12,)"]),
        (lambda p: p.update({"decoder_logits.weight": np.zeros((16, 12))}), ["(16, 12)", "(12, 16)"]),
        (lambda p: p["decoder_logits.weight"].__setitem__((3, 4), np.inf), ["decoder_logits.weight", "inf", "(3, 4)"]),
    ],
    ids=["missing", "unknown", "length", "transposed", "infinite"],
)
def test_set_parameters_changes_all_or_nothing(change, words: list[str], make_model, same_bits):
    model = make_model()
    before = model.parameters()
    wanted = {name: values + 1 for name, values in before.items()}
    change(wanted)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        model.set_parameters(wanted)
    assert all(word in str(caught.value) for word in words)
    assert same_bits(model.parameters(), before)


def test_output_bias_decodes_to_the_column_means(make_model, x):
    model = make_model(hidden=(), decoder_hidden=())
    model.init_output_bias(x)
    np.testing.assert_allclose(model.decode(np.zeros((1, 3)))[0], x.mean(0), rtol=1e-4)
    gaussian = make_model(hidden=(), decoder_hidden=(), likelihood="gaussian")
    gaussian.init_output_bias(x * 100 - 50)
    np.testing.assert_allclose(gaussian.decode(np.zeros((1, 3)))[0], x.mean(0) * 100 - 50, rtol=1e-4, atol=1e-4)


def test_output_bias_of_constant_columns_stays_finite(make_model):
    model = make_model()
    model.init_output_bias(np.zeros((10, 12)))
    assert np.isfinite(model.decode(np.zeros((1, 3)))).all()
    assert np.isfinite(model.elbo(np.zeros((2, 12)))).all()


def test_repr_lists_layers(make_model):
    text = repr(make_model(likelihood=fv.Gaussian("feature")))
    count = 12 * 16 + 16 + 2 * (16 * 3 + 3) + 3 * 16 + 16 + 16 * 12 + 12 + 12
    assert str(count) in text
    for line in ("encoder.0: 12 -> 16", "encoder_mean: 16 -> 3", "decoder_mean: 16 -> 12", "log_variance: 12", "relu"):
        assert line in text
    assert make_model(likelihood=fv.Gaussian("feature")).parameter_count == count


def test_devices(make_model):
    model = make_model()
    assert model.device == "cpu"
    assert model.to("cpu") is model
    assert fv.load.__defaults__ == ("cpu", "float32")
    for wrong in ("gpu", "cuda:", "cuda:-1", "cuda:1x", "CPU", "cuda:99999"):
        with pytest.raises(ValueError, match='device must be "cpu", "cuda"'):
            model.to(wrong)
    with pytest.raises(TypeError, match="device must be a name"):
        model.to(0)
    with pytest.raises(ValueError, match="'tf32' is not available on the CPU"):
        fv.Trainer(model, precision="tf32")
    assert model.device == "cpu"


def test_many_threads_may_score_at_once(make_model, x):
    model = make_model(hidden=(64, 64))
    expected = model.elbo(x, samples=20)
    right = []

    def work() -> None:
        right.append(all(np.array_equal(model.elbo(x, samples=20), expected) for _ in range(20)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
