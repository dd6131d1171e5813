# SPDX-License-Identifier: MIT
"""Models and trainings on a GPU, or on the emulated one of -DFUSEDVAE_CUDA_EMULATED=ON: numbers, bits and files."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fusedvae as fv
import numpy as np
import pytest
from fusedvae.cli import main
from gpus import close, needs_gpu


@pytest.fixture
def pair(make_model: Callable[..., fv.Model], likelihood: Any) -> tuple[fv.Model, fv.Model]:
    """The same model on the CPU and on the GPU."""
    return make_model(likelihood=likelihood), make_model(likelihood=likelihood).to("cuda")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file of 40 rows and 3 columns."""
    rows = np.random.default_rng(4).standard_normal((40, 3)) * [1.0, 2.0, 0.5]
    np.savetxt(tmp_path / "table.csv", rows, delimiter=",", header="a,b,c", comments="")
    return tmp_path / "table.csv"


# ---- what a model computes -------------------------------------------------------------------------------------------


@needs_gpu
def test_a_model_computes_what_it_does_on_the_cpu(pair, x):
    cpu, gpu = pair
    assert gpu.device == "cuda:0"
    z = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
    for ask in (
        lambda m: m.encode(x)[0],
        lambda m: m.encode(x)[1],
        lambda m: m.decode(z),
        lambda m: m.reconstruct(x),
        lambda m: m.elbo(x[:11], samples=4, seed=3),
        lambda m: m.log_likelihood(x[:5], samples=17, seed=3),
        lambda m: m.contributions(x[:9]),
        lambda m: fv.Sampler(m, seed=2).sample(6),
        lambda m: fv.Sampler(m).traverse(x[0], dim=1, steps=4),
    ):
        close(ask(gpu), ask(cpu), terms=64)


@needs_gpu
@pytest.mark.parametrize("score", ["elbo", "log_likelihood", "reconstruction", "kl", "mahalanobis"])
def test_scores(pair, x, score):
    cpu, gpu = pair
    latent = {"latent_mean": np.full(3, 0.1), "latent_precision": np.eye(3) + 0.2} if score == "mahalanobis" else {}
    detector = fv.Detector(score, samples=5, distance=0.25, **latent)
    close(gpu.score(x[:13], detector), cpu.score(x[:13], detector), terms=64)
    close(np.asarray(gpu.score(fv.DeviceArray(x[:13]), detector)), cpu.score(x[:13], detector), terms=64)


@needs_gpu
def test_gradients(pair, x):
    cpu, gpu = pair
    noise = np.random.default_rng(5).standard_normal((2, 31, 3)).astype(np.float32)
    (losses, ours), (expected, theirs) = (m.gradients(x[:31], noise, beta=0.5, free_bits=0.01) for m in (gpu, cpu))
    close(losses, expected, terms=64)
    for name in theirs:
        close(ours[name], theirs[name], terms=64)


@needs_gpu
def test_columns_of_a_table(make_model):
    columns = [fv.Column("a", shift=2.0, scale=3.0), fv.Column("b", categories=("x", "y", "z"))]
    rows = np.stack([np.linspace(-3, 7, 20), np.arange(20) % 3], axis=1)
    config = fv.Config(input_shape=2, hidden=(8,), latent=2, likelihood=fv.Gaussian("feature"), columns=columns)
    cpu, gpu = fv.Model(config, seed=1), fv.Model(config, seed=1, device="cuda")
    close(gpu.encode(rows)[0], cpu.encode(rows)[0], terms=16)
    close(gpu.reconstruct(rows), cpu.reconstruct(rows), terms=16)
    close(gpu.score(rows, "reconstruction"), cpu.score(rows, "reconstruction"), terms=16)
    with pytest.raises(ValueError, match="columns reads its rows on the host"):
        gpu.encode(fv.DeviceArray(rows))


@needs_gpu
def test_every_type_of_rows(make_model):
    bytes_ = np.random.default_rng(2).integers(0, 256, (9, 12), dtype=np.uint8)
    cpu, gpu = make_model(), make_model().to("cuda")
    for dtype in (np.uint8, np.float64, np.float16, np.bool_):
        rows = bytes_ if dtype == np.uint8 else (bytes_ / 255).astype(dtype)
        close(gpu.encode(rows)[0], cpu.encode(rows)[0], terms=16)
    assert np.array_equal(gpu.encode(bytes_[::2])[0], gpu.encode(bytes_[::2].copy())[0])


# ---- training --------------------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (fv.Adam(1e-2), {}),
        (fv.AdamW(1e-2, weight_decay=0.1), {"beta": fv.LinearBeta(1.0, steps=5), "schedule": fv.Cosine(9, warmup=2)}),
        (fv.SGD(1e-2, momentum=0.9, nesterov=True), {"clip_norm": 0.5}),
        (fv.SGD(1e-2), {"free_bits": 0.05, "drop_last": True}),
    ],
    ids=["adam", "adamw", "clip", "free_bits"],
)
def test_training_is_the_cpus(pair, x, optimizer, options):
    trainers = [fv.Trainer(m, optimizer, batch_size=32, seed=3, **options) for m in pair]
    histories = [t.fit(x, epochs=3, validation_data=x[:41]) for t in trainers]
    # Rounding of one step is carried through the others: Adam divides by the root of a mean square that may be as small
    # as the rounding itself, so its parameters may differ by a few thousandths of a step's length, the rate.
    for name in ("loss", "reconstruction", "kl", "val_loss", "learning_rate", "beta"):
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-5)
    ours, theirs = (m.parameters() for m in (pair[1], pair[0]))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=3e-5)
    assert trainers[1].global_step == trainers[0].global_step
    assert trainers[1].memory()["device"] > 0 == trainers[0].memory()["device"]


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_same_seed_gives_the_same_bits(precision, make_model, x, same_bits):
    def trained(callbacks: Any) -> tuple[Any, fv.Model]:
        trainer = fv.Trainer(make_model(device="cuda"), batch_size=16, seed=5, precision=precision)
        assert trainer.precision == precision
        return trainer.fit(x, epochs=2, callbacks=callbacks), trainer.model

    class EachBatch(fv.Callback):
        seen = 0

        def on_batch_end(self, trainer: fv.Trainer, progress: fv.Progress) -> None:
            self.seen += 1
            assert progress.step == self.seen
            assert np.isfinite(progress.batch_losses.loss)

    watcher = EachBatch()
    (first, a), (second, b) = trained([]), trained([watcher])  # many steps at a time, and one by one
    assert watcher.seen == 12
    assert np.array_equal(first["loss"], second["loss"])
    assert same_bits(a.parameters(), b.parameters())


@needs_gpu
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_low_precision_follows_float32(precision, make_model, x):
    before = fv.Trainer(make_model()).evaluate(x).loss
    losses = {}
    for chosen in ("float32", precision):
        trainer = fv.Trainer(make_model(device="cuda"), fv.Adam(1e-2), batch_size=30, seed=1, precision=chosen)
        trainer.fit(x, epochs=8)
        losses[chosen] = trainer.evaluate(x).loss
    # as on the CPU (test_precision): roundings of 2^-9 at most do not add up in one direction
    assert abs(losses[precision] - losses["float32"]) < 0.1 * (before - losses["float32"])


@needs_gpu
def test_step_evaluate_and_sources(pair, x):
    noise = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    trainers = [fv.Trainer(m, batch_size=20, seed=4) for m in pair]
    close(trainers[1].step(x[:20], noise), trainers[0].step(x[:20], noise), terms=64)
    close(trainers[1].evaluate(x, seed=2), trainers[0].evaluate(x, seed=2), terms=64)
    batches = [x[:17], x[17:60], x[60:]]
    histories = [t.fit(batches, epochs=2) for t in trainers]
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=1e-5)


@needs_gpu
def test_a_memory_map_is_trained_like_the_array(tmp_path, make_model, x, same_bits):
    np.save(tmp_path / "x.npy", x)
    models = [make_model(device="cuda") for _ in range(2)]
    for model, rows in zip(models, (x, np.load(tmp_path / "x.npy", mmap_mode="r")), strict=True):
        fv.Trainer(model, batch_size=32).fit(rows, epochs=1)
    assert same_bits(models[0].parameters(), models[1].parameters())
    x[50, 3] = np.nan
    np.save(tmp_path / "bad.npy", x)
    with pytest.raises(ValueError, match="NaN in row 50, column 3"):
        fv.Trainer(models[0]).fit(np.load(tmp_path / "bad.npy", mmap_mode="r"), epochs=1)


@needs_gpu
def test_a_loss_that_is_not_finite_stops_as_on_the_cpu(make_model, x, same_bits):
    messages = []
    for device in ("cpu", "cuda"):
        model = make_model(likelihood=fv.Gaussian("element"), device=device)
        trainer = fv.Trainer(model, fv.SGD(1e9), batch_size=30, snapshot=True)
        before = model.parameters()
        with pytest.raises(fv.NonFiniteError, match="became non-finite at step 1 ") as caught:
            trainer.fit(x, epochs=3)
        messages.append(str(caught.value).partition(":")[0])
        assert same_bits(before, model.parameters())
        assert trainer.global_step == 0
    assert messages[0] == messages[1]


@needs_gpu
def test_stopping_and_going_on_gives_the_bits_of_one_run(tmp_path, make_model, x, same_bits):
    whole = fv.Trainer(make_model(device="cuda"), batch_size=16, seed=2)
    whole.fit(x, epochs=2)

    class StopAt(fv.Callback):
        def on_batch_end(self, trainer: fv.Trainer, progress: fv.Progress) -> bool:
            return progress.step == 4

    parts = fv.Trainer(make_model(device="cuda"), batch_size=16, seed=2)
    parts.fit(x, epochs=2, callbacks=[StopAt()])
    assert parts.global_step == 4
    parts.save(tmp_path / "run.ckpt")
    again = fv.Trainer.resume(tmp_path / "run.ckpt", device="cuda")
    assert again.model.device == "cuda:0"
    again.fit(x, epochs=2)
    assert same_bits(again.model.parameters(), whole.model.parameters())
    assert np.array_equal(again.history["loss"], whole.history["loss"])


@needs_gpu
@pytest.mark.parametrize(("start", "end"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_training_moves_between_devices(start, end, tmp_path, make_model, x):
    stayed = fv.Trainer(make_model(), batch_size=16, seed=2)
    stayed.fit(x, epochs=2)
    moved = fv.Trainer(make_model(device=start), batch_size=16, seed=2)
    moved.fit(x, epochs=1)
    moved.save(tmp_path / "run.ckpt")
    moved.model.to(end)
    resumed = fv.Trainer.resume(tmp_path / "run.ckpt", device=end)
    for trainer in (moved, resumed):  # the moments go along: without them the second epoch would differ at once
        trainer.fit(x, epochs=1)
        np.testing.assert_allclose(trainer.history["loss"], stayed.history["loss"], rtol=1e-5)
        assert trainer.model.device.startswith(end)


@needs_gpu
def test_a_checkpoint_in_a_gpus_precision_says_where_it_can_go_on(tmp_path, make_model, x):
    trainer = fv.Trainer(make_model(device="cuda"), precision="tf32")
    trainer.fit(x, epochs=1)
    trainer.save(tmp_path / "run.ckpt")
    resumed = fv.Trainer.resume(tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="'tf32' is not available on the CPU: move the model"):
        resumed.fit(x, epochs=1)
    close(resumed.evaluate(x), trainer.evaluate(x), terms=64)  # in float32, wherever
    resumed.model.to("cuda")
    resumed.fit(x, epochs=1)


@needs_gpu
def test_estimators_and_the_command_line(table, capsys):
    pytest.importorskip("sklearn")
    rows = np.loadtxt(table, delimiter=",", skiprows=1)
    small = {"latent": 2, "hidden": 8, "epochs": 2, "device": "cuda"}
    vae = fv.VAE(**small).fit(rows)
    assert vae.model_.device == "cuda:0"
    assert vae.transform(rows).shape == (40, 2)
    there, here = (fv.AnomalyDetector(**{**small, "device": device}).fit(rows) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there.score_samples(rows), here.score_samples(rows), rtol=1e-3)

    model = str(table.with_name("m.safetensors"))
    options = ["--hidden", "8", "--latent", "2", "--epochs", "1", "--quiet"]
    assert main(["train", str(table), "--out", model, "--device", "cuda", "--precision", "tf32", *options]) == 0
    assert main(["score", model, str(table), "--device", "cuda", "--out", str(table.with_name("s.csv"))]) == 0
    assert main(["sample", model, "--device", "cuda", "--n", "3", "--out", str(table.with_name("x.npy"))]) == 0
    assert main(["demo", "--data", str(table), "--device", "cuda", *options]) == 0
    assert "GFLOP/s on cuda:0" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    assert "cuda:0" in json.loads(capsys.readouterr().out)["gpus"]


# ---- one set of parameters -------------------------------------------------------------------------------------------


@needs_gpu
def test_parameters_are_the_same_whoever_changed_them(tmp_path, make_model, x, same_bits):
    model = make_model(device="cuda")
    trainer = fv.Trainer(model, batch_size=30)
    trainer.fit(x, epochs=1)
    trained = model.parameters()
    assert not same_bits(trained, make_model().parameters())
    model.save(tmp_path / "m.safetensors")
    for other in (
        fv.load(tmp_path / "m.safetensors"),
        fv.load(tmp_path / "m.safetensors", device="cuda"),
        model.copy(),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        assert same_bits(other.parameters(), trained)
        close(other.encode(x)[0], model.encode(x)[0], terms=64)
    assert model.copy().device == "cuda:0"
    assert pickle.loads(pickle.dumps(model)).device == "cpu"

    mu = np.empty((90, 3), np.float32)
    close(model.encode_into(x, mu), model.encode(x)[0], terms=64)
    model.set_parameters({name: 0.5 * values for name, values in trained.items()})
    assert not np.allclose(model.encode(x)[0], mu)
    trainer.fit(x, epochs=1)
    model.init_output_bias(x)
    there = model.parameters()
    assert same_bits(model.to("cpu").parameters(), there)


@needs_gpu
def test_a_callback_reads_what_was_just_trained(make_model, x, same_bits):
    seen = []

    def look(trainer: fv.Trainer, progress: fv.Progress) -> None:
        seen.append(trainer.model.parameters())
        with pytest.raises(RuntimeError, match="being trained"):
            trainer.model.to("cpu")

    model = make_model(device="cuda")
    fv.Trainer(model, batch_size=30).fit(x, epochs=2, callbacks=[look])
    assert not same_bits(*seen)
    assert same_bits(seen[1], model.parameters())
