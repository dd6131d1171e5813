# SPDX-License-Identifier: MIT
"""fusedvae.AnomalyDetector: signs, thresholds, scores by name, reasons, and a model file that says it all.

scikit-learn's own checks of it are in test_estimators.py.
"""

import copy
import pickle

import fusedvae as fv
import numpy as np
import pytest

datasets = pytest.importorskip("sklearn.datasets")
metrics = pytest.importorskip("sklearn.metrics")
pd = pytest.importorskip("pandas")

SCORES = ("elbo", "log_likelihood", "reconstruction", "kl", "mahalanobis")


@pytest.fixture(scope="module")
def breast():
    """Benign rows for fitting, then benign and malignant ones with labels of 1 and -1."""
    x, benign = datasets.load_breast_cancer(return_X_y=True, as_frame=True)
    normal = x[benign == 1]
    new = pd.concat([normal.iloc[200:], x[benign == 0]])
    return normal.iloc[:200], new, np.r_[np.ones(157), -np.ones(212)]


@pytest.fixture(scope="module")
def fitted(breast):
    """A detector of the benign rows."""
    return fv.AnomalyDetector(contamination=0.05).fit(breast[0])


@pytest.fixture(scope="module")
def mixed():
    """Rows (400, 4) where `kind` follows the sign of `load` and `heat` its size."""
    rng = np.random.default_rng(0)
    load = rng.standard_normal(400) * 10
    return pd.DataFrame(
        {
            "load": load,
            "heat": 3 * load + rng.standard_normal(400),
            "kind": np.where(load > 0, "up", "down"),
            "noise": rng.standard_normal(400),
        }
    )


@pytest.mark.parametrize("score_name", SCORES)
def test_every_score_finds_what_is_abnormal(breast, score_name):
    normal, new, labels = breast
    options = {"latent": 8, "hidden": (64,), "variance": "feature", "activation": "gelu"}
    detector = fv.AnomalyDetector(score_name=score_name, contamination=0.05, **options).fit(normal)
    scores = detector.score_samples(new)
    assert (scores.dtype, scores.shape) == (np.float64, (369,))
    assert metrics.roc_auc_score(labels, scores) > 0.8
    assert np.array_equal(detector.decision_function(new), scores - detector.offset_)
    assert np.array_equal(detector.predict(new), np.where(scores >= detector.offset_, 1, -1))
    assert (detector.predict(normal) == -1).sum() == 10  # 5 % of 200
    assert np.array_equal(detector.score_samples(new[:7]), scores[:7])  # a row's score knows nothing of its company


def test_scores_are_what_they_are_named_for(breast):
    normal, new, _ = breast
    for score_name in SCORES:
        detector = fv.AnomalyDetector(score_name=score_name, epochs=5, samples=3, distance=0).fit(normal)
        model, scores = detector.model_, detector.score_samples(new)
        mu, logvar = (part.astype(np.float64) for part in model.encode(new))
        if score_name == "elbo":
            expected = model.elbo(new, samples=3)
        elif score_name == "log_likelihood":
            expected = model.log_likelihood(new, samples=3)
        elif score_name == "reconstruction":
            scale = [column.scale for column in detector.columns_]
            expected = -(((model.reconstruct(new) - new) / scale) ** 2).mean(axis=1)
        elif score_name == "kl":
            expected = -0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
        else:
            codes = model.encode(normal)[0].astype(np.float64)
            precision = np.linalg.inv(np.cov(codes.T))
            centred = mu - codes.mean(axis=0)
            expected = -np.einsum("ni,ij,nj->n", centred, precision, centred)
        assert scores == pytest.approx(np.asarray(expected), rel=2e-4, abs=1e-4), score_name


def test_distance_is_taken_off(breast):
    normal, new, _ = breast
    near, far = (fv.AnomalyDetector(epochs=5, distance=distance).fit(normal) for distance in (0.0, 0.5))
    standardised = (new - normal.mean()) / normal.std(ddof=0)
    difference = near.score_samples(new) - far.score_samples(new)
    assert difference == pytest.approx(0.25 * (standardised**2).sum(axis=1).to_numpy(), rel=1e-4)
    unscaled = fv.AnomalyDetector(epochs=5, scale=None, distance=0.5).fit(normal / normal.max())
    assert unscaled.model_.detector.distance == 0.0


def test_a_group_of_anomalies_is_not_learned():
    rng = np.random.default_rng(0)
    x = np.r_[rng.standard_normal((600, 6)), 4 + 0.1 * rng.standard_normal((30, 6))]
    scores = fv.AnomalyDetector(contamination=0.05).fit(x).score_samples(x)
    assert metrics.roc_auc_score(np.arange(630) < 600, scores) > 0.99


def test_auto_holds_for_new_rows(breast):
    """A model of 60 rows knows each of them; its threshold must not take new ones for outliers."""
    normal, new, labels = breast
    few = normal.iloc[:60]
    auto = fv.AnomalyDetector().fit(few)
    share = fv.AnomalyDetector(contamination=0.05).fit(few)
    assert (share.predict(new[labels == 1]) == -1).mean() > 0.3
    assert (auto.predict(new[labels == 1]) == -1).mean() < 0.15
    assert (auto.predict(new[labels == -1]) == -1).mean() > 0.4


def test_unsupervised_use():
    rng = np.random.default_rng(0)
    x = np.r_[
        rng.standard_normal((500, 1)) @ [[1, -2, 3]] + 0.1 * rng.standard_normal((500, 3)),
        3 * rng.standard_normal((20, 3)),
    ]
    outliers = fv.AnomalyDetector(latent=1, contamination=20 / 520).fit_predict(x)
    assert (outliers == -1).sum() == 20
    assert (outliers[500:] == -1).sum() >= 13


@pytest.mark.parametrize("contamination", [0, 0.51, -0.1, "some", True, None])
def test_contamination_out_of_range_has_scikit_learns_words(breast, contamination):
    message = r"'contamination' parameter of AnomalyDetector must be a str among {'auto'} or a float in .* \(0.0, 0.5\]"
    with pytest.raises(ValueError, match=message):
        fv.AnomalyDetector(contamination=contamination).fit(breast[0])


def test_names_of_scores_are_listed(breast):
    with pytest.raises(ValueError, match=r"'score_name' parameter of AnomalyDetector must be a str among .*'elbo'"):
        fv.AnomalyDetector(score_name="likelihood").fit(breast[0])


@pytest.mark.parametrize("score_name", ["elbo", "mahalanobis"])
def test_the_file_says_it_all(mixed, tmp_path, score_name):
    detector = fv.AnomalyDetector(contamination=0.1, epochs=5, score_name=score_name).fit(mixed)
    detector.save(tmp_path / "detector.safetensors")
    again = fv.AnomalyDetector.load(tmp_path / "detector.safetensors")
    assert again.offset_ == detector.offset_
    assert again.score_name == score_name
    assert again.distance == (1.0 if score_name == "elbo" else 0.0)
    assert np.array_equal(again.score_samples(mixed), detector.score_samples(mixed))
    assert np.array_equal(again.predict(mixed), detector.predict(mixed))
    assert again.contributions(mixed).equals(detector.contributions(mixed))
    assert again.explain(mixed.iloc[0]) == detector.explain(mixed.iloc[0])
    model = fv.load(tmp_path / "detector.safetensors")  # what a C program has
    rows = mixed.assign(kind=(mixed["kind"] == "up").astype(float)).to_numpy()
    assert np.array_equal(model.score(rows), detector.score_samples(mixed))
    assert model.detector.threshold == detector.offset_


def test_a_file_without_a_detector(mixed, tmp_path):
    fv.VAE(epochs=1).fit(mixed).save(tmp_path / "vae.safetensors")
    with pytest.raises(ValueError, match="no detector with a threshold"):
        fv.AnomalyDetector.load(tmp_path / "vae.safetensors")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda detector: pickle.loads(pickle.dumps(detector))])
def test_copies_give_the_same_answers(fitted, breast, duplicate):
    again = duplicate(fitted)
    assert np.array_equal(again.decision_function(breast[1]), fitted.decision_function(breast[1]))


def test_contributions_are_labelled_and_sum_to_the_reconstruction(fitted, breast):
    new = breast[1]
    parts = fitted.contributions(new)
    assert list(parts.columns) == list(new.columns)
    assert list(parts.index) == list(new.index)
    numbers = fv.AnomalyDetector(epochs=5, variance="fixed", scale=None).fit(new / new.max())
    rows = (new / new.max()).to_numpy()
    expected = 0.5 * (rows - numbers.model_.reconstruct(rows)) ** 2 + 0.5 * np.log(2 * np.pi)
    assert numbers.contributions(new / new.max()).to_numpy() == pytest.approx(expected, rel=1e-4)
    assert isinstance(fv.AnomalyDetector(epochs=1).fit(rows).contributions(rows), np.ndarray)


@pytest.mark.parametrize(
    ("column", "value"), [("heat", 90.0), ("kind", "down"), ("noise", -12.0)], ids=["number", "category", "outlying"]
)
def test_explain_names_the_column_that_is_wrong(mixed, column, value):
    detector = fv.AnomalyDetector(latent=2, epochs=200, contamination=0.01).fit(mixed)
    row = mixed[mixed["load"].between(9, 11)].iloc[:1]
    assert detector.predict(row) == [1]
    wrong = row.assign(**{column: value})
    assert detector.predict(wrong) == [-1]
    first, second = detector.explain(wrong, top=2)
    assert (first.column, first.value) == (column, value)
    assert first.gain > max(second.gain, 1)
    if column == "heat":
        assert first.expected == pytest.approx(30, abs=8)
    repaired = wrong.assign(**{column: first.expected})
    gained = detector.score_samples(repaired) - detector.score_samples(wrong)
    assert gained == pytest.approx(first.gain)
    assert detector.predict(repaired) == [1]
    assert str(first).startswith(
        "kind is down, expected up (score +" if column == "kind" else f"{column} is {value:.6g}, "
    )


def test_explain_takes_one_row_in_any_form(fitted, breast):
    normal = breast[0]
    reasons = fitted.explain(normal.iloc[:1])
    assert fitted.explain(normal.iloc[0]) == reasons
    assert len(reasons) == 5
    assert [reason.gain for reason in reasons] == sorted((reason.gain for reason in reasons), reverse=True)
    array = fv.AnomalyDetector(epochs=1).fit(normal.to_numpy())
    assert array.explain(normal.to_numpy()[0]) == array.explain(normal.to_numpy()[:1])
    assert len(array.explain(normal.to_numpy()[0], top=99)) == 30
    with pytest.raises(ValueError, match="explain takes one row, not 2"):
        fitted.explain(normal.iloc[:2])
    with pytest.raises(ValueError, match="not fitted yet"):
        fv.AnomalyDetector().explain(normal.iloc[0])


def test_integers_are_numbers_whatever_their_type():
    rng = np.random.default_rng(0)
    table = rng.integers(1, 11, (200, 4))
    scores = [fv.AnomalyDetector(epochs=2, contamination=0.1).fit(table.astype(t)).offset_ for t in ("u1", "i8", "f8")]
    assert scores[0] == scores[1] == scores[2]


def test_explain_reads_images():
    images = (datasets.load_digits().data[:300] * 15).astype(np.uint8)
    detector = fv.AnomalyDetector(likelihood="bernoulli", epochs=20, contamination=0.05).fit(images)
    wrong = images[0].copy()
    wrong[32] = 255  # black in every digit
    first = detector.explain(wrong, top=1)[0]
    assert (first.column, first.value) == (32, 255)
    assert first.expected < 20
    assert first.gain > 3
