"""`greysheep` commands as processes of their own, which get a signal at a random moment.

Most of a short fit is the start of Python and torch: a fork server imports both once, and each command is a
fork of it, one that has never run a line of polars.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "safetensors.torch", "rich.progress", "greysheep.cli"])


@dataclass(frozen=True)
class Ended:
    """A command that ended, by a signal or not."""

    signal: str
    """Name of the signal that it got; empty if it was quicker."""
    code: int
    """Its exit code; -9 where SIGKILL ended it."""
    said: str
    """Its stderr."""


@dataclass(frozen=True)
class Moment:
    """When a signal is sent: so many seconds after so many lines of stderr, or after the start."""

    lines: int
    seconds: float

    @classmethod
    def draw(cls, dice: random.Random, lines: int, pause: float, start: float) -> Moment:
        """After up to `lines` lines and `pause` seconds; one in five after up to `start` seconds."""
        if dice.random() < 0.2:
            return cls(0, dice.uniform(0, start))
        return cls(dice.randint(1, lines), dice.uniform(0, pause))


def run(
    words: list[str], desk: Path, share: float = 0.02, moment: Moment | None = None, number: int = 0
) -> Ended:
    """Run a command in a folder; with a moment, it gets the signal `number` then.

    share: of a fit's time that checkpoints may take; a large one writes one every epoch.
    """
    reader, writer = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_command, args=(words, desk, share, writer))
    process.start()
    writer.close()
    said, name = list[str](), ""
    with os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as stderr:
        if moment is not None and process.pid is not None:
            while len(said) < moment.lines and (line := stderr.readline()):
                said.append(line)
            time.sleep(moment.seconds)
            if process.is_alive():
                name = signal.Signals(number).name
                os.kill(process.pid, number)
        said.append(stderr.read())
    process.join()
    reader.close()
    return Ended(name, process.exitcode or 0, "".join(said))


def _command(words: list[str], desk: Path, share: float, stderr: Connection) -> None:
    """What the process does: `greysheep WORDS` in a folder."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
    os.chdir(desk)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from greysheep.cli import main
    from greysheep.models.training import checkpoints

    checkpoints.SHARE = share
    sys.argv = ["greysheep", *words]
    main()


def save_until_killed(desk: Path, seconds: float) -> None:
    """Save the models `a` and `b` of a folder as its `m`, one over the other, until SIGKILL comes."""
    reader, writer = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_save, args=(desk, writer))
    process.start()
    reader.recv()
    time.sleep(seconds)
    process.kill()
    process.join()


def _save(desk: Path, ready: Connection) -> None:
    import greysheep as gs

    models = [gs.load(desk / name) for name in ("a", "b")]
    ready.send("on")
    while True:
        for model in models:
            model.save(desk / "m")
