# SPDX-License-Identifier: MIT
"""Files made to exhaust memory are refused with a reason, in a process whose memory is limited."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import fusedvae as fv
import numpy as np
import pytest

resource = pytest.importorskip("resource", reason="only POSIX limits a process's memory")

# Loads a file in at most so many bytes above those of the interpreter with its imports, and prints what came of it.
LOAD = """
import resource, sys
import fusedvae as fv
fv.set_num_threads(1)
fv.load(sys.argv[3])  # whatever the first load allocates once
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
try:
    fv.load(sys.argv[1])
except Exception as error:
    print(type(error).__name__, str(error)[-200:])
"""
HEADER = 16 << 20

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc tells how much memory a process has"),
    pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="ASan reserves terabytes"),
]


def file_of(config: str, values: int) -> bytes:
    """A file whose configuration is the text given, with one tensor of float32 values."""
    header = json.dumps(
        {
            "__metadata__": {"format": "fusedvae.model", "version": "1", "config": config},
            "t": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * values)


def plain_config(tmp_path: Path) -> dict:
    """The configuration of a small model as its file holds it."""
    fv.Model(fv.Config(input_shape=1, hidden=(), latent=1, likelihood="gaussian")).save(tmp_path / "small")
    data = (tmp_path / "small").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["config"])


@pytest.mark.parametrize(
    ("element", "width", "message"),
    [
        ("0", None, "more values than"),  # 40 bytes of memory for two of text
        ("[[[[0]]]]", None, "more values than"),
        ("{ }", 5, "columns describes 4194304 columns; input_shape has 5"),
        ("{ }", None, "more parameters than the file holds"),
    ],
)
def test_a_header_takes_little_more_than_it_is_long(tmp_path: Path, element: str, width: int | None, message: str):
    count = HEADER // (len(element) + 1)
    fields = plain_config(tmp_path) | {"input_shape": [width or count], "columns": "here"}
    columns = "[" + ",".join([element] * count) + "]"
    path = tmp_path / "hostile"
    path.write_bytes(file_of(json.dumps(fields).replace('"here"', columns), 64))
    # The text three times over, and what json.h allows for its values and for counting them.
    limit = 3 * HEADER + (12 + 4) * HEADER + (16 << 20)
    command = [sys.executable, "-c", LOAD, path, str(limit), tmp_path / "small"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("BadFileError"), said
    assert message in said


def test_a_header_longer_than_the_format_allows_is_refused(tmp_path: Path):
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_001))
        file.truncate(100_000_100)  # a hole: it takes no disk
    with pytest.raises(fv.BadFileError, match="its header claims 100000001 bytes where 100000000 are possible"):
        fv.load(path)


def test_a_wide_table_is_no_hostile_file(tmp_path: Path):
    columns = tuple(fv.Column(f"gene {i}", shift=float(i), scale=2.0) for i in range(20_000))
    model = fv.Model(fv.Config(input_shape=len(columns), hidden=(), latent=1, likelihood="gaussian", columns=columns))
    model.save(tmp_path / "wide")
    assert fv.load(tmp_path / "wide").config == model.config
    x = np.zeros((1, len(columns)))
    np.testing.assert_array_equal(fv.load(tmp_path / "wide").encode(x), model.encode(x))
