"""What a search found: the best settings, in the forms that `fit` and `compare` take, and every trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import yaml

from greysheep.errors import ConfigError
from greysheep.mainstream.groups import GROUPS
from greysheep.system.machine import own_version
from greysheep.tuning.plan import Plan
from greysheep.tuning.score import Score
from greysheep.tuning.study import Record

SHOWN = 5


@dataclass(frozen=True, eq=False)
class Tuning:
    """The result of `tune`. All figures are NDCG on validation rows (mean of @1, @5, @10 and @20).

    The best of many trials is partly the luckiest: on new rows expect less. Measure it on test rows once.
    """

    model: str
    """Registry name."""
    objective: str
    protocol: str
    seed: int
    best: dict[str, Any]
    """Keywords of the best trial that are not the model's defaults, fixed ones among them."""
    best_value: float
    """What was maximised: the mean, the worst group's mean, or, for `no-harm`, the mean where no group
    loses more than the margin and minus the excess loss elsewhere."""
    best_trial: int
    """Its number."""
    text: str
    """The model with `best` as `name[key=value,...]`: a row of `compare`, a `--model` of `fit`."""
    trials: pl.DataFrame
    """One row per trial: number, state, value, mean, one column per group, epochs, best_epoch, seconds,
    message, and the settings searched (null where one does not apply). States: finished, pruned (ended
    early), stopped (cut short by the time or Ctrl-C; run again when the search goes on), failed."""
    defaults: int | None = None
    """Number of the trial of the model with its defaults; None where none was measured."""
    log_scaled: tuple[str, ...] = ()
    """Settings searched by ratio, not by difference."""
    reference: dict[str, float] | None = None
    """For `no-harm`: the reference's mean and its groups' means."""
    interrupted: bool = False
    """Whether Ctrl-C ended the search."""
    groups: tuple[str, ...] = GROUPS
    """Columns of the trials that hold a group's mean."""

    @property
    def finished(self) -> int:
        """Trials with a value."""
        return len(self.trials) - self.trials["value"].null_count()

    def top(self, n: int = SHOWN) -> pl.DataFrame:
        """The best n trials, best first, and the defaults behind them if they are not among them."""
        ordered = self.trials.filter(pl.col("value").is_not_null()).sort(
            "value", "number", descending=[True, False]
        )
        defaults = ordered.filter(pl.col("number") == self.defaults)
        return pl.concat([ordered.head(n), defaults]).unique("number", maintain_order=True)

    def to_yaml(self) -> str:
        """The best settings as a file for `greysheep fit --config`; comments say what they are worth."""
        head = (
            f"Found by greysheep {own_version()}: objective {self.objective}, protocol {self.protocol}, "
            f"seed {self.seed}.",
            f"{self}.",
            "The best of many trials on validation rows is partly the luckiest: measure it on test rows.",
        )
        comment = "".join(f"# {line}\n" for line in head)
        return comment + yaml.safe_dump({"model": self.model, **self.best}, sort_keys=False)

    def __str__(self) -> str:
        best = self.trials.row(by_predicate=pl.col("number") == self.best_trial, named=True)
        named = f"trial {self.best_trial} of {self.finished} measured: validation {best['mean']:.4f}"
        known = [group for group in self.groups if best[group] is not None]
        first = GROUPS[0] if GROUPS[0] in self.groups else min(known, key=best.__getitem__, default="")
        low = f", {first} {best[first]:.4f}" if first in known else ""
        harm = " (every trial harms a group beyond the margin)" if self.best_value < 0 else ""
        return f"{named}{low}{harm}; {self.text}"


def result(plan: Plan, records: Sequence[Record], reference: Score | None, interrupted: bool) -> Tuning:
    """Sum up the records, of which one at least has a value."""
    measured = [record for record in records if record.value is not None]
    best = max(measured, key=lambda record: (record.value, -record.number))
    if best.value is None or best.score is None:
        raise ConfigError("no trial was measured")
    # a trial cut short is run again when the search goes on: the whole one counts
    plain = [record for record in measured if record.settings == plan.complete({})]
    defaults = max(plain, key=lambda record: (record.state == "finished", record.epochs), default=None)
    request = plan.request
    return Tuning(
        model=plan.model, objective=request.objective, protocol=request.protocol, seed=request.seed,
        best=plan.differences(best.settings), best_value=best.value, best_trial=best.number,
        text=plan.text(best.settings), trials=frame(plan, records), groups=tuple(best.score.columns),
        defaults=None if defaults is None else defaults.number,
        log_scaled=tuple(name for name, one in plan.dimensions.items() if getattr(one, "log", False)),
        reference=None if reference is None else {"mean": reference.mean, **reference.groups},
        interrupted=interrupted,
    )  # fmt: skip


def frame(plan: Plan, records: Sequence[Record]) -> pl.DataFrame:
    """One row per record."""
    rows = []
    groups = next((tuple(record.score.columns) for record in records if record.score is not None), GROUPS)
    for record in records:
        columns = dict.fromkeys(groups, math.nan) if record.score is None else record.score.columns
        rows.append({
            "number": record.number, "state": record.state, "value": record.value,
            "mean": math.nan if record.score is None else record.score.mean, **columns,
            "epochs": record.epochs, "best_epoch": record.best_epoch, "seconds": record.seconds,
            "message": record.message or None,
            **{name: record.settings.get(name) for name in plan.dimensions},
        })  # fmt: skip
    numbers = ("value", "mean", *groups, "seconds")
    types: dict[str, Any] = dict.fromkeys(numbers, pl.Float64) | {"message": pl.String}
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=types).with_columns(
        pl.col(numbers).fill_nan(None)
    )
