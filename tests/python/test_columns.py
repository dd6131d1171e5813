# SPDX-License-Identifier: MIT
"""Columns: the engine's reading of tables equals the same arithmetic in NumPy, and densities are those of raw rows."""

import copy
import dataclasses
import pickle

import fusedvae as fv
import numpy as np
import pytest

COLUMNS = (
    fv.Column("income", shift=1e6, scale=10.0),
    fv.Column("colour", categories=("blue", "green", "red"), fill=1),
    fv.Column("angle", shift=-3.0, scale=0.01, fill=-3.0),
)
# -ln scale of the numbers, which a density of raw rows has above that of encoded ones
JACOBIAN = -np.log(10.0) - np.log(0.01)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n = 300
    return np.column_stack([rng.normal(1e6, 10, n), rng.integers(0, 3, n), rng.normal(-3, 0.01, n)])


def encoded(x):
    colour = np.where(np.isnan(x[:, 1]), 1, x[:, 1])
    angle = np.where(np.isnan(x[:, 2]), -3.0, x[:, 2])
    one_hot = [colour == k for k in range(3)]
    return np.column_stack([(x[:, 0] - 1e6) * (1 / 10.0), *one_hot, (angle + 3.0) * (1 / 0.01)]).astype(np.float32)


def pair(variance="feature", likelihood=None):
    """A model of raw rows and one of encoded rows with the same parameters."""
    options = {"hidden": (16,), "latent": 2, "likelihood": likelihood or fv.Gaussian(variance)}
    return (
        fv.Model(fv.Config(input_shape=3, columns=COLUMNS, **options), seed=1),
        fv.Model(fv.Config(input_shape=5, **options), seed=1),
    )


@pytest.mark.parametrize("variance", ["fixed", "feature", "element"])
def test_scores_are_densities_of_raw_rows(table, variance):
    raw, plain = pair(variance)
    x = encoded(table)
    assert raw.config.encoded_width == 5
    assert raw.config.width == 3
    for ours, theirs in zip(raw.encode(table), plain.encode(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(raw.elbo(table, samples=5), plain.elbo(x, samples=5) + JACOBIAN, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        raw.log_likelihood(table, samples=5), plain.log_likelihood(x, samples=5) + JACOBIAN, rtol=0, atol=1e-12
    )


def test_training_is_that_of_encoded_rows(table):
    raw, plain = pair()
    ours = fv.Trainer(raw, batch_size=64, seed=3).fit(table, epochs=2, validation_data=table[:50])
    theirs = fv.Trainer(plain, batch_size=64, seed=3).fit(encoded(table), epochs=2, validation_data=encoded(table[:50]))
    for name in ("loss", "reconstruction", "val_loss"):
        np.testing.assert_allclose(ours[name], theirs[name] - JACOBIAN, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ours["kl"], theirs["kl"])
    for name, values in plain.parameters().items():
        np.testing.assert_array_equal(raw.parameters()[name], values)


def test_the_elbo_is_minus_the_losses(table):
    raw, _ = pair()
    noise = np.zeros((len(table), 2), np.float32)
    losses, _ = raw.gradients(table, noise=noise)
    kl = -raw.score(table, "kl").mean()
    reconstruction = raw.contributions(table).sum(axis=1).mean()
    assert losses.kl == pytest.approx(kl, rel=1e-6)
    assert losses.reconstruction == pytest.approx(reconstruction, rel=1e-6)


@pytest.mark.parametrize("variance", ["fixed", "element"])
def test_decoding_gives_raw_units_and_the_likeliest_category(table, variance):
    raw, plain = pair(variance)
    expected = plain.reconstruct(encoded(table))
    got = raw.reconstruct(table)
    np.testing.assert_allclose(got[:, 0], expected[:, 0] * 10.0 + 1e6, rtol=1e-7)
    np.testing.assert_array_equal(got[:, 1], expected[:, 1:4].argmax(axis=1))
    np.testing.assert_allclose(got[:, 2], expected[:, 4] * 0.01 - 3.0, rtol=1e-6)
    codes = raw.encode(table)[0]
    np.testing.assert_array_equal(raw.decode(codes), got)
    assert fv.Sampler(raw).sample(7).shape == (7, 3)


def test_bernoulli_scores_have_no_jacobian():
    columns = [fv.Column("a", scale=2.0), fv.Column("b", categories=("no", "yes"))]
    options = {"hidden": (), "latent": 1}
    raw = fv.Model(fv.Config(input_shape=2, columns=columns, **options), seed=0)
    plain = fv.Model(fv.Config(input_shape=3, **options), seed=0)
    np.testing.assert_array_equal(raw.elbo([[1.0, 1.0]]), plain.elbo([[0.5, 0.0, 1.0]]))


def test_fills_stand_for_missing_values(table):
    raw, _ = pair()
    x = table[:4].copy()
    x[0, 1] = x[1, 2] = np.nan
    filled = x.copy()
    filled[0, 1], filled[1, 2] = 1, -3.0
    np.testing.assert_array_equal(raw.elbo(x), raw.elbo(filled))


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.bool_, np.float32])
def test_any_type_of_row_is_read_as_raw_values(dtype):
    raw, _ = pair()
    x = np.array([[1, 1, 0], [0, 0, 1]]).astype(dtype)
    np.testing.assert_array_equal(raw.encode(x)[0], raw.encode(x.astype(np.float64))[0])


def test_serving_reads_the_same_columns(table):
    raw, _ = pair()
    x = np.ascontiguousarray(table[:40], dtype=np.float32)
    mu, out = np.empty((40, 2), np.float32), np.empty((40, 3), np.float32)
    np.testing.assert_array_equal(raw.encode_into(x, mu), raw.encode(x)[0])
    np.testing.assert_array_equal(raw.reconstruct_into(x, out), raw.reconstruct(x))
    np.testing.assert_array_equal(raw.decode_into(mu, out), raw.decode(mu))
    with pytest.raises(ValueError, match=r"row 1, column 1 \(colour\), which has categories 0 to 2"):
        raw.encode_into(np.array([[0, 0, 0], [0, 9, 0]], np.float32), mu[:2])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([np.nan, 0, 0], r"misses a value in row 1, column 0 \(income\).*fill"),
        ([0, 3, 0], r"holds 3.* in row 1, column 1 \(colour\), which has categories 0 to 2"),
        ([0, 0.5, 0], r"holds 0\.5 in row 1, column 1 \(colour\)"),
        ([0, -1, 0], r"holds -1.* in row 1, column 1 \(colour\)"),
        ([np.inf, 0, 0], r"an infinity in row 1, column 0 \(income\)"),
        ([1e300, 0, 0], r"row 1, column 0 \(income\); every value must be finite, also when it is scaled"),
    ],
)
def test_bad_values_name_row_and_column(row, message):
    raw, _ = pair()
    with pytest.raises(ValueError, match=message):
        raw.encode([[1e6, 0, -3], row])


def test_files_pickles_and_copies_keep_columns_and_detector(table, tmp_path):
    raw, _ = pair()
    raw.detector = dataclasses.replace(fv.Detector.of_codes(raw.encode(table)[0], threshold=-9.5), distance=0.5)
    raw.save(tmp_path / "m.safetensors")
    fv.Trainer(raw).save(tmp_path / "run.ckpt")
    others = [
        fv.load(tmp_path / "m.safetensors"),
        fv.Trainer.resume(tmp_path / "run.ckpt").model,
        pickle.loads(pickle.dumps(raw)),
        copy.deepcopy(raw),
        raw.copy(),
    ]
    for other in others:
        assert other.config == raw.config
        assert other.detector.threshold == -9.5
        assert other.detector.distance == 0.5
        np.testing.assert_array_equal(other.score(table), raw.score(table))


def test_config_survives_plain_values():
    config = fv.Config(input_shape=3, columns=COLUMNS)
    assert fv.Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fv.Column(scale=0), ValueError, "scale must be finite, greater than 0"),
        (lambda: fv.Column(shift=np.nan), ValueError, "shift must be finite"),
        (lambda: fv.Column(categories="abc"), TypeError, "sequence of strings"),
        (lambda: fv.Column(categories=()), ValueError, "one or more"),
        (lambda: fv.Column("x", categories=("a", "a")), ValueError, "two categories of 'x'"),
        (lambda: fv.Column(categories=("a",), fill=1), ValueError, "index of one of 1 categories"),
        (lambda: fv.Config(input_shape=2, columns=[fv.Column()]), ValueError, "describes 1 columns; input_shape has 2"),
        (lambda: fv.Config(input_shape=2, columns=[fv.Column("a")] * 2), ValueError, "the same name 'a'"),
        (lambda: fv.Config(input_shape=1, columns=["a"]), TypeError, "Column objects, not str"),
    ],
)
def test_wrong_columns_say_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("column", [fv.Column("a\0b"), fv.Column("a", categories=("b\0c", "b"))])
def test_names_are_not_cut_at_a_nul(column):
    with pytest.raises(ValueError, match="NUL"):
        fv.Model(fv.Config(input_shape=1, columns=[column]))


def test_scores_by_name(table):
    raw, plain = pair("fixed")
    x = encoded(table)
    mu, logvar = plain.encode(x)
    mu, logvar = mu.astype(np.float64), logvar.astype(np.float64)
    errors = np.square(plain.reconstruct(x).astype(np.float64) - x).mean(axis=1)
    np.testing.assert_allclose(raw.score(table, "reconstruction"), -errors, rtol=1e-6)
    kl = 0.5 * (mu**2 + np.exp(logvar) - logvar - 1).sum(axis=1)
    np.testing.assert_allclose(raw.score(table, "kl"), -kl, rtol=1e-12)
    detector = fv.Detector.of_codes(mu)
    away = mu - mu.mean(axis=0)
    expected = -np.einsum("ni,ij,nj->n", away, np.linalg.inv(np.cov(mu, rowvar=False)), away)
    np.testing.assert_allclose(raw.score(table, detector), expected, rtol=1e-5)
    np.testing.assert_array_equal(raw.score(table, fv.Detector("elbo", samples=3, seed=7)), raw.elbo(table, 3, 7))
    np.testing.assert_array_equal(
        raw.score(table, fv.Detector("log_likelihood", samples=3)), raw.log_likelihood(table, 3)
    )


@pytest.mark.parametrize("score", ["elbo", "log_likelihood", "reconstruction", "kl"])
def test_distance_takes_half_the_squared_norm_off(table, score):
    raw, _ = pair()
    norm = np.square(encoded(table).astype(np.float64)).sum(axis=1)
    with_distance = raw.score(table, fv.Detector(score, distance=1.5))
    np.testing.assert_allclose(with_distance, raw.score(table, score) - 0.75 * norm, rtol=1e-12)
    alone = [raw.score(table[i : i + 1], fv.Detector(score, distance=1.5))[0] for i in range(5)]
    np.testing.assert_array_equal(alone, with_distance[:5])


@pytest.mark.parametrize("score", ["elbo", "log_likelihood", "reconstruction", "kl"])
def test_a_score_has_the_same_bits_in_any_company(table, score):
    raw, _ = pair()
    alone = np.concatenate([raw.score(table[i : i + 1], score) for i in range(20)])
    np.testing.assert_array_equal(alone, raw.score(table, score)[:20])


def test_detector_errors(table):
    raw, _ = pair()
    with pytest.raises(ValueError, match="has no detector"):
        raw.score(table)
    with pytest.raises(ValueError, match=r"unknown score 'elb'.*'elbo'"):
        raw.score(table, "elb")
    with pytest.raises(ValueError, match="needs latent_mean and latent_precision"):
        raw.score(table, "mahalanobis")
    with pytest.raises(ValueError, match="shape"):
        raw.score(table, fv.Detector("mahalanobis", latent_mean=[0.0], latent_precision=[[1.0]]))
    with pytest.raises(ValueError, match="finite"):
        raw.score(table, fv.Detector("mahalanobis", latent_mean=[0.0, np.nan], latent_precision=np.eye(2)))
    raw.detector = fv.Detector("kl", threshold=-1.0)
    raw.detector = None
    assert raw.detector is None


def test_unknown_fields_of_a_file_are_kept(tmp_path):
    path = tmp_path / "m.safetensors"
    fv.Model(fv.Config(input_shape=4, hidden=(), latent=1)).save(path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"__metadata__":{', b'"__metadata__":{"colour":"blue",').rstrip()
    path.write_bytes((len(header)).to_bytes(8, "little") + header + data[8 + length :])
    fv.load(path).save(tmp_path / "again.safetensors")
    assert b'"colour":"blue"' in (tmp_path / "again.safetensors").read_bytes()
