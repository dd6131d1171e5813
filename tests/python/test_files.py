# SPDX-License-Identifier: MIT
"""Model and checkpoint files: what they hold, round trips to the bit, and every way in which a file can be wrong."""

import json
import os
import struct
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest


@pytest.fixture
def model_file(tmp_path: Path, make_model) -> Path:
    path = tmp_path / "m.safetensors"
    make_model(seed=3).save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, make_model, x) -> Path:
    trainer = fv.Trainer(make_model(seed=3), batch_size=40)
    trainer.fit(x, epochs=2, validation_data=x[:10])
    trainer.save(tmp_path / "run.ckpt")
    return tmp_path / "run.ckpt"


def header_of(data: bytes) -> tuple[dict, int]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), 8 + length


def with_header(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_models_come_back_to_the_bit(make_model, likelihood, tmp_path, same_bits, x):
    model = make_model(likelihood=likelihood, hidden=(16, 5), activation="silu", uint8_scale=0.5)
    model.save(tmp_path / "m.safetensors")
    again = fv.load(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert same_bits(again.parameters(), model.parameters())
    np.testing.assert_array_equal(again.elbo(x), model.elbo(x))


def test_the_safetensors_package_reads_models(model_file, make_model):
    safetensors = pytest.importorskip("safetensors.numpy")
    from safetensors import safe_open

    tensors = safetensors.load_file(model_file)
    parameters = make_model(seed=3).parameters()
    assert set(tensors) == set(parameters)
    for name, values in parameters.items():
        np.testing.assert_array_equal(tensors[name], values)
    with safe_open(model_file, "np") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    assert config["hidden"] == [16]
    assert config["likelihood"] == "bernoulli"


def test_the_safetensors_package_reads_checkpoints(checkpoint):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(checkpoint)
    parameters = fv.Trainer.resume(checkpoint).model.parameters()
    for name, values in parameters.items():
        held = [tensor for key, tensor in tensors.items() if key == name or key.endswith("/" + name)]
        assert any(np.array_equal(tensor, values) for tensor in held), name
    assert sum(tensor.size for tensor in tensors.values()) >= 3 * sum(values.size for values in parameters.values())


def test_files_of_the_safetensors_package_are_read(model_file, same_bits, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    header, _ = header_of(model_file.read_bytes())
    parameters = fv.load(model_file).parameters()
    safetensors.save_file(parameters, tmp_path / "theirs", metadata=header["__metadata__"])
    assert same_bits(fv.load(tmp_path / "theirs").parameters(), parameters)


def test_checkpoints_come_back_with_everything(checkpoint, make_model):
    trainer = fv.Trainer.resume(checkpoint)
    assert (trainer.epoch, trainer.global_step) == (2, 6)
    assert trainer.optimizer == fv.Adam()
    assert trainer.batch_size == 40
    assert trainer.model.config == make_model().config
    assert len(trainer.history["loss"]) == 2
    assert np.isfinite(trainer.history["val_loss"]).all()


def test_another_data_set_is_refused(checkpoint, x):
    trainer = fv.Trainer.resume(checkpoint)
    with pytest.raises(ValueError, match="data"):
        trainer.fit(1 - x, epochs=1)
    assert trainer.global_step == 6
    trainer.fit(x.copy(), epochs=1)
    assert trainer.epoch == 3


def test_odd_paths(tmp_path, make_model, same_bits):
    model = make_model()
    for name in ("plain", "with space", "ünïcødé-模型", "a" * 200):
        path = tmp_path / name
        model.save(str(path))
        assert same_bits(fv.load(path).parameters(), model.parameters())
    with pytest.raises(TypeError):
        model.save(3)  # type: ignore[arg-type]
    for use in (model.save, fv.Trainer(model).save, fv.load, fv.Trainer.resume):
        with pytest.raises(ValueError, match="NUL"):
            use(f"{tmp_path}/cut\0off")


def test_paths_that_are_not_utf_8(tmp_path):
    with pytest.raises(FileNotFoundError, match="not\udcff there"):
        fv.load(os.fsencode(tmp_path) + b"/not\xff there")


# ---- what the system refuses


def test_missing_files(tmp_path):
    for read in (fv.load, fv.Trainer.resume):
        with pytest.raises(FileNotFoundError, match="missing"):
            read(tmp_path / "missing")


def test_folders_are_no_files(tmp_path, make_model, same_bits):
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        fv.load(tmp_path)
    model = make_model()
    for save in (model.save, fv.Trainer(model).save):
        with pytest.raises(OSError, match=str(tmp_path)):
            save(tmp_path)


def test_unwritable_paths(tmp_path, make_model):
    model = make_model()
    for save in (model.save, fv.Trainer(model).save):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            save(tmp_path / "nowhere" / "m.safetensors")
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            save(tmp_path / "file" / "m.safetensors")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_permissions(tmp_path, make_model, model_file):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="closed"):
        make_model().save(tmp_path / "closed" / "m.safetensors")
    model_file.chmod(0)
    with pytest.raises(PermissionError):
        fv.load(model_file)


def test_a_failed_save_leaves_no_trace(tmp_path, make_model):
    with pytest.raises(OSError, match=r".*"):
        make_model().save(tmp_path / ("x" * 300))
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_and_leaves_nothing_else(tmp_path, make_model, same_bits):
    path = tmp_path / "m.safetensors"
    make_model(seed=1).save(path)
    make_model(seed=2).save(path)
    assert same_bits(fv.load(path).parameters(), make_model(seed=2).parameters())
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


# ---- what the file holds


def both(tmp_path: Path, data: bytes) -> None:
    """Neither reader takes these bytes."""
    path = tmp_path / "bad"
    path.write_bytes(data)
    for read in (fv.load, fv.Trainer.resume):
        with pytest.raises(fv.BadFileError, match="bad"):
            read(path)


@pytest.mark.parametrize("file", ["model_file", "checkpoint"])
def test_truncated_files(file: str, request, tmp_path):
    data = request.getfixturevalue(file).read_bytes()
    _, body = header_of(data)
    for length in {0, 1, 7, 8, 9, body // 2, body - 1, body, body + 1, len(data) - 4, len(data) - 1}:
        both(tmp_path, data[:length])


def test_longer_files(model_file, tmp_path):
    both(tmp_path, model_file.read_bytes() + b"\0")


@pytest.mark.parametrize(
    "data",
    [b"\x80\x04\x95pickle", b"PK\x03\x04" + bytes(100), b"\x93NUMPY" + bytes(100), bytes(1000), b"{}", b"\xff" * 64],
)
def test_foreign_files(data: bytes, tmp_path):
    both(tmp_path, data)


def test_safetensors_of_something_else(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    both(tmp_path, safetensors.save({"weight": np.zeros((2, 2), np.float32)}))


def test_a_model_is_no_checkpoint(model_file):
    with pytest.raises(fv.BadFileError, match=r"model|checkpoint"):
        fv.Trainer.resume(model_file)


def change(header: dict, what: str) -> None:
    config = json.loads(header["__metadata__"]["config"])
    if what == "missing tensor":
        del header["decoder_logits.bias"]
    elif what == "shape":
        header["encoder.0.weight"]["shape"] = [12, 16]
    elif what == "dtype":
        header["encoder.0.weight"]["dtype"] = "F64"
    elif what == "unknown dtype":
        header["encoder.0.weight"]["dtype"] = "Q7"
    elif what == "offset":
        header["encoder.0.weight"]["data_offsets"][1] = 2**62
    elif what == "huge shape":
        header["encoder.0.weight"]["shape"] = [2**40, 2**40]
    elif what == "negative shape":
        header["encoder.0.weight"]["shape"] = [-16, -12]
    elif what == "no config":
        del header["__metadata__"]["config"]
    elif what == "config text":
        header["__metadata__"]["config"] = "{"
    elif what == "config depth":
        header["__metadata__"]["config"] = "[" * 100_000
    else:
        key, _, value = what.partition("=")
        config[key] = json.loads(value)
        header["__metadata__"]["config"] = json.dumps(config)


@pytest.mark.parametrize(
    "what",
    [
        *("missing tensor", "shape", "dtype", "unknown dtype", "offset", "huge shape", "negative shape"),
        *("no config", "config text", "config depth", "latent=0", "latent=4", 'latent="3"', "hidden=[0]"),
        *('activation="rleu"', "input_shape=[]", "hidden=[99999999999999]", "latent=null"),
    ],
)
def test_corrupted_headers(what: str, model_file, tmp_path):
    data = model_file.read_bytes()
    header, body = header_of(data)
    change(header, what)
    path = tmp_path / "bad"
    path.write_bytes(with_header(header, data[body:]))
    with pytest.raises(fv.BadFileError, match="bad"):
        fv.load(path)


def test_unchanged_headers_load(model_file, tmp_path, same_bits):
    data = model_file.read_bytes()
    header, body = header_of(data)
    (tmp_path / "good").write_bytes(with_header(header, data[body:]))
    assert same_bits(fv.load(tmp_path / "good").parameters(), fv.load(model_file).parameters())


@pytest.mark.parametrize("file", ["model_file", "checkpoint"])
def test_random_damage_is_an_error_or_other_numbers(file: str, request, tmp_path):
    data = request.getfixturevalue(file).read_bytes()
    _, body = header_of(data)
    read = fv.load if file == "model_file" else fv.Trainer.resume
    rng = np.random.default_rng(0)
    path = tmp_path / "bad"
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(body)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except fv.BadFileError:
            refused += 1
    assert refused > 100


def test_a_copy_keeps_what_a_newer_version_has_written(model_file: Path, tmp_path: Path):
    header, start = header_of(model_file.read_bytes())
    header["__metadata__"]["origin"] = "a version to come"
    model_file.write_bytes(with_header(header, model_file.read_bytes()[start:]))
    fv.load(model_file).copy().save(tmp_path / "copy")
    assert header_of((tmp_path / "copy").read_bytes())[0]["__metadata__"]["origin"] == "a version to come"
