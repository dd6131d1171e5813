# SPDX-License-Identifier: MIT
"""fusedvae.plot: what each picture shows, on the axes given or its own, and what it says of it."""

import subprocess
import sys

import fusedvae as fv
import numpy as np
import pytest

pytest.importorskip("matplotlib")
from fusedvae import plot
from fusedvae.plot import codes
from fusedvae.plot.axes import COLOURS
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

RNG = np.random.default_rng(0)


@pytest.fixture
def images():
    """Rows (30, 5, 4): a bright line each."""
    x = np.zeros((30, 5, 4), np.float32)
    x[np.arange(30), RNG.integers(0, 5, 30)] = 1
    return x


def model_of(input_shape, latent, **options):
    return fv.Model(fv.Config(input_shape=input_shape, hidden=(8,), latent=latent, **options), seed=1)


@pytest.fixture
def model():
    return model_of((5, 4), 3)


def texts(labels):
    return [label.get_text() for label in labels]


def tile(ax, row, column, shape=(5, 4)):
    """The pixels of one tile, as drawn: within [0, 1]."""
    page = np.asarray(ax.images[0].get_array())
    top, left = row * (shape[0] + 1), column * (shape[1] + 1)
    return page[top : top + shape[0], left : left + shape[1]]


# ---- curves ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def history(images):
    trainer = fv.Trainer(model_of((5, 4), 2), batch_size=10)
    return trainer.fit(images[:20], epochs=4, validation_data=images[20:])


def test_curves_show_the_history(history):
    ax = plot.training_curves(history, ["loss", "kl"])
    names = ["loss, training", "loss, held out", "KL, training", "KL, held out"]
    assert texts(ax.get_legend().get_texts()) == names
    assert [line.get_label() for line in ax.lines] == names
    for line, name in zip(ax.lines, ["loss", "val_loss", "kl", "val_kl"], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), history[name])
        np.testing.assert_array_equal(line.get_xdata(), history["epoch"])
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--", "-", "--"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "losses, nats per row")


def test_curves_without_held_out_rows(images):
    history = fv.Trainer(model_of((5, 4), 2)).fit(images, epochs=1)
    ax = plot.training_curves(history)
    assert texts(ax.get_legend().get_texts()) == ["loss, training"]
    assert ax.lines[0].get_marker() == "o"  # a line of one point would not show


def test_curves_of_nothing(history):
    with pytest.raises(ValueError, match="no finished epoch"):
        plot.training_curves(fv.History([]))
    with pytest.raises(ValueError, match="unknown term 'elbo'; known are 'loss'"):
        plot.training_curves(history, "elbo")


# ---- images ---------------------------------------------------------------------------------------------------------


def test_reconstructions_stand_below_their_data(model, images):
    ax = plot.reconstructions(model, images[:7], columns=4)
    assert texts(ax.get_yticklabels()) == ["data", "model"] * 2
    back = np.clip(model.reconstruct(images[:7]), 0, 1)
    for i in range(7):
        np.testing.assert_allclose(tile(ax, 2 * (i // 4), i % 4), images[i], atol=1e-6)
        np.testing.assert_allclose(tile(ax, 2 * (i // 4) + 1, i % 4), back[i], atol=1e-6)
    assert np.ptp(tile(ax, 2, 3)) == 0  # there is no eighth


def test_reconstructions_scale_uint8_alike(model, images):
    whole = plot.reconstructions(model, (255 * images[:3]).astype(np.uint8))
    np.testing.assert_allclose(
        whole.images[0].get_array(), plot.reconstructions(model, images[:3]).images[0].get_array()
    )


@pytest.mark.parametrize("shape", [(4, 4, 3), (3, 5, 4), (4, 4, 1)])
def test_reconstructions_in_colour(shape):
    ax = plot.reconstructions(model_of(shape, 2), RNG.random((3, *shape)))
    assert np.asarray(ax.images[0].get_array()).ndim == (2 if shape[-1] == 1 else 3)


def test_samples_are_the_samplers(model):
    ax = plot.samples(fv.Sampler(model, seed=4), n=6, columns=3)
    drawn = fv.Sampler(model, seed=4).sample(6)
    scaled = (drawn - drawn.min()) / np.ptp(drawn)
    for i in range(6):
        np.testing.assert_allclose(tile(ax, i // 3, i % 3), scaled[i], atol=1e-5)


def test_latent_grid_says_where_codes_lie():
    ax = plot.latent_grid(fv.Sampler(model_of((5, 4), 2)), n=3)
    assert texts(ax.get_xticklabels()) == texts(ax.get_yticklabels()) == ["-1.0", "0.0", "1.0"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z1", "z0")
    with pytest.raises(ValueError, match="latent width of 2"):
        plot.latent_grid(fv.Sampler(model_of((5, 4), 3)))


def test_traversals_show_the_strongest_first(model, images):
    parameters = model.parameters()
    parameters["decoder.0.weight"][:, 1] = 0  # z1 changes nothing
    parameters["decoder.0.weight"][:, 2] *= 10
    model.set_parameters(parameters)
    ax = plot.traversals(fv.Sampler(model), images[0], steps=3)
    assert texts(ax.get_yticklabels())[0] == "z2"
    assert texts(ax.get_yticklabels())[2] == "z1"
    assert texts(ax.get_xticklabels()) == ["-3", "0", "3"]
    np.testing.assert_array_equal(tile(ax, 2, 0), tile(ax, 2, 2))
    assert np.abs(tile(ax, 0, 0) - tile(ax, 0, 2)).max() > 0.01
    with pytest.raises(ValueError, match="dims names no dimension"):
        plot.traversals(fv.Sampler(model), dims=[])
    assert len(texts(plot.traversals(fv.Sampler(model_of((5, 4), 14))).get_yticklabels())) == 10


@pytest.mark.parametrize(
    "draw",
    [
        lambda model: plot.reconstructions(model, np.zeros((2, 20))),
        lambda model: plot.samples(fv.Sampler(model)),
        lambda model: plot.latent_grid(fv.Sampler(model)),
        lambda model: plot.traversals(fv.Sampler(model)),
    ],
)
def test_rows_that_are_no_images(draw):
    with pytest.raises(ValueError, match=r"rows have shape \(20,\) and are no images"):
        draw(model_of(20, 2))


def test_a_model_is_no_sampler(model):
    for draw in (plot.samples, plot.latent_grid, plot.traversals):
        with pytest.raises(TypeError, match=r"such as Sampler\(model\), not Model"):
            draw(model)


# ---- codes ----------------------------------------------------------------------------------------------------------


def points(ax):
    return np.concatenate([dots.get_offsets() for dots in ax.collections])


def test_embedding_of_two_dimensions_is_the_codes(images):
    model = model_of((5, 4), 2)
    ax = plot.embedding(model, images)
    np.testing.assert_allclose(points(ax), model.encode(images)[0], rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z0", "z1")
    assert ax.get_legend() is None


def test_embedding_of_one_dimension_shows_its_spread(images):
    model = model_of((5, 4), 1)
    ax = plot.embedding(model, images)
    mu, logvar = model.encode(images)
    np.testing.assert_allclose(points(ax), np.hstack((mu, np.exp(logvar / 2))), rtol=1e-6)
    assert ax.get_ylabel() == "standard deviation of q(z0|x)"


def test_embedding_by_principal_components(images):
    decomposition = pytest.importorskip("sklearn.decomposition")
    model = model_of((5, 4), 4)
    ax = plot.embedding(model, images)
    pca = decomposition.PCA(2).fit(model.encode(images)[0].astype(np.float64))
    expected = pca.transform(model.encode(images)[0])
    np.testing.assert_allclose(np.abs(points(ax)), np.abs(expected), atol=1e-6)
    assert ax.get_xlabel() == f"principal component 1 of 4 code dimensions ({pca.explained_variance_ratio_[0]:.0%})"


def test_embedding_by_kl(images):
    model = model_of((5, 4), 4)
    mu, logvar = model.encode(images)
    kl = (0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)).mean(0)
    i, j = np.argsort(-kl)[:2]
    ax = plot.embedding(model, images, projection="kl")
    np.testing.assert_allclose(points(ax), mu[:, [i, j]], rtol=1e-6)
    assert ax.get_xlabel() == f"z{i} (KL {kl[i]:.2f} nats per row)"
    with pytest.raises(ValueError, match="unknown projection 'tsne'"):
        plot.embedding(model, images, projection="tsne")


def test_embedding_colours_labels(images):
    model = model_of((5, 4), 2)
    labels = np.array([0, 1, 2] * 10)
    ax = plot.embedding(model, images, labels)
    codes = model.encode(images)[0]
    for kind, dots in enumerate(ax.collections):
        np.testing.assert_allclose(dots.get_offsets(), codes[labels == kind], rtol=1e-6)
        np.testing.assert_allclose(dots.get_facecolor()[0, :3], to_rgb(COLOURS[kind]))
    assert texts(ax.get_legend().get_texts()) == ["0", "1", "2"]


def test_embedding_of_many_labels(images):
    model = model_of((5, 4), 2)
    scale = plot.embedding(model, images, np.arange(30.0))
    assert scale.get_legend() is None
    np.testing.assert_array_equal(scale.collections[0].get_array(), np.arange(30))
    words = ["a"] * 5 + [f"w{i}" for i in range(25)]
    ax = plot.embedding(model, images, words)
    names = texts(ax.get_legend().get_texts())
    assert (len(names), names[0], names[-1]) == (10, "a", "(others)")
    assert len(points(ax)) == 30
    with pytest.raises(ValueError, match=r"labels have shape \(3,\); expected one for each of 30 rows"):
        plot.embedding(model, images, [0, 1, 2])


def test_labels_are_words_and_not_markup(images, tmp_path):
    words = ["_hidden", "$\\alpha", "two\nlines", "a" * 100, ""] * 6
    ax = plot.embedding(model_of((5, 4), 2), images, words)
    shown = texts(ax.get_legend().get_texts())
    assert shown == ["(empty)", r"\$\alpha", " _hidden", "a" * 23 + "…", "two lines"]
    ax.figure.savefig(tmp_path / "p.png")


def test_kl_by_dimension(images):
    model = model_of((5, 4), 3)
    report = fv.collapse_report(model, images)
    ax = plot.kl_by_dimension(model, images)
    bars = sorted(ax.patches, key=lambda bar: bar.get_x())
    heights = [bar.get_height() for bar in bars]
    assert heights == sorted(report.kl, reverse=True)
    assert sum(heights) == pytest.approx(fv.Trainer(model).evaluate(images).kl, rel=1e-5)
    dimensions = [int(name[1]) for name in texts(ax.get_xticklabels())]
    np.testing.assert_array_equal(report.kl[dimensions], heights)
    for dimension, bar in zip(dimensions, bars, strict=True):
        colour = COLOURS[0] if report.active[dimension] else COLOURS[3]
        np.testing.assert_allclose(bar.get_facecolor()[:3], to_rgb(colour))
    assert 0 < report.active_units < 3
    names = [f"{report.active_units} active", f"{3 - report.active_units} collapsed"]
    assert texts(ax.get_legend().get_texts()) == names
    assert ax.get_ylabel() == "KL, nats per row"


def test_a_collapsed_code_looks_like_nothing(images):
    model = model_of((5, 4), 3)
    model.set_parameters({name: values * 1e-3 for name, values in model.parameters().items()})
    assert plot.kl_by_dimension(model, images).get_ylim()[1] == codes.LEAST_KL


# ---- scores ---------------------------------------------------------------------------------------------------------


def counts(ax, group):
    """Rows in each bin of the group's outline, whose path visits every bin's height."""
    outlines = [patch for patch in ax.patches if not patch.get_fill()]
    vertices = outlines[group].get_xy()
    return vertices[1::2, 1]


def test_histogram_counts_every_row():
    scores = RNG.standard_normal(500)
    ax = plot.score_histogram(scores, bins=20)
    np.testing.assert_array_equal(counts(ax, 0)[:20], np.histogram(scores, 20)[0])
    assert ax.get_legend() is None
    assert "lower is more abnormal" in ax.get_xlabel()


def test_histogram_keeps_outliers_in_sight():
    scores = np.concatenate((RNG.standard_normal(500), [-1e6, -2e6]))
    ax = plot.score_histogram(scores, labels=[0] * 500 + [1] * 2, bins=20)
    assert ax.get_xlim()[0] > -20
    assert counts(ax, 0)[:20].sum() == 500
    assert counts(ax, 1)[0] == 2
    assert ax.get_xlabel().endswith("; 2 rows beyond the ends")
    assert texts(ax.get_legend().get_texts()) == ["0 (500 rows)", "1 (2 rows)"]


def test_histogram_puts_rows_on_their_side_of_the_threshold():
    scores = np.concatenate((RNG.standard_normal(500), [-1e3, -2e3]))
    ax = plot.score_histogram(scores, threshold=-50, bins=20)
    edge = next(patch for patch in ax.patches if not patch.get_fill()).get_xy()
    first_bin = edge[edge[:, 1] > 0, 0].min()
    assert first_bin < -50 < edge[edge[:, 1] > 0, 0].max()
    assert texts(ax.get_legend().get_texts()) == ["threshold -50, 2 rows below"]


def test_histogram_of_equal_scores_and_of_one():
    for scores in ([2.0] * 5, [2.0]):
        assert counts(plot.score_histogram(scores, bins=3), 0)[:3].sum() == len(scores)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([], {}, "no scores"),
        ([1.0, np.nan], {}, "finite"),
        ([1.0, 2.0], {"labels": [0]}, r"labels have shape \(1,\)"),
        (range(11), {"labels": range(11)}, "11 different values; at most 10"),
        ([1.0], {"bins": 0}, "bins"),
    ],
)
def test_histogram_of_what_it_cannot_count(scores, options, message):
    with pytest.raises(ValueError, match=message):
        plot.score_histogram(list(scores), **options)


# ---- figures --------------------------------------------------------------------------------------------------------


def test_axes_given_are_the_ones_drawn_on(model, images, history, tmp_path):
    """Each function on axes of one figure, which is then written."""
    figure = Figure(figsize=(20, 12), layout="constrained")
    axes = iter(figure.subplots(2, 4).flat)
    plane = model_of((5, 4), 2)
    for draw, *arguments in (
        (plot.training_curves, history),
        (plot.reconstructions, model, images[:5]),
        (plot.samples, fv.Sampler(model), 5),
        (plot.latent_grid, fv.Sampler(plane), 5),
        (plot.traversals, fv.Sampler(model)),
        (plot.embedding, plane, images),
        (plot.kl_by_dimension, model, images),
        (plot.score_histogram, model.elbo(images)),
    ):
        ax = next(axes)
        assert draw(*arguments, ax=ax) is ax
    assert len(figure.axes) == 8
    figure.savefig(tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_pyplot_is_left_alone():
    program = (
        "import io, sys, fusedvae as fv;"
        "fv.plot.score_histogram([1.0, 2.0]).figure.savefig(io.BytesIO());"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'needs matplotlib: pip install "fusedvae\[plot\]"'):
        plot.score_histogram([1.0])
