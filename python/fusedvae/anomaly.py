# SPDX-License-Identifier: MIT
"""`AnomalyDetector`, reached as `fusedvae.AnomalyDetector`: scikit-learn's signs around the scores of the engine.

Lower scores are more abnormal, everywhere. The model file holds all that a score needs, the threshold too, so that
another program of the engine gives the same answers. Letters: n rows, R raw columns, Z latent width.
"""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.model_selection import KFold
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from . import _checks, tables
from ._estimator import POSITIVE, Estimator
from .columns import Column
from .config import Bernoulli, Gaussian
from .detector import NATS, SCORES, Detector
from .model import Doubles, Model

# A number that is imputed this often has settled; rows are tried in blocks, so that a wide table costs no square.
IMPUTATIONS, BLOCK = 20, 256

# The threshold of contamination="auto" is found by so many models, where there are not more rows than a model may come
# to know one by one: then those it was trained on score better than new ones ever will.
FOLDS, BY_HEART = 5, 10_000


class Reason(NamedTuple):
    """One column's part in a row's abnormality."""

    column: Any
    """Its name, or its index where the model knows no names."""
    value: Any
    """What the row holds."""
    expected: Any
    """What the model expects there, given the row's other values."""
    gain: float
    """How much higher the row's score would be with the expected value."""

    def __str__(self) -> str:
        value, expected = (f"{v:.6g}" if isinstance(v, Real) else str(v) for v in (self.value, self.expected))
        return f"{self.column} is {value}, expected {expected} (score {self.gain:+.4g})"


class AnomalyDetector(OutlierMixin, Estimator):  # type: ignore[misc]
    """A variational autoencoder that learns what rows are like and finds those that are not.

    Fit on normal rows and predict new ones, or fit on a mixture and read `fit_predict`.

    - contamination: the share of the fitted rows that `predict` calls outliers, in (0, 0.5]; a model of few rows knows
      them too well, so that new ones exceed that share. "auto" is made for new rows: up to 10 000 rows are scored by
      five models, each trained without the fifth that it scores, and the threshold lies 2.5 deviations below the
      median, where a deviation is 1.4826 times the median distance from it (Leys et al. 2013), of the scores below it
      alone because scores are skewed
    - score_name: "elbo", "log_likelihood" (nats, from `samples` draws that are the same for every row),
      "reconstruction", "kl" or "mahalanobis": the `score` of a `Detector`, a name that scikit-learn keeps for a method
    - distance: how much of half the squared distance of a row from the columns' means, in their scales, is taken off
      "elbo" and "log_likelihood" of a scaled Gaussian. The score is then a product of two experts (Hinton 2002): the
      model comes to know a group of anomalies among the fitted rows, the distance does not
    - likelihood: as `VAE`'s, but "auto" takes uint8 arrays for tables of numbers; "bernoulli" reads images
    - the others: see `VAE`; a learned variance begins at the columns' own

    Fitted: `offset_`, the threshold of `score_samples`; `model_`, whose `detector` holds it too; and what `VAE` lists.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((500, 2)) @ [[1.0, 2.0, 0.5], [0.0, 1.0, -1.0]]
    >>> detector = AnomalyDetector().fit(x)
    >>> detector.predict([[0.0, 0.0, 0.0], [3.0, -3.0, 3.0]]).tolist()
    [1, -1]
    """

    # This and the defaults below were chosen by bench/anomaly_choice.py, on tables that the benchmark does not use.
    gaussian = Gaussian("element", min_variance=1e-2)
    images = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Estimator._parameter_constraints,
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "score_name": [StrOptions(set(SCORES))],
        "samples": [POSITIVE],
        "distance": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        contamination: str | float = "auto",
        *,
        score_name: str = "elbo",
        samples: int = 16,
        distance: float = 1.0,
        latent: int = 8,
        hidden: int | tuple[int, ...] = (64, 32),
        likelihood: str | Bernoulli | Gaussian = "auto",
        variance: str = "element",
        activation: str = "tanh",
        scale: str | None = "standard",
        impute: str | None = None,
        beta: float = 1.0,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        random_state: Any = 0,
        verbose: int | bool = False,
        threads: int | None = None,
    ) -> None:
        self.contamination = contamination
        self.score_name = score_name
        self.samples = samples
        self.distance = distance
        self.latent = latent
        self.hidden = hidden
        self.likelihood = likelihood
        self.variance = variance
        self.activation = activation
        self.scale = scale
        self.impute = impute
        self.beta = beta
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose
        self.threads = threads

    def score_samples(self, X: Any) -> Doubles:
        """The score that `score_name` names: X (n, R) -> (n,), lower is more abnormal. Deterministic, row by row."""
        rows = self._rows(X)
        return self.model_.score(rows)

    def decision_function(self, X: Any) -> Doubles:
        """`score_samples` less `offset_`: X (n, R) -> (n,), negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """1 for rows like the fitted ones and -1 for outliers: X (n, R) -> (n,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def contributions(self, X: Any) -> Any:
        """-log p(x_j | mean code) of each raw column: X (n, R) -> (n, R) nats, a DataFrame where the fitted rows were.

        Higher is stranger. A row's sum is its reconstruction term at the mean code, what remains of its -ELBO is the
        KL. The parts of a column compare among rows; to compare columns, see `explain`.
        """
        rows = self._rows(X)
        parts = self.model_.contributions(rows)
        return tables.labelled(parts, self._names, getattr(X, "index", None)) if self._names else parts

    def explain(self, row: Any, top: int = 5) -> list[Reason]:
        """Why one row is abnormal: the `top` columns whose values cost it most of its score, the costliest first.

        row: a DataFrame or an array of one row, or one of its rows (R,). For each column the model is asked what it
        expects there, given the others: a number is replaced by its reconstruction again and again (the imputation of
        Rezende et al. 2014, without its noise), a category by the one that scores best. The gain is what the score, in
        its own units, rises by that. `pandas.DataFrame(reasons)` is a table of them.

        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((500, 1)) @ [[1.0, 2.0, 0.5]] + 0.1 * rng.standard_normal((500, 3))
        >>> reason = AnomalyDetector(latent=1).fit(x).explain([1.0, -2.0, 0.5], top=1)[0]
        >>> reason.column, reason.value, round(reason.expected)
        (1, -2.0, 2)
        """
        check_is_fitted(self, "model_")
        top = _checks.integer("top", top, 1)
        if getattr(row, "ndim", np.ndim(row)) == 1:
            row = row.to_frame().T if hasattr(row, "to_frame") else np.asarray(row)[None]
        rows = self._rows(row)
        if len(rows) != 1:
            raise ValueError(f"explain takes one row, not {len(rows)}; contributions(X) takes many")
        unit = self.model_.config.uint8_scale if rows.dtype == np.uint8 else 1.0  # what the engine makes of uint8
        expected, gains = self._expected(rows * unit)
        values, wanted = (np.asarray(self._like_fitted(one), dtype=object)[0] for one in (rows, expected / unit))
        names = self._names or range(self.n_features_in_)
        costliest = np.argsort(-gains, kind="stable")[:top].tolist()
        return [Reason(names[j], values[j], wanted[j], float(gains[j])) for j in costliest]

    def _expected(self, row: Doubles) -> tuple[Doubles, Doubles]:
        """For each column of row (1, R), what is expected there, (1, R), and what the score gains by it, (R,)."""
        columns = self.columns_ or (Column(),) * row.shape[1]
        expected, best = row.astype(np.float64), np.empty(row.shape[1])
        numbers = [j for j, column in enumerate(columns) if column.categories is None]
        for start in range(0, len(numbers), BLOCK):
            block = numbers[start : start + BLOCK]
            tried, at = np.repeat(row, len(block), axis=0), (np.arange(len(block)), block)
            tried[at] = [columns[j].shift for j in block]
            for _ in range(IMPUTATIONS):
                tried[at] = self.model_.reconstruct(tried)[at]
            expected[0, block], best[block] = tried[at], self.model_.score(tried)
        for j in set(range(row.shape[1])).difference(numbers):
            tried = np.repeat(row, columns[j].width, axis=0)
            tried[:, j] = np.arange(columns[j].width)
            scores = self.model_.score(tried)
            expected[0, j], best[j] = scores.argmax(), scores.max()
        return expected, best - self.model_.score(row)

    def _finish(self, rows: NDArray[Any]) -> None:
        detector = self._detector(self.model_, rows)
        if isinstance(self.contamination, str):
            self.offset_ = _fence(self._unseen_scores(rows))
        else:
            self.offset_ = float(np.quantile(self.model_.score(rows, detector), self.contamination))
        self.model_.detector = replace(detector, threshold=self.offset_)

    def _detector(self, model: Model, rows: NDArray[Any]) -> Detector:
        if self.score_name == "mahalanobis":
            return Detector.of_codes(model.encode(rows)[0])
        scaled = isinstance(model.config.likelihood, Gaussian) and self.scale is not None
        distance = self.distance if scaled and self.score_name in NATS else 0.0
        return Detector(self.score_name, samples=self.samples, distance=distance)

    def _unseen_scores(self, rows: NDArray[Any]) -> Doubles:
        """The score of each row by a model that was trained without it: what new rows of the same kind will have."""
        folds = KFold(min(FOLDS, len(rows)), shuffle=True, random_state=0).split(rows) if len(rows) <= BY_HEART else ()
        scores = self.model_.score(rows, self._detector(self.model_, rows))
        for seen, unseen in folds:
            if self._interrupted:
                break
            model = Model(self.model_.config, seed=self._seed_of(self.random_state))
            self._trained(model, rows[seen])
            scores[unseen] = model.score(rows[unseen], self._detector(model, rows[seen]))
        return scores

    def _adopt(self, model: Model) -> None:
        detector = model.detector
        if detector is None or detector.threshold is None:
            raise ValueError("the file's model has no detector with a threshold; it was not saved by AnomalyDetector")
        super()._adopt(model)
        self.offset_ = detector.threshold
        self.score_name, self.samples, self.distance = detector.score, detector.samples, detector.distance


def _fence(scores: Doubles) -> float:
    """The threshold of contamination="auto": see `AnomalyDetector`."""
    middle = np.median(scores)
    below = scores[scores < middle]
    return float(middle - 2.5 * 1.4826 * np.median(middle - below)) if len(below) else float(middle)
