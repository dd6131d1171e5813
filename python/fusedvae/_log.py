# SPDX-License-Identifier: MIT
"""The logger "fusedvae", which says what a call could not return; nothing is ever printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def logger() -> logging.Logger:
    """Python's own, imported when there is something to say: it takes some milliseconds."""
    import logging

    return logging.getLogger("fusedvae")
