"""Ctrl-C that waits for a piece of work to be whole, and SIGTERM that ends a process in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM ended."""


def terminate(*_: object) -> NoReturn:
    """End the process as SIGTERM does, but in order: drafts are removed and locks released on the way out.

    Also a handler of the signal, which the command sets.
    """
    raise SystemExit(TERMINATED)


@contextmanager
def ctrl_c_waits(*, unless: bool = False) -> Iterator[list[int]]:
    """Hold the first Ctrl-C back: the list is not empty once it came. A second one ends the work at once.

    unless: let the very first one through, as after one that was heeded before.
    """
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if unless or not callable(before) or not _in_main_thread():
        yield pressed
        return

    def press(number: int, frame: Any) -> None:
        if pressed:
            before(number, frame)
        pressed.append(number)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` when SIGTERM comes, unless the program has a handler of its own or ignores the signal."""
    before = signal.getsignal(signal.SIGTERM)
    if before not in (signal.SIG_DFL, terminate) or not _in_main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    """Whether this is the one thread that may set handlers."""
    return threading.current_thread() is threading.main_thread()
