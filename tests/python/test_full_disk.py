# SPDX-License-Identifier: MIT
"""A disk that is full leaves what was there, and nothing beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest
from fusedvae._atomic import replacing

# Writes a small file, then one that does not fit: the first must still be there, byte for byte, alone in its folder.
WRITE = """
import errno, sys
from pathlib import Path
import numpy as np
import fusedvae as fv
from fusedvae.cli import sink
{limit}
kind, folder = sys.argv[1], Path(sys.argv[2])

def model(width):
    return fv.Model(fv.Config(input_shape=8, hidden=(width,), latent=2), seed=0)

def rows(path, n):
    field = sink.Field("mu", ["z0", "z1"], (2,))
    with sink.opened(path, [field], n) as write:
        write(np.zeros((n, 2), np.float32))

write = {{
    "model": lambda path, n: model(n).save(path),
    "checkpoint": lambda path, n: fv.Trainer(model(n)).save(path),
    "out.csv": rows,
    "out.npy": rows,
    "card": lambda path, n: model(n).save_pretrained(folder),
}}[kind]
path = folder / kind
write(path, 4)
before = {{file.name: file.read_bytes() for file in folder.iterdir()}}
try:
    write(path, 20_000)
except OSError as error:
    assert "{reason}" in str(error), error
else:
    raise SystemExit("nothing was refused")
assert {{file.name: file.read_bytes() for file in folder.iterdir()}} == before
print("kept")
"""
KINDS = ["model", "checkpoint", "out.csv", "out.npy", "card"]


def written(kind: str, folder: Path, limit: str, reason: str, wrap: list[str]) -> None:
    code = WRITE.format(limit=limit, reason=reason)
    command = [*wrap, sys.executable, "-c", code, kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == ["kept"], done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix", reason="only POSIX limits a file's size")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_grows_too_large_leaves_the_old_one(kind: str, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))"
    written(kind, tmp_path / "disk", limit, "File too large", [])


@pytest.mark.skipif(sys.platform != "linux", reason="a file system of its own takes Linux")
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_the_old_file(kind: str, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=64k none "{tmp_path / "disk"}" && exec "$@"'
    wrap = ["unshare", "--mount", "sh", "-c", mount, "sh"]  # gone with the process
    if not shutil.which("unshare") or subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    written(kind, tmp_path / "disk", "", "No space left on device", wrap)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_that_is_full_says_so():
    with pytest.raises(OSError, match="No space left"), replacing("/dev/full") as path:
        path.write_text("text")


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    path.chmod(0o640)
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_file_is_not_replaced(tmp_path: Path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=r"'.*out.csv'"), replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.skipif(os.name != "posix", reason="leftovers are removed on POSIX")
def test_a_save_removes_what_a_killed_process_left_and_nothing_that_is_being_written(make_model, tmp_path: Path):
    code = f"""
import os, signal
from fusedvae._atomic import replacing
with replacing({str(tmp_path / "out.csv")!r}) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".csv"
    with replacing(tmp_path / "living.npy") as living:
        np.save(living, np.zeros(3))
        make_model().save(tmp_path / "m.safetensors")
        assert {file.name for file in tmp_path.iterdir()} == {"m.safetensors", living.name}
    assert {file.name for file in tmp_path.iterdir()} == {"m.safetensors", "living.npy"}
    np.testing.assert_array_equal(np.load(tmp_path / "living.npy"), np.zeros(3))
    assert fv.load(tmp_path / "m.safetensors").config == make_model().config
