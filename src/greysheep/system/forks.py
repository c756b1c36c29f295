"""A process that was forked after polars had started its threads: they are not there, and it would hang."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from greysheep.errors import ForkedProcessError

_THREADS = Path("/proc/self/task")


class _Past:
    """What this process and those it was forked from have gone through."""

    started = False
    """Whether polars had threads when this process was last forked."""
    hangs = False
    """Whether this process was forked from one that had them."""


def _look() -> None:
    _Past.started = _polars_has_threads()


def _remember() -> None:
    _Past.hangs = _Past.hangs or _Past.started


def _polars_has_threads() -> bool:
    """Whether polars' workers run; where the system does not tell, whether polars was imported."""
    if not _THREADS.is_dir():
        return "polars" in sys.modules
    for file in _THREADS.glob("*/comm"):
        with suppress(OSError):  # a thread may end while its name is read
            if re.fullmatch(r"polars-\d+", file.read_text().strip()):
                return True
    return False


def refuse_forked() -> None:
    """Say so where polars would wait for threads that are not there.

    Raises:
        ForkedProcessError: this process was forked after polars had started its threads.
    """
    if _Past.hangs:
        raise ForkedProcessError(
            f"process {os.getpid()} was forked after polars had started its threads, and would hang: "
            'use spawn in place of fork, as multiprocessing.get_context("spawn") does'
        )


os.register_at_fork(before=_look, after_in_child=_remember)
