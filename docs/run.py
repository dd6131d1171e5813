# SPDX-License-Identifier: MIT
"""Runs the pages' code: `python docs/run.py [PAGE...]` renews what they show.

A page is read from top to bottom. Its ```python blocks share one namespace, its ```sh
lines that begin with `fusedvae` go to the command line's own function, and a ```text
block holds what the block before it printed. Files are written to a temporary folder;
pictures that the page shows are copied to where it shows them from.
tests/python/test_docs.py runs the same.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fusedvae import cli

DOCS = Path(__file__).resolve().parent
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if re.search(r"^```(python|sh)$", path.read_text("utf-8"), re.M)
)
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"!\[[^\]]*\]\(([^)]+\.png)\)")


class Block(NamedTuple):
    """A block that ran: its line, what it printed, the text block after it, if any."""

    line: int
    printed: str
    shown: re.Match[str] | None


def run(page: Path) -> Iterator[Block]:
    """Runs the page's blocks in the current folder, one at a time."""
    text = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    names: dict[str, Any] = {"__name__": "__main__"}
    for block, after in zip(found, [*found[1:], None], strict=True):
        language, code = block.groups()
        if language == "text":
            continue
        line = text.count("\n", 0, block.start()) + 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if language == "python":
                exec(compile("\n" * line + code, str(page), "exec"), names)
            else:
                _shell(code)
        yield Block(
            line,
            printed.getvalue(),
            after if after is not None and after[1] == "text" else None,
        )


def _shell(code: str) -> None:
    for command in code.replace("\\\n", " ").splitlines():
        if command.startswith("fusedvae "):
            status = cli.main(shlex.split(command, comments=True)[1:])
            if status != 0:
                raise RuntimeError(f"{command!r} ended with status {status}")


def renew(page: Path) -> None:
    """Runs the page and puts what it printed and drew in the place of what it shows."""
    text = page.read_text(encoding="utf-8")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for block in reversed([*run(page)]):
                if block.shown is not None:
                    text = (
                        text[: block.shown.start(2)]
                        + block.printed
                        + text[block.shown.end(2) :]
                    )
        finally:
            os.chdir(here)
        for picture in SHOWN.findall(text):
            if (drawn := Path(folder, Path(picture).name)).exists():
                (page.parent / picture).parent.mkdir(exist_ok=True)
                shutil.copy(drawn, page.parent / picture)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for chosen in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        renew(chosen)
