# SPDX-License-Identifier: MIT
"""fusedvae.VAE as scikit-learn's estimator: its whole checklist, its tools, DataFrames, and mistakes."""

import copy
import pickle
import signal
import subprocess
import sys
import textwrap

import fusedvae as fv
import numpy as np
import pytest

estimator_checks = pytest.importorskip("sklearn.utils.estimator_checks")
base = pytest.importorskip("sklearn.base")
datasets = pytest.importorskip("sklearn.datasets")
joblib = pytest.importorskip("joblib")


CHECKS = [
    pair
    for estimator in (fv.VAE(epochs=10), fv.AnomalyDetector(epochs=10))
    for pair in estimator_checks.estimator_checks_generator(estimator)
]


# parametrize_with_checks, but for a list: its generator is an error to pytest 9 with scikit-learn before 1.8
@pytest.mark.parametrize(
    ("estimator", "check"),
    CHECKS,
    ids=[f"{type(estimator).__name__}-{check.func.__name__}" for estimator, check in CHECKS],
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def wine():
    """A DataFrame (178, 13) of numbers in very different units."""
    pytest.importorskip("pandas")
    return datasets.load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def mixed(wine):
    """The same with a category, a bool and missing values."""
    frame = wine[["alcohol", "proline", "hue"]].copy()
    frame["colour"] = np.where(wine["color_intensity"] > 4, "red", "pale")
    frame["strong"] = wine["alcohol"] > 13
    frame.loc[::20, "hue"] = np.nan
    return frame


@pytest.fixture(scope="module")
def fitted(wine):
    """A model of the wines."""
    return fv.VAE(latent=3).fit(wine)


def printed(program):
    """What a program prints that a process of its own runs to its end."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout.strip()


def test_it_is_found_on_use_alone():
    program = """
        import sys, fusedvae as fv
        assert "VAE" in dir(fv) and "sklearn" not in sys.modules
        fv.VAE
        assert "sklearn" in sys.modules
        try:
            fv.VEA
        except AttributeError as error:
            print(error)
    """
    assert printed(program) == "module 'fusedvae' has no attribute 'VEA'"


def test_without_scikit_learn_the_error_names_the_extra():
    program = """
        import sys
        sys.modules["sklearn"] = None
        import fusedvae as fv
        try:
            fv.VAE
        except ImportError as error:
            print(error)
    """
    assert printed(program) == 'fusedvae.VAE needs sklearn: pip install "fusedvae[sklearn]"'


# ---- what it learns


def test_reconstructions_follow_the_columns(fitted, wine):
    again = fitted.inverse_transform(fitted.transform(wine))
    assert list(again.columns) == list(wine.columns)
    explained = 1 - ((again - wine) ** 2).mean() / wine.var(ddof=0)
    assert explained.mean() > 0.5
    assert (explained > 0).all()


def test_scores_are_densities_of_the_rows_as_they_came(wine):
    """A change of units changes the density by its Jacobian."""
    litres = fv.VAE(latent=2, epochs=10).fit(wine.to_numpy())
    millilitres = fv.VAE(latent=2, epochs=10).fit(wine.to_numpy() * 1000)
    expected = litres.score_samples(wine.to_numpy()) - 13 * np.log(1000)
    assert millilitres.score_samples(wine.to_numpy() * 1000) == pytest.approx(expected, rel=1e-4)


def test_scores_approach_the_entropy_of_a_known_density():
    rng = np.random.default_rng(0)
    weights = np.array([[3.0, 1.0, -2.0]])
    x = rng.standard_normal((2000, 1)) @ weights + 0.5 * rng.standard_normal((2000, 3)) + [10, 0, -5]
    covariance = weights.T @ weights + 0.25 * np.eye(3)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    vae = fv.VAE(latent=1, hidden=(32,), epochs=60).fit(x[:1000])
    assert -entropy - 0.3 < vae.score(x[1000:]) < -entropy + 0.1


def test_samples_look_like_the_rows(fitted, wine):
    drawn = fitted.sample(500)
    assert list(drawn.columns) == list(wine.columns)
    assert (np.abs(drawn.mean() - wine.mean()) < 0.5 * wine.std()).all()
    assert fitted.sample(5).equals(fitted.sample(5))
    assert not fitted.sample(5).equals(fitted.sample(5, random_state=1))
    assert np.shape(fitted.sample(2, random_state=np.random.RandomState(0))) == (2, 13)


def test_auto_likelihood_goes_by_type():
    digits = datasets.load_digits().data
    images = (digits * 15).astype(np.uint8)
    for x, kind in (
        (images, fv.Bernoulli),
        (images > 99, fv.Bernoulli),
        (digits, fv.Gaussian),
        (digits / 16, fv.Gaussian),
    ):
        assert isinstance(fv.VAE(epochs=1).fit(x).model_.config.likelihood, kind)
    vae = fv.VAE(latent=4, epochs=20).fit(images)
    assert vae.model_.config.columns in ((), None)
    assert (
        np.mean((vae.inverse_transform(vae.transform(images)) - images / 255) ** 2)
        < 0.6 * (images / 255).var(axis=0).mean()
    )
    element = fv.VAE(epochs=1, likelihood=fv.Gaussian("element")).fit(digits)
    assert element.model_.config.likelihood == fv.Gaussian("element")
    assert fv.VAE(epochs=1, likelihood="gaussian", variance="fixed").fit(images).model_.config.columns[20].scale > 1


def test_the_same_seed_gives_the_same_bits(wine):
    first, second, other = (fv.VAE(epochs=3, random_state=seed).fit(wine) for seed in (0, 0, 1))
    assert np.array_equal(first.transform(wine), second.transform(wine))
    assert not np.array_equal(first.transform(wine), other.transform(wine))


def test_early_stopping_holds_rows_out(wine):
    vae = fv.VAE(early_stopping=True, patience=2, epochs=2000, learning_rate=1e-2).fit(wine)
    assert vae.n_iter_ < 2000
    assert np.isfinite(vae.history_["val_loss"]).all()
    assert len(vae.history_["loss"]) == vae.n_iter_


def test_partial_fit_goes_on(wine):
    x = wine.to_numpy()
    vae = fv.VAE(latent=2, learning_rate=1e-2)
    scores = []
    for _ in range(30):
        vae.partial_fit(x[:100])
        vae.partial_fit(x[100:])
        scores.append(vae.score(x))
    assert scores[-1] > scores[0] + 2
    assert vae.n_iter_ == 60
    shift = [column.shift for column in vae.columns_]
    assert shift == pytest.approx(x[:100].mean(axis=0))  # the first call's rows
    once = fv.VAE(latent=2, epochs=5).fit(x)
    before = once.score(x)
    assert once.partial_fit(x).score(x) != before


# ---- scikit-learn's tools


def test_pipeline_and_grid_search():
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = datasets.load_iris().data
    pipeline = make_pipeline(StandardScaler(), fv.VAE(epochs=5, scale=None))
    search = GridSearchCV(pipeline, {"vae__latent": [1, 2], "vae__hidden": [(8,), (16, 8)]}, cv=2).fit(x)
    assert set(search.best_params_) == {"vae__latent", "vae__hidden"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.transform(x).shape == (150, search.best_params_["vae__latent"])


def test_set_output_names_the_codes(wine):
    codes = fv.VAE(latent=2, epochs=1).set_output(transform="pandas").fit_transform(wine.iloc[50:60])
    assert list(codes.columns) == ["vae0", "vae1"]
    assert list(codes.index) == list(range(50, 60))
    again = fv.VAE(latent=2, epochs=1).fit(wine).inverse_transform(codes)
    assert list(again.index) == list(range(50, 60))


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "joblib"])
def test_copies_give_the_same_bits(fitted, wine, tmp_path, how):
    if how == "joblib":
        joblib.dump(fitted, tmp_path / "vae.joblib")
        again = joblib.load(tmp_path / "vae.joblib")
    else:
        again = pickle.loads(pickle.dumps(fitted)) if how == "pickle" else copy.deepcopy(fitted)
    assert np.array_equal(again.transform(wine), fitted.transform(wine))
    assert np.array_equal(again.score_samples(wine), fitted.score_samples(wine))
    before = fitted.transform(wine)
    again.partial_fit(wine)
    assert np.array_equal(fitted.transform(wine), before)


def test_a_copy_goes_on_in_partial_fit(wine):
    vae = fv.VAE(latent=2).partial_fit(wine)
    again = pickle.loads(pickle.dumps(vae))
    assert again.partial_fit(wine).score(wine) != vae.score(wine)


def test_saved_and_loaded(mixed, tmp_path):
    vae = fv.VAE(latent=2, epochs=5, impute="median").fit(mixed)
    vae.save(tmp_path / "vae.safetensors")
    again = fv.VAE.load(tmp_path / "vae.safetensors")
    assert np.array_equal(again.transform(mixed), vae.transform(mixed))
    assert np.array_equal(again.score_samples(mixed), vae.score_samples(mixed))
    assert again.sample(3).equals(vae.sample(3))
    assert (again.latent, again.hidden, again.n_features_in_) == (2, (256,), 5)
    assert list(again.feature_names_in_) == list(mixed.columns)
    assert again.get_feature_names_out().tolist() == ["vae0", "vae1"]
    assert np.array_equal(
        fv.load(tmp_path / "vae.safetensors").encode(fv.tables.raw_rows(mixed, vae.columns_))[0], vae.transform(mixed)
    )
    with pytest.raises(FileNotFoundError):
        fv.VAE.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="not fitted yet"):
        fv.VAE().save(tmp_path / "none.safetensors")


# ---- DataFrames and mistakes


def test_frames_of_every_kind_of_column(mixed):
    vae = fv.VAE(latent=2, impute="median").fit(mixed)
    again = vae.inverse_transform(vae.transform(mixed))
    assert (again["colour"].astype(str) == mixed["colour"]).mean() > 0.8
    assert (again["strong"].astype(str) == mixed["strong"].astype(str)).mean() > 0.8
    assert np.isfinite(vae.score_samples(mixed)).all()
    drawn = vae.sample(50)
    assert set(drawn["colour"]) <= {"red", "pale"}
    assert np.isfinite(vae.transform(drawn)).all()  # what it makes, it reads


def test_tables_of_categories_alone(mixed):
    vae = fv.VAE(latent=2).fit(mixed[["colour", "strong"]])
    assert vae.model_.config.likelihood == fv.Bernoulli()
    scores = vae.score_samples(mixed[["colour", "strong"]])
    common, rare = mixed.groupby(["colour", "strong"]).size().sort_values().index[[-1, 0]]
    is_common = (mixed["colour"] == common[0]) & (mixed["strong"] == common[1])
    is_rare = (mixed["colour"] == rare[0]) & (mixed["strong"] == rare[1])
    assert scores[is_common].min() > scores[is_rare].max()
    assert vae.score_samples(mixed[["colour", "strong"]]).max() < 0  # log-probabilities


def test_missing_values(mixed):
    with pytest.raises(ValueError, match=r"Input X contains NaN: column 'hue' \(first in row 0\).*impute"):
        fv.VAE().fit(mixed)
    complete = mixed.dropna()
    strict = fv.VAE(epochs=1).fit(complete)
    with pytest.raises(ValueError, match="column 'hue'"):
        strict.transform(mixed)
    lenient = fv.VAE(epochs=1, impute="median").fit(complete)
    filled = mixed.fillna({"hue": complete["hue"].median()})
    assert np.array_equal(lenient.transform(mixed), lenient.transform(filled))


def test_wrong_columns_have_scikit_learns_words(fitted, wine):
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- wine"):
        fitted.transform(wine.rename(columns={"hue": "wine"}))
    with pytest.raises(ValueError, match="must be in the same order"):
        fitted.transform(wine[wine.columns[::-1]])
    with pytest.raises(ValueError, match="X has 12 features, but VAE is expecting 13 features"):
        fv.VAE(epochs=1).fit(wine.to_numpy()).transform(wine.to_numpy()[:, :12])
    with pytest.raises(ValueError, match="array with 0 sample"):
        fitted.transform(wine.iloc[:0])


def test_unseen_categories(mixed):
    vae = fv.VAE(epochs=1, impute="median").fit(mixed)
    with pytest.raises(ValueError, match=r"Found unknown categories \['blue'\] in column 'colour'"):
        vae.transform(mixed.replace("red", "blue"))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"latent": 0}, "'latent' parameter of VAE must be an int in the range .1, inf."),
        ({"epochs": 1.5}, "'epochs' parameter of VAE must be an int"),
        ({"scale": "minmax"}, r"'scale' parameter of VAE must be a str among .*'robust'.*Got 'minmax' instead"),
        ({"impute": "zero"}, "'impute' parameter of VAE"),
        ({"likelihood": "poisson"}, "'likelihood' parameter of VAE"),
        ({"learning_rate": -1.0}, "'learning_rate' parameter of VAE"),
        ({"hidden": (16, -1)}, "hidden"),
        ({"random_state": "x"}, "'random_state' parameter of VAE"),
    ],
)
def test_bad_parameters_leave_the_estimator_as_it_was(wine, parameters, words):
    vae = fv.VAE(epochs=1).fit(wine)
    before = vae.transform(wine)
    fresh = base.clone(vae).set_params(**parameters)
    with pytest.raises(ValueError, match=words):
        fresh.fit(wine)
    assert not hasattr(fresh, "n_features_in_")
    with pytest.raises(ValueError, match=words):
        vae.set_params(**parameters).fit(wine[["hue"]])
    assert np.array_equal(vae.transform(wine), before)


def test_bad_rows(wine):
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="Sparse data was passed"):
        fv.VAE().fit(sparse.csr_array(np.eye(5)))
    with pytest.raises(TypeError, match="masked array"):
        fv.VAE().fit(np.ma.masked_greater(wine.to_numpy(), 100))
    with pytest.raises(ValueError, match="n_samples must be at least 1"):
        fv.VAE(epochs=1).fit(wine).sample(0)
    with pytest.raises(ValueError, match="1 sample"):
        fv.VAE().fit(wine.iloc[:1])
    with pytest.raises(ValueError, match="1 sample"):
        fv.VAE().fit(wine.iloc[:1].to_numpy())
    with pytest.raises(ValueError, match="0 feature"):
        fv.VAE().fit(wine[[]])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        fv.VAE().fit(wine["hue"].to_numpy())
    with pytest.raises(ValueError, match=r"must lie within \[0, 1\]|in \[0, 1\]"):
        fv.VAE(likelihood="bernoulli").fit(wine)


def test_raw_counts_are_refused_with_advice():
    pd = pytest.importorskip("pandas")
    counts = np.random.default_rng(0).poisson(0.05, (200, 150))
    for x in (counts, counts.astype(np.float32), pd.DataFrame(counts).add_prefix("gene")):
        with pytest.raises(ValueError, match=r"looks like raw counts \(whole numbers, 95% of them 0\).*np.log1p"):
            fv.VAE().fit(x)
    fv.VAE(epochs=1, likelihood="gaussian").fit(counts)
    for fine in (np.log1p(counts), counts > 0, counts.clip(max=1), counts[:, :50], -counts):
        fv.VAE(epochs=1).fit(fine)


def test_constant_columns(wine):
    frame = wine.assign(same=3.0)
    vae = fv.VAE(latent=2, epochs=5).fit(frame)
    assert np.allclose(vae.inverse_transform(vae.transform(frame))["same"], 3.0, atol=0.5)
    assert np.isfinite(vae.score_samples(frame)).all()


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, also where the tests were started by a shell that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_the_model(wine, monkeypatch):
    fit = fv.Trainer.fit

    def interrupted(self, *arguments, **options):
        options["callbacks"] = [lambda trainer, progress: progress.epoch == 3 and signal.raise_signal(signal.SIGINT)]
        return fit(self, *arguments, **options)

    monkeypatch.setattr(fv.Trainer, "fit", interrupted)
    vae, detector = fv.VAE(epochs=10_000), fv.AnomalyDetector(epochs=10_000)
    for estimator in (vae, detector):
        with pytest.warns(UserWarning, match="Training interrupted by user") as warned:
            estimator.fit(wine)
        assert len(warned) == 1
        assert 3 <= estimator.n_iter_ < 10_000
    assert np.isfinite(vae.transform(wine)).all()
    assert np.isfinite(detector.decision_function(wine)).all()


def test_a_path_is_no_table():
    with pytest.raises(TypeError, match=r"pandas.read_csv\('rows.csv'\)"):
        fv.VAE().fit("rows.csv")


def test_a_missing_category_is_explained():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    rows = pandas.DataFrame({"size": rng.standard_normal(60), "hue": rng.choice(["red", "pale"], 60)})
    rows.loc[0, "hue"] = None
    with pytest.raises(ValueError, match=r"column 'hue'.*most frequent category stands for missing values"):
        fv.AnomalyDetector(0.1, epochs=1).fit(rows)
    reasons = fv.AnomalyDetector(0.1, epochs=1, impute="median").fit(rows).explain(rows.iloc[0])
    (hue,) = (reason for reason in reasons if reason.column == "hue")
    assert pandas.isna(hue.value)
    assert hue.expected in ("red", "pale")
