# SPDX-License-Identifier: MIT
"""The command line as a whole: exit statuses, Ctrl-C, help, info, and samples of images."""

import json
import os
import signal
import subprocess
import sys

import fusedvae as fv
import numpy as np
import pytest
from command import run
from fusedvae import cli

RNG = np.random.default_rng(0)
COMMANDS = ("train", "encode", "decode", "reconstruct", "score", "sample", "info", "demo", "bench")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.safetensors"
    fv.Model(fv.Config(input_shape=(5, 4), hidden=(8,), latent=2)).save(path)
    return path


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
        (["demo", "--data", "x.npy", "--device", "gpu"], 'it is "gpu"'),
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
