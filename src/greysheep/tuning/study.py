"""The Optuna study behind a search: in memory or a journal file, locked, and what each trial left in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from greysheep.errors import ConfigError
from greysheep.system.files import locked, refused
from greysheep.tuning.score import Score

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial

State = Literal["finished", "pruned", "failed", "stopped"]
NAME = "greysheep"
IDENTITY, REFERENCE, RECORD, AGAIN = "identity", "reference", "record", "again"
STARTUP_TRIALS = 4
"""Random trials before TPE fits its densities; the starting points count among them. Few, for a random draw
from ten dimensions seldom beats the defaults, and slow models have no time for many."""
STALE_SECONDS = 30
"""Age of a lock of Optuna's at which its process is taken for dead, as Optuna does."""
COMPARABLE_TRIALS = 3
"""Finished trials that a pruned one is compared with, at least."""


@dataclass(frozen=True)
class Record:
    """One trial as it is stored, in the trial's user attribute `record`."""

    state: State
    """`stopped` is a trial cut short by the time or by Ctrl-C: it counts with its best epoch, and is run
    again in full when the search goes on."""
    settings: dict[str, Any]
    value: float | None = None
    """What was maximised; None where nothing was measured."""
    score: Score | None = None
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    message: str = ""
    number: int = field(default=-1, compare=False)

    def stored(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {key: value for key, value in asdict(self).items() if key != "number"}

    @classmethod
    def read(cls, trial: FrozenTrial) -> Self | None:
        """The record of a trial, None if it never got one."""
        stored = trial.user_attrs.get(RECORD)
        if stored is None:
            return None
        score = None if stored["score"] is None else Score(**stored["score"])
        return cls(**{**stored, "score": score, "number": trial.number})


class Notebook:
    """An Optuna study of one plan: opens trials and keeps their records."""

    def __init__(self, study: Study, seed: int):
        self.study, self.seed = study, seed

    def records(self) -> list[Record]:
        """Every trial with a record, in order."""
        return [record for trial in self.study.get_trials(False) if (record := Record.read(trial))]

    def settled(self) -> list[Record]:
        """The trials that need not be run again."""
        return [record for record in self.records() if record.state != "stopped"]

    def next(self, first: list[dict[str, Any]]) -> Trial:
        """Open a trial: one that was cut short, a first guess, or what the sampler says.

        The sampler is seeded with the number of settled trials, so that a search that was interrupted goes on
        as if it had not been.
        """
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        number = len(self.settled())
        if not self.study.get_trials(False, (TrialState.WAITING,)):
            again = self._cut_short()
            if again is not None:
                self.study.enqueue_trial(again.params, user_attrs={AGAIN: again.number})
            elif number < len(first):
                self.study.enqueue_trial(first[number])
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        self.study.sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        return self.study.ask()

    def _cut_short(self) -> FrozenTrial | None:
        trials = self.study.get_trials(False)
        repeated = {trial.user_attrs.get(AGAIN) for trial in trials if RECORD in trial.user_attrs}
        for trial in trials:
            record = Record.read(trial)
            if record and record.state == "stopped" and trial.number not in repeated:
                return trial
        return None

    def write(self, trial: Trial, record: Record) -> None:
        """Close a trial. Optuna learns from finished and pruned ones only; the others are FAIL to it."""
        from optuna.trial import TrialState

        trial.set_user_attr(RECORD, record.stored())
        if record.state == "finished":
            self.study.tell(trial, record.value)
        else:
            self.study.tell(trial, state=TrialState.PRUNED if record.state == "pruned" else TrialState.FAIL)

    def begin(self, trial: Trial, settings: dict[str, Any]) -> None:
        """Write down that a trial runs; this stays its record if the process is killed."""
        killed = Record("stopped", settings, message="the process ended before the trial did")
        trial.set_user_attr(RECORD, killed.stored())

    def close_orphans(self) -> None:
        """Close the trials of a process that was killed: as their records say, or to be run again."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(False, (TrialState.RUNNING,)):
            record = Record.read(trial)
            if record is not None and record.state == "finished":
                self.study.tell(trial.number, record.value)
            else:
                pruned = record is not None and record.state == "pruned"
                self.study.tell(trial.number, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def reference(self) -> Score | None:
        """The score of the model that `no-harm` measures against, if it was fitted before."""
        stored = self.study.user_attrs.get(REFERENCE)
        return None if stored is None else Score(**stored)

    def keep_reference(self, score: Score) -> None:
        """Store it, so that a search that goes on need not fit it again."""
        self.study.set_user_attr(REFERENCE, asdict(score))


@contextmanager
def open_notebook(path: Path | None, identity: Mapping[str, str], seed: int) -> Iterator[Notebook]:
    """Make a study, or open the one in the file at `path`, and lock it.

    Raises:
        ConfigError: the file is no study, holds another one, is in use, or (meanwhile) cannot be written.
    """
    import optuna
    from optuna.storages import InMemoryStorage, JournalStorage

    loud = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # `Search` prints a line per trial
    pruner = optuna.pruners.MedianPruner(n_startup_trials=COMPARABLE_TRIALS, n_min_trials=COMPARABLE_TRIALS)
    try:
        busy = f"{path} is in use: another process tunes there"
        with ExitStack() as stack:
            if path is not None:
                stack.enter_context(locked(path.with_name(f".{path.name}.lock"), busy))
                stack.enter_context(refused(path))
            try:
                storage = InMemoryStorage() if path is None else JournalStorage(_journal(path))
                if NAME in optuna.get_all_study_names(storage):
                    study = optuna.load_study(study_name=NAME, storage=storage, pruner=pruner)
                else:
                    study = optuna.create_study(
                        study_name=NAME, storage=storage, pruner=pruner, direction="maximize"
                    )
                _check(study, path, identity)
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path} cannot be read as a study: {error}") from None
            notebook = Notebook(study, seed)
            notebook.close_orphans()
            yield notebook
    finally:
        optuna.logging.set_verbosity(loud)


def _journal(path: Path) -> JournalFileBackend:
    """The journal at `path`, which this process alone writes: it holds the lock beside it.

    That lock goes with its process. Optuna's own, a link, outlives a process that is killed, and the next one
    waits for it, for ever where the path is relative: it is not used, and an old one is swept.
    """
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Held(JournalFileOpenLock):
        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    for stale in path.parent.glob(f"{path.name}.lock*"):
        with suppress(FileNotFoundError):
            if time.time() - stale.lstat().st_mtime > STALE_SECONDS:
                stale.unlink()
    if path.is_file():
        _cut_torn_line(path)
    return JournalFileBackend(str(path.resolve()), lock_obj=Held(str(path)))


def _cut_torn_line(path: Path) -> None:
    """Take away the beginning of a line that was being written: the next one would be joined to it.

    Raises:
        ValueError: it is no journal, but a user's file; Optuna would write in it all the same.
    """
    with path.open("rb+") as journal:
        text, begin = journal.read(), b'{"op_code":'
        if not text.startswith(begin) and not begin.startswith(text):
            raise ValueError("it is no journal of Optuna's")
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            journal.truncate(whole)


def _check(study: Study, path: Path | None, identity: Mapping[str, str]) -> None:
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, dict(identity))
        return
    for key, value in identity.items():
        if known.get(key) != value:
            what = {
                "log": "another log, or another split of it",
                "groups": "other groups of users",
                "search space": "another search space (other fixed settings, or another version)",
            }.get(key, f"{key} {known.get(key)}, not {value}")
            raise ConfigError(f"{path} holds a search of {what}: name another place for this one")
