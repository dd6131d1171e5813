# SPDX-License-Identifier: MIT
"""fusedvae train --score: the score that a model keeps, and what stands for the options that were not given."""

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import cli


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains on t.csv, 90 rows of the columns a and b, and returns the model."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).standard_normal((90, 2)) * [1, 100]
    np.savetxt("t.csv", rows, delimiter=",", header="a,b", comments="")

    def train(*arguments):
        assert cli.main(["train", "t.csv", "--out", "m.safetensors", "--quiet", *arguments]) == 0
        return fv.load("m.safetensors")

    return train


@pytest.mark.parametrize("name", ["elbo", "mahalanobis"])
def test_a_score_and_its_threshold_are_kept(name, train):
    model = train("--score", name, "--contamination", "0.1", "--test-fraction", "0", "--epochs", "2")
    rows = np.loadtxt("t.csv", delimiter=",", skiprows=1)
    assert model.detector.score == name
    assert (model.score(rows) < model.detector.threshold).sum() == 9  # of 90


def test_what_is_not_given_is_as_anomaly_detector_has_it(train):
    detector = fv.AnomalyDetector()
    model = train("--score", "elbo", "--checkpoint", "run.ckpt", "--test-fraction", "0")
    config = model.config
    assert (config.hidden, config.latent, config.activation) == (
        detector.hidden,
        detector.latent,
        detector.activation,
    )
    assert config.likelihood == fv.AnomalyDetector.gaussian
    assert (model.detector.samples, model.detector.distance) == (detector.samples, detector.distance)
    trainer = fv.Trainer.resume("run.ckpt")
    assert (trainer.batch_size, trainer.learning_rate) == (detector.batch_size, detector.learning_rate)
    rows = np.loadtxt("t.csv", delimiter=",", skiprows=1)
    assert trainer.epoch == detector.fit(rows).n_iter_


def test_what_is_given_wins(train):
    options = ["--hidden", "8", "--latent", "1", "--activation", "relu", "--variance", "feature", "--epochs", "2"]
    model = train("--score", "elbo", *options, "--samples", "3", "--distance", "0.5", "--batch-size", "30")
    assert (model.config.hidden, model.config.latent, model.config.activation) == ((8,), 1, "relu")
    assert model.config.likelihood.variance == "feature"
    assert (model.detector.samples, model.detector.distance) == (3, 0.5)
    assert train("--score", "kl", "--epochs", "1").detector.distance == 0  # no log-density
    assert train("--score", "kl", "--distance", "0.5", "--epochs", "1").detector.distance == 0.5


def test_without_a_table_of_scaled_columns_nothing_changes(train):
    model = train("--score", "elbo", "--scale", "none", "--likelihood", "gaussian", "--epochs", "1")
    plain = train("--scale", "none", "--likelihood", "gaussian", "--epochs", "1")
    assert model.config == plain.config
    assert (model.detector.samples, model.detector.distance) == (fv.Detector().samples, 0)
