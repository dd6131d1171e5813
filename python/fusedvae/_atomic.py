# SPDX-License-Identifier: MIT
"""Files that appear under their names whole or not at all, by the rules of csrc/backend/platform.cpp."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_numbers = itertools.count()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which becomes `path`, on disk, when the block ends and vanishes when it raises.

    A device or a pipe takes what is written as it comes. PermissionError for a file that is read-only: a rename needs
    no permission on what it replaces, but whoever made it so meant it.
    """
    target = Path(os.path.realpath(path))  # a link stays, what it leads to is replaced
    if target.exists() and not target.is_file():
        yield target
        return
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    with _new_file(target) as temporary:
        try:
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    if sys.platform != "win32":  # the rename itself reaches the disk with its folder, where that can be synchronised
        folder = os.open(target.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):
            os.fsync(folder)
        os.close(folder)


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """An empty file beside `target`, locked as long as it has a writer, with the same suffix, which writers go by."""
    while True:
        temporary = target.with_name(f".fusedvae-{os.getpid()}-{next(_numbers)}.tmp{target.suffix}")
        try:
            file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        if sys.platform == "win32":  # which neither renames an open file nor has locks that others need to see
            os.close(file)
            yield temporary
            return
        try:
            if _lock(file):
                yield temporary
                return
        finally:
            os.close(file)


if sys.platform != "win32":

    def _lock(file: int) -> bool:
        """Locks a file that was just made; False where a process that removes leftovers was quicker."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks, where nobody removes anything
            return True
        return os.fstat(file).st_nlink > 0
