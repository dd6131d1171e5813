# SPDX-License-Identifier: MIT
"""save_pretrained, from_pretrained and push_to_hub, without a network: folders, the Hub's cache, and its API mocked at
its own methods, whose signatures are checked. What needs huggingface_hub is skipped where it is not installed.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

import fusedvae as fv
import numpy as np
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
URL = f"https://huggingface.co/owner/faces/commit/{COMMIT}"


@pytest.fixture
def model(make_model, x):
    model = make_model(likelihood=fv.Gaussian("feature"), activation="silu")
    model.detector = fv.Detector("elbo", samples=3, threshold=-4.5)
    return model


@pytest.fixture
def hub():
    return pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


@pytest.fixture
def cache(hub, model, tmp_path):
    """The cache of a program that has downloaded owner/faces, at main and at the tag v1."""
    repo = tmp_path / "cache" / "models--owner--faces"
    model.save_pretrained(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    for name in ("main", "v1"):
        (repo / "refs" / name).write_text(COMMIT)
    return tmp_path / "cache"


def same(a, b, x, same_bits):
    assert a.config == b.config
    assert same_bits(a.parameters(), b.parameters())
    np.testing.assert_array_equal(a.score(x), b.score(x))


def test_folders_hold_everything(model, x, tmp_path, same_bits):
    folder = tmp_path / "a" / "faces"
    model.save_pretrained(folder)
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    for source in (folder, str(folder), f"{folder}/"):
        same(fv.Model.from_pretrained(source), model, x, same_bits)
    same(fv.load(folder / "model.safetensors"), model, x, same_bits)


def test_config_json_says_what_the_model_is(model, tmp_path):
    model.save_pretrained(tmp_path)
    plain = json.loads((tmp_path / "config.json").read_text())
    assert plain.pop("library_name") == "fusedvae"
    assert plain.pop("fusedvae_version") == fv.__version__
    assert plain.pop("model_type") == "vae"
    assert fv.Config.from_dict(plain) == model.config


def test_the_card_says_how_to_load(model, tmp_path):
    folder = tmp_path / "faces"
    model.save_pretrained(folder)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: fusedvae\n")
    assert "# faces\n" in card
    assert "fv.Model.from_pretrained('faces')" in card
    assert "12 columns" in card
    assert "encoder.0: 12 -> 16" in card
    assert "rows below -4.5 are anomalies" in card
    model.detector = None
    (folder / "README.md").unlink()
    model.save_pretrained(folder)
    assert "anomalies" not in (folder / "README.md").read_text()


def test_the_card_is_one_that_the_hub_reads(hub, model, tmp_path):
    model.save_pretrained(tmp_path / "faces")
    card = hub.ModelCard.load(tmp_path / "faces" / "README.md")
    assert card.data.library_name == "fusedvae"
    assert card.data.tags == ["variational-autoencoder"]


def test_code_of_the_card_runs(model, x, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "faces")
    code = (tmp_path / "faces" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {"x": x}
    exec(code, names)
    np.testing.assert_array_equal(names["mu"], model.encode(x)[0])
    assert names["samples"].shape == (16, 12)


def test_a_second_save_replaces_the_model_and_keeps_the_card(model, make_model, x, tmp_path, same_bits):
    make_model(seed=9, hidden=(4,)).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("written by hand")
    model.save_pretrained(tmp_path)
    same(fv.Model.from_pretrained(tmp_path), model, x, same_bits)
    assert json.loads((tmp_path / "config.json").read_text())["hidden"] == [16]
    assert (tmp_path / "README.md").read_text() == "written by hand"


def test_wrong_folders(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        fv.Model.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        fv.Model.from_pretrained(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no folder '.*none' with model\.safetensors"):
        fv.Model.from_pretrained(str(tmp_path / "none"))
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(FileNotFoundError, match=r"fv\.load reads a single file"):
        fv.Model.from_pretrained(str(tmp_path / "m.safetensors"))
    with pytest.raises((FileExistsError, NotADirectoryError)):
        model.save_pretrained(tmp_path / "m.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(fv.BadFileError):
        fv.Model.from_pretrained(tmp_path)


def test_repositories_are_read_from_the_cache(cache, model, x, same_bits):
    for revision in (None, "main", "v1", COMMIT):
        found = fv.Model.from_pretrained("owner/faces", revision=revision, cache_dir=cache, local_files_only=True)
        same(found, model, x, same_bits)


def test_what_is_not_in_the_cache_is_the_hubs_error(hub, cache):
    missing = hub.errors.LocalEntryNotFoundError
    with pytest.raises(missing):
        fv.Model.from_pretrained("owner/faces", revision="v2", cache_dir=cache, local_files_only=True)
    with pytest.raises(missing):
        fv.Model.from_pretrained("owner/none", cache_dir=cache, local_files_only=True)
    with pytest.raises(hub.errors.HFValidationError):
        fv.Model.from_pretrained("a/b/c", cache_dir=cache, local_files_only=True)


def test_offline_mode_is_honoured(cache, model):
    program = "import fusedvae as fv; print(fv.Model.from_pretrained('owner/faces'))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.strip() == repr(model), done.stderr


class Repository:
    """What a test may see of a push: HfApi's methods, with their signatures, and the files of the commit."""

    def __init__(self, hub, monkeypatch, files):
        self.files = files
        self.made = mock.create_autospec(hub.HfApi)
        self.api = self.made.return_value
        self.api.create_repo.return_value = hub.RepoUrl("https://huggingface.co/owner/faces")
        self.api.file_exists.return_value = False
        self.api.upload_folder.side_effect = self.upload
        monkeypatch.setattr(hub, "HfApi", self.made)

    def upload(self, *, folder_path, **_):
        shutil.copytree(folder_path, self.files)
        return mock.Mock(commit_url=URL)


def test_pushing_uploads_the_folder(hub, model, x, tmp_path, monkeypatch, same_bits):
    repository = Repository(hub, monkeypatch, tmp_path / "files")
    assert model.push_to_hub("faces", private=True, commit_message="First", token="secret") == URL
    assert repository.made.call_args.kwargs["token"] == "secret"
    repository.api.create_repo.assert_called_once_with("faces", private=True, exist_ok=True)
    given = repository.api.upload_folder.call_args.kwargs
    folder = pathlib.Path(given.pop("folder_path"))
    assert given == {
        "repo_id": "owner/faces",
        "commit_message": "First",
        "revision": None,
        "create_pr": False,
        "ignore_patterns": None,
    }
    assert not folder.exists()
    same(fv.Model.from_pretrained(tmp_path / "files"), model, x, same_bits)
    assert "fv.Model.from_pretrained('owner/faces')" in (tmp_path / "files" / "README.md").read_text()


def test_pushing_keeps_the_repositorys_card(hub, model, tmp_path, monkeypatch):
    repository = Repository(hub, monkeypatch, tmp_path / "files")
    repository.api.file_exists.return_value = True
    model.push_to_hub("owner/faces", revision="dev", create_pr=True)
    repository.api.file_exists.assert_called_once_with("owner/faces", "README.md", revision="dev")
    given = repository.api.upload_folder.call_args.kwargs
    assert (given["ignore_patterns"], given["revision"], given["create_pr"]) == (["README.md"], "dev", True)


def test_the_hubs_refusals_are_passed_on(hub, model, tmp_path, monkeypatch):
    repository = Repository(hub, monkeypatch, tmp_path / "files")
    repository.api.create_repo.side_effect = PermissionError("no write token")
    with pytest.raises(PermissionError, match="no write token"):
        model.push_to_hub("owner/faces")
    repository.api.upload_folder.assert_not_called()


def test_without_huggingface_hub_the_extra_is_named(model, x, tmp_path, monkeypatch, same_bits):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model.save_pretrained(tmp_path / "faces")
    same(fv.Model.from_pretrained(tmp_path / "faces"), model, x, same_bits)
    for use in (lambda: fv.Model.from_pretrained("owner/faces"), lambda: model.push_to_hub("owner/faces")):
        with pytest.raises(ImportError, match=r'needs huggingface_hub: pip install "fusedvae\[hub\]"'):
            use()
