# SPDX-License-Identifier: MIT
"""Files that appear under their names whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends and vanishes when it raises.

    A device or a pipe takes what is written as it comes.
    """
    target = Path(os.path.realpath(path))  # a link stays, what it leads to is replaced
    if target.exists() and not target.is_file():
        yield target
        return
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
