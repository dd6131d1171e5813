# SPDX-License-Identifier: MIT
"""Models from PyTorch's state dicts: names, numbering and widths are worked out, and what does not fit is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Config, Gaussian
from .model import Model

Names = Mapping[str, "str | Sequence[str]"]

# The layers of pytorch/examples/vae, which most tutorials repeat.
EXAMPLE_NAMES = {
    "fc1": "encoder.0",
    "fc21": "encoder_mean",
    "fc22": "encoder_logvar",
    "fc3": "decoder.0",
    "fc4": "decoder_logits",
}
# What torch.compile and DistributedDataParallel put before every name.
_WRAPPERS = ("_orig_mod.", "module.")


def from_torch(source: Any, config: Config | None = None, *, names: Names | None = None, **options: Any) -> Model:
    """The model whose parameters `source` holds: an `nn.Module` or its state dict, of tensors or arrays.

    Known without more: modules of `to_torch`, state dicts under this library's names (`Model.parameters`; the numbers
    of `encoder.i` may have gaps, as in an nn.Sequential with activations), and pytorch/examples' VAE (fc1, fc21, fc22,
    fc3, fc4). For others `names` says {theirs: ours}, of layers ("enc.0": "encoder.0") or single tensors; two names for
    one layer cut its outputs in halves ("head": ("encoder_mean", "encoder_logvar")).

    config: what the parameters belong to; None: a module's own, else widths and likelihood are read from the shapes,
    and `options` are the arguments of `Config` that shapes do not tell, such as activation="tanh" (ReLU otherwise),
    input_shape=(28, 28) or likelihood=fv.Gaussian(fixed_variance=0.1).

    `encoder_logvar` is the log of the variance: double the weights and bias of a layer that gives the log of the
    standard deviation. A layer without bias has one of zeros; normalisation is folded into the layer beside it first.
    Values are converted to float32. TypeError for what is no state dict; ValueError that names
    every tensor that is missing, left over, or of the wrong shape, and for values that are not finite.

    >>> import numpy as np, fusedvae as fv
    >>> layers = {"fc1": (8, 6), "fc21": (2, 8), "fc22": (2, 8), "fc3": (8, 2), "fc4": (6, 8)}
    >>> tensors = {f"{layer}.weight": np.ones(shape) for layer, shape in layers.items()}
    >>> tensors |= {f"{layer}.bias": np.zeros(shape[0]) for layer, shape in layers.items()}
    >>> from_torch(tensors)
    Model(170 parameters, Bernoulli(), relu)
      encoder.0: 6 -> 8
      encoder_mean: 8 -> 2
      encoder_logvar: 8 -> 2
      decoder.0: 2 -> 8
      decoder_logits: 8 -> 6
    """
    if config is None and not options and isinstance(getattr(source, "config", None), Config):
        config = source.config
    if config is not None and options:
        raise TypeError(f"config says it all; {', '.join(options)} cannot be given beside it")
    theirs = _arrays(source)
    if names is None and {_layer(name) for name in theirs} == EXAMPLE_NAMES.keys():
        names = EXAMPLE_NAMES
    tensors, origin = _renamed(theirs, _checked(names or {}))
    model = Model(_inferred(tensors, options, theirs) if config is None else config)
    for name in model.parameters():
        weight = tensors.get(f"{_layer(name)}.weight")
        if name.endswith(".bias") and name not in tensors and weight is not None:
            tensors[name] = np.zeros(weight.shape[:1], np.float32)
            origin[name] = name
    _check_fit(model, tensors, origin)
    model.set_parameters(tensors)
    return model


def _arrays(source: Any) -> dict[str, NDArray[Any]]:
    """The tensors as arrays, under their names without a wrapper's prefix."""
    tensors = source.state_dict() if callable(getattr(source, "state_dict", None)) else source
    if not isinstance(tensors, Mapping):
        raise TypeError(f"expected an nn.Module or its state dict, not {type(source).__name__}")
    if not tensors:
        raise ValueError("the state dict is empty")
    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"a state dict's names are strings, not {name!r}")
        arrays[name] = np.asarray(tensor.detach().cpu().float() if hasattr(tensor, "detach") else tensor)
    while any(all(name.startswith(prefix) for name in arrays) for prefix in _WRAPPERS):
        arrays = {name.partition(".")[2]: array for name, array in arrays.items()}
    return arrays


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _checked(names: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(names, Mapping):
        raise TypeError(f"names must map their names to ours, {{theirs: ours}}, not {names!r}")
    checked = {}
    for theirs, ours in names.items():
        parts = tuple(ours) if isinstance(ours, (tuple, list)) else (ours,)
        if not all(isinstance(name, str) for name in (theirs, *parts)):
            raise TypeError(f"names must map strings to strings or to tuples of strings, not {theirs!r} to {ours!r}")
        checked[theirs] = parts
    return checked


def _renamed(
    theirs: dict[str, NDArray[Any]], names: dict[str, tuple[str, ...]]
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors under our names, and where each comes from."""
    tensors: dict[str, NDArray[Any]] = {}
    origin: dict[str, str] = {}
    unused = set(names)
    for name, array in theirs.items():
        key = name if name in names else _layer(name)
        parts = names.get(key, (key,))
        unused.discard(key)
        suffix = name[len(key) :]
        if array.shape and array.shape[0] % len(parts):
            raise ValueError(f"{name} has shape {array.shape}, which is not {len(parts)} equal parts for {parts}")
        for part, values in zip(parts, np.split(array, len(parts)) if len(parts) > 1 else [array], strict=True):
            if part + suffix in tensors:
                raise ValueError(f"both {origin[part + suffix]} and {name} are to be {part + suffix}")
            tensors[part + suffix], origin[part + suffix] = values, name
    if unused:
        raise ValueError(f"names holds {_listed(sorted(unused))}, of which there is no tensor; {_content(theirs)}")
    numbers = _consecutive(tensors)
    return (
        {numbers.get(name, name): array for name, array in tensors.items()},
        {numbers.get(name, name): other for name, other in origin.items()},
    )


def _consecutive(tensors: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """New names for encoder.i and decoder.i whose numbers i of weight matrices have gaps."""
    renamed = {}
    for tower in ("encoder", "decoder"):
        numbers = sorted(
            int(number)
            for name, array in tensors.items()
            if name.startswith(f"{tower}.") and array.ndim == 2
            for number, dot, leaf in [name.removeprefix(f"{tower}.").partition(".")]
            if leaf == "weight" and number.isdigit()
        )
        if numbers != list(range(len(numbers))):
            for i, number in enumerate(numbers):
                for leaf in ("weight", "bias"):
                    renamed[f"{tower}.{number}.{leaf}"] = f"{tower}.{i}.{leaf}"
    return renamed


def _inferred(tensors: Mapping[str, NDArray[Any]], options: dict[str, Any], theirs: dict[str, NDArray[Any]]) -> Config:
    """The configuration that the shapes tell, completed by `options`."""

    def widths(tower: str) -> list[int]:
        found: list[int] = []
        while (name := f"{tower}.{len(found)}.weight") in tensors and tensors[name].ndim == 2:
            found.append(tensors[name].shape[0])
        return found

    needed = [["encoder_mean.weight"], ["decoder_logits.weight", "decoder_mean.weight"]]
    if not all(any(name in tensors and tensors[name].ndim == 2 for name in either) for either in needed):
        raise ValueError(
            f"the state dict names no encoder_mean and decoder_logits or decoder_mean; say names={{theirs: ours}}, "
            f"ours being encoder.0 and on, encoder_mean, encoder_logvar, decoder.0 and on, decoder_logits (Bernoulli) "
            f"or decoder_mean (Gaussian); {_content(theirs)}"
        )
    first = tensors["encoder.0.weight" if widths("encoder") else "encoder_mean.weight"]
    read: dict[str, Any] = {
        "input_shape": len(options["columns"]) if options.get("columns") is not None else first.shape[1],
        "hidden": widths("encoder"),
        "decoder_hidden": widths("decoder"),
        "latent": tensors["encoder_mean.weight"].shape[0],
    }
    if "decoder_mean.weight" in tensors:
        element, feature = "decoder_logvar.weight" in tensors, "log_variance" in tensors
        read["likelihood"] = Gaussian("element" if element else "feature" if feature else "fixed")
    return Config(**{**read, **options})


def _check_fit(model: Model, tensors: Mapping[str, NDArray[Any]], origin: Mapping[str, str]) -> None:
    expected = {name: values.shape for name, values in model.parameters().items()}
    wrong = []
    if missing := [name for name in expected if name not in tensors]:
        wrong.append(f"missing: {_listed(missing)}")
    if left_over := [origin[name] for name in tensors if name not in expected]:
        wrong.append(f"left over: {_listed(left_over)}")
    for name, shape in expected.items():
        if name in tensors and tensors[name].shape != shape:
            theirs = name if origin[name] == name else f"{origin[name]} (our {name})"
            wrong.append(f"{theirs} has shape {tensors[name].shape}, expected {shape}")
    if wrong:
        raise ValueError(f"the state dict does not fit the model; {'; '.join(wrong)}")


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _content(tensors: Mapping[str, NDArray[Any]]) -> str:
    return "there are " + _listed([f"{name} {array.shape}" for name, array in tensors.items()])
