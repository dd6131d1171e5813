# SPDX-License-Identifier: MIT
"""fusedvae.pyod.VAE meets what PyOD asks of its detectors: attributes, signs, probabilities, confidence, cloning."""

import fusedvae as fv
import numpy as np
import pytest

pytest.importorskip("pyod")
from fusedvae.pyod import VAE
from pyod.models.base import BaseDetector
from pyod.utils.data import generate_data
from sklearn.base import clone
from sklearn.metrics import roc_auc_score


@pytest.fixture(scope="module")
def data():
    """Training rows, test rows, and the labels of each (1: outlier)."""
    return generate_data(n_train=1000, n_test=400, n_features=100, contamination=0.1, random_state=42)


@pytest.fixture(scope="module")
def detector(data):
    """Fitted to the training rows."""
    return VAE(contamination=0.1, epochs=20).fit(data[0])


def test_fitted_attributes(detector, data):
    assert isinstance(detector, BaseDetector)
    assert detector.decision_scores_.shape == detector.labels_.shape == (1000,)
    assert detector.labels_.sum() == 100
    assert np.array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)
    assert detector.threshold_ == pytest.approx(-detector.detector_.offset_)
    assert np.array_equal(detector.decision_function(data[0]), detector.decision_scores_)
    assert isinstance(detector.model_, fv.Model)
    assert detector._mu == pytest.approx(detector.decision_scores_.mean())
    assert detector._sigma == pytest.approx(detector.decision_scores_.std())


def test_scores(detector, data):
    _, x_test, y_train, y_test = data
    assert detector.decision_function(x_test).shape == (400,)
    assert roc_auc_score(y_test, detector.decision_function(x_test)) >= 0.8
    assert roc_auc_score(y_train, detector.decision_scores_) >= 0.8


def test_labels(detector, data):
    labels = detector.predict(data[1])
    assert labels.shape == (400,)
    assert set(labels) == {0, 1}
    assert np.array_equal(labels, detector.decision_function(data[1]) > detector.threshold_)


@pytest.mark.parametrize("method", ["linear", "unify"])
def test_probabilities(detector, data, method):
    probability = detector.predict_proba(data[1], method=method)
    assert probability.shape == (400, 2)
    assert probability.min() >= 0
    assert probability.max() <= 1
    both, confidence = detector.predict_proba(data[1], method=method, return_confidence=True)
    assert np.array_equal(both, probability)
    assert confidence.shape == (400,)


def test_unknown_probability(detector, data):
    with pytest.raises(ValueError, match="something"):
        detector.predict_proba(data[1], method="something")


def test_confidence(detector, data):
    labels, confidence = detector.predict(data[1], return_confidence=True)
    assert np.array_equal(labels, detector.predict(data[1]))
    assert np.array_equal(confidence, detector.predict_confidence(data[1]))
    assert confidence.min() >= 0
    assert confidence.max() <= 1


def test_rejection(detector, data):
    labels = detector.predict_with_rejection(data[1], c_r=0.1)
    assert set(labels) <= {-2, 0, 1}


@pytest.mark.filterwarnings("ignore:Function fit_predict is deprecated")
def test_fit_predict(data):
    assert VAE(contamination=0.2, epochs=2).fit_predict(data[0]).sum() == 200


@pytest.mark.filterwarnings("ignore:Function fit_predict_score is deprecated", "ignore:y should not be presented")
def test_fit_predict_score(data, capsys):
    x_train, _, y_train, _ = data
    for scoring in ("roc_auc_score", "prc_n_score"):
        assert 0.5 < VAE(epochs=5).fit_predict_score(x_train, y_train, scoring=scoring) <= 1
    with pytest.raises(NotImplementedError):
        VAE(epochs=1).fit_predict_score(x_train, y_train, scoring="something")
    assert "roc_auc_score" in capsys.readouterr().out  # PyOD prints


def test_ranks(detector, data):
    ranks = detector._predict_rank(data[1])
    assert ranks.min() >= 0
    assert ranks.max() <= 1000
    normalized = detector._predict_rank(data[1], normalized=True)
    assert 0 <= normalized.min() <= normalized.max() <= 1


def test_clone_and_parameters(detector):
    again = clone(detector)
    assert again.get_params() == detector.get_params()
    assert not hasattr(again, "decision_scores_")
    assert VAE().set_params(latent=3).get_params()["latent"] == 3
    inner = fv.AnomalyDetector().get_params()
    assert {**VAE().get_params(), "contamination": "auto"} == inner  # one set of names and defaults


def test_reasons_are_at_hand(detector, data):
    assert detector.detector_.contributions(data[1]).shape == (400, 100)
    assert len(detector.detector_.explain(data[1][-1], top=3)) == 3


@pytest.mark.parametrize("contamination", [0.0, 0.6])
def test_contamination_out_of_range(contamination):
    with pytest.raises(ValueError, match=r"contamination must be in \(0, 0.5\]"):
        VAE(contamination=contamination)


def test_a_thresholder_may_stand_for_contamination(data):
    class Thresholder:
        """What PyThresh's objects have."""

        def fit(self, scores):
            self.thresh_ = float(np.quantile(scores, 0.75))
            self.labels_ = (scores > self.thresh_).astype(int)

        def eval(self, scores):  # what PyOD 3.0 calls
            self.fit(scores)
            return self.labels_

    detector = VAE(contamination=Thresholder(), epochs=2).fit(data[0])
    assert detector.labels_.sum() == 250


def test_bad_rows_keep_the_fitted_state(detector, data):
    scores = detector.decision_scores_
    with pytest.raises(ValueError, match="expecting 100 features"):
        detector.decision_function(data[0][:, :50])
    with pytest.raises(ValueError, match="contains NaN"):
        detector.fit(np.full((5, 3), np.nan))
    assert detector.decision_scores_ is scores
    assert detector.predict(data[1][:1]).shape == (1,)
