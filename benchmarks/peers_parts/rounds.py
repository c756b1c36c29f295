"""A verb measured on all sides, in turns, each measurement in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage import Record

from greysheep.errors import ProcessEndedError
from peers_parts.environments import OURS, NotInstalledError, python_of, variables

PARTS = Path(__file__).parent
LONGEST = 3600
"""Seconds after which a measurement is ended."""


@dataclass(frozen=True)
class Verb:
    """A row of the table: the function of that name in the scripts of those who have it."""

    case: str
    text: str
    peers: tuple[str, ...]


VERBS = (
    Verb("ease_command", "log file to trained EASE, by command", ("rectools", "lenskit")),
    Verb("ease_lists_command", "log file to everybody's top 20 of EASE, by command", ("rectools", "lenskit")),
    Verb("ease_fit", "EASE, fit alone", ("rectools", "lenskit", "cornac")),
    Verb("ease_lists", "everybody's top 20 from EASE", ("rectools", "lenskit")),
    Verb("evaluate", "evaluate a file of lists, means", ("rectools", "lenskit", "ranx")),
    Verb("evaluate_users", "evaluate a file of lists, per user too", ("rectools", "lenskit", "ranx")),
    Verb("ials_lists", "everybody's top 20 from iALS", ("implicit",)),
    Verb("ials_command", "log file to trained iALS, by command", ("implicit",)),
    Verb("ials_fit", "iALS, fit alone", ("implicit",)),
    Verb("multvae_epoch", "MultVAE, training an epoch", ("recbole", "cornac")),
    Verb("multvae_validation", "MultVAE, validation", ("recbole", "cornac")),
    Verb("start", "`--help`", ("lenskit",)),
)


@dataclass(frozen=True)
class Setup:
    """How the verbs are measured; a kept result counts only for the same values."""

    log: str
    """File of rows; empty: a small simulated log."""
    rounds: int
    settings: dict[str, Any]

    @property
    def threads(self) -> int:
        """Threads of every process."""
        return int(self.settings["threads"])


def prepare(work: Path, setup: Setup) -> Record:
    """Write what all sides read."""
    work.mkdir(parents=True, exist_ok=True)
    return once(
        OURS, sys.executable, "prepare", work, Setup(setup.log, 1, {**setup.settings, "log": setup.log})
    )


def once(name: str, python: str, case: str, work: Path, setup: Setup) -> Record:
    """One measurement: seconds, peak and figure.

    Raises:
        ProcessEndedError: it did not end well, or in time; what it said is in the .log named.
    """
    said = work / f"{case}-{name}.log"
    with tempfile.TemporaryDirectory(dir=work) as scratch, said.open("w", encoding="utf-8") as log:
        command = [python, str(PARTS / f"by_{name}.py"), case, str(work), scratch, json.dumps(setup.settings)]
        try:
            done = subprocess.run(  # nosec B603  # scripts beside this file
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                env=variables(name, setup.threads), timeout=LONGEST, cwd=scratch,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ProcessEndedError(f"ended after {LONGEST} seconds") from None
    if done.returncode or not done.stdout:
        lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
        raise ProcessEndedError(f"{(lines or ['it said nothing'])[-1]} (more in {said})")
    answer: Record = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(verb: Verb, peers: list[str], envs: Path, work: Path, setup: Setup, *, install: bool) -> Record:
    """A row: each side's measurements, and why a side has none.

    Sides take turns within a round; a first round, not counted, fills caches (compiled code, files) for all.
    """
    begun = {"day": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
    pythons: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in (OURS, *peers):
        try:
            pythons[name] = python_of(name, envs, install=install)
        except NotInstalledError as error:
            missing[name] = str(error)
    sides: dict[str, list[Record]] = {name: [] for name in pythons}
    for number in range(setup.rounds + 1):
        turn = number % len(sides)
        for name in [*sides][turn:] + [*sides][:turn]:
            if name in missing:
                continue
            try:
                sides[name].append(once(name, pythons[name], verb.case, work, setup))
            except ProcessEndedError as error:
                if name == OURS:
                    raise
                missing[name] = str(error)
        print(f"{verb.text}: round {number} of {setup.rounds}", file=sys.stderr, flush=True)
    counted = {name: found[1:] for name, found in sides.items() if name not in missing}
    return {**begun, "sides": counted, "missing": missing}
