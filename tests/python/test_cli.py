# SPDX-License-Identifier: MIT
"""The command line, mostly in a process of its own: what it prints and writes, its exit statuses, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import cli, data

RNG = np.random.default_rng(0)
COMMANDS = ("train", "encode", "decode", "reconstruct", "score", "sample", "info", "demo", "bench")


def run(*arguments, **options):
    """`python -m fusedvae` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "fusedvae", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture
def images(tmp_path):
    x = np.zeros((120, 5, 4), np.uint8)
    x[np.arange(120), RNG.integers(0, 5, 120)] = 255
    np.save(tmp_path / "images.npy", x)
    return tmp_path / "images.npy"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    lines = [f"{a:.4f},{100 * b:.4f},{'xy'[i % 2]}" for i, (a, b) in enumerate(RNG.standard_normal((90, 2)))]
    path.write_text("\n".join(["a,b,kind", *lines]))
    return path


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.safetensors"
    fv.Model(fv.Config(input_shape=(5, 4), hidden=(8,), latent=2)).save(path)
    return path


# ---- demo -----------------------------------------------------------------------------------------------------------


def test_demo_with_its_defaults(tmp_path):
    for module in ("sklearn", "matplotlib", "PIL.Image"):
        pytest.importorskip(module)
    from PIL import Image

    done = run("demo", "--epochs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("digits: 1617 rows", "nats per held-out row", "rows/s", "steps/s", "% of the", "fusedvae-demo.png"):
        assert word in done.stdout
    assert "epoch 1/1  loss" in done.stderr
    with Image.open(tmp_path / "fusedvae-demo.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape == (2 * (26 + 85) + 26 + 175 + 10, 735)
    assert len(np.unique(pixels)) > 50


def test_demo_on_a_table_as_json(table, tmp_path):
    done = run("demo", "--data", table, "--label", "kind", "--epochs", 2, "--json", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["picture"] is None
    assert (found["rows"], found["held_out"], found["epochs"]) == (81, 9, 2)
    assert found["config"]["likelihood"]["name"] == "gaussian"
    assert np.isfinite(found["elbo"])
    assert "hint: the columns' means reach" in done.stderr
    assert "no picture" in done.stderr
    assert "epoch" not in done.stderr
    assert not (tmp_path / "fusedvae-demo.png").exists()


def test_demo_obeys_its_options(images, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--epochs", "3", "--hidden", "12,6", "--latent", "2", "--batch-size", "30", "--activation", "tanh"]
    arguments += ["--likelihood", "gaussian", "--variance", "element", "--threads", "1", "--test-fraction", "0.25"]
    done = run("demo", "--data", images, *arguments, "--output", tmp_path / "p.png", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    config = found["config"]
    assert (config["hidden"], config["latent"], config["activation"]) == ([12, 6], 2, "tanh")
    assert config["likelihood"]["variance"] == "element"
    assert (found["rows"], found["held_out"], found["steps"], found["threads"]) == (90, 30, 9, 1)
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_demo_repeats_itself(table):
    arguments = ("demo", "--data", table, "--label", "kind", "--epochs", 2, "--json", "--seed")
    first, second, other = (json.loads(run(*arguments, seed).stdout)["elbo"] for seed in (1, 1, 2))
    assert first == second
    assert first != other


# ---- train, info, sample --------------------------------------------------------------------------------------------


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


def test_samples_like_some_rows(images, tmp_path):
    pytest.importorskip("sklearn")
    out = tmp_path / "m.safetensors"
    assert cli.main(["train", str(images), "--out", str(out), "--epochs", "3", "--quiet"]) == 0
    arguments = ["sample", str(out), "--like", str(images), "--components", "2", "--n", "5", "--seed", "1"]
    assert cli.main([*arguments, "--out", str(tmp_path / "s.npy")]) == 0
    expected = fv.Sampler(fv.load(out), seed=1).fit_codes(np.load(images), 2).sample(5)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), expected)


def test_info_tells_how_columns_are_read(tmp_path, capsys):
    columns = [fv.Column("age", 40, 10, fill=38), fv.Column(categories=tuple("abcdefg")), fv.Column("cold", -7)]
    model = fv.Model(fv.Config(input_shape=3, hidden=(4,), latent=1, likelihood="gaussian", columns=columns))
    model.detector = fv.Detector("kl", threshold=-3)
    model.save(tmp_path / "m.safetensors")
    assert cli.main(["info", str(tmp_path / "m.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "detector     Detector('kl', threshold=-3)" in out
    assert "columns      3, which the network reads as 9 values" in out
    assert "cold                     (x + 7) / 1\n" in out
    assert out.startswith("model        9 - 4 - [1] - 4 - 9, relu, Gaussian\ninput        3\n")
    assert "age                      (x - 40) / 10, 38 where it is missing" in out
    assert "x1                       one of 'a', 'b', 'c', 'd', 'e', … (7)" in out
    assert cli.main(["info", str(tmp_path / "m.safetensors"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["detector"] == {"score": "kl", "samples": 32, "seed": 0, "threshold": -3.0, "distance": 0.0}


# ---- bench ----------------------------------------------------------------------------------------------------------


def test_bench_as_json():
    """What the rows hold and how their figures hang together; never how fast they are."""
    done = run("bench", "--quick", "--seconds", "0.02", "--configs", "tiny,tabular", "--threads", "1,2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["fusedvae"], found["backend"]) == (fv.__version__, fv.backend())
    assert found["networks"]["tabular"] == {
        "name": "tabular",
        "width": 30,
        "hidden": [64, 32],
        "latent": 8,
        "batch": 256,
        "likelihood": "gaussian",
        "flops_per_step": 2 * 256 * (3 * 2 * (30 * 64 + 64 * 32 + 32 * 8) + 3 * 32 * 8 - 30 * 64),
    }
    rows = found["rows"]
    names = [(row["config"], row["threads"]) for row in rows]
    assert names == [("tiny", 1), ("tiny", 2), ("tabular", 1), ("tabular", 2)]
    for row in rows:
        network = found["networks"][row["config"]]
        assert row["precision"] == "float32"
        assert 0 < row["ms_q1"] <= row["ms"] <= row["ms_q3"]
        assert row["steps_per_second"] == pytest.approx(1e3 / row["ms"])
        assert row["rows_per_second"] == pytest.approx(network["batch"] * 1e3 / row["ms"])
        assert row["gflops"] == pytest.approx(network["flops_per_step"] / row["ms"] / 1e6)
        assert row["percent_of_peak"] == pytest.approx(100 * row["gflops"] / row["peak_gflops"])
        assert row["percent_of_peak"] <= 100


def test_bench_as_a_table(capsys):
    threads = fv.get_num_threads()
    arguments = ["bench", "--quick", "--seconds", "0.02", "--configs", "tabular,tiny", "--threads", f"{threads + 1}"]
    assert cli.main(arguments) == 0
    title, header, *rows = capsys.readouterr().out.splitlines()
    assert title == f"fusedvae {fv.__version__} ({fv.backend()}), float32, one training step"
    assert [row.split()[:2] for row in rows] == [["tabular", f"{threads + 1}"], ["tiny", f"{threads + 1}"]]
    assert all(len(row) == len(header) for row in rows)
    assert fv.get_num_threads() == threads  # its own counts are forgotten


# ---- exit statuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["dream"], "invalid choice: 'dream'"),
        (["train", "x.npy"], "required: --out"),
        (["demo", "--epochs", "0"], "0 is not positive"),
        (["bench", "--threads", "0"], "0 is not positive"),
        (["demo", "--hidden", "12,x"], "invalid list of integers value: '12,x'"),
        (["demo", "--image-shape", "28y28"], "invalid image shape value"),
        (["demo", "--activation", "swish"], "invalid choice: 'swish'"),
        (["train", "x.npy", "--out", "m", "--scale", "minmax"], "invalid choice: 'minmax'"),
        (["score", "m.safetensors", "x.npy", "--score", "auroc"], "invalid choice: 'auroc'"),
        (["encode", "m.safetensors"], "required: DATA"),
        (["train", "x.npy", "--out", "m", "--test-fraction", "1.2"], "--test-fraction: 1.2 is not in [0, 1)"),
        (["train", "x.npy", "--out", "m", "--seed", "-1"], "--seed: -1 is not within 0 and 2^64 - 1"),
        (["train", "x.npy", "--out", "m", "--learning-rate", "0"], "--learning-rate: 0 is not a number above 0"),
        (["train", "x.npy", "--out", "m", "--beta", "nan"], "--beta: nan is not a number from 0 on"),
        (["train", "x.npy", "--out", "m", "--precision", "half"], "invalid choice: 'half'"),
        (["train", "images", "--out", "m", "--size", "32"], "invalid size, YxX such as 32x32, value: '32'"),
        (["score", "m.safetensors", "x.npy", "--seed", "-1"], "--seed: -1 is not within"),
        (["sample", "m.safetensors", "--temperature", "-1"], "--temperature: -1 is not a number from 0 on"),
        (["bench", "--precision", "half"], "invalid choice: 'half'"),
    ],
)
def test_wrong_usage_is_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "x.npy", "--out", "m.safetensors", "--resume"], "name it with --checkpoint"),
        (["train", "x.npy", "--out", "-"], "are files; stdout takes none of them"),
        (["train", "x.npy", "--out", "m.safetensors", "--contamination", "0.1"], "name it with --score"),
        (
            ["train", "x.npy", "--out", "m.safetensors", "--score", "kl", "--contamination", "1"],
            "in (0, 0.5], it is 1",
        ),
        (["sample", "m.safetensors", "--out", "s.bmp"], "written as .npy, .npz, .csv, .parquet, or as CSV to stdout"),
        (["sample", "m.safetensors", "--json"], "name a file for them with --out"),
        (["bench", "--configs", "tiny,vgg"], "no network 'vgg'; there are tiny, tabular"),
        (["score", "m.safetensors", "x.npy", "--json"], "name a file for them with --out"),
        (
            ["encode", "m.safetensors", "x.npy", "--out", "z.npy", "--logvar"],
            "an .npy file holds one array; 2 are asked",
        ),
    ],
)
def test_options_that_do_not_go_together_are_2_with_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    fv.Model(fv.Config(input_shape=3, hidden=(4,), latent=2)).save("m.safetensors")
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--data", "absent.npy"], "absent.npy: no such file or folder"),
        (["train", "x.npy", "--out", "absent/m.safetensors"], "absent is no folder"),
        (["train", "x.npy", "--out", "."], "it is a folder"),
        (["train", "x.npy", "--out", "m.safetensors", "--likelihood", "bernoulli"], "[0, 1]"),
        (["train", "nan.npy", "--out", "m.safetensors", "--likelihood", "gaussian"], "NaN in row 0, column 1"),
        (["train", "inf.npy", "--out", "m.safetensors"], "an infinity in row 0, column 1"),
        (["train", "x.npy", "--out", "m.safetensors", "--label", "a"], "--label does not apply to a .npy file"),
        (["info", "absent.safetensors"], "absent.safetensors"),
        (["info", "x.npy"], "x.npy"),
        (["train", "x.npy", "--out", "m.safetensors", "--report", "absent/r.html"], "absent is no folder"),
        (
            ["train", "x.npy", "--out", "m.safetensors", "--early-stopping", "3", "--test-fraction", "0"],
            "held-out rows",
        ),
        (["sample", "absent.safetensors", "--out", "s.csv"], "absent.safetensors"),
    ],
)
def test_failure_is_1_with_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.full((8, 3), 5.0))
    np.save("nan.npy", np.array([[1.0, np.nan]] * 8))
    np.save("inf.npy", np.array([[1.0, np.inf]] * 8))
    assert cli.main([*arguments, *(["--quiet"] if arguments[0] in ("demo", "train") else [])]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "hint:" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("fusedvae: error: ")
    assert message in lines[0]
    assert not (tmp_path / "m.safetensors").exists()


def test_an_impossible_backend_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "fusedvae", "demo"],
        capture_output=True,
        text=True,
        env={**os.environ, "FUSEDVAE_BACKEND": "sse9"},
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("fusedvae: error: FUSEDVAE_BACKEND: backend 'sse9' cannot run here")


def test_samples_of_a_table_are_no_picture(tmp_path, capsys):
    fv.Model(fv.Config(input_shape=20, hidden=(8,), latent=2)).save(tmp_path / "m.safetensors")
    assert cli.main(["sample", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "s.png")]) == 1
    assert "rows of shape (20,) are no images" in capsys.readouterr().err


def test_non_finite_loss_keeps_the_last_good_model(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.float32(1e4) * RNG.standard_normal((400, 6)).astype(np.float32))
    out = tmp_path / "m.safetensors"
    arguments = ["train", str(tmp_path / "x.npy"), "--out", str(out), "--optimizer", "sgd", "--learning-rate", "1e8"]
    assert cli.main([*arguments, "--quiet", "--epochs", "50"]) == 1
    assert "step" in capsys.readouterr().err
    assert all(np.isfinite(values).all() for values in fv.load(out).parameters().values())


@pytest.mark.skipif(os.name == "nt", reason="SIGINT of another process is POSIX")
@pytest.mark.parametrize("command", ["train", "demo"])
def test_ctrl_c_is_130_and_keeps_the_model(images, tmp_path, command, interruptible):
    out = tmp_path / "m.safetensors"
    arguments = ["--data", images, "--output", tmp_path / "p.png"] if command == "demo" else [images, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "fusedvae", command, *map(str, arguments), "--epochs", "100000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    with process:
        assert process.stderr.readline().startswith("epoch ")  # training runs
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    if command == "train":
        assert "interrupted" in stdout
        assert fv.load(out).config.input_shape == (5, 4)
    else:
        assert "nats per held-out row" in stdout
        assert (tmp_path / "p.png").exists()


# ---- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_option_is_documented(capsys, command):
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    assert "usage: fusedvae" in capsys.readouterr().out
    commands = next(action.choices for action in cli._parser()._actions if isinstance(action.choices, dict))
    assert tuple(sorted(commands)) == tuple(sorted(COMMANDS))
    for action in commands[command]._actions:
        assert action.help, f"{command} {action.dest} has no help"


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"fusedvae {fv.__version__} ({fv.backend()})\n")


def test_starts_without_the_extras():
    """The command imports numpy alone until a command needs more."""
    code = (
        "import sys, fusedvae.cli; fusedvae.cli._parser();"
        "optional = ('matplotlib', 'jinja2', 'sklearn', 'pandas', 'pyarrow', 'PIL', 'tqdm', 'rich');"
        "sys.exit(any(name in sys.modules for name in optional))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
