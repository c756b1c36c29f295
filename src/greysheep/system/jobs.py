"""Functions in fresh processes: each one started, watched and stopped here.

The process runs a module that hands its function to `serve`: that reads one line of JSON from stdin, and ends
when stdin does. Whatever becomes of the process that started it, nothing is left running.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from greysheep.errors import GreysheepError, ProcessEndedError
from greysheep.system.machine import THREAD_VARIABLES

PATIENCE = 10.0
"""Seconds that a process gets to end after it was asked to."""


# The side that starts and watches


def command(module: str) -> list[str]:
    """What starts a module, without modules of the working folder (-P), which might have the name of ours."""
    return [sys.executable, "-P", "-m", module]


@dataclass
class Process:
    """A function under way."""

    log: Path
    """What it says; taken away where it is not wanted any more."""
    process: subprocess.Popen[str]

    @classmethod
    def start(
        cls, command: Sequence[str], job: Mapping[str, Any], log: Path, threads: int, *, answers: bool = False
    ) -> Process:
        """Start it with what the job says.

        answers: it will be asked (`ask`), so stdout is for its answers and does not go to the log.
        """
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(  # nosec B603  # no shell; this interpreter and a module of ours
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if answers else file,
                stderr=file,
                text=True,
                env=os.environ | dict.fromkeys((*THREAD_VARIABLES, "POLARS_MAX_THREADS"), str(threads)),
                start_new_session=True,  # Ctrl-C reaches the starter alone, which decides
            )
        started = cls(log, process)
        started._write(job)
        return started

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone already; its log says why
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Give an order to a process that runs `converse`, and wait for its answer.

        Raises:
            ProcessEndedError: it ended before it had answered.
        """
        assert self.process.stdout is not None
        self._write(order)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise ProcessEndedError(self.failure())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ended(self) -> bool:
        """Whether it ended, well or not."""
        return self.process.poll() is not None

    def said(self) -> list[str]:
        """The last lines of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            return [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]

    def failure(self) -> str:
        """One line that says why a process that ended left no result."""
        code = self.process.returncode
        last = self.said()[-1:]
        if code == 2 and last and last[0].startswith("error: "):
            return last[0].removeprefix("error: ")
        if code < 0:
            name = signal.Signals(-code).name
            return f"ended by {name}" + (": perhaps it needs more memory" if name == "SIGKILL" else "")
        if not last:
            return f"it said nothing and ended with code {code}: perhaps the disk is full"
        return f"{last[0]} (more in {self.log})"

    def close(self) -> None:
        """Close the pipe that keeps it alive."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def stop(self) -> None:
        """End it now; what it did is lost."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.close()
        self.log.unlink(missing_ok=True)


def run(command: Sequence[str], job: Mapping[str, Any], log: Path, threads: int) -> None:
    """Do one job in a fresh process and wait for it; the log stays.

    Raises:
        ProcessEndedError: it did not end well.
    """
    started = Process.start(command, job, log, threads)
    try:
        started.process.wait()
    except BaseException:
        started.stop()
        raise
    started.close()
    if started.process.returncode:
        raise ProcessEndedError(started.failure())


# The process that is started


def serve(work: Callable[[dict[str, Any]], None], stdin: IO[str]) -> None:
    """Do the work that one line on stdin describes."""
    job = json.loads(stdin.readline())
    # Whoever waits for the end of stdin learns that the starter is gone.
    threading.Thread(target=_end_with, args=(stdin.fileno(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # half a training must not pass for a finished one
    _refusing(work, job)


def converse(
    begin: Callable[[dict[str, Any]], Callable[[dict[str, Any]], dict[str, Any]]], stdin: IO[str]
) -> None:
    """Begin what the first line on stdin describes, then answer the orders of the other lines, one by one.

    Between two orders it does nothing, so that several processes can be measured in turn.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log

    def work(job: dict[str, Any]) -> None:
        answer = begin(job)
        for line in stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)

    _refusing(work, json.loads(stdin.readline()))


def _refusing(work: Callable[[dict[str, Any]], None], job: dict[str, Any]) -> None:
    try:
        work(job)
    except GreysheepError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _end_with(pipe: int) -> None:
    # Not stdin.read(): a thread that waits in it holds a lock which the interpreter wants when it ends.
    while os.read(pipe, 1):
        pass
    os._exit(3)
