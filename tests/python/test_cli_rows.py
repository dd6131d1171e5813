# SPDX-License-Identifier: MIT
"""fusedvae encode, decode, reconstruct, score: what is written where, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import threading
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


def test_encode_to_stdout(model, capsys):
    call("encode", "m.safetensors", "x.npy")
    header, rows = table(capsys.readouterr().out)
    assert header == ["z0", "z1"]
    np.testing.assert_array_equal(floats(rows), model.encode(X)[0])  # to the bit


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_encode_with_log_variances(model, suffix, capsys):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    call("encode", "m.safetensors", "x.npy", "--logvar", "--out", f"z.{suffix}")
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
    call("encode", "m.safetensors", "x.npy", *more, "--out", f"z.{suffix}")
    call("decode", "m.safetensors", f"z.{suffix}", "--out", "back.npy")
    np.testing.assert_array_equal(np.load("back.npy"), model.reconstruct(X))


def test_images_keep_their_shape():
    model = fv.Model(fv.Config(input_shape=(4, 5), hidden=(8,), latent=2))
    model.save("m.safetensors")
    x = RNG.integers(0, 256, (6, 4, 5), np.uint8)
    np.save("x.npy", x)
    call("reconstruct", "m.safetensors", "x.npy", "--out", "r.npy")
    np.testing.assert_array_equal(np.load("r.npy"), model.reconstruct(x))


def test_score_by_each_name(model, capsys):
    scores = {name: model.score(X, name) for name in ("elbo", "log_likelihood", "reconstruction", "kl")}
    for name, expected in scores.items():
        call("score", "m.safetensors", "x.npy", "--score", name)
        header, rows = table(capsys.readouterr().out)
        assert header == [name]
        np.testing.assert_array_equal(floats(rows, np.float64)[:, 0], expected)
    call("score", "m.safetensors", "x.npy", "--samples", 3, "--seed", 5, "--out", "s.npy", "--json")
    np.testing.assert_array_equal(np.load("s.npy"), model.elbo(X, samples=3, seed=5))
    found = json.loads(capsys.readouterr().out)
    assert (found["out"], found["rows"], found["score"]) == ("s.npy", 40, "elbo")
    assert found["mean"] == np.load("s.npy").mean()
    call("score", "m.safetensors", "x.npy", "--score", "mahalanobis", status=1)
    assert "train it with --score mahalanobis" in capsys.readouterr().err


def test_score_with_threshold_and_contributions(model, capsys):
    expected = model.score(X, "kl")
    threshold = float(np.median(expected))
    arguments = ["--score", "kl", "--threshold", repr(threshold), "--contributions", "--out", "s.npz", "--json"]
    call("score", "m.safetensors", "x.npy", *arguments)
    with np.load("s.npz") as found:
        np.testing.assert_array_equal(found["kl"], expected)
        np.testing.assert_array_equal(found["abnormal"], expected < threshold)
        np.testing.assert_array_equal(found["contributions"], model.contributions(X))
    assert json.loads(capsys.readouterr().out)["abnormal"] == 20


def test_the_models_detector_is_the_default(named, capsys):
    pytest.importorskip("pandas")
    model, raw = named
    call("score", "n.safetensors", "t.csv", "--keep", "id", "--contributions")
    header, rows = table(capsys.readouterr().out)
    assert header == ["id", "elbo", "abnormal", "contribution_age", "contribution_pet", "contribution_size"]
    scores = model.score(raw)
    assert [row[0] for row in rows] == [f"r{i}" for i in range(20)]
    np.testing.assert_array_equal(floats([row[1] for row in rows], np.float64), scores)
    np.testing.assert_array_equal([int(row[2]) for row in rows], scores < -8)
    call("score", "n.safetensors", "t.csv", "--drop", "id", "--score", "kl")
    assert table(capsys.readouterr().out)[0] == ["kl"]  # another score has no threshold of its own


def test_a_score_by_name_is_that_score_and_no_more(model, capsys):
    model.detector = fv.Detector("kl", threshold=-1, distance=2)
    model.save("m.safetensors")
    for arguments, header, expected in (
        ([], ["score", "abnormal"], model.score(X)),
        (["--score", "kl"], ["kl"], model.score(X, "kl")),
        (["--score", "reconstruction"], ["reconstruction"], model.score(X, "reconstruction")),
    ):
        call("score", "m.safetensors", "x.npy", *arguments)
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
    call("score", "d.safetensors", "t.csv")
    rows = table(capsys.readouterr().out)[1]
    np.testing.assert_array_equal(floats([row[0] for row in rows], np.float64), detector.score_samples(frame))
    np.testing.assert_array_equal([row[1] == "1" for row in rows], detector.predict(frame) == -1)


def test_blocks_change_nothing(model, capsys, monkeypatch):
    call("score", "m.safetensors", "x.npy", "--contributions")
    whole = capsys.readouterr().out
    monkeypatch.setattr(source, "BLOCK_BYTES", 7 * X.itemsize * 3)
    call("score", "m.safetensors", "x.npy", "--contributions")
    assert capsys.readouterr().out == whole
    for suffix in ("npy", "npz", "csv"):
        call("encode", "m.safetensors", "x.npy", "--out", f"z.{suffix}")
        call("decode", "m.safetensors", f"z.{suffix}", "--out", "back.npy")
        np.testing.assert_array_equal(np.load("back.npy"), model.reconstruct(X))


def test_a_bad_row_of_a_later_block_is_found(model, capsys, monkeypatch):
    x = X.copy()
    x[25, 1] = np.nan
    np.save("x.npy", x)
    monkeypatch.setattr(source, "BLOCK_BYTES", 10 * X.itemsize * 3)
    call("score", "m.safetensors", "x.npy", "--out", "s.csv", status=1)
    assert "in the block that begins at row 20: x holds NaN in row 5, column 1" in capsys.readouterr().err
    assert not source.Path("s.csv").exists()


def test_an_old_file_survives_a_failure(model):
    write("s.csv", "old")
    np.save("bad.npy", np.full((5, 3), np.nan))
    call("score", "m.safetensors", "bad.npy", "--out", "s.csv", status=1)
    assert source.Path("s.csv").read_text() == "old\n"


def test_ctrl_c_leaves_nothing_half_written(model, monkeypatch, capsys):
    def interrupted(self, z):
        raise KeyboardInterrupt

    call("encode", "m.safetensors", "x.npy", "--out", "z.npy")
    monkeypatch.setattr(fv.Model, "decode", interrupted)
    files = sorted(source.Path().iterdir())
    call("decode", "m.safetensors", "z.npy", "--out", "back.npy", status=130)
    assert capsys.readouterr().err == "fusedvae: interrupted\n"
    assert sorted(source.Path().iterdir()) == files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes of POSIX")
def test_results_through_links_and_into_named_pipes(model):
    source.Path("link.npy").symlink_to("target.npy")
    call("encode", "m.safetensors", "x.npy", "--out", "link.npy")
    assert source.Path("link.npy").is_symlink()
    np.testing.assert_array_equal(np.load("target.npy"), model.encode(X)[0])
    os.mkfifo("pipe.csv")
    read = []
    reader = threading.Thread(target=lambda: read.append(source.Path("pipe.csv").read_text()))
    reader.start()
    call("encode", "m.safetensors", "x.npy", "--out", "pipe.csv")
    reader.join()
    np.testing.assert_array_equal(floats(table(read[0])[1]), model.encode(X)[0])


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
    call("train", "t.csv", "--epochs", "1", "--quiet", "--out", "m.safetensors")
    read = ["t.csv"] if command == "train" else ["m.safetensors", "t.csv"]
    call(command, *read, "--out", str(Path("t.csv").absolute()), status=2)
    assert "t.csv is what this command reads" in capsys.readouterr().err
    assert Path("t.csv").read_text() == before
