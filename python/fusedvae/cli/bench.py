# SPDX-License-Identifier: MIT
"""`fusedvae bench`: the time of one training step."""

from __future__ import annotations

import argparse
from typing import Any

import fusedvae as fv

from ..config import PRECISIONS
from .options import add_command, add_json, counts, names, positive
from .terminal import UsageError, print_json


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    command = add_command(commands, "bench", run, "time training steps of eight networks on this machine")
    command.add_argument("--configs", type=names, metavar="A,B", help="of tiny, tabular, … (default: all eight)")
    command.add_argument("--threads", type=counts, metavar="N,N", help="counts to compare (default 1 and all)")
    command.add_argument("--seconds", type=positive, metavar="S", help="timed, for each row (default 1)")
    command.add_argument("--precision", choices=PRECISIONS, default="float32", help="default %(default)s")
    command.add_argument("--quick", action="store_true", help="a look within a few seconds")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Runs it."""
    from .. import bench

    chosen = options.configs or tuple(bench.NETWORKS)
    if unknown := [name for name in chosen if name not in bench.NETWORKS]:
        raise UsageError(f"--configs: no network {unknown[0]!r}; there are {', '.join(bench.NETWORKS)}")
    threads = options.threads or sorted({1, fv.get_num_threads()})
    networks = [bench.NETWORKS[name] for name in chosen]
    seconds = options.seconds or (0.15 if options.quick else 1.0)
    rows: list[bench.Row] = []
    for row in bench.run(networks, threads, seconds, 3 if options.quick else bench.ROUNDS, options.precision):
        if not options.json:
            if not rows:
                print(f"fusedvae {fv.__version__} ({fv.backend()}), {options.precision}, one training step")
                print(bench.HEADER)
            print(bench.line(row), flush=True)
        rows.append(row)
    if options.json:
        print_json(bench.record(rows))
    return 0
