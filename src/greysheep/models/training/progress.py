"""Progress of long work: a bar on a terminal, one line per epoch in a pipe, or nothing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Progress:
    """Shows epoch, validation NDCG overall and of `low`, and the time left.

    show: True = bar on a terminal, plain lines elsewhere; False = silent; None = bar on a terminal only.
    """

    unit = "epoch"

    def __init__(self, label: str, epochs: int, show: bool | None):
        self.label, self.epochs = label, epochs
        self.before = 0
        terminal = sys.stderr.isatty()
        self.lines = bool(show) and not terminal
        self.bar: Bar | None = None
        self.task: TaskID | None = None
        if terminal and show is not False:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Self:
        self.begun = time.perf_counter()
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self.label, total=self.epochs, state=f"first {self.unit}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def go_on(self, epoch: int) -> None:
        """Begin after an epoch that another process has trained; 0 = from the beginning."""
        self.before = epoch
        if epoch:
            self._show(epoch, f"goes on after epoch {epoch}")

    def within(self, epoch: int, share: float) -> None:
        """Move the bar inside an epoch."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=epoch - 1 + share)

    def epoch(self, row: dict[str, Any], best_epoch: int, patience: int, start_epoch: int) -> None:
        """Show a finished epoch."""
        if self.bar is None and not self.lines:
            return
        # training ends `patience` epochs after the best one unless a better one comes first
        last = min(self.epochs, max(best_epoch, start_epoch) + patience)
        per_epoch = (time.perf_counter() - self.begun) / (row["epoch"] - self.before)
        left = (last - row["epoch"]) * per_epoch
        parts = [f"epoch {row['epoch']}", f"loss {row['loss']:.1f}"]
        if row.get("ndcg@20") is not None:
            of_low = row["by_group"].get("low", {}).get("ndcg@20")
            low = "" if of_low is None else f" (low {of_low:.4f})"
            parts += [f"ndcg@20 {row['ndcg@20']:.4f}{low}", f"best epoch {best_epoch}"]
        parts.append(f"about {left:.0f} s left unless it gets better")
        self._show(row["epoch"], " · ".join(parts))

    def _show(self, completed: int, text: str) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=completed, state=text)
        elif self.lines:
            print(f"{self.label}: {text}", file=sys.stderr, flush=True)


class Steps(Progress):
    """Progress of work that has no epochs, step by step: a bar, or one line per step in a pipe."""

    def __init__(self, label: str, total: int, show: bool | None, unit: str = "iteration"):
        super().__init__(label, total, show)
        self.unit, self.finished = unit, 0

    def step(self) -> None:
        """Show that one more step is done."""
        self.finished += 1
        left = (time.perf_counter() - self.begun) / self.finished * (self.epochs - self.finished)
        text = f"{self.unit} {self.finished} of {self.epochs} · about {left:.0f} s left"
        self._show(self.finished, text)
