# SPDX-License-Identifier: MIT
"""Checks of scalar arguments: each returns the value in its plain type or says what was expected and what came.

And what messages are made of: names nearest to a word, names listed, things counted.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

# Wider layers than this are taken for a mistake in units; sixteen million columns of float32 are 64 MB a row.
LARGEST_WIDTH = 2**24
LARGEST = 2**63 - 1


def path(value: str | os.PathLike[str]) -> bytes:
    """`value` as the system's bytes; ValueError for a NUL, at which the system would cut the name off."""
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError(f"path must not hold a NUL character: {value!r}")
    return encoded


def target(value: str | os.PathLike[str]) -> str:
    """`value` as the path of a file to write, whose folder must exist: found out before there is work to lose."""
    name = os.fsdecode(path(value))
    folder = os.path.dirname(os.path.abspath(name))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{name} cannot be written: {folder} is no folder")
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} cannot be written: it is a folder")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{name} cannot be written: no permission to write in {folder}")
    return name


def integer(name: str, value: Any, low: int = 0, high: int = LARGEST) -> int:
    """`value` as an int within [low, high]; bools and floats are refused."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {value!r} ({type(value).__name__})")
    result = operator.index(value)
    if not low <= result <= high:
        allowed = f"at least {low}" if high == LARGEST and result < low else f"between {low} and {high}"
        raise ValueError(f"{name} must be {allowed}, not {result}")
    return result


def seed(value: Any) -> int:
    """`value` as a seed: any unsigned 64-bit integer."""
    return integer("seed", value, 0, 2**64 - 1)


def width(name: str, value: Any) -> int:
    """`value` as the width of a layer."""
    return integer(name, value, 1, LARGEST_WIDTH)


def widths(name: str, value: Any) -> tuple[int, ...]:
    """`value`, an integer or a sequence of them, as a tuple of widths."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return (width(name, value),)
    return tuple(width(f"{name}[{i}]", item) for i, item in enumerate(value))


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf, *, open_low: bool = False) -> float:
    """`value` as a finite float within [low, high], or (low, high] when `open_low`."""
    if isinstance(value, (str, bytes, bool)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {value!r} ({type(value).__name__})") from None
    if not math.isfinite(result) or result < low or result > high or (open_low and result == low):
        least = f"greater than {low:g}" if open_low else f"at least {low:g}"
        most = f" and at most {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"{name} must be finite, {least}{most}, not {result:g}")
    return result


def fraction(name: str, value: Any) -> float:
    """`value` as a float within [0, 1)."""
    result = number(name, value, 0.0, 1.0)
    if result == 1.0:
        raise ValueError(f"{name} must be less than 1")
    return result


def flag(name: str, value: Any) -> bool:
    """`value` as a bool; only bools are taken."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """`value` if it is one of `known`; the error lists them, the nearest spelling first."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known are {', '.join(map(repr, nearest(value, known)))}")
    return value


def nearest(word: str, known: Sequence[str]) -> list[str]:
    """`known`, sorted by likeness to `word`."""
    import difflib  # only errors need it

    return sorted(known, key=lambda other: -difflib.SequenceMatcher(None, word.lower(), other).ratio())


def listed(names: Collection[str], most: int = 8) -> str:
    """The first names in quotes, and how many more there are."""
    shown = ", ".join(repr(name) for name in [*names][:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(n: int, thing: str) -> str:
    """How many there are, for messages: 1 epoch, 2 epochs."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
