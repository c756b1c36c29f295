"""The search itself: trial after trial until their number, the time or the user ends it."""

from __future__ import annotations

import math
import statistics
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from greysheep.data.splitting import Split
from greysheep.errors import ConfigError, GreysheepError, GreysheepWarning
from greysheep.models import Model, parse
from greysheep.models.base import IterativeModel
from greysheep.tuning.plan import MACHINE, Plan
from greysheep.tuning.score import Score
from greysheep.tuning.study import Notebook, Record, State

if TYPE_CHECKING:
    from optuna import Trial

PRUNE_AFTER = 15
"""Epochs that every trial gets before it may be pruned."""
HOPELESS = 10
"""Failed trials without a single success after which the search ends."""
FAILURES = (GreysheepError, ValueError, ArithmeticError, RuntimeError, MemoryError)
"""What a bad setting can raise: our errors, NaN scores, overflow, no memory in torch or numpy."""


@dataclass
class Watch:
    """Called after each epoch: keeps the score of the best one, and prunes the trial or ends it in time."""

    trial: Trial
    plan: Plan
    reference: Score | None
    deadline: float
    score: Score | None = None
    cut: State = "finished"
    epochs: int = 0
    best_epoch: int = 0
    _best: float = field(default=-math.inf, init=False)

    def __call__(self, row: dict[str, Any]) -> bool:
        """Take an epoch's line of the history; True ends the training."""
        self.epochs = row["epoch"]
        if self.score is None or row["objective"] > self._best:
            self._best, self.score, self.best_epoch = row["objective"], Score.of_epoch(row), self.epochs
        # what the trial would be worth if it ended here
        value = self.plan.value(self.score, self.reference)
        if not math.isnan(value):
            self.trial.report(value, row["epoch"])
        if time.monotonic() >= self.deadline:
            self.cut = "stopped"
        elif row["epoch"] > PRUNE_AFTER and self.trial.should_prune():
            self.cut = "pruned"
        return self.cut != "finished"


class Search:
    """Trials of one plan on one split without test rows."""

    def __init__(self, plan: Plan, split: Split, notebook: Notebook, show: bool):
        self.plan, self.split, self.notebook, self.show = plan, split, notebook, show
        self.deadline = math.inf
        self.reference: Score | None = None
        self.warned: set[str] = set()

    def run(self) -> bool:
        """Search; returns whether Ctrl-C ended it.

        Raises:
            ConfigError: every trial failed.
            KeyboardInterrupt: before anything was measured.
        """
        interrupted = False
        try:
            self.reference = self._reference()
            self.deadline = time.monotonic() + 60 * (self.plan.request.minutes or math.inf)
            first = [self.plan.complete(start) for start in self.plan.first]
            begun = False
            while not self._over(begun):
                self._try(self.notebook.next(first))
                begun = True
        except KeyboardInterrupt:
            interrupted = True
        records = self.notebook.records()
        if any(record.value is not None for record in records):
            return interrupted
        failed = [record for record in records if record.state == "failed"]
        if interrupted or not failed:
            raise KeyboardInterrupt
        raise ConfigError(
            f"all {len(failed)} trials of {self.plan.model} failed, the first one with: {failed[0].message}"
        )

    def _over(self, begun: bool) -> bool:
        """Whether to end here. However short the time, one trial is made."""
        settled = self.notebook.settled()
        measured = [record.seconds for record in settled if record.value is not None]
        if len(settled) >= (self.plan.request.trials or math.inf):
            return True
        if not measured and len(settled) >= HOPELESS:
            return True
        if not begun:
            return False
        left = self.deadline - time.monotonic()
        # a closed form cannot be stopped on the way: do not begin what would not end in time
        needed = 0.0 if self.plan.iterative or not measured else statistics.median(measured)
        return left <= needed

    def _reference(self) -> Score | None:
        """Score of the reference model of `no-harm`, fitted once per study."""
        if self.plan.reference is None:
            return None
        score = self.notebook.reference()
        if score is None:
            machine = {key: self.plan.fixed[key] for key in MACHINE if key in self.plan.fixed}
            model = parse(
                self.plan.reference, seed=self.plan.request.seed, progress=self._progress, **machine
            )
            score = self._fit(model)
            if getattr(model, "interrupted", False):
                raise KeyboardInterrupt
            self.notebook.keep_reference(score)
            self._say(f"reference {self.plan.reference}: {score.in_words()}")
        return score

    def _try(self, trial: Trial) -> None:
        """Run a trial and write down what came of it; Ctrl-C is passed on after that."""
        settings = self.plan.suggest(trial)
        self.notebook.begin(trial, settings)
        watch = Watch(trial, self.plan, self.reference, self.deadline)
        begun = time.perf_counter()
        record, interrupted = self._measure(settings, watch)
        if record.score is not None:
            record = replace(record, value=self.plan.value(record.score, self.reference))
        record = replace(record, number=trial.number, seconds=time.perf_counter() - begun)
        self.notebook.write(trial, record)
        self._tell(record)
        if interrupted:
            raise KeyboardInterrupt

    def _measure(self, settings: dict[str, Any], watch: Watch) -> tuple[Record, bool]:
        """A trial's record without its value, and whether Ctrl-C ended it."""
        try:
            model = self.plan.create(settings, self._progress)
            if isinstance(model, IterativeModel):
                model.watch = watch
            score = self._fit(model)
        except FAILURES as error:
            return Record("failed", settings, message=_one_line(error)), False
        except KeyboardInterrupt:
            return Record("stopped", settings, None, watch.score, watch.epochs, watch.best_epoch), True
        interrupted = bool(getattr(model, "interrupted", False))
        state: State = "stopped" if interrupted else watch.cut
        return Record(state, settings, None, score, model.epochs, model.best_epoch), interrupted

    def _fit(self, model: Model) -> Score:
        """Train and score; a warning is passed on once per search, not once per trial."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            score = Score.of_model(model.fit(self.split))
        for warning in caught:
            text = str(warning.message)
            interruption = issubclass(warning.category, GreysheepWarning) and "interrupted" in text
            if text not in self.warned and not interruption:  # the search reports an interruption itself
                self.warned.add(text)
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return score

    @property
    def _progress(self) -> bool | None:
        """A bar for each training on a terminal; in a pipe the line per trial is enough."""
        return None if self.show else False

    def _tell(self, record: Record) -> None:
        known = [other.value for other in self.notebook.records() if other.value is not None]
        state = {"finished": ""}.get(record.state, f" {record.state}")
        if record.state in ("pruned", "stopped") and record.epochs:
            state += f" after {record.epochs} epochs"
        what = record.message if record.score is None else record.score.in_words()
        best = ", best so far" if record.value is not None and record.value >= max(known) else ""
        changed = self.plan.differences(record.settings).items()
        settings = ", ".join(f"{key}={value}" for key, value in changed if key not in self.plan.fixed)
        self._say(
            f"trial {record.number}{state}: {what}{best} · {record.seconds:.1f} s · {settings or 'defaults'}"
        )

    def _say(self, line: str) -> None:
        if self.show:
            print(line, file=sys.stderr, flush=True)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, GreysheepError) else f"{type(error).__name__}: {text}"
