"""Numbers and paths that a caller hands over: checked where they come in, and plain from there on."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from greysheep.errors import ConfigError

MOST = (1 << 63) - 1
"""The largest whole number where no smaller bound is set."""
MOST_SEED = (1 << 64) - 1
"""The largest seed that torch takes."""
MOST_THREADS = 1024
"""More are a slip of the hand: they would only wait for each other."""
MOST_DRAWS = 1_000_000
"""Of a bootstrap or a permutation test: its figures no longer change in the digits that are shown."""


def whole_number(name: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """The value as an int: an integer of Python's or NumPy's in these bounds; True is no number.

    >>> import numpy as np
    >>> whole_number("k", np.int64(3))
    3

    Raises:
        ConfigError: it is anything else.
    """
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    if fits and least <= int(value) <= most:
        return int(value)
    bounds = f"from {least} to {most}"
    if most == MOST:
        bounds = f"of at least {least}" + (", and below 2**63" if fits and int(value) > most else "")
    raise ConfigError(f"{name}={shown(value)} is not a whole number {bounds}")


def list_lengths(value: Any) -> list[int]:
    """The lengths of lists to measure, ascending and each once: of one whole number, or of several.

    >>> list_lengths(20), list_lengths([20, 5, 10])
    ([20], [5, 10, 20])

    Raises:
        ConfigError: one of them is no whole number from 1 up, or there is none.
    """
    try:
        parts = [value] if isinstance(value, str | bytes) else list(value)
    except TypeError:  # what cannot be gone through, an array without dimensions among it
        parts = [value]
    lengths = sorted({whole_number("k", one) for one in parts})
    if not lengths:
        raise ConfigError(f"k={shown(value)} names no length of a list")
    return lengths


def seed_number(value: Any, name: str = "seed") -> int:
    """The seed as an int.

    Raises:
        ConfigError: it is no whole number from 0 to 2**64 - 1.
    """
    return whole_number(name, value, least=0, most=MOST_SEED)


def number(name: str, value: Any, least: float = -math.inf, below: float = math.inf) -> float:
    """The value as a finite float from `least` up and smaller than `below`.

    >>> number("margin", 0.02, least=0, below=1)
    0.02

    Raises:
        ConfigError: it is anything else.
    """
    kind: type = type(value)
    try:
        plain = float(value) if isinstance(value, Real) and kind is not bool else math.nan
    except OverflowError:
        plain = math.nan
    if math.isfinite(plain) and least <= plain < below:
        return plain
    bounds = [f" of at least {least:g}"] if least > -math.inf else []
    bounds += [f" below {below:g}"] if below < math.inf else []
    raise ConfigError(f"{name}={shown(value)} is not a number{' and'.join(bounds)}")


def flag(name: str, value: Any) -> bool:
    """The value as a bool: Python's or NumPy's; "no" is not taken for True.

    Raises:
        ConfigError: it is anything else.
    """
    if type(value).__name__ not in ("bool", "bool_"):
        raise ConfigError(f"{name}={shown(value)} is neither True nor False")
    return bool(value)


def a_text(name: str, value: Any) -> str:
    """The value as a text that can be written.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, str) or not _is_unicode(value):
        raise ConfigError(f"{name}={shown(value)} is not a text")
    return value


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode("utf-8")) or not text
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False


def one_of(name: str, value: Any, choices: Collection[str]) -> str:
    """The value as one of the choices.

    Raises:
        ConfigError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name}={shown(value)}: choose one of {', '.join(choices)}")
    return value


def a_path(name: str, value: Any) -> Path:
    """The value as a path, `~` replaced.

    Raises:
        ConfigError: it is none, or one that no file system takes.
    """
    try:
        text = os.fsencode(value)
        path = Path(os.fsdecode(text)).expanduser()
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
        raise ConfigError(f"{name}={shown(value)} is not a path: {error}") from None
    if not text or b"\0" in text or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ConfigError(f"{name}={shown(value)} is not a path: it is empty, too long or has a null in it")
    return path


def shown(value: Any) -> str:
    """The value in a message: in one line, and cut short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
