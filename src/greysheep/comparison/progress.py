"""Progress of a comparison: a live table on a terminal, plain lines in a pipe, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from greysheep.comparison.run_folder import Key
from greysheep.evaluation.report import Report
from greysheep.system.machine import readable

EVERY = 30.0
"""Seconds between two lines of the same run in a pipe."""
MARKS = {"waiting": ("·", "dim"), "running": ("…", "cyan"), "done": ("✓", "green"), "failed": ("✗", "red")}


class Progress:
    """Shows which runs are done, running, waiting and failed, on stderr."""

    def __init__(self, labels: Sequence[str], seeds: Sequence[int], metric: str, show: bool):
        self.labels, self.seeds, self.metric = labels, seeds, metric
        self.states: dict[Key, str] = {(label, seed): "waiting" for label in labels for seed in seeds}
        self.notes: dict[Key, str] = {}
        self.shown_at: dict[Key, float] = {}
        self.now = ""
        self.begun = time.monotonic()
        terminal = show and sys.stderr.isatty()
        self.lines = show and not terminal
        self.live: Live | None = None
        if terminal:
            console = Console(stderr=True)
            self.live = Live(
                get_renderable=self.picture, console=console, refresh_per_second=4, transient=True
            )

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """Print a line about the whole comparison, in a pipe."""
        if self.lines:
            counted = sum(state in ("done", "failed") for state in self.states.values())
            seconds = time.monotonic() - self.begun
            print(f"[{counted}/{len(self.states)}, {seconds:.0f} s] {text}", file=sys.stderr, flush=True)

    def busy(self, text: str) -> None:
        """Show what is done between runs; an empty text clears it."""
        self.now = text
        if text:
            self.say(text)

    def finished_before(self, report: Report) -> None:
        """Count a run that an earlier call finished."""
        key = report.label, report.seed
        self.states[key], self.notes[key] = "done", result(report, self.metric)

    def started(self, key: Key) -> None:
        """A run has started."""
        self.states[key], self.shown_at[key] = "running", time.monotonic()
        self.notes.pop(key, None)
        self.say(f"{_name(key)}: started")

    def progress(self, key: Key, text: str) -> None:
        """Show the last line of a run's log; in a pipe at most every EVERY seconds."""
        changed = text and self.notes.get(key) != text
        if not changed:
            return
        self.notes[key] = text
        if time.monotonic() - self.shown_at[key] >= EVERY:
            self.shown_at[key] = time.monotonic()
            self.say(f"{_name(key)}: {text}")

    def done(self, report: Report) -> None:
        """A run has ended with a result."""
        self.finished_before(report)
        self.say(f"{_name((report.label, report.seed))}: {self.notes[report.label, report.seed]}")

    def failed(self, key: Key, message: str) -> None:
        """A process ended otherwise."""
        self.states[key], self.notes[key] = "failed", message
        self.say(f"{_name(key)}: failed: {message}")

    def picture(self) -> Group:
        """One row per model, one cell per seed; below, the notes of running and failed runs."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("model")
        for seed in self.seeds:
            table.add_column(f"seed {seed}")
        for label in self.labels:
            table.add_row(Text(label), *(self._cell((label, seed)) for seed in self.seeds))
        counts = {state: list(self.states.values()).count(state) for state in MARKS}
        seconds = time.monotonic() - self.begun
        head = Text(", ".join(f"{n} {state}" for state, n in counts.items()) + f" · {seconds:.0f} s")
        notes = [
            Text(f"{_name(key)}: {self.notes.get(key, 'starting')}", style=MARKS[state][1])
            for key, state in self.states.items()
            if state in ("running", "failed")
        ]
        return Group(table, *notes, *([Text(self.now)] if self.now else []), head)

    def _cell(self, key: Key) -> Text:
        state = self.states[key]
        mark, style = MARKS[state]
        number = self.notes[key].split(",")[0].removeprefix(f"{self.metric} ") if state == "done" else ""
        return Text(f"{mark} {number}".strip(), style=style)


def result(report: Report, metric: str) -> str:
    """The figures of a finished run in one line."""
    groups = dict(zip(report.by_group["group"], report.by_group[metric], strict=True))
    parts = [f"{metric} {_value(report.overall[metric]['mean'])}", f"low {_value(groups.get('low'))}"]
    if report.epochs:
        parts.append(f"best epoch {report.best_epoch} of {report.epochs}")
    return ", ".join([*parts, f"fit {report.train_seconds:.1f} s", readable(report.peak_memory_bytes)])


def _value(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.4f}"


def _name(key: Key) -> str:
    return f"{key[0]}, seed {key[1]}"
