# SPDX-License-Identifier: MIT
"""Models in the layout of the Hugging Face Hub: config.json, model.safetensors and a card, in a folder or a repository.

model.safetensors is what `Model.save` writes and all that is read back; config.json and the card are for the Hub and
its readers. huggingface_hub's own ModelHubMixin would have to be a base of `Model` and be imported with it, so its
methods are written here over the same calls.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from . import _core
from ._atomic import replacing
from ._readers import require
from .model import Model, load

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_CARD = """---
library_name: fusedvae
tags:
- variational-autoencoder
---

# {title}

A variational autoencoder of {parameters} parameters, made with fusedvae {version}. It reads {columns} and \
gives codes of {latent} dimensions.

```
{layers}
```
{detector}
## Use

```python
import fusedvae as fv

model = fv.Model.from_pretrained({name!r})
mu, logvar = model.encode(x)  # x: rows of {columns}
x_mean = model.reconstruct(x)
bounds = model.elbo(x, samples=32)  # nats per row, at most log p(x) in expectation
samples = fv.Sampler(model, seed=0).sample(16)
```
"""


def save_pretrained(model: Model, folder: str | os.PathLike[str], repo_id: str | None = None) -> None:
    """See `Model.save_pretrained`; repo_id: where the card says that the model is."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    model.save(target / WEIGHTS)
    plain = {"library_name": "fusedvae", "fusedvae_version": _core.version(), "model_type": "vae"}
    _write(target / CONFIG, json.dumps({**plain, **model.config.to_dict()}, indent=2) + "\n")
    if not (target / CARD).exists():
        _write(target / CARD, _card(model, repo_id or target.resolve().name))


def from_pretrained(source: str | os.PathLike[str], **download: Any) -> Model:
    """See `Model.from_pretrained`; `download` are hf_hub_download's arguments."""
    if isinstance(source, str) and not os.path.isdir(source):
        if os.path.isfile(source) or source.startswith((".", "~", os.sep)):
            raise FileNotFoundError(f"there is no folder {source!r} with {WEIGHTS} in it; fv.load reads a single file")
        hub = require("huggingface_hub", "hub", "Model.from_pretrained of a repository")
        version = {"library_name": "fusedvae", "library_version": _core.version()}
        return load(hub.hf_hub_download(source, WEIGHTS, **version, **download))
    return load(Path(source) / WEIGHTS)


def push_to_hub(
    model: Model,
    repo_id: str,
    *,
    private: bool | None,
    revision: str | None,
    commit_message: str,
    create_pr: bool,
    token: str | bool | None,
) -> str:
    """See `Model.push_to_hub`."""
    hub = require("huggingface_hub", "hub", "Model.push_to_hub")
    api = hub.HfApi(token=token, library_name="fusedvae", library_version=_core.version())
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, repo_id)
        # A card that stands there has been written by someone who knows more about the model.
        kept = [CARD] if api.file_exists(repo_id, CARD, revision=revision) else None
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            ignore_patterns=kept,
        )
    return str(commit.commit_url)


def _card(model: Model, name: str) -> str:
    config, detector = model.config, model.detector
    shape = " x ".join(map(str, config.input_shape))
    sentence = ""
    if detector is not None:
        threshold = "" if detector.threshold is None else f"; rows below {detector.threshold:g} are anomalies"
        sentence = f"\n`model.score(x)` is its score {detector.score!r}, higher for what is more normal{threshold}.\n"
    return _CARD.format(
        title=name.rpartition("/")[2],
        parameters=model.parameter_count,
        version=_core.version(),
        columns=f"{shape} values" if len(config.input_shape) > 1 else f"{shape} columns",
        latent=config.latent,
        layers=model,
        detector=sentence,
        name=name,
    )


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
