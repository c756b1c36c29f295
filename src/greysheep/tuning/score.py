"""The score of a trial: NDCG on validation rows, and the one number that the search maximises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from greysheep.data.splitting import TEST, Split
from greysheep.errors import DataError
from greysheep.mainstream.groups import GROUPS
from greysheep.metrics.ranking import hits, per_user
from greysheep.models.base import Model
from greysheep.models.training.objective import MEAN_NDCG_CUTS, OWN, Objective

OBJECTIVES = ("mean", "worst", "no-harm")


@dataclass(frozen=True)
class Score:
    """Mean of NDCG@1, 5, 10 and 20 on validation rows: of all users and of each group."""

    mean: float
    groups: dict[str, float]
    """Niche first, or one's own; NaN for a group without validation rows."""

    @classmethod
    def of_model(cls, model: Model) -> Score:
        """Rank the items for every user with validation rows; the model's split may have no other use."""
        split = model.split
        truth = split.rows("validation")
        users = np.flatnonzero(np.diff(truth.indptr))
        hit = hits(model.rank(users, k=max(MEAN_NDCG_CUTS), stage="validation"), truth[users])
        values = per_user(hit, np.diff(truth.indptr)[users], MEAN_NDCG_CUTS, ("ndcg",))
        member = split.user_groups.of(users)
        objective = Objective.parse("mean-ndcg")
        of_groups = {group: replace(objective, who=f"{OWN}{group}") for group in member.names}
        groups = {group: one.value(values, member) for group, one in of_groups.items()}
        return cls(objective.value(values, member), groups)

    @classmethod
    def of_epoch(cls, row: Mapping[str, Any]) -> Score:
        """The same from a line of the training history, where an absent value is None."""
        return cls(_mean(row), {group: _mean(values) for group, values in row["by_group"].items()})

    @property
    def columns(self) -> dict[str, float]:
        """The groups' means by the names of their columns in a table of trials."""
        return {group if group in GROUPS else f"group {group}": mean for group, mean in self.groups.items()}

    def in_words(self) -> str:
        """Mean of all users, and of the most niche group or the worst of one's own."""
        group = GROUPS[0] if GROUPS[0] in self.groups else self.worst_group
        mean = self.groups.get(group, math.nan)
        return f"validation {self.mean:.4f}" + ("" if math.isnan(mean) else f" ({group} {mean:.4f})")

    @property
    def worst_group(self) -> str:
        """The group with the lowest mean; empty where none has one."""
        known = {group: mean for group, mean in self.groups.items() if not math.isnan(mean)}
        return min(known, key=known.__getitem__, default="")

    def worst(self) -> float:
        """The lowest mean of a group."""
        return self.groups.get(self.worst_group, math.nan)

    def loss_against(self, reference: Score) -> float:
        """The largest relative loss of a group; negative where every group gains.

        A group in which the reference finds nothing cannot lose.
        """
        pairs = ((self.groups[group], bar) for group, bar in reference.groups.items() if bar > 0)
        return max(((bar - mean) / bar for mean, bar in pairs if not math.isnan(mean)), default=-math.inf)

    def value(self, objective: str, reference: Score | None, margin: float) -> float:
        """The number to maximise.

        For `no-harm`, Deb's rule for constraints (2000): within the margin it is the mean, otherwise minus
        the excess loss. So whatever harms ranks below whatever does not, less harm ranks higher, there
        is no penalty factor to choose, and the pruner, which knows no constraints, reads the same number.
        """
        if objective == "worst":
            return self.worst()
        if objective == "no-harm":
            assert reference is not None
            excess = self.loss_against(reference) - margin
            return -excess if excess > 0 else self.mean
        return self.mean


def blind(split: Split) -> Split:
    """The split without its test rows: a search that is given this one cannot read them.

    Raises:
        DataError: no user has a validation row.
    """
    keep = split.part != TEST
    log = split.log
    rest = replace(
        log,
        users=log.users[keep],
        items=log.items[keep],
        weights=None if log.weights is None else log.weights[keep],
        times=None if log.times is None else log.times.filter(keep),
    )
    left = replace(split, log=rest, part=split.part[keep])
    if left.rows("validation").nnz == 0:
        raise DataError(f"protocol {split.protocol!r} left no validation rows of {len(log)} rows to tune on")
    return left


def _mean(row: Mapping[str, Any]) -> float:
    values = [row.get(f"ndcg@{n}") for n in MEAN_NDCG_CUTS]
    return math.nan if None in values else float(np.mean(np.array(values, dtype=np.float64)))
