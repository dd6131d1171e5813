# SPDX-License-Identifier: MIT
"""Kills trainings at random moments with SIGKILL, and shows that nothing is lost.

    python tests/tools/kill_training.py --kills 200

A training with early stopping and its best file, a checkpoint after each epoch, numbered checkpoints and a CSV log is
killed again and again and goes on from its checkpoint each time, until it ends; then the next one begins. After each
kill every file that stands under its name must load, and each training must end with the bits of one that was never
disturbed: parameters, log, best epoch, checkpoints. Exit status 1 and a line on stderr where that is not so.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fusedvae as fv
import numpy as np

EPOCHS, PATIENCE = 300, 25
# What must be the same as in the undisturbed training.
RESULTS = ("final.safetensors", "run.ckpt", "best.ckpt", "log.csv")


def data() -> tuple[np.ndarray, np.ndarray]:
    """Too few rows to train on, so that the held-out loss turns and early stopping has its say."""
    rng = np.random.default_rng(0)
    rows = (rng.random((300, 24)) < rng.random((1, 24))).astype(np.float32)
    return rows[:100], rows[100:]


def train(folder: Path) -> None:
    """A training from its checkpoint, if there is one, to its end."""
    fv.set_num_threads(1)
    checkpoint = folder / "run.ckpt"
    if checkpoint.exists():
        trainer = fv.Trainer.resume(checkpoint)
    else:
        model = fv.Model(fv.Config(input_shape=24, hidden=(32,), latent=4), seed=1)
        trainer = fv.Trainer(model, fv.Adam(3e-3), batch_size=10, beta=0.1, seed=2)
    callbacks = [
        fv.EarlyStopping(PATIENCE, best=folder / "best.ckpt"),
        fv.Checkpoint(folder / "epoch-{epoch:03d}.ckpt", every=3, keep=2),
        fv.CSVLogger(folder / "log.csv"),
        fv.Checkpoint(checkpoint),
        _Ready(),
    ]
    rows, held_out = data()
    if trainer.epoch < EPOCHS:
        trainer.fit(rows, EPOCHS - trainer.epoch, held_out, callbacks)
    trainer.model.save(folder / "final.safetensors")


class _Ready(fv.Callback):
    """Tells the parent that training begins, for there is nothing to lose before."""

    def on_train_begin(self, trainer: fv.Trainer, progress: fv.Progress) -> None:
        print("ready", flush=True)


def run(folder: Path, kill_after: float | None) -> bool:
    """Starts the training in a process of its own; whether it ended before it was killed."""
    command = [sys.executable, __file__, "--train", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            status = child.wait(kill_after)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return False
    if status != 0:
        raise SystemExit(f"the training failed with status {status}")
    return True


def check_files(folder: Path) -> int:
    """Loads everything that stands under its name; the number of files that kills left half written."""
    for path in folder.glob("*.ckpt"):
        trainer = fv.Trainer.resume(path)
        assert all(np.isfinite(values).all() for values in trainer.model.parameters().values()), path
    for path in folder.glob("*.safetensors"):
        fv.load(path)
    return sum(1 for path in folder.iterdir() if path.name.endswith(".tmp"))


def torture(kills: int, seed: int, folder: Path) -> dict[str, float]:
    """Kills `kills` times and returns what happened; AssertionError where something was lost."""
    chance = random.Random(seed)
    alone = folder / "alone"
    alone.mkdir()
    start = time.monotonic()
    assert run(alone, None)
    seconds = time.monotonic() - start
    done, trainings, torn = 0, 0, 0
    while done < kills:
        trainings += 1
        work = folder / f"run{trainings}"
        work.mkdir()
        # About eight kills to a training; the last one's goes on undisturbed when there are enough.
        while not run(work, chance.uniform(0, seconds / 4) if done < kills else None):
            done += 1
            torn += check_files(work)
        assert check_files(work) == 0, "the last process has not removed what the killed ones left"
        for name in RESULTS:
            assert filecmp.cmp(work / name, alone / name, shallow=False), f"{work / name} differs from {alone / name}"
        numbered = [{path.name for path in one.glob("epoch-*")} for one in (work, alone)]
        assert numbered[0] == numbered[1], numbered
    epochs = fv.Trainer.resume(alone / "run.ckpt").epoch
    return {"kills": done, "trainings": trainings, "epochs": epochs, "torn_writes": torn, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = torture(options.kills, options.seed, Path(folder))
        except AssertionError as error:
            print(f"lost: {error}", file=sys.stderr)
            return 1
    print(json.dumps(result))
    print(
        f"{result['kills']} kills in {result['trainings']} trainings of {result['epochs']} epochs: every file loaded, "
        f"every training ended with the bits of the undisturbed one ({result['torn_writes']} writes were cut short)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
