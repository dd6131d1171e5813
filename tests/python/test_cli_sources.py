# SPDX-License-Identifier: MIT
"""What the commands that take rows read, and how a table's columns find the model's."""

import gzip
import io
import struct
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest
from command import X, call, floats, table, write
from fusedvae.cli import source

RNG = np.random.default_rng(0)

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def model(unnamed):
    return unnamed


def test_columns_are_found_by_name(named, capsys):
    """In another order than the model's, with another column between."""
    pandas = pytest.importorskip("pandas")
    model, raw = named
    call("reconstruct", "n.safetensors", "t.csv", "--drop", "id", "--out", "r.csv")
    frame = pandas.read_csv("r.csv")
    assert list(frame) == ["age", "pet", "size"]
    expected = model.reconstruct(raw)
    np.testing.assert_array_equal(frame["age"].to_numpy(np.float32), expected[:, 0])
    assert list(frame["pet"]) == [("cat", "big, dog")[round(code)] for code in expected[:, 1].tolist()]
    frame.to_csv("again.csv", index=False)
    call("score", "n.safetensors", "again.csv", "--out", "s.npz")
    with np.load("s.npz") as found:
        np.testing.assert_allclose(found["elbo"], model.score(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["t.csv"],
            "t.csv has columns that the model does not read: 'id'; leave them out with --drop id, or copy them",
        ),
        (["t.csv", "--drop", "id,age"], "t.csv lacks columns that the model reads: 'age'; its own are 'size', 'pet'"),
        (["t.csv", "--drop", "name"], "t.csv has no column 'name'; its columns are 'id', 'size', 'pet', 'age'"),
        (["new.csv"], "unknown categories ['fish'] in column 'pet'"),
        (["hole.csv"], "row 1, column 0 (age): fill it, drop such rows, or train the model with --impute median"),
        (["text.csv"], "'age'"),
        (["four.npy"], "the model reads 3 columns"),
        (["four.npy", "--drop", "id"], "--drop and --keep apply to tables"),
        (["t.csv", "--key", "x"], "--key and --part do not apply to tables"),
        (["four.npy", "--part", "test"], "four.npy has no test rows of its own"),
        (["absent.csv"], "absent.csv: no such file or folder"),
    ],
)
def test_what_does_not_fit_is_one_line(named, capsys, arguments, message):
    pytest.importorskip("pandas")
    write("new.csv", "age,pet,size", "1,fish,2")
    write("hole.csv", "age,pet,size", "1,cat,2", ",cat,2")
    write("text.csv", "age,pet,size", "old,cat,2")
    np.save("four.npy", np.zeros((5, 4)))
    call("score", "n.safetensors", *arguments, "--out", "s.csv", status=1)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    call("score", "n.safetensors", *arguments, status=1)
    assert capsys.readouterr().out == ""  # no header either
    assert "s.csv" not in {path.name for path in source.Path().iterdir()}


def test_tables_without_names_are_read_by_place(model, capsys):
    write("plain.csv", *(",".join(map(repr, row)) for row in X.tolist()))
    write("others.csv", "a,b,c,id", *(",".join(map(repr, [*row, i])) for i, row in enumerate(X.tolist())))
    for arguments in (["plain.csv"], ["others.csv", "--drop", "id"]):
        call("encode", "m.safetensors", *arguments)
        np.testing.assert_array_equal(floats(table(capsys.readouterr().out)[1]), model.encode(X.astype(np.float64))[0])
    call("encode", "m.safetensors", "others.csv", status=1)
    assert "others.csv has 4 columns ('a', 'b', 'c', 'id'), the model reads 3" in capsys.readouterr().err


def test_stdin(model, capsys, monkeypatch):
    text = "a,b,c\n" + "\n".join(",".join(map(repr, row)) for row in X.tolist())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    call("encode", "m.safetensors", "-")
    np.testing.assert_array_equal(floats(table(capsys.readouterr().out)[1]), model.encode(X.astype(np.float64))[0])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    call("encode", "m.safetensors", "-", status=1)
    assert capsys.readouterr().err == "fusedvae: error: stdin is empty\n"


def test_parts_of_a_source(model, capsys):
    np.savez("parts.npz", x_train=X[:30], x_test=X[30:])
    for part, rows in (("all", X), ("train", X[:30]), ("test", X[30:])):
        call("encode", "m.safetensors", "parts.npz", "--part", part)
        np.testing.assert_array_equal(floats(table(capsys.readouterr().out)[1]), model.encode(rows)[0])


def test_idx_files(capsys):
    """MNIST's format, plain and gzipped."""
    x = RNG.integers(0, 256, (4, 3, 2), np.uint8)
    content = bytes([0, 0, 8, 3]) + struct.pack(">3I", *x.shape) + x.tobytes()
    source.Path("x.idx").write_bytes(content)
    source.Path("x.idx.gz").write_bytes(gzip.compress(content))
    model = fv.Model(fv.Config(input_shape=(3, 2), hidden=(8,), latent=2))
    model.save("m.safetensors")
    for name in ("x.idx", "x.idx.gz"):
        call("encode", "m.safetensors", name)
        np.testing.assert_array_equal(floats(table(capsys.readouterr().out)[1]), model.encode(x)[0])


def test_a_folder_of_images(capsys):
    image = pytest.importorskip("PIL.Image")
    x = RNG.integers(0, 256, (3, 8, 8, 3), np.uint8)
    source.Path("images").mkdir()
    for i, pixels in enumerate(x):
        image.fromarray(pixels).save(f"images/{i}.png")
    model = fv.Model(fv.Config(input_shape=(4, 4), hidden=(8,), latent=2))
    model.save("m.safetensors")
    call("encode", "m.safetensors", "images")  # shrunk and turned grey as the model was trained
    small = [image.fromarray(pixels).convert("L").resize((4, 4), image.Resampling.BOX) for pixels in x]
    np.testing.assert_array_equal(
        floats(table(capsys.readouterr().out)[1]), model.encode(np.array(list(map(np.asarray, small))))[0]
    )


@pytest.fixture
def numbers(monkeypatch):
    """A model of the columns a and b as n.safetensors; its data, with a label between, as t.csv and in parts/."""
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    monkeypatch.setenv("FUSEDVAE_CACHE", "cache")
    columns = [fv.Column("b", 0.5, 2, fill=0.0), fv.Column("a", 1)]
    model = fv.Model(fv.Config(input_shape=2, hidden=(8,), latent=2, likelihood="gaussian", columns=columns))
    model.save("n.safetensors")
    frame = pandas.DataFrame({"a": RNG.random(30), "label": np.arange(30) % 2, "b": RNG.random(30)})
    frame.loc[4, "b"] = np.nan
    frame.to_csv("t.csv", index=False)
    source.Path("parts").mkdir()
    frame.iloc[:10].to_parquet("parts/1.parquet")
    frame.iloc[10:].to_csv("parts/2.csv", index=False)
    return model, frame


def test_tables_larger_than_memory_are_found_by_name_too(numbers, monkeypatch, capsys):
    model, frame = numbers
    expected = model.score(frame[["b", "a"]].to_numpy(), "elbo")
    call("score", "n.safetensors", "parts", "--drop", "label", "--out", "s.npy")
    np.testing.assert_array_equal(np.load("s.npy"), expected)
    monkeypatch.setattr(source._readers, "MAP_BYTES", 100)
    call("score", "n.safetensors", "t.csv", "--drop", "label", "--out", "s.npy")
    np.testing.assert_array_equal(np.load("s.npy"), expected)
    capsys.readouterr()
    call("score", "n.safetensors", "t.csv", status=1)
    assert "columns that the model does not read: 'label'" in capsys.readouterr().err
    call("score", "n.safetensors", "t.csv", "--keep", "label", status=1)
    assert "--keep does not apply to tables that are large" in capsys.readouterr().err


def test_training_on_a_folder_of_tables(numbers):
    pytest.importorskip("sklearn")
    _, frame = numbers
    frame.iloc[:10].fillna(0).to_parquet("parts/1.parquet")
    arguments = ["train", "parts", "--label", "label", "--out", "m.safetensors", "--epochs", 2, "--test-fraction", 0]
    call(*arguments, "--quiet")  # within [0, 1]: Bernoulli, as they are
    assert fv.load("m.safetensors").config.columns == (fv.Column("a"), fv.Column("b"))
    call(*arguments, "--quiet", "--likelihood", "gaussian")
    columns = fv.load("m.safetensors").config.columns
    assert [column.name for column in columns] == ["a", "b"]
    assert columns[0].shift == pytest.approx(frame["a"].mean(), rel=1e-6)
    assert columns[1].scale == pytest.approx(frame["b"].fillna(0).std(ddof=0), rel=1e-6)


def test_an_index_without_a_name(capsys):
    """pandas writes one unless it is told not to."""
    pytest.importorskip("pandas")
    write("t.csv", ",a,b", "0,1,2", "1,3,5", "2,2,2")
    call("train", "t.csv", "--epochs", "1", "--quiet", "--out", "all.safetensors")
    call("score", "all.safetensors", "t.csv", "--out", "s.csv")
    call("train", "t.csv", "--drop", "Unnamed: 0,", "--epochs", "1", "--quiet", "--out", "m.safetensors")
    assert [column.name for column in fv.load("m.safetensors").config.columns] == ["a", "b"]
    call("score", "m.safetensors", "t.csv", "--out", "s.csv", status=1)
    assert "--drop Unnamed: 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two.npz", "choose one with --key: a, b"),
        ("none.npy", "two are needed to hold one out (--test-fraction 0 trains on all)"),
        ("latin.csv", "latin.csv is not a readable table"),
        ("text.npy", "text.npy is not a readable .npy file: it does not begin as one"),
    ],
)
def test_messages_speak_of_options_and_files(name, message, capsys):
    np.savez("two.npz", a=X, b=X)
    np.save("none.npy", X[:0])
    write("text.npy", "words")
    with open("latin.csv", "wb") as file:
        file.write("länge,b\n1,2\n".encode("latin-1"))
    call("train", name, "--out", "m.safetensors", status=1)
    assert message in capsys.readouterr().err


def test_codes_like_those_of_a_table_with_an_id(named, capsys):
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    arguments = ("sample", "n.safetensors", "--like", "t.csv", "--components", "1", "--n", "3", "--out", "s.csv")
    call(*arguments, status=1)
    call(*arguments, "--drop", "id")
    assert len(Path("s.csv").read_text().splitlines()) == 4
