# SPDX-License-Identifier: MIT
"""fusedvae demo and bench: what they print, in text and as JSON."""

import json

import fusedvae as fv
import numpy as np
import pytest
from command import run
from fusedvae import cli

RNG = np.random.default_rng(0)


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


def test_a_demo_without_held_out_rows_names_the_option(images, capsys):
    assert cli.main(["demo", "--data", str(images), "--test-fraction", "0", "--quiet"]) == 1
    assert "hold some out, with --test-fraction 0.1 or the like" in capsys.readouterr().err
