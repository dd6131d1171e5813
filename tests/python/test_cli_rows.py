# SPDX-License-Identifier: MIT
"""fusedvae encode, decode, reconstruct, score: what they read, how columns find theirs, what they write where."""

import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import cli
from fusedvae.cli import source

RNG = np.random.default_rng(0)
X = RNG.random((40, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model():
    """Reads three columns without names; saved as m.safetensors, its data as x.npy."""
    model = fv.Model(fv.Config(input_shape=3, hidden=(8,), latent=2), seed=3)
    model.save("m.safetensors")
    np.save("x.npy", X)
    return model


@pytest.fixture
def named():
    """Reads the columns age, pet and size of a table; saved as n.safetensors, its data as t.csv."""
    columns = [fv.Column("age", 40, 10), fv.Column("pet", categories=("cat", "big, dog")), fv.Column("size")]
    config = fv.Config(input_shape=3, hidden=(8,), latent=2, likelihood="gaussian", columns=columns)
    model = fv.Model(config, seed=3)
    model.detector = fv.Detector("elbo", samples=4, seed=1, threshold=-8.0)
    model.save("n.safetensors")
    raw = np.column_stack((RNG.normal(40, 10, 20), RNG.integers(0, 2, 20), RNG.random(20)))
    lines = [
        f'r{i},{size!r},"{columns[1].categories[int(pet)]}",{age!r}' for i, (age, pet, size) in enumerate(raw.tolist())
    ]
    write("t.csv", "id,size,pet,age", *lines)
    return model, raw


def write(name, *lines):
    with open(name, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def run(*arguments, status=0):
    assert cli.main([str(argument) for argument in arguments]) == status


def table(text):
    """Header and rows of a CSV without commas in its cells."""
    header, *rows = text.splitlines()
    return header.split(","), [row.split(",") for row in rows]


def floats(rows, dtype=np.float32):
    return np.array(rows, dtype=dtype)


# ---- what is written where ------------------------------------------------------------------------------------------


def test_encode_to_stdout(model, capsys):
    run("encode", "m.safetensors", "x.npy")
    header, rows = table(capsys.readouterr().out)
    assert header == ["z0", "z1"]
    np.testing.assert_array_equal(floats(rows), model.encode(X)[0])  # to the bit


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_encode_with_log_variances(model, suffix, capsys):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    run("encode", "m.safetensors", "x.npy", "--logvar", "--out", f"z.{suffix}")
    assert capsys.readouterr().out == f"wrote 40 rows to z.{suffix}\n"
    mu, logvar = model.encode(X)
    if suffix == "npz":
        with np.load("z.npz") as found:
            np.testing.assert_array_equal(found["mu"], mu)
            np.testing.assert_array_equal(found["logvar"], logvar)
        return
    if suffix == "csv":
        with open("z.csv") as file:
            header, rows = table(file.read())
        values = floats(rows)
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table("z.parquet")
        header, values = found.column_names, np.column_stack([column.to_numpy() for column in found.columns])
        assert values.dtype == np.float32
    assert header == ["z0", "z1", "logvar0", "logvar1"]
    np.testing.assert_array_equal(values, np.hstack((mu, logvar)))


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "parquet"])
def test_codes_are_decoded_again(model, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    more = [] if suffix in ("npy", "npz") else ["--logvar"]
    run("encode", "m.safetensors", "x.npy", *more, "--out", f"z.{suffix}")
    run("decode", "m.safetensors", f"z.{suffix}", "--out", "back.npy")
    np.testing.assert_array_equal(np.load("back.npy"), model.reconstruct(X))


def test_images_keep_their_shape():
    model = fv.Model(fv.Config(input_shape=(4, 5), hidden=(8,), latent=2))
    model.save("m.safetensors")
    x = RNG.integers(0, 256, (6, 4, 5), np.uint8)
    np.save("x.npy", x)
    run("reconstruct", "m.safetensors", "x.npy", "--out", "r.npy")
    np.testing.assert_array_equal(np.load("r.npy"), model.reconstruct(x))


def test_score_by_each_name(model, capsys):
    scores = {name: model.score(X, name) for name in ("elbo", "log_likelihood", "reconstruction", "kl")}
    for name, expected in scores.items():
        run("score", "m.safetensors", "x.npy", "--score", name)
        header, rows = table(capsys.readouterr().out)
        assert header == [name]
        np.testing.assert_array_equal(floats(rows, np.float64)[:, 0], expected)
    run("score", "m.safetensors", "x.npy", "--samples", 3, "--seed", 5, "--out", "s.npy", "--json")
    np.testing.assert_array_equal(np.load("s.npy"), model.elbo(X, samples=3, seed=5))
    found = json.loads(capsys.readouterr().out)
    assert (found["out"], found["rows"], found["score"]) == ("s.npy", 40, "elbo")
    assert found["mean"] == np.load("s.npy").mean()
    run("score", "m.safetensors", "x.npy", "--score", "mahalanobis", status=1)
    assert "train it with --score mahalanobis" in capsys.readouterr().err


def test_score_with_threshold_and_contributions(model, capsys):
    expected = model.score(X, "kl")
    threshold = float(np.median(expected))
    arguments = ["--score", "kl", "--threshold", repr(threshold), "--contributions", "--out", "s.npz", "--json"]
    run("score", "m.safetensors", "x.npy", *arguments)
    with np.load("s.npz") as found:
        np.testing.assert_array_equal(found["kl"], expected)
        np.testing.assert_array_equal(found["abnormal"], expected < threshold)
        np.testing.assert_array_equal(found["contributions"], model.contributions(X))
    assert json.loads(capsys.readouterr().out)["abnormal"] == 20


def test_the_models_detector_is_the_default(named, capsys):
    pytest.importorskip("pandas")
    model, raw = named
    run("score", "n.safetensors", "t.csv", "--keep", "id", "--contributions")
    header, rows = table(capsys.readouterr().out)
    assert header == ["id", "elbo", "abnormal", "contribution_age", "contribution_pet", "contribution_size"]
    scores = model.score(raw)
    assert [row[0] for row in rows] == [f"r{i}" for i in range(20)]
    np.testing.assert_array_equal(floats([row[1] for row in rows], np.float64), scores)
    np.testing.assert_array_equal([int(row[2]) for row in rows], scores < -8)
    run("score", "n.safetensors", "t.csv", "--drop", "id", "--score", "kl")
    assert table(capsys.readouterr().out)[0] == ["kl"]  # another score has no threshold of its own


def test_a_score_by_name_is_that_score_and_no_more(model, capsys):
    model.detector = fv.Detector("kl", threshold=-1, distance=2)
    model.save("m.safetensors")
    for arguments, header, expected in (
        ([], ["score", "abnormal"], model.score(X)),
        (["--score", "kl"], ["kl"], model.score(X, "kl")),
        (["--score", "reconstruction"], ["reconstruction"], model.score(X, "reconstruction")),
    ):
        run("score", "m.safetensors", "x.npy", *arguments)
        names, rows = table(capsys.readouterr().out)
        assert names == header
        np.testing.assert_array_equal(floats(rows, np.float64)[:, 0], expected)
    assert not np.array_equal(model.score(X), model.score(X, "kl"))


def test_a_saved_detector_scores_from_a_shell(capsys):
    """AnomalyDetector's file alone gives its scores, to the bit, and its predictions."""
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("sklearn")
    frame = pandas.DataFrame({"age": RNG.normal(40, 10, 80), "pet": RNG.choice(["cat", "dog"], 80)})
    detector = fv.AnomalyDetector(contamination=0.1, hidden=(8,), latent=1, epochs=3).fit(frame)
    detector.save("d.safetensors")
    frame[["pet", "age"]].to_csv("t.csv", index=False, float_format="%.17g")
    run("score", "d.safetensors", "t.csv")
    rows = table(capsys.readouterr().out)[1]
    np.testing.assert_array_equal(floats([row[0] for row in rows], np.float64), detector.score_samples(frame))
    np.testing.assert_array_equal([row[1] == "1" for row in rows], detector.predict(frame) == -1)


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_columns_are_found_by_name(named, capsys):
    """In another order than the model's, with another column between."""
    pandas = pytest.importorskip("pandas")
    model, raw = named
    run("reconstruct", "n.safetensors", "t.csv", "--drop", "id", "--out", "r.csv")
    frame = pandas.read_csv("r.csv")
    assert list(frame) == ["age", "pet", "size"]
    expected = model.reconstruct(raw)
    np.testing.assert_array_equal(frame["age"].to_numpy(np.float32), expected[:, 0])
    assert list(frame["pet"]) == [("cat", "big, dog")[round(code)] for code in expected[:, 1].tolist()]
    frame.to_csv("again.csv", index=False)
    run("score", "n.safetensors", "again.csv", "--out", "s.npz")
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
    run("score", "n.safetensors", *arguments, "--out", "s.csv", status=1)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    run("score", "n.safetensors", *arguments, status=1)
    assert capsys.readouterr().out == ""  # no header either
    assert "s.csv" not in {path.name for path in source.Path().iterdir()}


def test_tables_without_names_are_read_by_place(model, capsys):
    write("plain.csv", *(",".join(map(repr, row)) for row in X.tolist()))
    write("others.csv", "a,b,c,id", *(",".join(map(repr, [*row, i])) for i, row in enumerate(X.tolist())))
    for arguments in (["plain.csv"], ["others.csv", "--drop", "id"]):
        run("encode", "m.safetensors", *arguments)
        np.testing.assert_array_equal(floats(table(capsys.readouterr().out)[1]), model.encode(X.astype(np.float64))[0])
    run("encode", "m.safetensors", "others.csv", status=1)
    assert "others.csv has 4 columns ('a', 'b', 'c', 'id'), the model reads 3" in capsys.readouterr().err


def test_stdin(model, capsys, monkeypatch):
    text = "a,b,c\n" + "\n".join(",".join(map(repr, row)) for row in X.tolist())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    run("encode", "m.safetensors", "-")
    np.testing.assert_array_equal(floats(table(capsys.readouterr().out)[1]), model.encode(X.astype(np.float64))[0])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    run("encode", "m.safetensors", "-", status=1)
    assert capsys.readouterr().err == "fusedvae: error: stdin is empty\n"


def test_parts_of_a_source(model, capsys):
    np.savez("parts.npz", x_train=X[:30], x_test=X[30:])
    for part, rows in (("all", X), ("train", X[:30]), ("test", X[30:])):
        run("encode", "m.safetensors", "parts.npz", "--part", part)
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
        run("encode", "m.safetensors", name)
        np.testing.assert_array_equal(floats(table(capsys.readouterr().out)[1]), model.encode(x)[0])


def test_a_folder_of_images(capsys):
    image = pytest.importorskip("PIL.Image")
    x = RNG.integers(0, 256, (3, 8, 8, 3), np.uint8)
    source.Path("images").mkdir()
    for i, pixels in enumerate(x):
        image.fromarray(pixels).save(f"images/{i}.png")
    model = fv.Model(fv.Config(input_shape=(4, 4), hidden=(8,), latent=2))
    model.save("m.safetensors")
    run("encode", "m.safetensors", "images")  # shrunk and turned grey as the model was trained
    small = [image.fromarray(pixels).convert("L").resize((4, 4), image.Resampling.BOX) for pixels in x]
    np.testing.assert_array_equal(
        floats(table(capsys.readouterr().out)[1]), model.encode(np.array(list(map(np.asarray, small))))[0]
    )


def test_blocks_change_nothing(model, capsys, monkeypatch):
    run("score", "m.safetensors", "x.npy", "--contributions")
    whole = capsys.readouterr().out
    monkeypatch.setattr(source, "BLOCK_BYTES", 7 * X.itemsize * 3)
    run("score", "m.safetensors", "x.npy", "--contributions")
    assert capsys.readouterr().out == whole
    for suffix in ("npy", "npz", "csv"):
        run("encode", "m.safetensors", "x.npy", "--out", f"z.{suffix}")
        run("decode", "m.safetensors", f"z.{suffix}", "--out", "back.npy")
        np.testing.assert_array_equal(np.load("back.npy"), model.reconstruct(X))


def test_a_bad_row_of_a_later_block_is_found(model, capsys, monkeypatch):
    x = X.copy()
    x[25, 1] = np.nan
    np.save("x.npy", x)
    monkeypatch.setattr(source, "BLOCK_BYTES", 10 * X.itemsize * 3)
    run("score", "m.safetensors", "x.npy", "--out", "s.csv", status=1)
    assert "in the block that begins at row 20: x holds NaN in row 5, column 1" in capsys.readouterr().err
    assert not source.Path("s.csv").exists()


def test_an_old_file_survives_a_failure(model):
    write("s.csv", "old")
    np.save("bad.npy", np.full((5, 3), np.nan))
    run("score", "m.safetensors", "bad.npy", "--out", "s.csv", status=1)
    assert source.Path("s.csv").read_text() == "old\n"


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
    run("score", "n.safetensors", "parts", "--drop", "label", "--out", "s.npy")
    np.testing.assert_array_equal(np.load("s.npy"), expected)
    monkeypatch.setattr(source._readers, "MAP_BYTES", 100)
    run("score", "n.safetensors", "t.csv", "--drop", "label", "--out", "s.npy")
    np.testing.assert_array_equal(np.load("s.npy"), expected)
    capsys.readouterr()
    run("score", "n.safetensors", "t.csv", status=1)
    assert "columns that the model does not read: 'label'" in capsys.readouterr().err
    run("score", "n.safetensors", "t.csv", "--keep", "label", status=1)
    assert "--keep does not apply to tables that are large" in capsys.readouterr().err


def test_training_on_a_folder_of_tables(numbers):
    pytest.importorskip("sklearn")
    _, frame = numbers
    frame.iloc[:10].fillna(0).to_parquet("parts/1.parquet")
    arguments = ["train", "parts", "--label", "label", "--out", "m.safetensors", "--epochs", 2, "--test-fraction", 0]
    run(*arguments, "--quiet")  # within [0, 1]: Bernoulli, as they are
    assert fv.load("m.safetensors").config.columns == (fv.Column("a"), fv.Column("b"))
    run(*arguments, "--quiet", "--likelihood", "gaussian")
    columns = fv.load("m.safetensors").config.columns
    assert [column.name for column in columns] == ["a", "b"]
    assert columns[0].shift == pytest.approx(frame["a"].mean(), rel=1e-6)
    assert columns[1].scale == pytest.approx(frame["b"].fillna(0).std(ddof=0), rel=1e-6)


def test_ctrl_c_leaves_nothing_half_written(model, monkeypatch, capsys):
    def interrupted(self, z):
        raise KeyboardInterrupt

    run("encode", "m.safetensors", "x.npy", "--out", "z.npy")
    monkeypatch.setattr(fv.Model, "decode", interrupted)
    files = sorted(source.Path().iterdir())
    run("decode", "m.safetensors", "z.npy", "--out", "back.npy", status=130)
    assert capsys.readouterr().err == "fusedvae: interrupted\n"
    assert sorted(source.Path().iterdir()) == files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes of POSIX")
def test_results_through_links_and_into_named_pipes(model):
    source.Path("link.npy").symlink_to("target.npy")
    run("encode", "m.safetensors", "x.npy", "--out", "link.npy")
    assert source.Path("link.npy").is_symlink()
    np.testing.assert_array_equal(np.load("target.npy"), model.encode(X)[0])
    os.mkfifo("pipe.csv")
    read = []
    reader = threading.Thread(target=lambda: read.append(source.Path("pipe.csv").read_text()))
    reader.start()
    run("encode", "m.safetensors", "x.npy", "--out", "pipe.csv")
    reader.join()
    np.testing.assert_array_equal(floats(table(read[0])[1]), model.encode(X)[0])


# ---- shells ---------------------------------------------------------------------------------------------------------


def test_a_pipeline(model):
    """Samples into scores through two processes."""
    command = [sys.executable, "-m", "fusedvae"]
    with subprocess.Popen([*command, "sample", "m.safetensors", "--n", "5"], stdout=subprocess.PIPE) as drawn:
        scored = subprocess.run(
            [*command, "score", "m.safetensors", "-"], stdin=drawn.stdout, capture_output=True, text=True, check=True
        )
    header, rows = table(scored.stdout)
    assert header == ["elbo"]
    np.testing.assert_array_equal(
        floats(rows, np.float64)[:, 0], model.score(fv.Sampler(model).sample(5).astype(np.float64), "elbo")
    )


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="pipes of POSIX")
def test_a_reader_that_leaves_is_no_complaint(model):
    np.save("x.npy", np.tile(X, (2000, 1)))
    command = [sys.executable, "-m", "fusedvae", "reconstruct", "m.safetensors", "x.npy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "x0,x1,x2\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("command", ["train", "score"])
def test_what_is_read_is_never_replaced(command, capsys):
    pytest.importorskip("pandas")
    write("t.csv", "a,b", "1,2", "3,5", "2,2")
    before = Path("t.csv").read_text()
    run("train", "t.csv", "--epochs", "1", "--quiet", "--out", "m.safetensors")
    read = ["t.csv"] if command == "train" else ["m.safetensors", "t.csv"]
    run(command, *read, "--out", str(Path("t.csv").absolute()), status=2)
    assert "t.csv is what this command reads" in capsys.readouterr().err
    assert Path("t.csv").read_text() == before


def test_an_index_without_a_name(capsys):
    """pandas writes one unless it is told not to."""
    pytest.importorskip("pandas")
    write("t.csv", ",a,b", "0,1,2", "1,3,5", "2,2,2")
    run("train", "t.csv", "--epochs", "1", "--quiet", "--out", "all.safetensors")
    run("score", "all.safetensors", "t.csv", "--out", "s.csv")
    run("train", "t.csv", "--drop", "Unnamed: 0,", "--epochs", "1", "--quiet", "--out", "m.safetensors")
    assert [column.name for column in fv.load("m.safetensors").config.columns] == ["a", "b"]
    run("score", "m.safetensors", "t.csv", "--out", "s.csv", status=1)
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
    run("train", name, "--out", "m.safetensors", status=1)
    assert message in capsys.readouterr().err


def test_codes_like_those_of_a_table_with_an_id(named, capsys):
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    arguments = ("sample", "n.safetensors", "--like", "t.csv", "--components", "1", "--n", "3", "--out", "s.csv")
    run(*arguments, status=1)
    run(*arguments, "--drop", "id")
    assert len(Path("s.csv").read_text().splitlines()) == 4
