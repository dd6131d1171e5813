# SPDX-License-Identifier: MIT
"""The model: encoder, decoder and their scores. Thin over the engine, which the docstrings speak for.

Letters: n rows, D data width, Z latent width, S Monte-Carlo samples. Terms are in nats per row, summed over features,
constants included; loss = reconstruction + beta * KL; elbo = -(reconstruction + KL).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _checks, _core, _gpu
from .callbacks import Losses
from .config import PRECISIONS, Config
from .detector import Detector

WEIGHTS = PRECISIONS[:2]  # what a model's weights may be held in

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Model:
    """A variational autoencoder with parameters drawn from `seed`.

    Rows are arrays of shape (n, D) or (n, *input_shape); see the README for what is read in place. They may be tables
    (pandas, polars, Arrow): a model whose columns have names finds a table's by them, in any order, and reads words
    where it has categories, for which an array holds indices. Every method that
    reads rows raises ValueError for a wrong shape, no rows, and values that are not finite (naming row and column), and
    TypeError for what holds no numbers. Methods may run in several threads at once, but for `to` and those that set
    parameters, which need the model for themselves.
    A model on a GPU also reads rows that are there, without a copy (PyTorch, CuPy, JAX, Numba), and what it computes
    from them stays there, as a `DeviceArray`.

    >>> import numpy as np, fusedvae as fv
    >>> model = fv.Model(fv.Config(input_shape=6, hidden=(8,), latent=2), seed=0)
    >>> mu, logvar = model.encode(np.zeros((3, 6), dtype=np.float32))
    >>> mu.shape
    (3, 2)
    """

    def __init__(self, config: Config, seed: int = 0, device: str = "cpu") -> None:
        if not isinstance(config, Config):
            raise TypeError(f"config must be a fusedvae.Config, not {type(config).__name__}")
        self._adopt(_core.Model(config._to_core(), _checks.seed(seed)))
        self.to(device)

    @classmethod
    def _wrap(cls, core: _core.Model) -> Model:
        model = cls.__new__(cls)
        model._adopt(core)
        return model

    def _adopt(self, core: _core.Model) -> None:
        self._core = core
        self._config = Config._from_core(core.config())

    @property
    def config(self) -> Config:
        """What this model is made of."""
        return self._config

    @property
    def device(self) -> str:
        """Where the model computes: "cpu", or a GPU such as "cuda:0"."""
        return self._core.device()

    @property
    def parameter_count(self) -> int:
        """The number of trained values.

        >>> import fusedvae as fv
        >>> fv.Model(fv.Config()).parameter_count
        652824
        """
        return sum(int(np.prod(shape)) for _, shape in self._core.parameter_info())

    def to(self, device: str) -> Model:
        """Moves the model to `device`, "cpu", "cuda" (the first GPU) or "cuda:1", and returns it.

        On a GPU it computes everything but `contributions` and the `*_into` methods, which work on the host's copy of
        the parameters; both copies always tell the same numbers, whoever changed them. Pickles and files come back on
        the CPU. ValueError for another name or index. RuntimeError where no GPU can be used, which says why: fusedvae
        was built without CUDA, no driver or an old one, an old GPU; MemoryError where its memory is full.

        >>> import fusedvae as fv
        >>> fv.Model(fv.Config()).to("cpu").device
        'cpu'
        """
        if not isinstance(device, str):
            raise TypeError(f'device must be a name such as "cuda", not {device!r}')
        self._core.to(device)
        return self

    @property
    def weights(self) -> str:
        """What the weights are held in: "float32", or "bfloat16" in a `copy` for serving."""
        return WEIGHTS[self._core.weights()]

    def copy(self, weights: str | None = None) -> Model:
        """A second model with the same parameters and detector. weights: "float32", "bfloat16", None: as here.

        "bfloat16" is for serving: each weight is rounded to the nearest bfloat16 (ties to even, at most 1/256 of it
        away) and takes two bytes instead of four, so that calls with one row, which wait for the weights, are about
        twice as fast where a network does not fit the innermost cache. All else stays float32, on any processor: the
        copy gives the bits of a float32 model that holds the rounded weights, whatever rows accompany one. It cannot be
        trained, and is float32 in a file. ValueError where a weight is too large for bfloat16.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
        >>> served = model.copy(weights="bfloat16")
        >>> served.weights, served.copy(weights="float32").weights
        ('bfloat16', 'float32')
        >>> bool(np.allclose(served.reconstruct(np.zeros((1, 6))), model.reconstruct(np.zeros((1, 6))), atol=1e-2))
        True
        """
        if weights is None:
            weights = self.weights
        return Model._wrap(self._core.copy(WEIGHTS.index(_checks.choice("weights", weights, WEIGHTS))))

    def encode(self, x: Any) -> tuple[Floats, Floats]:
        """Mean and log-variance of q(z|x): x (n, D) -> mu (n, Z), logvar (n, Z), float32. Deterministic.

        >>> import numpy as np, fusedvae as fv
        >>> mu, logvar = fv.Model(fv.Config(input_shape=6, latent=2)).encode(np.zeros((3, 6)))
        >>> logvar.shape
        (3, 2)
        """
        mu, logvar = self._core.encode(self._rows(x))
        return _gpu.result(mu), _gpu.result(logvar)

    def decode(self, z: Any) -> Floats:
        """Mean of p(x|z): z (n, Z) -> (n, *input_shape) float32.

        ValueError for codes of another width or not finite.

        >>> import fusedvae as fv
        >>> fv.Model(fv.Config(input_shape=(2, 3), latent=2)).decode([[0.0, 0.0]]).shape
        (1, 2, 3)
        """
        if _gpu.is_there(z):
            return self._shaped(self._core.decode_on_device(_gpu.rows(z, (self._config.latent,), "z")))
        return self._shaped(self._core.decode(_arrays.as_codes(z, self._config.latent)))

    def reconstruct(self, x: Any) -> Floats:
        """Mean of p(x|z) at the mean code: x (n, D) -> (n, *input_shape) float32.

        >>> import numpy as np, fusedvae as fv
        >>> fv.Model(fv.Config(input_shape=(2, 3), latent=2)).reconstruct(np.zeros((5, 6))).shape
        (5, 2, 3)
        """
        return self._shaped(self._core.reconstruct(self._rows(x)))

    def encode_into(self, x: Floats, mu: Floats, logvar: Floats | None = None) -> Floats:
        """`encode` for serving: x (n, D) into mu (n, Z) and, where given, logvar (n, Z); returns mu.

        The bits of `encode`, less than a microsecond above the engine's own time: all are C-contiguous float32 arrays
        that share no memory, nothing is converted or allocated, and the calling thread works alone, so that several
        threads can serve one model side by side. TypeError for another dtype, ValueError for another shape, order or
        number of rows, and for values that `encode` refuses.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
        >>> mu = np.empty((1, 2), np.float32)
        >>> model.encode_into(np.zeros((1, 6), np.float32), mu) is mu
        True
        """
        return self._core.encode_into(x, mu, logvar)

    def decode_into(self, z: Floats, out: Floats) -> Floats:
        """`decode` for serving: codes z (n, Z) into out (n, D) or (n, *input_shape); returns out. See `encode_into`.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=(2, 3), latent=2))
        >>> image = np.empty((1, 2, 3), np.float32)
        >>> model.decode_into(np.zeros((1, 2), np.float32), image) is image
        True
        """
        return self._core.decode_into(z, out)

    def reconstruct_into(self, x: Floats, out: Floats) -> Floats:
        """`reconstruct` for serving: x (n, D) into out (n, D), which may be x itself; returns out. See `encode_into`.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
        >>> x = np.zeros((3, 6), np.float32)
        >>> expected = model.reconstruct(x)
        >>> bool((model.reconstruct_into(x, out=x) == expected).all())
        True
        """
        return self._core.reconstruct_into(x, out)

    def elbo(self, x: Any, samples: int = 1, seed: int = 0) -> Doubles:
        """-(reconstruction + KL) of each row, the mean over `samples` draws of z: x (n, D) -> (n,) nats.

        Higher is better. A lower bound of log p(x) in expectation (Kingma and Welling 2013, eq. 3). Draw s is the same
        noise for every row, so that a row's score has the same bits whatever rows accompany it. The rows' errors then
        go the same way: for a mean over rows take `Trainer.evaluate`, which draws noise for each row, or many samples.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
        >>> x = np.zeros((3, 6))
        >>> bool(model.elbo(x, samples=10)[1] == model.elbo(x[1:2], samples=10)[0])
        True
        """
        samples = _checks.integer("samples", samples, 1)
        scores: Doubles = _gpu.result(self._core.elbo(self._rows(x), samples, _checks.seed(seed)))
        return scores

    def log_likelihood(self, x: Any, samples: int = 500, seed: int = 0) -> Doubles:
        """Importance-weighted estimate of log p(x) (Burda et al. 2015, eq. 8): x (n, D) -> (n,) nats.

        It is at least the ELBO in expectation and approaches log p(x) as `samples` grows. Bits and noise as in `elbo`.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
        >>> model.log_likelihood(np.zeros((3, 6)), samples=50).shape
        (3,)
        """
        samples = _checks.integer("samples", samples, 1)
        scores: Doubles = _gpu.result(self._core.log_likelihood(self._rows(x), samples, _checks.seed(seed)))
        return scores

    @property
    def detector(self) -> Detector | None:
        """The score and threshold that tell anomalies, kept in the model's file; None: none chosen."""
        core = self._core.detector()
        return None if core is None else Detector._from_core(core)

    @detector.setter
    def detector(self, detector: Detector | None) -> None:
        self._core.set_detector(None if detector is None else detector._to_core())

    def score(self, x: Any, detector: Detector | str | None = None) -> Doubles:
        """The score of each row by which it is told from anomalies: x (n, D) -> (n,); higher is more normal.

        detector: a `Detector` or a score's name, None: the model's own (ValueError where it has none). A row's score
        has the same bits whatever rows accompany it, in every program that loads the model.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=6, latent=2))
        >>> model.score(np.zeros((3, 6)), "reconstruction").shape
        (3,)
        """
        if isinstance(detector, str):
            detector = Detector(detector)
        detector = self.detector if detector is None else detector
        if detector is None:
            raise ValueError('the model has no detector: set model.detector, or name a score such as "elbo"')
        scores: Doubles = _gpu.result(self._core.score(self._rows(x), detector._to_core()))
        return scores

    def contributions(self, x: Any) -> Doubles:
        """Where a row's surprise comes from: -log p(x_j | mean code) of each column: x (n, D) -> (n, D) nats.

        Columns as the caller has them: a categorical column's entry sums its categories. Their sum over a row is the
        reconstruction term at the mean code.

        >>> import numpy as np, fusedvae as fv
        >>> fv.Model(fv.Config(input_shape=6, latent=2)).contributions(np.zeros((3, 6))).shape
        (3, 6)
        """
        return self._core.contributions(self._rows(x))

    def gradients(
        self,
        x: Any,
        noise: Any = None,
        beta: float = 1.0,
        free_bits: float = 0.0,
        seed: int = 0,
        precision: str = "float32",
    ) -> tuple[Losses, dict[str, Floats]]:
        """Losses of one batch and the gradient of `loss` for each parameter, by the kernels that train.

        x (n, D); noise (n, Z) or (S, n, Z), standard normal, None: one draw from `seed`. The gradients have the names
        and shapes of `parameters()`. The loss is the mean over rows and samples. ValueError for noise of another shape
        or not finite, NonFiniteError where the loss is not finite. precision: as `Trainer`'s.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=6, hidden=(), latent=2))
        >>> losses, gradients = model.gradients(np.zeros((3, 6)), noise=np.zeros((3, 2)))
        >>> gradients["encoder_mean.weight"].shape
        (2, 6)
        """
        rows = self._rows(x)
        eps = _arrays.as_noise(noise, rows.count, self._config.latent, samples=True)
        losses, arrays = self._core.gradients(
            rows,
            eps,
            _checks.seed(seed),
            _checks.number("beta", beta),
            _checks.number("free_bits", free_bits),
            PRECISIONS.index(_checks.choice("precision", precision, PRECISIONS)),
        )
        return Losses(*losses), {
            name: array for (name, _), array in zip(self._core.parameter_info(), arrays, strict=True)
        }

    def parameters(self) -> dict[str, Floats]:
        """Copies of all parameters under PyTorch's names and (out, in) shapes.

        >>> import fusedvae as fv
        >>> list(fv.Model(fv.Config(hidden=())).parameters())[0]
        'encoder_mean.weight'
        """
        return {name: self._core.get_parameter(i) for i, (name, _) in enumerate(self._core.parameter_info())}

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Replaces all parameters; names and shapes are those of `parameters()`.

        ValueError for a missing or unknown name, a wrong shape or a value that is not finite: then nothing has changed.
        RuntimeError while the model is being trained.

        >>> import fusedvae as fv
        >>> model = fv.Model(fv.Config())
        >>> model.set_parameters({name: 0.5 * values for name, values in model.parameters().items()})
        """
        infos = self._core.parameter_info()
        known = [name for name, _ in infos]
        for name in parameters:
            _checks.choice("parameter", name, known)
        missing = [name for name in known if name not in parameters]
        if missing:
            raise ValueError(f"parameters are missing: {', '.join(missing)}")
        arrays = [_arrays.as_parameter(parameters[name], shape, name) for name, shape in infos]
        for i, array in enumerate(arrays):
            self._core.set_parameter(i, array)

    def init_output_bias(self, x: Any) -> None:
        """Sets the output layer's bias to the column means of x (n, D), as logits for a Bernoulli likelihood.

        A decoder whose other terms are small then begins at the data's mean. Means are kept within [0.001, 0.999] for
        logits.

        >>> import numpy as np, fusedvae as fv
        >>> model = fv.Model(fv.Config(input_shape=2, hidden=(), latent=2, init="glorot"))
        >>> model.init_output_bias(np.array([[0.0, 0.5], [0.5, 0.5]]))
        >>> model.decode([[0.0, 0.0]]).round(3).tolist()
        [[0.25, 0.5]]
        """
        self._core.init_output_bias(self._rows(x))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one .safetensors file, atomically: parameters in float32, the configuration as JSON in its metadata.

        OSError's kinds where the system refuses; the old file, if any, is then intact.
        """
        self._core.save(_checks.path(path))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes config.json, model.safetensors and, where there is none, a model card into `folder`.

        The layout of the Hugging Face Hub; the folder is made where it is missing. OSError's kinds as in `save`.

        >>> import tempfile, fusedvae as fv
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fv.Model(fv.Config(latent=3)).save_pretrained(folder)
        ...     fv.Model.from_pretrained(folder).config.latent
        3
        """
        from .hub import save_pretrained

        save_pretrained(self, folder)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Model:
        """The model in a folder of `save_pretrained`, or in a repository "owner/name" of the Hugging Face Hub.

        revision: branch, tag or commit. The options are `huggingface_hub.hf_hub_download`'s, which keeps what it has
        once downloaded and honours HF_HUB_OFFLINE; its errors are passed on. ImportError where a repository is named
        and huggingface_hub is not installed; FileNotFoundError and BadFileError as `load`.
        """
        from .hub import from_pretrained

        return from_pretrained(
            source,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            force_download=force_download,
            local_files_only=local_files_only,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a fusedvae model",
        create_pr: bool = False,
        token: str | bool | None = None,
    ) -> str:
        """Uploads what `save_pretrained` writes to "owner/name" on the Hugging Face Hub; returns the commit's URL.

        The repository is made where it is missing, private or not; a card that it has is kept. revision: the branch;
        create_pr: propose the commit instead. token: None takes that of `hf auth login`. ImportError without
        huggingface_hub, whose errors are passed on.
        """
        from .hub import push_to_hub

        return push_to_hub(
            self,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            token=token,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._config.to_dict(), self.parameters(), self._core.detector(), self.weights)

    def _rows(self, x: Any) -> _core.Rows:
        return _arrays.rows_of(x, self._config)

    def _shaped(self, rows: Floats | _core.DeviceArray) -> Floats:
        shaped: Floats = _gpu.result(rows).reshape(-1, *self._config.input_shape)
        return shaped

    def __repr__(self) -> str:
        held = "" if self.weights == "float32" else f", {self.weights} weights"
        lines = [
            f"Model({self.parameter_count} parameters, {self._config.likelihood}, {self._config.activation}{held})"
        ]
        for name, shape in self._core.parameter_info():
            if len(shape) == 2:
                lines.append(f"  {name.removesuffix('.weight')}: {shape[1]} -> {shape[0]}")
            elif not name.endswith(".bias"):
                lines.append(f"  {name}: {shape[0]}")
        return "\n".join(lines)


def load(path: str | os.PathLike[str], device: str = "cpu", weights: str = "float32") -> Model:
    """The model that `Model.save` or `Trainer.save` wrote, on `device`: see `Model.to`; weights: "bfloat16" for
    serving, see `Model.copy`.

    FileNotFoundError, PermissionError or OSError where the system refuses; BadFileError (a ValueError) for a truncated,
    corrupted or foreign file.

    >>> import tempfile, fusedvae as fv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fv.Model(fv.Config(latent=3)).save(f"{folder}/m.safetensors")
    ...     fv.load(f"{folder}/m.safetensors").config.latent
    3
    """
    _checks.choice("weights", weights, WEIGHTS)
    model = Model._wrap(_core.Model.load(_checks.path(path)))
    return (model if weights == model.weights else model.copy(weights)).to(device)


def check_model(model: Any) -> None:
    """TypeError for what is no Model; it says where an estimator and a trainer have theirs."""
    if not isinstance(model, Model):
        own = next((f"; pass its {name}" for name in ("model_", "model") if hasattr(model, name)), "")
        raise TypeError(f"model must be a fusedvae.Model, not {type(model).__name__}{own}")


def _rebuild(config: dict[str, Any], parameters: dict[str, Floats], detector: Any, weights: str = "float32") -> Model:
    model = Model(Config.from_dict(config))
    model.set_parameters(parameters)
    model._core.set_detector(detector)
    return model if weights == model.weights else model.copy(weights)
