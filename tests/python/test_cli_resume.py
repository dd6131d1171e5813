# SPDX-License-Identifier: MIT
"""fusedvae train --resume: a run goes on as it was begun, whatever is not repeated, and refuses what contradicts it."""

import fusedvae as fv
import numpy as np
import pytest
from fusedvae import cli

BEGUN = {
    "--hidden": "8",
    "--latent": "2",
    "--activation": "tanh",
    "--likelihood": "gaussian",
    "--variance": "element",
    "--min-variance": "0.01",
    "--batch-size": "32",
    "--learning-rate": "0.002",
    "--optimizer": "adamw",
    "--beta": "0.5",
    "--beta-warmup": "10",
    "--clip-norm": "5.0",
    "--precision": "float32",
    "--seed": "3",
}


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Runs `train DATA --out m.safetensors --checkpoint run.ckpt` in a folder of its own; what stderr holds."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).standard_normal((80, 4)).astype(np.float32))

    def train(*arguments, data="x.npy", status=0):
        common = ["train", data, "--out", "m.safetensors", "--checkpoint", "run.ckpt", "--quiet"]
        assert cli.main([*common, *arguments]) == status
        return capsys.readouterr().err

    return train


def test_options_that_are_not_repeated_are_those_of_the_checkpoint(train, same_bits):
    options = [word for pair in BEGUN.items() for word in pair]
    train(*options, "--epochs", "4")
    whole = fv.load("m.safetensors").parameters()
    train(*options, "--epochs", "2")
    train("--resume", "--epochs", "4")
    assert same_bits(fv.load("m.safetensors").parameters(), whole)
    train(*options, "--epochs", "2")
    train("--resume", "--epochs", "4", *options)  # the same command again is no contradiction
    assert same_bits(fv.load("m.safetensors").parameters(), whole)


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("--hidden", "8,4"),
        ("--latent", "3"),
        ("--activation", "relu"),
        ("--likelihood", "bernoulli"),
        ("--variance", "feature"),
        ("--min-variance", "0.1"),
        ("--batch-size", "16"),
        ("--learning-rate", "0.1"),
        ("--optimizer", "sgd"),
        ("--beta", "1.0"),
        ("--beta-warmup", "20"),
        ("--clip-norm", "1.0"),
        ("--seed", "4"),
    ],
)
def test_options_that_contradict_the_checkpoint_are_wrong_usage(option, other, train, tmp_path):
    train(*(word for pair in BEGUN.items() for word in pair), "--epochs", "1")
    before = (tmp_path / "run.ckpt").read_bytes()
    message = train("--resume", "--epochs", "2", option, other, status=2)
    assert f"{option} {other} contradicts run.ckpt, which was begun with {option} {BEGUN[option]}; " in message
    assert message.count("\n") == 1
    assert (tmp_path / "run.ckpt").read_bytes() == before


def test_what_the_run_was_begun_without(train):
    train("--epochs", "1", "--likelihood", "gaussian")
    assert "which was begun without --clip-norm; " in train("--resume", "--epochs", "2", "--clip-norm", "1", status=2)


def test_a_found_rate_goes_on(train):
    train("--epochs", "1", "--lr-find", "--likelihood", "gaussian")
    found = fv.Trainer.resume("run.ckpt").learning_rate
    train("--epochs", "2", "--lr-find", "--likelihood", "gaussian", "--resume")
    assert fv.Trainer.resume("run.ckpt").learning_rate == found != 1e-3


@pytest.mark.parametrize("changed", [["--scale", "robust"], ["--drop", "b"], ["--test-fraction", "0.4"]])
def test_a_table_is_read_as_it_was(changed, train):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("sklearn")
    rows = np.random.default_rng(1).standard_normal((60, 3))
    pandas.DataFrame(rows, columns=["a", "b", "c"]).to_csv("t.csv", index=False)
    train("--epochs", "1", data="t.csv")
    train("--epochs", "2", "--resume", data="t.csv")
    message = train("--epochs", "3", "--resume", *changed, data="t.csv", status=2)
    assert "t.csv is read otherwise than when run.ckpt was begun; DATA, --label, --drop, --scale" in message


def test_a_single_epoch_is_one(train, capsys):
    assert cli.main(["train", "x.npy", "--out", "m.safetensors", "--quiet", "--epochs=1", "--batch-size=100"]) == 0
    assert capsys.readouterr().out.startswith("trained 1 epoch, 1 step: loss ")
