# SPDX-License-Identifier: MIT
"""Builds the programs of bench/native and runs them: what the benches of the engine's parts share."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--build", metavar="DIR", help="build there and keep it; else in a temporary folder")


def build(folder: str | None, *targets: str, compiler: str | None = None) -> Path:
    """The folder of the programs, built from this tree; `compiler` is a C++ compiler's name, else CMake's choice."""
    if folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="fusedvae-bench-")
        atexit.register(temporary.cleanup)
        folder = temporary.name
    path = Path(folder).resolve() / (compiler or "c++")
    choice = [f"-DCMAKE_CXX_COMPILER={compiler}"] if compiler else []
    configure = ["cmake", "-S", ROOT, "-B", path, "-DFUSEDVAE_BENCH=ON", "-DFUSEDVAE_STATIC=OFF", *choice]
    for command in (configure, ["cmake", "--build", path, "-j", str(os.cpu_count()), "--target", *targets]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}{done.stderr}\nfailed: {' '.join(map(str, command))}")
    return path / "bench" / "native"


def compiler_of(programs: Path) -> str:
    """What built them: "GNU 12.2.0"."""
    (about,) = (programs.parent.parent / "CMakeFiles").glob("*/CMakeCXXCompiler.cmake")
    known = dict(re.findall(r'set\(CMAKE_CXX_COMPILER_(ID|VERSION) "(.*?)"\)', about.read_text()))
    return f"{known['ID']} {known['VERSION']}"


def ask(program: Path, *arguments: object) -> dict:
    """Runs a program and reads the JSON object that it prints."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stderr}failed: {program.name} {' '.join(map(str, arguments))}")
    return json.loads(done.stdout)
