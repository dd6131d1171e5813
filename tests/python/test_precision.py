# SPDX-License-Identifier: MIT
"""bfloat16: where it is offered and refused, and how near it stays to float32. Its gradients are tested natively."""

import os
import subprocess
import sys

import fusedvae as fv
import numpy as np
import pytest

needs_bfloat16 = pytest.mark.skipif(
    "bfloat16" not in fv.available_precisions(), reason="this processor or build offers no bfloat16"
)


def test_auto_takes_the_best_on_offer(make_model):
    assert fv.Trainer(make_model(), precision="auto").precision == fv.available_precisions()[-1]
    assert fv.Trainer(make_model()).precision == "float32"


def test_other_backends_refuse_it_and_say_what_to_do():
    code = """
import fusedvae as fv
assert fv.available_precisions() == ("float32",)
model = fv.Model(fv.Config(input_shape=4, latent=1))
assert fv.Trainer(model, precision="auto").precision == "float32"
wish = {"precision": "bfloat16"}
for ask in (lambda: fv.Trainer(model, **wish), lambda: model.gradients([[0, 0, 0, 0]], **wish)):
    try:
        ask()
    except ValueError as error:
        assert "'bfloat16' is not available here" in str(error) and "'auto'" in str(error), error
    else:
        raise AssertionError("nothing was refused")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "FUSEDVAE_BACKEND": "scalar"})


@needs_bfloat16
@pytest.mark.parametrize("optimizer", [fv.Adam(1e-2), fv.SGD(1e-3, momentum=0.9)])
@pytest.mark.parametrize("hidden", [(), (33,), (70, 40)])
def test_training_follows_float32(optimizer, hidden, make_model):
    # 61 columns: a last word that is half empty in every matrix
    x = np.random.default_rng(0).random((203, 61), dtype=np.float32)
    final = {}
    for precision in ("float32", "bfloat16"):
        model = make_model(input_shape=61, hidden=hidden, latent=3)
        trainer = fv.Trainer(model, optimizer, batch_size=50, precision=precision, seed=1)
        trainer.fit(x, epochs=8, validation_data=x[:77])
        final[precision] = trainer.evaluate(x)
        assert trainer.history["val_loss"][-1] == pytest.approx(trainer.evaluate(x[:77], seed=1).loss, rel=1e-12)
    # Each rounding is 2^-9 at most and they do not add up in one direction: a thousandth of the loss is generous,
    # and training must have lowered it by far more.
    before = fv.Trainer(make_model(input_shape=61, hidden=hidden, latent=3)).evaluate(x).loss
    gained = before - final["float32"].loss
    assert gained > 0
    assert abs(final["bfloat16"].loss - final["float32"].loss) < 0.1 * gained
    assert final["bfloat16"].loss == pytest.approx(final["float32"].loss, rel=1e-3)


@needs_bfloat16
def test_a_checkpoint_keeps_the_precision(tmp_path, make_model, x):
    trainer = fv.Trainer(make_model(), precision="bfloat16")
    trainer.fit(x, epochs=1)
    trainer.save(tmp_path / "run.ckpt")
    assert fv.Trainer.resume(tmp_path / "run.ckpt").precision == "bfloat16"


@needs_bfloat16
def test_parameters_set_from_outside_reach_the_words(make_model, x, same_bits):
    a, b = make_model(), make_model(seed=3)
    trainer = fv.Trainer(b, precision="bfloat16", batch_size=40)
    trainer.step(x[:40])
    fresh = fv.Trainer(a, fv.SGD(0.0), precision="bfloat16")
    b.set_parameters(a.parameters())
    noise = np.zeros((40, a.config.latent), np.float32)
    assert fv.Trainer(b, fv.SGD(0.0), precision="bfloat16").step(x[:40], noise) == fresh.step(x[:40], noise)
    assert trainer.step(x[:40], noise).loss == fresh.step(x[:40], noise).loss


@needs_bfloat16
def test_memory_names_the_words(make_model, x):
    trainer = fv.Trainer(make_model(input_shape=784, hidden=(400,)), precision="bfloat16", batch_size=10)
    trainer.step(np.zeros((10, 784)))
    memory = trainer.memory()
    assert 0.45 < memory["words"] / memory["parameters"] < 0.55
    assert 0 < memory["transposed"] < memory["words"]
