"""A search whose trials are tasks on Ray, several at a time; the study stays with this process alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import polars as pl

from greysheep.data.columns import GROUP, USER
from greysheep.data.splitting import Split
from greysheep.models.registry import sources
from greysheep.system import jobs
from greysheep.system.drafts import remove
from greysheep.tuning.plan import Plan
from greysheep.tuning.score import Score
from greysheep.tuning.search import PRUNE_AFTER, Search
from greysheep.tuning.study import Notebook, Record
from greysheep.tuning.worker import GROUPS, Files

if TYPE_CHECKING:
    from optuna import Trial

COMMAND = jobs.command("greysheep.tuning.worker")
POLL = 0.05
"""Seconds between two looks at the trials."""
MOST_SECONDS = 1e9
"""Stands for no limit in JSON."""


@dataclass
class UnderWay:
    """A trial that a task makes."""

    trial: Trial
    settings: dict[str, Any]
    files: Files
    job: jobs.Job
    begun: float
    told: int = 0
    """Epochs that the study knows of."""

    def tell(self) -> None:
        """Tell the study of new epochs, and the trial whether it is to end."""
        lines = self.files.epochs.read_text().splitlines() if self.files.epochs.is_file() else []
        for line in lines[self.told :]:
            try:
                epoch, value = json.loads(line)
            except ValueError:  # half a line: the rest comes with the next look
                return
            self.trial.report(value, epoch)
            self.told += 1
            if epoch > PRUNE_AFTER and self.trial.should_prune():
                self.files.prune.touch()

    def record(self) -> Record:
        """What came of it."""
        if self.job.ended_well() and self.files.record.is_file():
            stored = json.loads(self.files.record.read_text(encoding="utf-8"))
            score = None if stored["score"] is None else Score(**stored["score"])
            return Record(**{**stored, "score": score})
        return Record("failed", self.settings, message=self.job.failure())


class RaySearch(Search):
    """Trials on Ray: one at a time, those of a search here, but that a pruned one may run an epoch longer."""

    def __init__(
        self, plan: Plan, split: Split, notebook: Notebook, show: bool, place: Path | None, at_once: int
    ):
        super().__init__(plan, split, notebook, show)
        self.place, self.at_once = place, at_once

    def _search(self, first: list[dict[str, Any]]) -> None:
        threads = jobs.share_of(self.at_once, "ray")
        under_way: list[UnderWay] = []
        with self._folder() as folder:
            self.split.write(folder / "split")
            if (own := self.split.groups) is not None:
                named = pl.DataFrame({USER: self.split.log.user_ids, GROUP: own.named()})
                named.write_parquet(folder / GROUPS)
            begun = False
            try:
                while True:
                    while len(under_way) < self.at_once and not self._over(begun, len(under_way)):
                        under_way.append(self._start(first, folder, threads, len(under_way)))
                        begun = True
                    if not under_way:
                        return
                    time.sleep(POLL)
                    self._look(under_way)
            finally:
                for one in under_way:
                    one.job.stop()

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder for what the tasks read and write, which all machines see; gone in the end."""
        folder = self.place or Path(mkdtemp(prefix="greysheep-"))
        remove(folder)  # of a search that was killed
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            remove(folder)

    def _start(self, first: list[dict[str, Any]], folder: Path, threads: int, ahead: int) -> UnderWay:
        trial = self.notebook.next(first, ahead)
        settings = self.plan.suggest(trial)
        self.notebook.begin(trial, settings)
        request, files = self.plan.request.model_dump(), Files(folder, trial.number)
        request["fixed"] = {"threads": threads} | request["fixed"]
        job = {
            "request": request,
            "settings": settings,
            "reference": None if self.reference is None else asdict(self.reference),
            "seconds": min(self.deadline - time.monotonic(), MOST_SECONDS),
            "folder": str(folder),
            "number": trial.number,
            "sources": sources(request["model"]),
        }
        started = jobs.start(COMMAND, job, files.log, threads, "ray")
        return UnderWay(trial, settings, files, started, time.perf_counter())

    def _look(self, under_way: list[UnderWay]) -> None:
        """Take what has come; a trial that ended is written down."""
        for one in list(under_way):
            ended = one.job.ended()  # before its last lines are read
            one.tell()
            if ended:
                under_way.remove(one)
                seconds = time.perf_counter() - one.begun
                self._write(one.trial, replace(one.record(), seconds=seconds))
