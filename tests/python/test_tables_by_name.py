# SPDX-License-Identifier: MIT
"""A model whose columns have names finds a table's by them, wherever it is given one; labels are refused in words."""

import fusedvae as fv
import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

COLUMNS = [fv.Column("a", 1.0, 2.0), fv.Column("b", 5.0, 3.0), fv.Column("pet", categories=("cat", "dog"))]
TABLE = pandas.DataFrame(
    {"a": [1.0, 2.0, 4.0, 3.0], "b": [5.0, 8.0, 3.0, 4.0], "pet": ["cat", "dog", "dog", "cat"]}, index=[7, 8, 9, 10]
)
ARRAY = np.array([[1, 5, 0], [2, 8, 1], [4, 3, 1], [3, 4, 0]], float)


@pytest.fixture
def model():
    return fv.Model(
        fv.Config(input_shape=3, hidden=(4,), latent=2, likelihood=fv.Gaussian("feature"), columns=COLUMNS), seed=1
    )


def trained(model, data):
    trainer = fv.Trainer(model, batch_size=2)
    trainer.fit(data, epochs=2)
    return model.elbo(ARRAY)


def held_out(model, data):
    return fv.Trainer(model).fit(ARRAY, epochs=2, validation_data=data)["val_loss"]


def ensemble(model, data):
    [trainer] = fv.train_ensemble([fv.Trainer(model)], data, epochs=2, validation_data=data)
    return trainer.history["val_loss"]


WAYS = {
    "encode": lambda model, x: model.encode(x)[0],
    "score": lambda model, x: model.score(x, "elbo"),
    "fit": trained,
    "validation": held_out,
    "batches": lambda model, x: trained(model, [x, x]),
    "batches of validation": lambda model, x: held_out(model, [x, x]),
    "ensemble": ensemble,
    "batches of an ensemble": lambda model, x: ensemble(model, [x, x]),
    "step": lambda model, x: fv.Trainer(model).step(x),
    "evaluate": lambda model, x: fv.Trainer(model).evaluate(x),
    "fit_codes": lambda model, x: fv.Sampler(model).fit_codes(x, 1).mixture.means,
    "nearest": lambda model, x: fv.Sampler(model).nearest(x, x, x).distance,
    "init_variance": fv.init_variance,
    "collapse": lambda model, x: fv.collapse_report(model, x).kl,
}


@pytest.mark.parametrize("way", [*WAYS])
def test_columns_are_found_by_name_and_words_are_categories(way, model):
    if way == "fit_codes":
        pytest.importorskip("sklearn")
    use = WAYS[way]
    expected = use(model.copy(), ARRAY)
    np.testing.assert_array_equal(use(model.copy(), TABLE), expected)
    np.testing.assert_array_equal(use(model.copy(), TABLE[["pet", "b", "a"]]), expected)
    before = model.parameters()
    for table, words in (
        (TABLE.rename(columns={"a": "c"}), r"unseen at fit time:\n- c\nFeature names seen .* missing:\n- a"),
        (TABLE.drop(columns="a"), r"yet now missing:\n- a$"),
        (TABLE.assign(id=1), r"match those that were passed during fit\.\nFeature names unseen at fit time:\n- id$"),
        (pandas.concat([TABLE, TABLE[["a"]]], axis=1), r"passed during fit\.\nFeature names that occur twice:\n- a$"),
        (TABLE.assign(pet="cow"), "Found unknown categories"),
    ):
        with pytest.raises(ValueError, match=words):
            use(model, table)
    assert all((values == before[name]).all() for name, values in model.parameters().items())


def test_a_report_finds_them_too(model):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    assert fv.report.render(model, x=TABLE[["pet", "b", "a"]]) == fv.report.render(model, x=ARRAY)


def test_tables_of_other_libraries(model):
    pyarrow = pytest.importorskip("pyarrow")
    numbers = fv.Model(fv.Config(input_shape=2, latent=1, likelihood="gaussian", columns=COLUMNS[:2]))
    table = pyarrow.table({"b": ARRAY[:, 1], "a": ARRAY[:, 0]})
    np.testing.assert_array_equal(numbers.elbo(table), numbers.elbo(ARRAY[:, :2]))
    words = pyarrow.table({name: TABLE[name].tolist() for name in ("pet", "a", "b")})
    np.testing.assert_array_equal(model.elbo(words), model.elbo(ARRAY))
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(numbers.elbo(polars.from_arrow(table)), numbers.elbo(ARRAY[:, :2]))


def test_names_that_are_numbers_name_nothing():
    model = fv.Model(fv.Config(input_shape=2, latent=1, likelihood="gaussian", columns=COLUMNS[:2]))
    np.testing.assert_array_equal(model.elbo(pandas.DataFrame(ARRAY[:, :2])), model.elbo(ARRAY[:, :2]))


def test_single_rows(model):
    sampler = fv.Sampler(model)
    expected = sampler.interpolate(ARRAY[0], ARRAY[1])
    np.testing.assert_array_equal(sampler.interpolate(TABLE.iloc[0], TABLE.iloc[[1]]), expected)
    np.testing.assert_array_equal(sampler.interpolate(TABLE[["pet", "a", "b"]].iloc[0], ARRAY[1]), expected)
    code = model.encode(ARRAY)[0][0]
    np.testing.assert_array_equal(sampler.traverse(pandas.Series(code)), sampler.traverse(code))


@pytest.mark.parametrize("labels", [np.zeros(4), np.zeros((4, 2)), pandas.Series(np.zeros(4))])
def test_labels_are_refused_in_words(labels, model):
    trainer = fv.Trainer(model)
    for use in (trainer.fit, trainer.evaluate, model.elbo, lambda x: trainer.fit(ARRAY, validation_data=x)):
        with pytest.raises(TypeError, match=r"is a tuple of 2, such as rows and their labels; .* pass \w+.0.$"):
            use((ARRAY, labels))
    with pytest.raises(TypeError, match="epochs must be an integer, not an array; labels are not used"):
        trainer.fit(ARRAY, labels)
    assert trainer.global_step == 0
    np.testing.assert_array_equal(model.elbo(tuple(ARRAY.tolist())), model.elbo(ARRAY))  # a tuple of rows is an array


def test_estimators_refuse_labels_too():
    pytest.importorskip("sklearn")
    with pytest.raises(TypeError, match="X is a tuple of 2, such as rows and their labels"):
        fv.VAE(epochs=1).fit((ARRAY, np.zeros(4)))
