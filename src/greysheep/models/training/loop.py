"""The one epoch loop: train, validate, keep the best weights, stop early, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from greysheep.errors import ConfigError, warn
from greysheep.mainstream.groups import UserGroups
from greysheep.models.training.checkpoints import Checkpoints, Resumable
from greysheep.models.training.objective import Objective, mean
from greysheep.models.training.progress import Progress
from greysheep.system.signals import ctrl_c_waits

Tick = Callable[[float], None]
Watch = Callable[[dict[str, Any]], bool]
"""Takes each epoch's line of the history; True ends the run there, with the best weights so far."""


class Trainer(Resumable, Protocol):
    """What an iterative model gives to the loop; `state` and `load_state` serve checkpoints alone."""

    def train_epoch(self, epoch: int, tick: Tick) -> dict[str, Any]:
        """Pass once over the users; `tick` takes the share done. Returns the epoch's losses;
        the key `weight`, if there, holds one training weight per user [U], NaN = not trained on.
        """

    def validate(self) -> dict[str, NDArray[np.float64]]:
        """Metrics on validation rows, one value per user [U], NaN = no validation rows.

        `gate_entropy` may be among them.
        """

    def snapshot(self) -> Any:
        """Copy of the weights."""

    def restore(self, snapshot: Any) -> None:
        """Go back to a copy."""


@dataclass
class Outcome:
    """What a run left behind; the trainer itself holds the best weights."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    interrupted: bool = False

    @property
    def best_value(self) -> float:
        """The objective of the best epoch."""
        return float(self.history[self.best_epoch - 1]["objective"]) if self.best_epoch else -np.inf


def run(
    trainer: Trainer,
    *,
    epochs: int,
    patience: int,
    start_epoch: int,
    objective: Objective | None,
    groups: UserGroups,
    progress: Progress,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
) -> Outcome:
    """Train until `epochs`, or until `patience` epochs after the best one (counted from `start_epoch` on).

    objective: None = no validation rows: all epochs are run and the last weights kept.
    groups: of the users, for the means in the history.
    watch: may end the run early; not called after the last epoch.
    checkpoints: those of the fit; the run is its next stage, and goes on from the last one of this stage.
    Ctrl-C ends the run with the best weights so far; before the end of the first epoch it is passed on. A
    second one is passed on, too.
    """
    outcome, best, pressed = Outcome(), None, list[int]()

    def ended() -> bool:
        done = len(outcome.history)
        late = objective is not None and done - max(outcome.best_epoch, start_epoch) >= patience
        return done >= epochs or late or outcome.interrupted

    with progress, nullcontext() if checkpoints is None else checkpoints.stage() as stage:
        if stage is not None:
            outcome.history, outcome.best_epoch, best = stage.begin(trainer)
            progress.go_on(len(outcome.history))
        while not ended():
            try:
                row = _epoch(trainer, len(outcome.history) + 1, objective, groups, progress)
                with ctrl_c_waits() as pressed:
                    if _diverged(row, best):
                        break
                    outcome.history.append(row)
                    if objective is None:
                        outcome.best_epoch = row["epoch"]
                    elif row["objective"] > outcome.best_value:
                        best, outcome.best_epoch = trainer.snapshot(), row["epoch"]
                    progress.epoch(row, outcome.best_epoch, patience, start_epoch)
                    if stage is not None:
                        stage.end_of_epoch(trainer, outcome.history, outcome.best_epoch)
                outcome.interrupted = bool(pressed)
            except KeyboardInterrupt:
                if pressed or not outcome.history:
                    raise
                outcome.interrupted = True
            if watch is not None and not ended() and watch(row):
                break
    if best is not None:
        with ctrl_c_waits(unless=outcome.interrupted) as pressed:
            trainer.restore(best)
        outcome.interrupted |= bool(pressed)
    return outcome


def _diverged(row: dict[str, Any], best: Any) -> bool:
    """Whether an epoch's loss is no number; said in a warning where there are weights to keep.

    Raises:
        ConfigError: there are none.
    """
    if np.isfinite(row["loss"]):
        return False
    message = f"training diverged in epoch {row['epoch']} (loss {row['loss']}); try a smaller learning_rate"
    if best is None:
        raise ConfigError(message)
    warn(f"{message}: the best weights so far are kept", 3)
    return True


def _epoch(
    trainer: Trainer, epoch: int, objective: Objective | None, groups: UserGroups, progress: Progress
) -> dict[str, Any]:
    """One epoch as a line of the history."""
    begun = time.perf_counter()
    losses = trainer.train_epoch(epoch, lambda share: progress.within(epoch, share))
    trained = time.perf_counter()
    weight = losses.pop("weight", None)
    if not np.isfinite(losses["loss"]):
        objective = None  # diverged: there is nothing left to rank
    per_user = trainer.validate() if objective is not None else {}
    validated = time.perf_counter()
    entropy = per_user.pop("gate_entropy", None)
    row: dict[str, Any] = {"epoch": epoch, **losses}
    row |= {name: _mean(values) for name, values in per_user.items()}
    row["objective"] = objective.value(per_user, groups) if objective is not None else None
    row["by_group"] = {
        group: {name: _mean(values[groups.codes == g]) for name, values in per_user.items()}
        | ({} if weight is None else {"weight": _mean(weight[groups.codes == g])})
        for g, group in enumerate(groups.names)
    }
    row["gate_entropy"] = None if entropy is None else _mean(entropy)
    row |= {"train_seconds": trained - begun, "validation_seconds": validated - trained}
    return row


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean over the users that have a value; None, which JSON can hold, when none has."""
    average = mean(values)
    return None if np.isnan(average) else average
