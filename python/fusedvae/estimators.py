# SPDX-License-Identifier: MIT
"""`VAE`, reached as `fusedvae.VAE`: a model as scikit-learn's transformer, density estimator and generator.

Letters: n rows, R raw columns, Z latent width. Terms are in nats per row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from . import _checks
from ._estimator import POSITIVE, Estimator
from .config import Bernoulli, Gaussian
from .initial import init_variance
from .model import Doubles, Floats, Model
from .sampler import Sampler

if TYPE_CHECKING:
    from typing_extensions import Self


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, Estimator):  # type: ignore[misc]
    """A variational autoencoder as scikit-learn's transformer, density estimator and generator.

    - latent: width Z of the code; hidden: widths of the encoder's hidden layers, which the decoder mirrors; activation:
      of those layers
    - likelihood: "auto" is "bernoulli" for arrays of uint8 (images, read as fractions of 255) and bool and for
      DataFrames of nothing but categories, else "gaussian", for which it refuses raw counts; "bernoulli" reads numbers
      in [0, 1]; `Bernoulli()` and `Gaussian(...)` are taken too
    - variance: of "gaussian", "fixed", "feature" or "element"; a learned one begins where `init_variance` puts it, so
      that the code is in use from the start
    - scale: of a Gaussian's columns, "standard", "robust" or None; impute: what stands for missing values, "mean",
      "median", "most_frequent", or None, which refuses them; see `tables.fit_columns`
    - beta: the KL's weight
    - epochs: None makes 2000 steps, in ten epochs or more; batch_size and learning_rate: of Adam, whose rate falls to
      0 by half a cosine
    - early_stopping: hold `validation_fraction` of the rows out and stop after `patience` epochs without a lower loss,
      with the best epoch's weights
    - samples: importance samples of `score_samples`
    - random_state: of weights, shuffle and noise; the default gives the same model every time
    - verbose: show a progress bar; threads: of the training, None follows `set_num_threads`

    Fitted: `model_` (a `Model`), `columns_`, `history_`, `n_iter_` epochs, `n_features_in_`, `feature_names_in_` where
    X was a DataFrame.

    >>> from sklearn.datasets import load_wine
    >>> x = load_wine(as_frame=True).data
    >>> vae = VAE(latent=2).fit(x)
    >>> vae.transform(x).shape, vae.score_samples(x).shape
    ((178, 2), (178,))
    >>> list(vae.sample(3).columns) == list(x.columns)
    True
    """

    gaussian = Gaussian("feature")

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Estimator._parameter_constraints,
        "samples": [POSITIVE],
    }

    def __init__(
        self,
        latent: int = 8,
        *,
        hidden: int | tuple[int, ...] = (256,),
        likelihood: str | Bernoulli | Gaussian = "auto",
        variance: str = "feature",
        activation: str = "gelu",
        scale: str | None = "standard",
        impute: str | None = None,
        beta: float = 1.0,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        samples: int = 100,
        random_state: Any = 0,
        verbose: int | bool = False,
        threads: int | None = None,
    ) -> None:
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
        self.samples = samples
        self.random_state = random_state
        self.verbose = verbose
        self.threads = threads

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One epoch on X (n, R) at the full beta and learning rate; the first call learns the columns from its X.

        Later rows are read by what the first learned. After `fit`, training goes on from its model; y is not used.
        """
        with self._all_or_nothing():
            if hasattr(self, "model_"):
                rows = self._rows(X)
            else:
                rows = self._learn(X)
                self._start(self.model_, rows)
            trainer = getattr(self, "_trainer", None) or self._new_trainer(self.model_)
            self._run(trainer, rows, 1, progress=bool(self.verbose))
            self._trainer, self.history_, self.n_iter_ = trainer, trainer.history, trainer.epoch
        return self

    def _start(self, model: Model, rows: NDArray[Any]) -> None:
        likelihood = model.config.likelihood
        if isinstance(likelihood, Gaussian) and likelihood.variance != "fixed":
            init_variance(model, rows)

    def transform(self, X: Any) -> Floats:
        """The mean code of each row: X (n, R) -> (n, Z) float32. Deterministic."""
        rows = self._rows(X)
        return self.model_.encode(rows)[0]

    def inverse_transform(self, X: Any) -> Any:
        """The mean of p(x|z) of each code: X (n, Z) -> (n, R), a DataFrame where the fitted rows were one.

        Numbers come in the units of the fitted rows, categories as the likeliest one; a Bernoulli's are probabilities.
        """
        check_is_fitted(self, "model_")
        codes = check_array(X, dtype=np.float32, estimator=self)
        return self._like_fitted(self.model_.decode(codes), getattr(X, "index", None))

    def score_samples(self, X: Any) -> Doubles:
        """Importance-weighted estimate of log p(x) from `samples` draws: X (n, R) -> (n,) nats, higher is likelier.

        A density of the rows as they were given, in their own units; deterministic. See `Model.log_likelihood`.
        """
        rows = self._rows(X)
        return self.model_.log_likelihood(rows, samples=self.samples)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`, in nats per row; y is not used."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None, observation_noise: bool = False) -> Any:
        """Means of p(x|z) at codes from the prior: (n_samples, R), a DataFrame where the fitted rows were one.

        random_state: None takes the estimator's own, so that equal calls give equal rows. observation_noise: draws
        from p(x|z) instead, rows as various as the fitted ones. `Sampler(vae.model_)` has more: temperature, a mixture
        fitted to the codes, interpolation.
        """
        check_is_fitted(self, "model_")
        seed = self._seed_of(self.random_state if random_state is None else random_state)
        n_samples = _checks.integer("n_samples", n_samples, 1)
        return self._like_fitted(Sampler(self.model_, seed).sample(n_samples, observation_noise=observation_noise))

    @property
    def _n_features_out(self) -> int:
        return self.model_.config.latent

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]  # the engine's, whatever came
        return tags
