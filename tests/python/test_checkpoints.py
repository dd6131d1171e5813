# SPDX-License-Identifier: MIT
"""The checkpoint callback: when it writes, under which names, and that Ctrl-C keeps everything."""

import os
import signal
import subprocess
import sys
import textwrap

import fusedvae as fv
import numpy as np
import pytest


def test_checkpoints_every_few_epochs(make_trainer, noisy, tmp_path):
    seen = []

    def look(trainer, progress):
        seen.append(fv.Trainer.resume(path).epoch if path.exists() else 0)

    path = tmp_path / "run.ckpt"
    trainer = make_trainer()
    trainer.fit(noisy[0], epochs=5, callbacks=[fv.Checkpoint(path, every=2), look])
    assert seen == [0, 2, 2, 4, 4]
    assert fv.Trainer.resume(path).epoch == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ckpt"]


def test_numbered_checkpoints(keep, make_trainer, noisy, tmp_path, same_bits):
    trainer = make_trainer()
    trainer.fit(noisy[0], epochs=3, callbacks=[fv.Checkpoint(tmp_path / "run-{epoch:03d}.ckpt"), keep])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f"run-00{epoch}.ckpt" for epoch in (1, 2, 3)]
    for epoch, parameters in enumerate(keep.epochs, 1):
        assert same_bits(fv.load(tmp_path / f"run-00{epoch}.ckpt").parameters(), parameters)


def test_the_latest_are_kept_across_a_resume(make_trainer, noisy, tmp_path):
    path = tmp_path / "{epoch}.ckpt"
    (tmp_path / "90.ckpt").write_bytes(b"another run's")
    make_trainer().fit(noisy[0], epochs=4, callbacks=[fv.Checkpoint(path, keep=2)])
    assert {entry.name for entry in tmp_path.iterdir()} == {"3.ckpt", "4.ckpt", "90.ckpt"}
    resumed = fv.Trainer.resume(tmp_path / "4.ckpt")
    resumed.fit(noisy[0], epochs=1, callbacks=[fv.Checkpoint(path, keep=2)])
    assert {entry.name for entry in tmp_path.iterdir()} == {"4.ckpt", "5.ckpt", "90.ckpt"}


def test_a_stopped_run_is_saved_within_its_epoch(make_trainer, noisy, tmp_path, same_bits):
    class Stop(fv.Callback):
        def on_batch_end(self, trainer, progress):
            return progress.step == 6

    alone = make_trainer()
    alone.fit(noisy[0], epochs=4)
    make_trainer().fit(noisy[0], epochs=4, callbacks=[fv.Checkpoint(tmp_path / "run.ckpt"), Stop()])
    resumed = fv.Trainer.resume(tmp_path / "run.ckpt")
    assert (resumed.epoch, resumed.global_step) == (1, 6)
    resumed.fit(noisy[0], epochs=3)
    assert same_bits(resumed.model.parameters(), alone.model.parameters())


@pytest.mark.parametrize(("error", "steps"), [(KeyboardInterrupt, 6), (SystemExit, 6), (LookupError, 4)])
def test_what_ends_programs_is_saved(error: type[BaseException], steps: int, make_trainer, noisy, tmp_path):
    class Fail(fv.Callback):
        def on_batch_end(self, trainer, progress):
            if progress.step == 6:
                raise error

    with pytest.raises(error):
        make_trainer().fit(noisy[0], epochs=4, callbacks=[fv.Checkpoint(tmp_path / "run.ckpt"), Fail()])
    assert fv.Trainer.resume(tmp_path / "run.ckpt").global_step == steps


def test_a_bad_loss_leaves_the_last_sound_checkpoint(make_model, x, tmp_path):
    class Raise(fv.Callback):
        def on_epoch_end(self, trainer, progress):
            trainer.learning_rate = 1e30

    trainer = fv.Trainer(make_model(), fv.SGD(0.01), batch_size=30)
    with pytest.raises(fv.NonFiniteError):
        trainer.fit(x, epochs=50, callbacks=[fv.Checkpoint(tmp_path / "run.ckpt"), Raise()])
    assert np.isfinite(fv.load(tmp_path / "run.ckpt").elbo(x)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("run.ckpt", 0), ValueError, "every"),
        (("run.ckpt", 1, 3), ValueError, "keep counts numbered files"),
        (("{epoch}.ckpt", 1, 0), ValueError, "keep"),
        (("{epoch}-{step}.ckpt",), ValueError, "no other field"),
        (("{epoch:q}.ckpt",), ValueError, "write {epoch} or {epoch:04d}"),
        (("{epoch",), ValueError, "write {epoch}"),
        ((3,), TypeError, "PathLike"),
    ],
)
def test_impossible_checkpoints(arguments: tuple, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        fv.Checkpoint(*arguments)


def test_braces_of_another_kind_are_a_name(make_trainer, noisy, tmp_path):
    make_trainer().fit(noisy[0], epochs=1, callbacks=[fv.Checkpoint(tmp_path / "{a}.ckpt")])
    assert (tmp_path / "{a}.ckpt").exists()


@pytest.mark.parametrize("name", ["nowhere/run.ckpt", "."])
def test_unwritable_checkpoints_are_found_before_the_first_step(name: str, make_trainer, noisy, tmp_path):
    trainer = make_trainer()
    with pytest.raises(OSError, match="cannot be written"):
        trainer.fit(noisy[0], epochs=1, callbacks=[fv.Checkpoint(tmp_path / name)])
    assert trainer.global_step == 0


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_keeps_everything(interruptible, tmp_path):
    """A real one: the checkpoint stands where the training does and goes on to the bits of an undisturbed run."""
    program = textwrap.dedent(
        """
        import sys
        import numpy as np
        import fusedvae as fv
        folder = sys.argv[1]
        x = np.random.default_rng(0).random((600, 32), dtype=np.float32)
        class Ready(fv.Callback):
            def on_epoch_end(self, trainer, progress):
                if progress.epoch == 2:
                    print("ready", flush=True)
        def callbacks(name):
            return [fv.EarlyStopping(patience=10**9, best=f"{folder}/{name}.best"), fv.Checkpoint(f"{folder}/{name}")]
        def train(trainer, epochs, name, *more):
            held_out = x[500:]
            trainer.fit(x[:500], epochs - trainer.epoch, held_out, [*callbacks(name), *more])
            return trainer
        def make():
            return fv.Trainer(fv.Model(fv.Config(input_shape=32, hidden=(32,), latent=4)), batch_size=7)
        interrupted = make()
        try:
            train(interrupted, 10**9, "run", Ready())
        except KeyboardInterrupt:
            pass
        again = fv.Trainer.resume(f"{folder}/run")
        assert again.global_step == interrupted.global_step > 0
        same = lambda a, b: all(np.array_equal(v, b.model.parameters()[k]) for k, v in a.model.parameters().items())
        assert same(again, interrupted)
        epochs = again.epoch + 2
        for one in (again, interrupted):
            train(one, epochs, "run")
        alone = train(make(), epochs, "alone")
        assert same(again, alone) and same(interrupted, alone)
        print("the same", flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        try:
            assert child.communicate(timeout=60)[0] == "the same\n"
        finally:
            child.kill()
    assert child.returncode == 0
