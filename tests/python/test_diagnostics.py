# SPDX-License-Identifier: MIT
"""The collapse report and the first variance against models whose answers are known in closed form."""

import json
import math

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core, diagnostics


def linear_gaussian(weight: np.ndarray, variance: np.ndarray) -> fv.Model:
    """q(z|x) = N(weight x, diag(variance)): weight (Z, D)."""
    latent, width = weight.shape
    model = fv.Model(fv.Config(input_shape=width, hidden=(), latent=latent, likelihood="gaussian"))
    parameters = {name: np.zeros_like(values) for name, values in model.parameters().items()}
    parameters["encoder_mean.weight"] = weight
    parameters["encoder_logvar.bias"] = np.log(variance)
    model.set_parameters(parameters)
    return model


def standardised(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Normal rows (n, width) whose means are 0 and whose covariance is I, exactly but for rounding."""
    x = np.random.default_rng(seed).standard_normal((n, width))
    values, vectors = np.linalg.eigh(np.cov(x - x.mean(0), rowvar=False, bias=True))
    return (x - x.mean(0)) @ (vectors / np.sqrt(values)) @ vectors.T


def test_a_linear_gaussian_code_has_its_closed_form():
    # z_j = a_j x_j + s_j eps with x ~ N(0, I): Var E[z|x] = a^2, q(z_j) = N(0, a^2 + s^2), hence
    # I(x; z) = sum log(1 + a^2 / s^2) / 2 and KL_j = (a^2 + s^2 - 1 - log s^2) / 2.
    a, variance = np.array([0.9, 0.6, 0.0]), np.array([0.25, 0.5, 1.0])
    report = fv.collapse_report(linear_gaussian(np.diag(a), variance), standardised(4000, 3), rows=4000)
    information = 0.5 * np.log1p(a**2 / variance).sum()
    kl = 0.5 * (a**2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(report.variance, a**2, atol=1e-6)
    np.testing.assert_allclose(report.kl, kl, atol=1e-6)
    assert report.active.tolist() == [True, True, False]
    assert report.active_units == 2
    assert report.total_kl == pytest.approx(kl.sum(), abs=1e-6)
    # One draw of 4000: the standard deviation of log q(z|x) - log q(z) is below 1.3 nats, five of its errors 0.1.
    assert report.mutual_information == pytest.approx(information, abs=0.1)
    assert report.aggregate_kl == pytest.approx(kl.sum() - information, abs=0.1)
    assert report.mutual_information + report.aggregate_kl == pytest.approx(kl.sum(), abs=1e-6)


def test_codes_that_lie_apart_say_which_row_it_is():
    x = 100 * np.arange(64.0)[:, None]
    report = fv.collapse_report(linear_gaussian(np.eye(1), np.array([1e-4])), x)
    assert report.mutual_information == pytest.approx(math.log(64), abs=1e-9)


def test_a_collapsed_model_has_no_active_unit():
    report = fv.collapse_report(linear_gaussian(np.zeros((4, 3)), np.ones(4)), standardised(300, 3))
    assert report.active_units == 0
    assert report.total_kl == pytest.approx(0, abs=1e-9)
    assert report.mutual_information == pytest.approx(0, abs=1e-9)
    assert repr(report).count("collapsed") == 4


def test_some_rows_stand_for_many():
    model, x = linear_gaussian(np.eye(2), np.full(2, 0.5)), standardised(1000, 2)
    whole, some = fv.collapse_report(model, x), fv.collapse_report(model, x, rows=200)
    assert (whole.rows, some.rows) == (1000, 200)
    np.testing.assert_array_equal(whole.kl, some.kl)
    assert some.mutual_information == pytest.approx(whole.mutual_information, abs=0.3)
    assert some.mutual_information == fv.collapse_report(model, x, rows=200).mutual_information
    assert some.mutual_information != fv.collapse_report(model, x, rows=200, seed=1).mutual_information


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    model, x = linear_gaussian(np.eye(2), np.full(2, 0.5)), standardised(97, 2)
    whole = fv.collapse_report(model, x).mutual_information
    monkeypatch.setattr(diagnostics, "BLOCK", 300)
    assert fv.collapse_report(model, x).mutual_information == pytest.approx(whole, abs=1e-12)


def test_the_report_is_plain_values(make_model, x):
    report = fv.collapse_report(make_model(), x)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["latent"] == 3
    assert plain["active_units"] == sum(plain["active"])
    assert plain["kl"] == report.kl.tolist()


def test_a_wide_code_prints_a_few_lines():
    text = repr(fv.collapse_report(linear_gaussian(np.zeros((40, 3)), np.ones(40)), standardised(9, 3)))
    assert text.count("\n  z") == 32
    assert text.endswith("and 8 of smaller KL")


def test_report_refusals(make_model, x):
    with pytest.raises(ValueError, match="one row"):
        fv.collapse_report(make_model(), x[:1])
    with pytest.raises(ValueError, match="rows must be at least 2, not 1"):
        fv.collapse_report(make_model(), x, rows=1)
    with pytest.raises(ValueError, match=r"x has shape \(90, 5\)"):
        fv.collapse_report(make_model(), x[:, :5])
    for ask in (fv.collapse_report, fv.init_variance):
        with pytest.raises(TypeError, match=r"model must be a fusedvae\.Model, not str"):
            ask("model", x)


# ---- the first variance ---------------------------------------------------------------------------------------------


def test_the_first_variance_is_what_the_components_leave():
    # Two directions of standard deviation 3 and 2 in a space of 6 with noise of 0.5: four of six eigenvalues are left,
    # each 0.25 but for the sampling error of 2000 rows, sqrt(2 / (4 * 2000)).
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0][:2]
    x = rng.standard_normal((2000, 2)) * [3, 2] @ basis + 0.5 * rng.standard_normal((2000, 6)) + 7
    model = fv.Model(fv.Config(input_shape=6, latent=2, likelihood=fv.Gaussian("feature")))
    variance = fv.init_variance(model, x)
    assert variance == pytest.approx(0.25 * 4 / 6, rel=0.07)
    learned = np.exp(model.parameters()["log_variance"]) + model.config.likelihood.min_variance
    np.testing.assert_allclose(learned, variance, rtol=1e-5)


def test_the_first_variance_of_wide_rows_and_of_every_element():
    x = np.random.default_rng(0).standard_normal((40, 200))
    model = fv.Model(fv.Config(input_shape=200, latent=3, likelihood=fv.Gaussian("element")))
    variance = fv.init_variance(model, x)
    assert variance == pytest.approx(1 - 3 / 36, rel=0.1)  # three directions of rank 39 are taken, at best
    parameters = model.parameters()
    assert not parameters["decoder_logvar.weight"].any()
    np.testing.assert_allclose(np.exp(parameters["decoder_logvar.bias"]) + 1e-4, variance, rtol=1e-5)


@pytest.mark.parametrize("x", [np.ones((5, 4)), np.eye(4)[:1], np.outer(np.arange(9.0), [1, 2, 3, 4])])
def test_the_first_variance_stays_positive(x: np.ndarray):
    model = fv.Model(fv.Config(input_shape=4, latent=2, likelihood=fv.Gaussian("feature")))
    assert fv.init_variance(model, x) > model.config.likelihood.min_variance
    assert np.isfinite(fv.Trainer(model).fit(x, epochs=2)["loss"]).all()


def test_the_first_variance_keeps_a_code_alive():
    """Pixels vary by less than the engine's first variance of 1, under which the code collapses."""
    digits = pytest.importorskip("sklearn.datasets").load_digits().data[:600] / 16
    active = {}
    for name in ("engine's", "residual"):
        model = fv.Model(fv.Config(input_shape=64, hidden=(64,), latent=8, likelihood=fv.Gaussian("feature")), seed=0)
        if name == "residual":
            fv.init_variance(model, digits)
        fv.Trainer(model, fv.Adam(2e-3), batch_size=60).fit(digits, epochs=40)
        active[name] = fv.collapse_report(model, digits).active_units
    assert active["residual"] == 8
    assert active["engine's"] < 8


COLUMNS = (
    fv.Column("age", shift=2.0, scale=3.0, fill=1.0),
    fv.Column("colour", categories=("blue", "green", "red"), fill=1),
    fv.Column("size", scale=0.5),
)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_rows_are_encoded_as_the_engine_reads_them(dtype: type):
    rng = np.random.default_rng(0)
    x = np.c_[rng.integers(0, 9, 50), rng.integers(0, 3, 50), rng.integers(0, 9, 50)].astype(dtype)
    if dtype != np.uint8:
        x[3, 0] = x[4, 1] = np.nan
    table = fv.Model(fv.Config(input_shape=3, latent=2, columns=COLUMNS, likelihood="gaussian"))
    plain = fv.Model(fv.Config(input_shape=5, latent=2, likelihood="gaussian"))
    plain.set_parameters(table.parameters())
    encoded = table._core.encoded_rows(_core.Rows(x))
    fills = [column.fill or 0 for column in COLUMNS]
    filled = np.where(np.isnan(x.astype(float)), fills, x)
    by_hand = [
        ((values - column.shift) / column.scale)[:, None]
        if column.categories is None
        else values[:, None] == np.arange(len(column.categories))
        for values, column in zip(filled.T, COLUMNS, strict=True)
    ]
    np.testing.assert_allclose(encoded, np.hstack(by_hand), rtol=1e-6)
    np.testing.assert_array_equal(plain.encode(encoded)[0], table.encode(x)[0])


def test_missing_values_name_their_column():
    config = fv.Config(input_shape=3, latent=2, columns=COLUMNS, likelihood=fv.Gaussian("feature"))
    with pytest.raises(ValueError, match=r"x misses a value in row 0, column 2 \(size\)"):
        fv.init_variance(fv.Model(config), np.full((5, 3), np.nan))


def test_first_variance_refusals(make_model, x):
    with pytest.raises(ValueError, match="learns no variance"):
        fv.init_variance(make_model(), x)
    with pytest.raises(ValueError, match="learns no variance"):
        fv.init_variance(make_model(likelihood="gaussian"), x)
    bad = x.copy()
    bad[3, 4] = np.nan
    model = make_model(likelihood=fv.Gaussian("feature"))
    before = model.parameters()["log_variance"]
    with pytest.raises(ValueError, match="x holds NaN in row 3, column 4"):
        fv.init_variance(model, bad)
    np.testing.assert_array_equal(model.parameters()["log_variance"], before)
