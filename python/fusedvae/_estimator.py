# SPDX-License-Identifier: MIT
"""What scikit-learn's estimators of a VAE share: parameters and their checks, reading of rows, training, files.

Rows are arrays (n, R) or DataFrames of R columns; scaling, categories and what stands for missing values are learned by
`tables` and applied by the engine. Letters: n rows, R raw columns, Z latent width. Terms are in nats per row.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from . import _arrays, tables
from .columns import Column
from .config import ACTIVATIONS, VARIANCES, Bernoulli, Config, Gaussian
from .model import Model, load
from .optimizers import Adam, Cosine
from .trainer import Trainer

if TYPE_CHECKING:
    from typing_extensions import Self

# Read in place; check_array turns everything else into the first.
_DTYPES = (np.float64, np.float32, np.float16, np.uint8, np.bool_)
# What epochs=None trains for. Half the steps leave 16 dimensions unfinished, twice as many overfit a table of 200 rows
# and learn the anomalies of a mixture.
STEPS, LEAST_EPOCHS = 2000, 10
POSITIVE = Interval(Integral, 1, None, closed="left")


def default_epochs(batches: int) -> int:
    """What epochs=None is, for so many batches of an epoch."""
    return max(LEAST_EPOCHS, math.ceil(STEPS / batches))


class Estimator(BaseEstimator):  # type: ignore[misc]
    """Base of `VAE` and `AnomalyDetector`, which list their parameters, with defaults, in `__init__`."""

    # What likelihood="gaussian" stands for, but for its kind of variance.
    gaussian: ClassVar[Gaussian]
    # Whether likelihood="auto" takes uint8 arrays for images.
    images: ClassVar[bool] = True

    latent: int
    hidden: int | tuple[int, ...]
    likelihood: str | Bernoulli | Gaussian
    variance: str
    activation: str
    scale: str | None
    impute: str | None
    beta: float
    epochs: int | None
    batch_size: int
    learning_rate: float
    early_stopping: bool
    validation_fraction: float
    patience: int
    random_state: Any
    verbose: int | bool
    threads: int | None

    n_features_in_: int
    columns_: tuple[Column, ...]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "latent": [POSITIVE],
        "hidden": [POSITIVE, "array-like"],
        "likelihood": [StrOptions({"auto", "bernoulli", "gaussian"}), Bernoulli, Gaussian],
        "variance": [StrOptions(set(VARIANCES))],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "scale": [StrOptions(set(tables.SCALES)), None],
        "impute": [StrOptions(set(tables.IMPUTES)), None],
        "beta": [Interval(Real, 0, None, closed="left")],
        "epochs": [POSITIVE, None],
        "batch_size": [POSITIVE],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [POSITIVE],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "threads": [POSITIVE, None],
    }

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learns the columns and trains a new model on X (n, R), an array or a DataFrame; y is not used.

        ValueError or TypeError for bad parameters and bad rows: the estimator is then as it was. Ctrl-C is a warning,
        and the model so far is kept.
        """
        with self._all_or_nothing():
            rows = self._learn(X)
            trainer = self._trained(self.model_, rows, bool(self.verbose))
            self.history_, self.n_iter_ = trainer.history, trainer.epoch
            self._finish(rows)
        return self

    def _trained(self, model: Model, rows: NDArray[Any], progress: bool = False) -> Trainer:
        """The trainer that has trained a new `model` on rows as the parameters say."""
        held_out, callbacks = None, []
        if self.early_stopping:
            from .stopping import EarlyStopping

            seed = self._seed_of(self.random_state)
            rows, held_out = train_test_split(rows, test_size=self.validation_fraction, random_state=seed)
            callbacks = [EarlyStopping(patience=self.patience)]
        batches = math.ceil(len(rows) / self.batch_size)
        epochs = self.epochs or default_epochs(batches)
        self._start(model, rows)
        trainer = self._new_trainer(model, Cosine(epochs * batches))
        self._run(trainer, rows, epochs, validation_data=held_out, callbacks=callbacks, progress=progress)
        return trainer

    def _run(self, trainer: Trainer, rows: NDArray[Any], epochs: int, **options: Any) -> None:
        """`Trainer.fit`, which Ctrl-C ends with a warning, in the words of scikit-learn's MLPClassifier."""
        try:
            trainer.fit(rows, epochs, **options)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=3)
            self._interrupted = True

    def _start(self, model: Model, rows: NDArray[Any]) -> None:
        """What a subclass does to a new model before its first step."""

    def _finish(self, rows: NDArray[Any]) -> None:
        """What a subclass derives from the trained model and all rows of the fit."""

    def _learn(self, X: Any) -> NDArray[Any]:
        """Checks the parameters, learns X's columns into a new model; X as raw rows."""
        self._validate_params()
        X = self._checked(X, reset=True)
        self.columns_, likelihood = self._columns(X)
        rows = tables.raw_rows(X, self.columns_)
        if self.likelihood == "auto" and isinstance(likelihood, Gaussian):
            tables.refuse_counts(rows)
        config = Config(
            input_shape=self.n_features_in_,
            hidden=self.hidden,
            latent=self.latent,
            activation=self.activation,
            likelihood=likelihood,
            columns=self.columns_ or None,
        )
        self.model_ = Model(config, seed=self._seed_of(self.random_state))
        self._trainer: Trainer | None = None
        self._interrupted = False
        return rows

    def _columns(self, X: Any) -> tuple[tuple[Column, ...], Bernoulli | Gaussian]:
        """The columns of X and the likelihood that "auto" stands for.

        By X's types and not by its values, so that one fold of the data is not read otherwise than another.
        """
        likelihood: Any = self.likelihood
        image = not tables.is_frame(X) and X.dtype.kind in "bu"
        if likelihood == "auto":
            fractions = X.dtype.kind == "b" or self.images if image else tables.is_categorical(X)
            likelihood = "bernoulli" if fractions else "gaussian"
        if isinstance(likelihood, str):
            likelihood = Bernoulli() if likelihood == "bernoulli" else replace(self.gaussian, variance=self.variance)
        if isinstance(likelihood, Gaussian):
            return tables.fit_columns(X, self.scale, self.impute), likelihood
        # uint8 and bool rows are fractions by the engine's uint8_scale; whatever else must lie in [0, 1].
        return () if image else tables.fit_columns(X, None, self.impute), likelihood

    def _new_trainer(self, model: Model, schedule: Cosine | None = None) -> Trainer:
        return Trainer(
            model,
            Adam(self.learning_rate),
            batch_size=self.batch_size,
            beta=self.beta,
            schedule=schedule,
            threads=self.threads,
            seed=self._seed_of(self.random_state),
        )

    def _rows(self, X: Any) -> NDArray[Any]:
        """X as the fitted model's raw rows."""
        check_is_fitted(self, "model_")
        rows = tables.raw_rows(self._checked(X, reset=False), self.columns_)
        tables.check_values(rows, self.columns_, nan_allowed=any(column.fill is not None for column in self.columns_))
        return rows

    def _checked(self, X: Any, reset: bool) -> Any:
        """X with scikit-learn's checks of its kind, shape and column names; DataFrames stay DataFrames."""
        if isinstance(X, np.ma.MaskedArray):
            raise TypeError("X is a masked array; X.filled(np.nan) makes its masked values missing ones (see impute)")
        if isinstance(X, (str, os.PathLike)):
            raise TypeError(f"X is {X!r}, expected an array or a DataFrame, such as pandas.read_csv({str(X)!r})")
        _arrays.refuse_labels(X, "X")
        X = tables.as_pandas(X)
        least = 2 if reset else 1
        if not tables.is_frame(X):
            return validate_data(self, X, reset=reset, dtype=_DTYPES, ensure_all_finite=False, ensure_min_samples=least)
        if len(X) < least or not len(X.columns):
            check_array(np.empty(X.shape), ensure_min_samples=least, estimator=self)  # raises, in its own words
        validate_data(self, X, reset=reset, skip_check_array=True)
        return X

    def _like_fitted(self, rows: NDArray[Any], index: Any = None) -> Any:
        """Raw rows in the form that was fitted: an array, or a DataFrame with that index."""
        return tables.to_frame(rows, self.columns_, index) if self._names else rows

    @property
    def _names(self) -> list[str]:
        """The columns' names; none where the fitted rows were an array."""
        names = [column.name for column in self.columns_]
        return names if any(names) else []

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model file, which `load` and every other program of the engine read; errors as `Model.save`'s."""
        check_is_fitted(self, "model_")
        self.model_.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The fitted estimator of a model file; parameters that only training needs have their defaults.

        Errors as those of `fusedvae.load`.
        """
        model = load(path)
        config = model.config
        estimator = cls(
            latent=config.latent, hidden=config.hidden, activation=config.activation, likelihood=config.likelihood
        )
        estimator._adopt(model)
        return estimator

    def _adopt(self, model: Model) -> None:
        self.model_ = model
        self.columns_ = model.config.columns or ()
        self.n_features_in_ = model.config.width
        if self._names:
            self.feature_names_in_ = np.array(self._names, dtype=object)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """A failed fit leaves the estimator's attributes as they were."""
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    @staticmethod
    def _seed_of(random_state: Any) -> int:
        """The engine's seed: an integer is its own, anything else is drawn from."""
        if isinstance(random_state, Integral):
            return int(random_state)
        return int(check_random_state(random_state).randint(2**31 - 1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.impute is not None
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_trainer", None)  # a pickle is for serving; partial_fit begins again at zero moments
        return state
