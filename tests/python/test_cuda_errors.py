# SPDX-License-Identifier: MIT
"""What is said where there is no GPU, none that can be used, or no room on it."""

import os
import subprocess
import sys

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import _core
from fusedvae.cli import main
from gpus import GPU, needs_emulator, needs_gpu


@pytest.mark.skipif(GPU, reason="a GPU can be used here")
def test_without_a_gpu_each_way_there_says_why(make_model, tmp_path, x):
    model = make_model()
    model.save(tmp_path / "m.safetensors")
    trainer = fv.Trainer(model)
    trainer.save(tmp_path / "run.ckpt")
    ways = [
        lambda: model.to("cuda"),
        lambda: model.to("cuda:1"),
        lambda: fv.Model(model.config, device="cuda"),
        lambda: fv.load(tmp_path / "m.safetensors", device="cuda"),
        lambda: fv.Trainer.resume(tmp_path / "run.ckpt", device="cuda"),
        lambda: fv.DeviceArray(x),
    ]
    for way in ways:
        with pytest.raises(RuntimeError, match=r"built without CUDA.*cpu|NVIDIA driver"):
            way()
    assert model.device == "cpu"
    assert model.encode(x)[0].shape == (90, 3)


@pytest.mark.skipif(GPU, reason="a GPU can be used here")
def test_the_command_line_says_why(table, capsys):
    assert main(["info"]) == 0
    assert "cuda         this fusedvae is built without CUDA" in capsys.readouterr().out.replace("\n", " ")
    assert main(["train", str(table), "--out", str(table.with_name("m.safetensors")), "--device", "cuda"]) == 1
    assert "built without CUDA" in capsys.readouterr().err


@pytest.mark.skipif(GPU, reason="a GPU can be used here")
def test_rows_on_a_gpu_are_refused_by_a_model_that_is_not(make_model):
    class Elsewhere:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": (5, 12), "typestr": "<f4", "data": (4096, False), "version": 3, "stream": None,
        }  # fmt: skip

    model = make_model()
    trainer = fv.Trainer(model)
    for ask in (model.encode, model.elbo, model.contributions, trainer.step, trainer.evaluate, trainer.fit):
        with pytest.raises(ValueError, match="in a GPU's memory"):
            ask(Elsewhere())
    with pytest.raises(TypeError, match="works on the host"):
        fv.init_variance(make_model(likelihood=fv.Gaussian("feature")), Elsewhere())


def test_tf32_is_for_gpus(make_model, x):
    with pytest.raises(ValueError, match="'tf32' is not available on the CPU"):
        fv.Trainer(make_model(), precision="tf32")
    with pytest.raises(ValueError, match="'tf32' is not available on the CPU"):
        make_model().gradients(x, precision="tf32")
    assert fv.available_precisions("cuda") == ("float32", "tf32", "bfloat16")


@needs_gpu
def test_a_gpu_that_is_not_there(make_model):
    with pytest.raises(ValueError, match="no device 'cuda:77'"):
        make_model().to("cuda:77")


def leave(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the emulated GPU have so many bytes beside those in use."""
    monkeypatch.delenv("FUSEDVAE_EMULATED_GPU", raising=False)
    now = _core.device_properties("cuda")
    used = now["total_bytes"] - now["free_bytes"]
    monkeypatch.setenv("FUSEDVAE_EMULATED_GPU", f"memory={used + free}")


@needs_emulator
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("driver=0", "no NVIDIA driver"),
        ("driver=11000", "driver is too old: it runs CUDA 11.0"),
        ("devices=0", "finds no GPU"),
        ("architecture=75", "compute capability 7.5; this library needs 8.0"),
    ],
)
def test_why_there_is_no_gpu(setting, words):
    code = f"""
import fusedvae as fv
model = fv.Model(fv.Config(input_shape=4, latent=1))
try:
    model.to("cuda")
except RuntimeError as error:
    assert {words!r} in str(error), error
else:
    raise AssertionError("there is a GPU")
assert model.device == "cpu" and model.decode([[0.0]]).shape == (1, 4)
assert fv.available_devices() == ("cpu",)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "FUSEDVAE_EMULATED_GPU": setting})


@needs_emulator
def test_a_full_gpu_says_what_was_wanted_and_leaves_everything_usable(make_model, x, monkeypatch, same_bits):
    model = make_model(device="cuda")
    trainer = fv.Trainer(model, batch_size=30)
    trainer.fit(x, epochs=1)
    before = model.parameters()
    big = fv.Config(input_shape=3000, hidden=(3000,), latent=2)
    leave(4 << 20, monkeypatch)
    with pytest.raises(MemoryError, match=r"out of memory: .* are wanted for .*; .* are free"):
        fv.Model(big, device="cuda").encode(np.zeros((1, 3000), np.float32))
    leave(1 << 12, monkeypatch)
    with pytest.raises(MemoryError, match=r"out of memory: .* are wanted for .*; .* are free"):
        trainer.step(np.tile(x, (50, 1)))
    monkeypatch.delenv("FUSEDVAE_EMULATED_GPU")
    assert same_bits(model.parameters(), before)
    trainer.fit(x, epochs=1)
    assert trainer.epoch == 2


@needs_emulator
def test_data_that_does_not_fit_the_gpu_streams_through_it(make_model, x, monkeypatch, same_bits):
    rows = np.tile(x, (60, 1))  # 250 KB
    models = [make_model(device="cuda") for _ in range(2)]
    trainers = [fv.Trainer(model, batch_size=512, seed=1) for model in models]
    for trainer in trainers:
        trainer.step(rows[:512])  # makes room for what a step takes
    held = trainers[0].fit(rows, epochs=1)
    leave(150 << 10, monkeypatch)
    streamed = trainers[1].fit(rows, epochs=1)
    assert np.array_equal(held["loss"], streamed["loss"])
    assert same_bits(models[0].parameters(), models[1].parameters())


@needs_emulator
def test_a_kernel_that_fails_is_named(make_model, x, monkeypatch):
    model = make_model(device="cuda")
    model.encode(x)
    monkeypatch.setenv("FUSEDVAE_EMULATED_GPU", "fail=cudaStreamSynchronize:1:700")
    with pytest.raises(RuntimeError, match="failed on the GPU"):
        model.encode(x)
    monkeypatch.delenv("FUSEDVAE_EMULATED_GPU")
    assert model.encode(x)[0].shape == (90, 3)
