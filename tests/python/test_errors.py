# SPDX-License-Identifier: MIT
"""Bad input: each gets one clear error, and nothing is lost."""

import importlib.util
import re

import fusedvae as fv
import numpy as np
import pytest


@pytest.fixture
def trainer(make_model) -> fv.Trainer:
    return fv.Trainer(make_model(), batch_size=20)


def reads(trainer: fv.Trainer, rows: np.ndarray):
    """Everything that reads rows, as functions."""
    model = trainer.model
    return {
        "fit": lambda: trainer.fit(rows, epochs=1),
        "step": lambda: trainer.step(rows),
        "evaluate": lambda: trainer.evaluate(rows),
        "encode": lambda: model.encode(rows),
        "reconstruct": lambda: model.reconstruct(rows),
        "elbo": lambda: model.elbo(rows),
        "log_likelihood": lambda: model.log_likelihood(rows, samples=2),
        "gradients": lambda: model.gradients(rows),
        "init_output_bias": lambda: model.init_output_bias(rows),
    }


READERS = [
    "fit",
    "step",
    "evaluate",
    "encode",
    "reconstruct",
    "elbo",
    "log_likelihood",
    "gradients",
    "init_output_bias",
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(reader: str, dtype: str, value: float, trainer, x, same_bits):
    before = trainer.model.parameters()
    rows = x.astype(dtype)
    rows[71, 5] = value
    rows[80, 1] = value
    word = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ValueError, match=rf"{word} in row 71, column 5"):
        reads(trainer, rows)[reader]()
    assert same_bits(trainer.model.parameters(), before)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    "reader", ["fit", "step", "evaluate", "elbo", "log_likelihood", "gradients", "init_output_bias"]
)
@pytest.mark.parametrize("value", [1.0001, -0.5])
def test_bernoulli_targets_outside_the_unit_interval(reader: str, value: float, trainer, x, same_bits):
    before = trainer.model.parameters()
    rows = x.copy()
    rows[3, 11] = value
    with pytest.raises(ValueError, match=r"row 3, column 11.*\[0, 1\].*gaussian"):
        reads(trainer, rows)[reader]()
    assert same_bits(trainer.model.parameters(), before)


def test_float64_values_beyond_float32(make_model):
    rows = np.zeros((4, 12))
    rows[2, 7] = 1e39
    with pytest.raises(ValueError, match="row 2, column 7"):
        make_model(likelihood="gaussian").encode(rows)


def test_validation_data_is_checked_before_the_first_step(trainer, x, same_bits):
    before = trainer.model.parameters()
    bad = x.copy()
    bad[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"validation.* row 4, column 2"):
        trainer.fit(x, epochs=1, validation_data=bad)
    with pytest.raises(ValueError, match=r"validation_data has shape \(90, 5\)"):
        trainer.fit(x, epochs=1, validation_data=x[:, :5])
    assert same_bits(trainer.model.parameters(), before)


@pytest.mark.parametrize("reader", READERS)
def test_empty_data(reader: str, trainer):
    with pytest.raises(ValueError, match=r"no rows.*\(0, 12\)"):
        reads(trainer, np.zeros((0, 12), np.float32))[reader]()


@pytest.mark.parametrize("reader", READERS)
def test_wrong_width(reader: str, trainer):
    with pytest.raises(ValueError, match=r"shape \(5, 11\); the model reads 12 columns"):
        reads(trainer, np.zeros((5, 11), np.float32))[reader]()


@pytest.mark.parametrize("epochs", [0, -1])
def test_impossible_epochs(epochs: int, trainer, x):
    with pytest.raises(ValueError, match="epochs"):
        trainer.fit(x, epochs=epochs)
    with pytest.raises(TypeError, match="epochs"):
        trainer.fit(x, epochs=1.5)


@pytest.mark.parametrize("samples", [0, -1])
def test_impossible_samples(samples: int, make_model, x):
    model = make_model()
    for method in (model.elbo, model.log_likelihood):
        with pytest.raises(ValueError, match="samples"):
            method(x, samples=samples)


def test_wrong_noise(trainer, x):
    for noise in (np.zeros((90, 2)), np.zeros((89, 3)), np.zeros(3), np.zeros((1, 90, 3))):
        with pytest.raises(ValueError, match="noise has shape"):
            trainer.step(x, noise=noise)
    with pytest.raises(ValueError, match=r"\(90, 3\) or \(samples, 90, 3\)"):
        trainer.model.gradients(x, noise=np.zeros((2, 90, 4)))
    with pytest.raises(ValueError, match="noise"):
        trainer.model.gradients(x, noise=np.zeros((0, 90, 3)))


def test_noise_must_be_finite(trainer, x, same_bits):
    before = trainer.model.parameters()
    noise = np.zeros((2, 90, 3), np.float32)
    noise[1, 70, 2] = np.nan
    with pytest.raises(ValueError, match="noise holds NaN or an infinity in row 70, column 2"):
        trainer.step(x, noise=noise[1])
    with pytest.raises(ValueError, match="row 70, column 2 of sample 1"):
        trainer.model.gradients(x, noise=noise)
    assert same_bits(trainer.model.parameters(), before)


def test_a_loss_without_gradients_is_an_error(make_model, x):
    model = make_model(likelihood="gaussian")
    with pytest.raises(fv.NonFiniteError, match="no gradient"):
        model.gradients(np.full_like(x, 1e30))


def test_codes_must_be_finite(make_model):
    with pytest.raises(ValueError, match="z holds NaN or an infinity in row 1, column 2"):
        make_model().decode([[0.0, 0.0, 0.0], [0.0, 0.0, np.nan]])


def test_trainer_wants_a_model():
    with pytest.raises(TypeError, match=r"fusedvae\.Model"):
        fv.Trainer(fv.Config())  # type: ignore[arg-type]


def test_more_memory_than_there_is():
    with pytest.raises(MemoryError, match="lower the batch size or the model's widths"):
        fv.Model(fv.Config(hidden=(2**24, 2**24)))


# ---- a loss that turns non-finite


def diverge(make_model, **options) -> tuple[fv.Trainer, np.ndarray]:
    data = np.random.default_rng(0).standard_normal((400, 12)).astype(np.float32) * 100
    model = make_model(likelihood="gaussian", hidden=(16, 16), activation="softplus")
    return fv.Trainer(model, fv.SGD(1e30), batch_size=20, **options), data


def test_training_stops_at_the_last_good_parameters(make_model):
    trainer, data = diverge(make_model)
    with pytest.raises(fv.NonFiniteError) as caught:
        trainer.fit(data, epochs=5)
    named = re.search(r"step (\d+)", str(caught.value))
    assert named, caught.value
    assert int(named.group(1)) in (trainer.global_step, trainer.global_step + 1)
    assert "learning rate" in str(caught.value)
    assert all(np.isfinite(values).all() for values in trainer.model.parameters().values())
    assert isinstance(caught.value, RuntimeError)


def test_steps_by_hand_refuse_too(make_model, same_bits):
    trainer, data = diverge(make_model)
    for _ in range(50):
        before = trainer.model.parameters()
        try:
            trainer.step(data)
        except fv.NonFiniteError:
            break
    else:
        pytest.fail("50 steps at a rate of 1e30 stayed finite")
    assert same_bits(trainer.model.parameters(), before)


def test_a_snapshot_restores_the_epochs_start(make_model, same_bits):
    trainer, data = diverge(make_model, snapshot=True)
    start = trainer.model.parameters()
    with pytest.raises(fv.NonFiniteError):
        trainer.fit(data, epochs=5)
    assert trainer.epoch == 0
    assert trainer.global_step == 0
    assert same_bits(trainer.model.parameters(), start)


def test_a_run_goes_on_after_the_rate_is_lowered(make_model):
    trainer, data = diverge(make_model, snapshot=True)
    with pytest.raises(fv.NonFiniteError):
        trainer.fit(data, epochs=1)
    trainer.learning_rate = 1e-6
    history = trainer.fit(data, epochs=2)
    assert np.isfinite(history["loss"]).all()


def test_the_same_run_with_a_sane_rate_is_finite(make_model):
    trainer, data = diverge(make_model)
    trainer.learning_rate = 1e-7
    assert np.isfinite(trainer.fit(data, epochs=1)["loss"]).all()


def test_what_takes_a_model_says_where_an_estimator_has_it():
    pytest.importorskip("sklearn")
    vae = fv.VAE(latent=1, hidden=(4,), epochs=1).fit(np.random.default_rng(0).random((20, 3)))
    uses = [fv.Sampler, fv.Trainer, lambda model: fv.collapse_report(model, np.zeros((2, 3)))]
    if importlib.util.find_spec("matplotlib"):
        uses += [lambda model: fv.plot.embedding(model, np.zeros((2, 3))), fv.report.render]
    for use in uses:
        with pytest.raises(TypeError, match=r"model must be a fusedvae.Model, not VAE; pass its model_$"):
            use(vae)
        with pytest.raises(TypeError, match=r"not Trainer; pass its model$"):
            use(fv.Trainer(vae.model_))
        with pytest.raises(TypeError, match=r"not dict$"):
            use({})
