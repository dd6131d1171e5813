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
from fusedvae import cli

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
    out = tmp_path / "m.safetensors"
    arguments = ["--optimizer", "sgd", "--learning-rate", "0.0001", "--beta", "0.5", "--beta-warmup", "10"]
    arguments += ["--clip-norm", "1", "--drop", "kind", "--test-fraction", "0", "--epochs", "2", "--json"]
    done = run("train", table, "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["state"], found["steps"]) == ("trained", 2)
    assert 0 < found["beta"] < 0.5  # still rising
    assert found["learning_rate"] == pytest.approx(1e-4)
    assert "val_loss" not in found


def test_train_takes_a_precision(table, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    arguments = ["--out", tmp_path / "m.safetensors", "--drop", "kind", "--epochs", "1"]
    done = run("train", table, *arguments, "--precision", "auto", "--checkpoint", checkpoint)
    assert done.returncode == 0, done.stderr
    assert fv.Trainer.resume(checkpoint).precision == fv.available_precisions()[-1]
    assert run("train", table, *arguments, "--precision", "half").returncode == 2


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
        (["score", "m.safetensors", "x.npy", "--kind", "auroc"], "invalid choice: 'auroc'"),
        (["encode", "m.safetensors"], "required: DATA"),
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
        (["train", "x.npy", "--out", "m.safetensors", "--contamination", "0.1"], "name it with --detector"),
        (
            ["train", "x.npy", "--out", "m.safetensors", "--detector", "kl", "--contamination", "1"],
            "in (0, 0.5], it is 1",
        ),
        (["sample", "m.safetensors", "--out", "s.bmp"], "written as .npy, .npz, .csv, .parquet, or as CSV to stdout"),
        (["sample", "m.safetensors", "--json"], "name a file for them with --out"),
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
        (["train", "nan.npy", "--out", "m.safetensors", "--likelihood", "gaussian"], "row"),
        (["train", "x.npy", "--out", "m.safetensors", "--label", "a"], "label= does not apply to a .npy file"),
        (["info", "absent.safetensors"], "absent.safetensors"),
        (["info", "x.npy"], "x.npy"),
        (["bench", "--configs", "tiny,vgg"], "no network 'vgg'; there are tiny, tabular"),
        (["bench", "--configs", "tiny", "--precision", "float8"], "precision 'float8'"),
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
