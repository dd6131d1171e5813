# SPDX-License-Identifier: MIT
"""to_onnx: what ONNX Runtime computes is what the engine does. Skipped where onnx or onnxruntime is not installed."""

import json
import os
import sys

import fusedvae as fv
import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install onnx)")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (pip install onnxruntime)")

from fusedvae import _core  # noqa: E402
from fusedvae.config import ACTIVATIONS  # noqa: E402
from fusedvae.detector import SCORES  # noqa: E402

# A product of K terms errs by at most (K + 1) 2^-24 of its terms' sizes: for the layers of these networks, 60 inputs
# together, 4e-6, twice as much for the two programs. Curved activations and sums of terms are within the rest.
TOLERANCE = 1e-5
COLUMNS = (
    fv.Column("colour", categories=("blue", "green", "red"), fill=1),
    fv.Column("income", shift=1e6 + 0.3, scale=10.0, fill=1e6),
    fv.Column("angle", shift=-3.0, scale=0.01),
    fv.Column("answer", categories=("no", "yes")),
)


def close(got, expected, axis=None):
    """Within TOLERANCE of the values' scale, that of each column for axis=0."""
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    scale = np.maximum(np.abs(expected).max(axis=axis), 1.0)
    error = np.abs(got - expected).max(axis=axis)
    assert (error <= TOLERANCE * scale).all(), f"error {error} at scale {scale}"


def run(path, **inputs):
    """The outputs by name, by ONNX Runtime on one thread of the CPU; the file is checked first."""
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def detector(model, x, score, samples=4, distance=0.0):
    if score == "mahalanobis":
        return fv.Detector.of_codes(model.encode(x)[0], threshold=-9.5)
    return fv.Detector(score, samples=samples, seed=2**63 + 5, threshold=-9.5, distance=distance)


def table(rows=40):
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 3, rows), rng.normal(1e6, 10, rows), rng.normal(-3, 0.01, rows), rng.integers(0, 2, rows)]
    return np.column_stack(x).astype(np.float32)


def check(model, x, path, score):
    model.detector = detector(model, x, score)
    fv.to_onnx(model, path)
    found = run(path, x=x)
    assert list(found) == ["mu", "logvar", "mean", "score"]
    mu, logvar = model.encode(x)
    close(found["mu"], mu)
    close(found["logvar"], logvar)
    close(found["mean"], model.reconstruct(x), axis=0)
    close(found["score"], model.score(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_the_engines(make_model, x, tmp_path, activation):
    check(make_model(seed=1, hidden=(16, 9), activation=activation), x, tmp_path / "m.onnx", "elbo")


@pytest.mark.parametrize("score", SCORES)
def test_every_score_of_every_likelihood(make_model, likelihood, x, tmp_path, score):
    check(make_model(seed=2, likelihood=likelihood), x, tmp_path / "m.onnx", score)


@pytest.mark.parametrize("score", SCORES)
def test_columns_are_part_of_the_graph(likelihood, tmp_path, score):
    x = table()
    x[0, 0] = np.nan
    if isinstance(likelihood, fv.Bernoulli):
        x[:, 1], x[:, 2] = 1e6 + 5, np.clip(x[:, 2], -3.0, -2.99)  # what it takes, once scaled
    else:
        x[1, 1] = np.nan
    model = fv.Model(fv.Config(input_shape=4, columns=COLUMNS, hidden=(9,), latent=3, likelihood=likelihood), seed=3)
    check(model, x, tmp_path / "m.onnx", score)


@pytest.mark.parametrize("options", [{"hidden": ()}, {"input_shape": (3, 4)}, {"decoder_hidden": (5,)}])
def test_other_shapes(make_model, x, tmp_path, options):
    model = make_model(**options)
    check(model, x.reshape(-1, *model.config.input_shape), tmp_path / "m.onnx", "log_likelihood")


def test_parts(make_model, x, tmp_path):
    model = make_model(input_shape=(3, 4))
    images, path = x.reshape(-1, 3, 4), tmp_path / "m.onnx"
    mu, logvar = model.encode(images)
    fv.to_onnx(model, path, "encoder")
    found = run(path, x=images)
    assert list(found) == ["mu", "logvar"]
    close(found["logvar"], logvar)
    fv.to_onnx(model, path, "decoder")
    found = run(path, z=mu[:7])
    assert list(found) == ["mean"]
    close(found["mean"], model.decode(mu[:7]))
    fv.to_onnx(model, path, "scorer", detector="kl")
    found = run(path, x=images[:1])
    assert list(found) == ["score"]
    close(found["score"], model.score(images[:1], "kl"))
    fv.to_onnx(model, path)
    assert list(run(path, x=images)) == ["mu", "logvar", "mean"]


def test_what_the_engine_refuses_is_nan(tmp_path):
    model = fv.Model(fv.Config(input_shape=4, columns=COLUMNS, hidden=(9,), latent=3), seed=3)
    x = table(6)
    x[0, 0], x[1, 0], x[2, 3], x[3, 2], x[4, 3] = 3, -1, 0.5, np.nan, np.nan
    fv.to_onnx(model, tmp_path / "m.onnx", detector=fv.Detector("log_likelihood", samples=2))
    for name, values in run(tmp_path / "m.onnx", x=x).items():
        refused = np.isnan(values).any(axis=tuple(range(1, values.ndim)))
        assert refused.tolist() == [True] * 5 + [False], name


@pytest.mark.parametrize("score", ["elbo", "kl"])
def test_the_rows_distance_is_taken_off(make_model, x, tmp_path, score):
    model = make_model(likelihood="gaussian")
    without = model.score(x, detector(model, x, score))
    expected = model.score(x, detector(model, x, score, distance=2.0))
    assert np.abs(expected - without).max() > 0.1
    fv.to_onnx(model, tmp_path / "m.onnx", "scorer", detector(model, x, score, distance=2.0))
    close(run(tmp_path / "m.onnx", x=x)["score"], expected)


def test_small_probabilities_do_not_vanish(make_model, x, tmp_path):
    # exp of -500 nats is zero in float32
    model = make_model(likelihood=fv.Gaussian(fixed_variance=1e-3))
    assert (model.log_likelihood(x, 4) < -500).all()
    check(model, x, tmp_path / "m.onnx", "log_likelihood")


def test_noise_is_the_engines():
    # z is the noise itself and so is the mean: elbo(e_j) - elbo(0) = eps_j - 1/2
    latent, seed = 7, 2**40 + 3
    model = fv.Model(fv.Config(input_shape=latent, hidden=(), latent=latent, likelihood="gaussian"))
    parameters = {name: np.zeros_like(values) for name, values in model.parameters().items()}
    parameters["decoder_mean.weight"] = np.eye(latent, dtype=np.float32)
    model.set_parameters(parameters)
    rows = np.vstack([np.zeros(latent), np.eye(latent)])
    sums = np.array([samples * model.elbo(rows, samples, seed) for samples in range(1, 20)])
    draws = np.diff(sums, axis=0, prepend=0 * sums[:1])
    np.testing.assert_allclose(
        _core.score_noise(seed, 19, latent), draws[:, 1:] - draws[:, :1] + 0.5, rtol=0, atol=2e-5
    )
    drawn = _core.score_noise(0, 1000, 50)
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02


def test_metadata_says_what_it_is(make_model, x, tmp_path):
    model = make_model()
    model.detector = detector(model, x, "elbo", samples=3)
    fv.to_onnx(model, tmp_path / "m.onnx")
    found = onnx.load(tmp_path / "m.onnx")
    metadata = {entry.key: entry.value for entry in found.metadata_props}
    assert fv.Config.from_dict(json.loads(metadata["fusedvae.config"])) == model.config
    expected = {"score": "elbo", "samples": 3, "seed": str(2**63 + 5), "threshold": -9.5, "distance": 0.0}
    assert json.loads(metadata["fusedvae.detector"]) == expected
    assert (found.producer_name, found.producer_version) == ("fusedvae", fv.__version__)
    assert found.opset_import[0].version >= 17
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    for name, values in model.parameters().items():
        np.testing.assert_array_equal(weights[name], values)
    fv.to_onnx(model, tmp_path / "d.onnx", "decoder")
    assert [entry.key for entry in onnx.load(tmp_path / "d.onnx").metadata_props] == ["fusedvae.config"]


def test_same_model_same_bytes(make_model, tmp_path):
    for name in ("a", "b"):
        fv.to_onnx(make_model(), tmp_path / name, detector="elbo")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_refusals_leave_the_old_file(make_model, tmp_path, monkeypatch):
    model, path = make_model(), tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match=r"model must be a fusedvae\.Model, not str"):
        fv.to_onnx("model", path)
    with pytest.raises(ValueError, match="unknown part 'encode'; known are 'encoder'"):
        fv.to_onnx(model, path, "encode")
    with pytest.raises(ValueError, match="the model has no detector"):
        fv.to_onnx(model, path, "scorer")
    with pytest.raises(ValueError, match="unknown score 'elb'"):
        fv.to_onnx(model, path, detector="elb")
    with pytest.raises(TypeError, match=r"a fusedvae\.Detector or a score's name, not 3"):
        fv.to_onnx(model, path, detector=3)
    with pytest.raises(ValueError, match="latent_mean"):
        fv.to_onnx(model, path, detector=fv.Detector("mahalanobis", latent_mean=[0.0], latent_precision=[[1.0]]))
    with pytest.raises(ValueError, match=r"900000 samples of 40 values .* at most 838860 samples"):
        fv.to_onnx(make_model(decoder_hidden=(40,)), path, detector=fv.Detector("elbo", samples=900_000))
    monkeypatch.setattr("fusedvae.onnx.MOST_PARAMETERS", model.parameter_count - 1)
    with pytest.raises(ValueError, match=f"an ONNX file takes {model.parameter_count - 1}"):
        fv.to_onnx(model, path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        fv.to_onnx(model, path)
    assert os.listdir(tmp_path) == ["m.onnx"]
    assert path.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        fv.to_onnx(model, tmp_path / "none" / "m.onnx")


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in ("onnx", "_onnx_graph"):
        monkeypatch.delitem(sys.modules, f"fusedvae.{name}", raising=False)
    with pytest.raises(ImportError, match=r'needs onnx: pip install "fusedvae\[onnx\]"'):
        fv.to_onnx(fv.Model(fv.Config(input_shape=2, latent=1)), "m.onnx")
