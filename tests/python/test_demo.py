# SPDX-License-Identifier: MIT
"""fusedvae.demo, .picture and .progress: what is chosen from the data, what is measured, what is drawn and shown."""

import io
import sys

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import data, demo, picture, progress

RNG = np.random.default_rng(0)


def blobs(n=300):
    """Images (n, 6, 6) of a bright column at one of six places: two nats of structure that a tiny model finds."""
    x = np.full((n, 6, 6), 0.05, np.float32)
    x[np.arange(n), :, RNG.integers(0, 6, n)] = 0.95
    return data.Dataset("blobs", x[50:], x[:50], image_shape=(6, 6))


def pixels(path):
    return np.asarray(pytest.importorskip("PIL.Image").open(path).convert("RGB"), np.float64)


# ---- choices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros((3, 2), np.uint8), fv.Bernoulli()),
        (np.zeros((3, 2), bool), fv.Bernoulli()),
        (np.array([[0.0, 1.0]]), fv.Bernoulli()),
        (np.array([[0.0, 1.01]]), fv.Gaussian(variance="feature")),
        (np.array([[-0.01, 1.0]]), fv.Gaussian(variance="feature")),
    ],
)
def test_likelihood_follows_the_data(x, expected):
    assert demo.likelihood_for(x) == expected


def test_likelihood_by_name():
    assert demo.likelihood_for(np.zeros((3, 2)), "gaussian", "element") == fv.Gaussian(variance="element")
    assert demo.likelihood_for(np.full((3, 2), 7.0), "bernoulli") == fv.Bernoulli()


def test_scale_hint():
    x = RNG.standard_normal((1000, 3))
    assert demo.scale_hint(x) is None
    assert demo.scale_hint(np.c_[x, np.ones(1000)]) is None  # a constant column has no scale
    assert "standard deviations 0.9" in demo.scale_hint(x * [1, 1, 50])
    assert "means reach 1e+03" in demo.scale_hint(x + np.array([0, 1000, 0]))


def test_recipe_counts_steps():
    def table(n):
        return data.Dataset("t.csv", np.zeros((n, 5), np.float32))

    assert demo.recipe(table(60_000), 128).epochs == 10
    assert demo.recipe(table(10_000_000), 128).epochs == 1
    assert demo.recipe(table(10), 128).epochs == 400
    assert demo.recipe(table(10), 128).latent == 5


def test_flops_against_the_parameters():
    """2 (3 sum(K N) - D H1): every weight matrix three times, the first encoder layer's data gradient left out."""
    for config in (
        fv.Config(),
        fv.Config(input_shape=(3, 5), hidden=(7, 4), decoder_hidden=(6,), latent=2, likelihood=fv.Gaussian("element")),
        fv.Config(input_shape=9, hidden=(), latent=3, likelihood="gaussian"),
    ):
        sizes = [w.size for w in fv.Model(config).parameters().values() if w.ndim == 2]
        first = config.width * (config.hidden[0] if config.hidden else 2 * config.latent)
        assert demo.flops_per_row(config) == 2 * (3 * sum(sizes) - first)


# ---- the run --------------------------------------------------------------------------------------------------------


def test_run_learns_measures_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    config = fv.Config(input_shape=(6, 6), hidden=(32,), latent=3)
    rows, output = blobs(), tmp_path / "demo.png"
    untrained = fv.Model(config, seed=0).elbo(rows.test, samples=20).mean()
    result = demo.run(rows, config, epochs=60, batch_size=50, learning_rate=5e-3, output=output)
    assert result.steps == 60 * 5
    assert result.epochs == 60
    assert result.elbo > untrained + 3
    assert result.rows_per_second == pytest.approx(60 * 250 / result.seconds)
    assert result.steps_per_second == pytest.approx(300 / result.seconds)
    assert result.gflops == pytest.approx(result.rows_per_second * demo.flops_per_row(config) / 1e9)
    assert 0 < result.fraction_of_peak == pytest.approx(result.gflops / result.peak_gflops)
    assert result.fraction_of_peak < 1.2
    assert not result.interrupted
    # Originals and reconstructions show the same columns at the same places.
    image = pixels(output)[:, :, 0]
    height = 2 * (6 * 7 + 6) + 1 * 7  # two rows of tiles of six pixels, seven times enlarged, and their gap
    first = image[26 : 26 + height, 10:-10]
    second = image[26 + height + 26 : 2 * (26 + height), 10:-10]
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.5


def test_run_of_a_table_makes_no_picture(tmp_path):
    x = RNG.standard_normal((80, 4)).astype(np.float32)
    table, said = data.Dataset("t.csv", x[10:], x[:10]), []
    config = fv.Config(input_shape=4, hidden=(8,), latent=2, likelihood=fv.Gaussian("feature"))
    result = demo.run(table, config, epochs=1, output=tmp_path / "demo.png", log=said.append)
    assert result.picture is None
    assert not list(tmp_path.iterdir())
    assert said == ["rows of this data are no images: no picture is made"]


def test_run_finds_what_will_fail_before_the_work(tmp_path):
    config = fv.Config(input_shape=(6, 6), hidden=(8,), latent=2)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        demo.run(blobs(), config, epochs=10**9, output=tmp_path / "absent" / "demo.png")
    with pytest.raises(ValueError, match=r"written as \.png"):
        demo.run(blobs(), config, epochs=10**9, output=tmp_path / "demo.doc")
    with pytest.raises(IsADirectoryError):
        demo.run(blobs(), config, epochs=10**9, output=tmp_path)
    with pytest.raises(ValueError, match="held-out rows"):
        demo.run(data.Dataset("x", np.zeros((5, 6, 6), np.float32)), config, epochs=10**9)


def test_run_shows_the_model_so_far_on_ctrl_c():
    def interrupt(trainer, progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    result = demo.run(blobs(), fv.Config(input_shape=(6, 6), hidden=(8,), latent=2), epochs=1000, callbacks=[interrupt])
    assert result.interrupted
    assert 2 <= result.epochs <= 3
    assert np.isfinite(result.elbo)


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_mosaic_places_tiles():
    x = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    page = picture.mosaic(x, columns=3)
    assert page.shape == (5, 11)
    np.testing.assert_array_equal(page[3:5, 4:7], x[4])
    assert np.isnan(page[2]).all()  # the gap between two rows
    assert np.isnan(page[3:, 8:]).all()  # no sixth tile


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (1, 3, 5), (3, 4, 3), (3, 9, 7)])
def test_image_shapes(shape):
    assert picture.is_image_shape(shape)
    drawn = picture.as_image(np.zeros((2, *shape)))
    assert drawn.ndim == 3 or drawn.shape[-1] == 3


@pytest.mark.parametrize("shape", [(5,), (5, 6, 7), (2, 3, 4, 5)])
def test_other_shapes(shape):
    assert not picture.is_image_shape(shape)
    with pytest.raises(ValueError, match="are no images"):
        picture.as_image(np.zeros((2, *shape)))


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (5, 9, 3), (3, 16, 16), (200, 100)])
def test_save_has_the_size_and_the_pixels(tmp_path, shape):
    pytest.importorskip("matplotlib")
    x = RNG.random((20, *shape), dtype=np.float32)
    picture.save(tmp_path / "p.png", {"all": x}, columns=10)
    page = picture.mosaic((x - x.min()) / (x.max() - x.min()), 10)
    scale = max(1, round(picture.TILE_PIXELS * 10 / page.shape[1]))
    image = pixels(tmp_path / "p.png")
    assert image.shape[:2] == (page.shape[0] * scale + 36, page.shape[1] * scale + 20)
    middle = image[26 + scale // 2 : -10 : scale, 10 + scale // 2 : -10 : scale]
    expected = 255 * (page if page.ndim == 3 else page[:, :, None])
    there = np.isfinite(expected[..., 0])
    assert np.abs(middle - expected)[there].max() < 2.1  # 8-bit rounding, twice


# ---- progress -------------------------------------------------------------------------------------------------------


def at(epoch, batch=0, *, epochs=4, validation=None, loss=12.0):
    losses = fv.Losses(loss, 10.0, 2.0)
    held_out = None if validation is None else fv.Losses(validation, validation, 0.0)
    return fv.Progress(epoch, epochs, batch, 5, epoch * 5 + batch, 1e-3, 1.0, losses, losses, held_out)


def test_plain_lines(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    bar = progress.ProgressBar(out)
    bar.on_train_begin(None, at(0))
    for epoch, second in enumerate([0.1, 1.2, 1.3, 1.4]):
        clock[0] = 100 + second
        bar.on_tick(None, at(epoch, 3))
        bar.on_epoch_end(None, at(epoch, 5, validation=13.5))
    bar.on_train_end(None, at(3, 5))
    assert out.getvalue().splitlines() == [
        f"epoch {epoch}/4  loss 12.00, rec 10.00, KL 2.00, held out 13.50" for epoch in (2, 4)
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_on_a_terminal():
    pytest.importorskip("tqdm")
    out = Terminal()
    bar = progress.ProgressBar(out)
    bar.on_train_begin(None, at(1, 2))  # goes on within the second epoch: 13 steps are left
    bar.on_epoch_end(None, at(1, 5, validation=13.5))
    bar.on_tick(None, at(2, 3))
    bar.on_epoch_end(None, at(3, 5))
    bar.on_train_end(None, at(3, 5))
    drawn = out.getvalue().split("\r")
    assert len(drawn) <= 5  # the tick and the end, not each epoch
    assert any("epoch 3/4" in line and " 46% " in line and "held out 13.50" in line for line in drawn)
    assert "epoch 4/4  loss 12.00, rec 10.00, KL 2.00, held out 13.50 100% |" in drawn[-1]


def test_terminal_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    out = Terminal()
    bar = progress.ProgressBar(out)
    bar.on_train_begin(None, at(0, epochs=1))
    bar.on_tick(None, at(0, 3, epochs=1))
    bar.on_epoch_end(None, at(0, 5, epochs=1))
    bar.close()
    assert out.getvalue() == "epoch 1/1  loss 12.00, rec 10.00, KL 2.00\n"


def test_bar_in_a_real_run():
    out = io.StringIO()
    trainer = fv.Trainer(fv.Model(fv.Config(input_shape=(6, 6), hidden=(8,), latent=2)))
    history = trainer.fit(blobs().train, epochs=3, callbacks=[progress.ProgressBar(out)])
    assert out.getvalue().splitlines()[-1].startswith(f"epoch 3/3  loss {history['loss'][-1]:.2f}, ")


def test_bar_listens_to_no_batches():
    assert not hasattr(progress.ProgressBar, "on_batch_end")
