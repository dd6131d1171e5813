# SPDX-License-Identifier: MIT
"""The command line, in a process of its own and in this one, and CSV as it writes and reads it."""

import subprocess
import sys

import numpy as np
from fusedvae import cli

X = np.random.default_rng(0).random((40, 3)).astype(np.float32)  # the rows of the fixture `unnamed`


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


def write(name, *lines):
    """A text file in the current folder."""
    with open(name, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def call(*arguments, status=0):
    """The command in this process, which must end with `status`."""
    assert cli.main([str(argument) for argument in arguments]) == status


def table(text):
    """Header and rows of a CSV without commas in its cells."""
    header, *rows = text.splitlines()
    return header.split(","), [row.split(",") for row in rows]


def floats(rows, dtype=np.float32):
    """Cells as numbers."""
    return np.array(rows, dtype=dtype)
