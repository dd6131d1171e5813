# SPDX-License-Identifier: MIT
"""What the commands say: notes and errors on stderr, results on stdout, exit statuses."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._checks import target

WRONG_USAGE = 2  # argparse's own
# What shells report for a process that a signal ended: 128 + SIGINT's or SIGPIPE's number.
INTERRUPTED = 128 + signal.SIGINT
NO_READER = 141
STDOUT = Path("-")
# Parameters of fusedvae.data.load that messages name, and that are options here.
PARAMETERS = re.compile(r"\b(key|label|drop|size|grey|test_fraction)=(\w?)")


# The engine's advice for a missing value, and what can be done from here.
NO_FILL = (
    "fill it, or give the column a fill (estimators: impute)",
    "fill it, drop such rows, or train the model with --impute median",
)


class UsageError(Exception):
    """Options that do not go together, whatever the files hold."""


def note(line: str) -> None:
    """A line on stderr."""
    print(f"fusedvae: {line}", file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """What went wrong, without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    line = " ".join(str(error).split()) or type(error).__name__
    line = PARAMETERS.sub(lambda found: f"--{found[1].replace('_', '-')} {found[2]}".rstrip(), line)
    return line.replace(*NO_FILL)


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on a line; what is not finite is null, for which JSON has no number."""
    print(json.dumps(_finite(values)))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def check_apart(written: Path | None, *read: object) -> None:
    """UsageError where a result would replace a file that the command reads."""
    for one in map(str, filter(None, read)):
        if written is not None and written.is_file() and os.path.realpath(one) == os.path.realpath(written):
            raise UsageError(f"{written} is what this command reads; write its results elsewhere")


def check_output(path: Path) -> None:
    """What cannot be written is found before the work, not after it."""
    if path != STDOUT:
        target(path)
