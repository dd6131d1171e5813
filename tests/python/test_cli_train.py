# SPDX-License-Identifier: MIT
"""fusedvae train: from data to a model file, with reports, logs, early stopping and checkpoints beside it."""

import json
import sys

import fusedvae as fv
import numpy as np
import pytest
from command import run
from fusedvae import cli, data

RNG = np.random.default_rng(0)


def test_train_info_sample(images, tmp_path):
    out = tmp_path / "m.safetensors"
    done = run("train", images, "--out", out, "--epochs", 30, "--hidden", "16", "--latent", 3, "--batch-size", 30)
    assert done.returncode == 0, done.stderr
    assert "trained 30 epochs, 120 steps: loss " in done.stdout
    assert "held out" in done.stdout
    model = fv.load(out)
    assert model.config.input_shape == (5, 4)
    assert model.elbo(np.load(images)).mean() > -13.5  # untrained: 20 ln 2 = 13.9

    text = run("info", out)
    assert text.returncode == 0, text.stderr
    assert "20 - 16 - [3] - 16 - 20, relu, Bernoulli" in text.stdout
    assert "decoder_logits.weight    20 x 16" in text.stdout
    found = json.loads(run("info", out, "--json").stdout)
    assert found["parameters"] == model.parameter_count
    assert fv.Config.from_dict(found["config"]) == model.config
    assert found["tensors"]["encoder_mean.weight"] == [3, 16]

    for name in ("s.npy", "s.csv", "s.png"):
        assert cli.main(["sample", str(out), "--out", str(tmp_path / name), "--n", "7", "--seed", "3"]) == 0
    expected = fv.Sampler(model, seed=3).sample(7)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), expected)
    header, *_ = (tmp_path / "s.csv").read_text().splitlines()
    assert header == ",".join(f"x{j}" for j in range(20))
    from_text = np.loadtxt(tmp_path / "s.csv", delimiter=",", dtype=np.float32, skiprows=1)
    np.testing.assert_array_equal(from_text, expected.reshape(7, 20))
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_train_obeys_its_options(table, tmp_path):
    pytest.importorskip("pandas")
    out = tmp_path / "m.safetensors"
    arguments = ["--optimizer", "sgd", "--learning-rate", "0.0001", "--beta", "0.5", "--beta-warmup", "10"]
    arguments += [
        "--clip-norm",
        "1",
        "--drop",
        "kind",
        "--scale",
        "none",
        "--test-fraction",
        "0",
        "--epochs",
        "2",
        "--json",
    ]
    done = run("train", table, "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["state"], found["steps"]) == ("trained", 2)
    assert 0 < found["beta"] < 0.5  # still rising
    assert found["learning_rate"] == pytest.approx(1e-4)
    assert "val_loss" not in found


def test_train_takes_a_precision(images, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    arguments = ["--out", tmp_path / "m.safetensors", "--epochs", "1"]
    done = run("train", images, *arguments, "--precision", "auto", "--checkpoint", checkpoint)
    assert done.returncode == 0, done.stderr
    assert fv.Trainer.resume(checkpoint).precision == fv.available_precisions()[-1]
    assert run("train", images, *arguments, "--precision", "half").returncode == 2


def test_train_resumes_to_the_same_bits(images, tmp_path):
    def train(name, epochs, *more):
        done = run("train", images, "--out", tmp_path / name, "--epochs", epochs, "--hidden", "8", "--latent", 2, *more)
        assert done.returncode == 0, done.stderr
        return (tmp_path / name).read_bytes()

    checkpoint = ("--checkpoint", tmp_path / "run.ckpt")
    whole = train("whole.safetensors", 5)
    assert train("half.safetensors", 2, *checkpoint) != whole
    assert train("resumed.safetensors", 5, *checkpoint, "--resume") == whole
    assert train("again.safetensors", 5, *checkpoint, "--resume") == whole  # nothing is left to do


def test_train_on_a_table_keeps_how_it_is_read(tmp_path, capsys):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("sklearn")
    age, pet = RNG.normal(40, 10, 100), RNG.choice(["cat", "dog"], 100)
    frame = pandas.DataFrame({"age": age, "pet": pet, "name": [f"n{i}" for i in range(100)], "kind": 1})
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "m.safetensors"

    def train(*arguments, status=0):
        common = ["train", str(tmp_path / "t.csv"), "--out", str(out), "--label", "kind", "--epochs", "2", "--quiet"]
        assert cli.main([*common, *arguments]) == status
        return capsys.readouterr()

    train("--drop", "name")
    columns = fv.load(out).config.columns
    assert [column.name for column in columns] == ["age", "pet"]
    assert columns[1].categories == ("cat", "dog")
    kept, _ = data.split(100, 0.1, 0)
    assert (columns[0].shift, columns[0].scale) == pytest.approx((age[kept].mean(), age[kept].std()))

    assert "'name' has 100 different words in 100 rows" in train(status=1).err
    train("--drop", "name,pet", "--scale", "robust")
    assert fv.load(out).config.columns[0].shift == pytest.approx(np.median(age[kept]))
    assert "hint: the columns' means reach" in train("--drop", "name,pet", "--scale", "none").err
    assert "not numeric: 'pet'; a Gaussian" in train("--drop", "name", "--likelihood", "bernoulli", status=1).err
    assert "Gaussian" in train("--drop", "name", "--likelihood", "bernoulli", "--scale", "robust", status=2).err

    frame.loc[3, "age"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert "t.csv: Input X contains NaN: column 'age'" in train("--drop", "name", status=1).err
    train("--drop", "name", "--impute", "median")
    assert fv.load(out).config.columns[0].fill == pytest.approx(np.median(age[kept[kept != 3]]))

    frame[["age"]].clip(0, 1).fillna(0).assign(kind=1).to_csv(tmp_path / "t.csv", index=False)
    train()  # within [0, 1]
    assert fv.load(out).config.likelihood == fv.Bernoulli()
    assert fv.load(out).config.columns == (fv.Column("age"),)


def test_train_writes_a_report(images, tmp_path, capsys):
    for module in ("matplotlib", "jinja2"):
        pytest.importorskip(module)
    out, report = tmp_path / "m.safetensors", tmp_path / "r.html"
    arguments = ["train", str(images), "--out", str(out), "--epochs", "2", "--quiet", "--report", str(report), "--json"]
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(report)
    page = report.read_text(encoding="utf-8")
    assert "<title>m.safetensors: a variational autoencoder of images.npy</title>" in page
    assert page.count("<img ") == 7


def test_train_without_what_a_report_needs(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    out = tmp_path / "m.safetensors"
    assert cli.main(["train", str(images), "--out", str(out), "--report", str(tmp_path / "r.html"), "--quiet"]) == 1
    assert 'needs jinja2: pip install "fusedvae[report]"' in capsys.readouterr().err
    assert not out.exists()  # said before the training, not after it


def test_train_stops_early_logs_and_resumes(images, tmp_path, capsys):
    def train(*more):
        common = ["--out", tmp_path / "m.safetensors", "--hidden", "8", "--latent", 2, "--learning-rate", "0.1"]
        arguments = ["train", images, *common, "--early-stopping", 3, "--json", "--quiet", *more]
        assert cli.main([str(argument) for argument in arguments]) == 0
        return json.loads(capsys.readouterr().out)

    kept = ["--checkpoint", tmp_path / "run.ckpt", "--checkpoint-every", 2, "--log-csv", tmp_path / "log.csv"]
    found = train("--epochs", 500, *kept)
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    losses = [float(line.split(",")[header.split(",").index("val_loss")]) for line in lines]
    assert 4 <= len(lines) < 500
    assert found["best_epoch"] == len(lines) - 3 == np.argmin(losses) + 1 == found["epoch"]
    assert [int(line.split(",")[0]) for line in lines] == list(range(1, len(lines) + 1))  # counted as the bar counts
    assert found["val_loss"] == pytest.approx(min(losses))
    again = train("--epochs", 500, *kept, "--resume")  # has stopped, and stops again
    assert (again["best_epoch"], again["val_loss"]) == (found["best_epoch"], found["val_loss"])
    undisturbed = train("--epochs", 500)
    assert undisturbed["val_loss"] == found["val_loss"]


def test_train_finds_a_learning_rate(images, tmp_path, capsys):
    out = str(tmp_path / "m.safetensors")
    assert cli.main(["train", str(images), "--out", out, "--epochs", "1", "--lr-find", "--json", "--quiet"]) == 0
    stdout, stderr = capsys.readouterr()
    rate = json.loads(stdout)["learning_rate"]
    assert rate != 1e-3
    assert f"the learning rate found is {rate:.3g}" in stderr


def test_non_finite_loss_keeps_the_last_good_model(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.float32(1e4) * RNG.standard_normal((400, 6)).astype(np.float32))
    out = tmp_path / "m.safetensors"
    arguments = ["train", str(tmp_path / "x.npy"), "--out", str(out), "--optimizer", "sgd", "--learning-rate", "1e8"]
    assert cli.main([*arguments, "--quiet", "--epochs", "50"]) == 1
    assert "step" in capsys.readouterr().err
    assert all(np.isfinite(values).all() for values in fv.load(out).parameters().values())
