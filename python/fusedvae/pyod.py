# SPDX-License-Identifier: MIT
"""`AnomalyDetector` as a PyOD detector, with PyOD's signs: higher scores are more abnormal."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

from .anomaly import AnomalyDetector
from .config import Bernoulli, Gaussian
from .model import Doubles, Model

try:
    from pyod.models.base import BaseDetector
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError('fusedvae.pyod needs pyod: pip install "fusedvae[pyod]"') from error

if TYPE_CHECKING:
    from typing_extensions import Self


class VAE(BaseDetector):  # type: ignore[misc]
    """A variational autoencoder as a PyOD detector; the parameters are those of `fusedvae.AnomalyDetector`.

    contamination: the share of outliers among the fitted rows, in (0, 0.5], or a thresholder of PyThresh.

    Fitted: `decision_scores_` (minus `AnomalyDetector.score_samples` of the fitted rows), `threshold_`, `labels_` (1
    for outliers, else 0), and `detector_`, the `AnomalyDetector`, with its `contributions`, `explain` and `save`.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((500, 3))
    >>> VAE(contamination=0.05).fit(x).predict([[0.0, 0.0, 0.0], [9.0, -9.0, 9.0]]).tolist()
    [0, 1]
    """

    def __init__(
        self,
        contamination: Any = 0.1,
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
        super().__init__(contamination=contamination)
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

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on X (n, R); y is not used. Errors as those of `AnomalyDetector.fit`."""
        parameters = self.get_params(deep=False)
        if not isinstance(self.contamination, Real):
            parameters["contamination"] = "auto"
        detector = AnomalyDetector(**parameters).fit(X)
        self._set_n_classes(y)
        self.detector_ = detector
        self.decision_scores_ = -detector.score_samples(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: Any) -> Doubles:
        """Minus `AnomalyDetector.score_samples`: X (n, R) -> (n,), higher is more abnormal."""
        check_is_fitted(self, "detector_")
        return -self.detector_.score_samples(X)

    @property
    def model_(self) -> Model:
        """The trained `fusedvae.Model`."""
        return self.detector_.model_
