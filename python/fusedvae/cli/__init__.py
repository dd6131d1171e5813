# SPDX-License-Identifier: MIT
"""The command `fusedvae`: train, encode, decode, reconstruct, score, sample, info, demo, bench.

Results go to stdout, progress and notes to stderr. Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong
usage, 130 stopped by Ctrl-C, which keeps the model trained so far, 141 where the reader of stdout went away.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import fusedvae as fv

from . import bench, demo, info, rows, sample, train
from .terminal import INTERRUPTED, NO_READER, WRONG_USAGE, UsageError, note, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments (default: the process's) and returns its exit status."""
    try:
        options = _parser().parse_args(arguments)  # which names the backend, an error where a wrong one is forced
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except UsageError as error:
        note(f"error: {error}")
        return WRONG_USAGE
    except BrokenPipeError:
        # Python flushes stdout once more as it ends, which would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, MemoryError) as error:
        note(f"error: {one_line(error)}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fusedvae",
        description="Trains variational autoencoders and puts them to work: codes, scores, samples.",
        epilog="Terms are nats per row: loss = reconstruction + beta KL, ELBO = -(reconstruction + KL). "
        "Exit status: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"fusedvae {fv.__version__} ({fv.backend()})")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (train, rows, sample, info, demo, bench):
        module.add(commands)
    return parser
