# SPDX-License-Identifier: MIT
"""The search for a learning rate."""

import fusedvae as fv
import numpy as np
import pytest


def test_the_rate_finder_leaves_the_model_alone(make_model, x, same_bits):
    model = make_model()
    before = model.parameters()
    found = fv.find_learning_rate(model, x, fv.SGD(0.1), batch_size=30, steps=60, low=1e-5, high=10.0, seed=2)
    assert same_bits(model.parameters(), before)
    assert len(found.rates) == len(found.losses) <= 60
    np.testing.assert_allclose(found.rates[0], 1e-5)
    np.testing.assert_allclose(found.rates[1:] / found.rates[:-1], (1e6) ** (1 / 59))
    assert found.suggestion == pytest.approx(found.rates[found.losses.argmin()] / 10)
    again = fv.find_learning_rate(model, x, fv.SGD(0.1), batch_size=30, steps=60, low=1e-5, high=10.0, seed=2)
    np.testing.assert_array_equal(again.losses, found.losses)


def test_the_suggestion_trains_better_than_rates_far_from_it(make_model, x):
    suggestion = fv.find_learning_rate(make_model(), x, batch_size=10).suggestion
    losses = []
    for rate in (suggestion, suggestion / 100, suggestion * 100):
        trainer = fv.Trainer(make_model(), fv.Adam(rate), batch_size=10)
        try:
            losses.append(trainer.fit(x, epochs=20)["loss"][-1])
        except fv.NonFiniteError:
            losses.append(np.inf)
    assert losses[0] < min(losses[1:])


def test_the_rate_finder_ends_where_the_loss_does(make_model, x):
    model = make_model(likelihood=fv.Gaussian("element"))
    found = fv.find_learning_rate(model, 10 * x, fv.SGD(0.1), batch_size=30, high=1e20)
    assert 2 <= len(found.losses) < 200
    assert np.isfinite(found.losses).all()
    assert len(found.rates) == len(found.losses)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"low": 0.0}, ValueError, "low"),
        ({"low": 1e-2, "high": 1e-3}, ValueError, "high"),
        ({"steps": 3}, ValueError, "steps"),
        ({"optimizer": "adam"}, TypeError, "optimizer"),
        ({"batch": 3}, TypeError, "batch"),
    ],
)
def test_impossible_searches(arguments: dict, error: type[Exception], words: str, make_model, x):
    with pytest.raises(error, match=words):
        fv.find_learning_rate(make_model(), x, **arguments)


def test_it_searches_for_models(x):
    with pytest.raises(TypeError, match=r"must be a fusedvae\.Model"):
        fv.find_learning_rate(x, x)
