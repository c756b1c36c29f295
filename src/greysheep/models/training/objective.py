"""What early stopping maximises: a metric on validation rows, of all users or of one group."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from greysheep.errors import ConfigError
from greysheep.mainstream.groups import GROUPS, UserGroups
from greysheep.metrics.ranking import METRICS

MEAN_NDCG_CUTS = (1, 5, 10, 20)
WORST, OWN = "worst", "group="


@dataclass(frozen=True)
class Objective:
    """Parsed form of `<metric>[:<who>]`.

    metric: `mean-ndcg` (mean of NDCG@1, 5, 10 and 20, as in the paper) or `<name>@<N>`.
    who: all users when left out; `worst` for the group served worst at that moment; a mainstream group's
    name; or `group=NAME` for a group of one's own (`greysheep.split(..., groups=...)`).

    >>> Objective.parse("recall@20:low")
    Objective(keys=('recall@20',), who='low')
    """

    keys: tuple[str, ...]
    who: str | None = None

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read the text of a config.

        Raises:
            ConfigError: no such metric or group.
        """
        metric, _, who = text.partition(":")
        if not who.startswith(OWN) and who not in ("", WORST, *GROUPS):
            raise ConfigError(
                f"objective {text!r}: the part after ':' is one of worst, {', '.join(GROUPS)}, or {OWN}NAME"
            )
        if metric == "mean-ndcg":
            return cls(tuple(f"ndcg@{n}" for n in MEAN_NDCG_CUTS), who or None)
        match = re.fullmatch(r"([a-z_]+)@([1-9][0-9]*)", metric)
        if not match or match[1] not in METRICS:
            raise ConfigError(
                f"objective {text!r}: write mean-ndcg or NAME@N with NAME one of {', '.join(METRICS)}"
            )
        return cls((metric,), who or None)

    @property
    def names(self) -> tuple[str, ...]:
        """Metric names it needs."""
        return tuple(dict.fromkeys(key.partition("@")[0] for key in self.keys))

    @property
    def cuts(self) -> tuple[int, ...]:
        """List lengths it needs."""
        return tuple(int(key.partition("@")[2]) for key in self.keys)

    def place(self, members: UserGroups) -> int | None:
        """Place of the group that it is about among the groups; None for all users or the worst group.

        Raises:
            ConfigError: there is no such group.
        """
        if self.who is None or self.who == WORST:
            return None
        name = self.who.removeprefix(OWN)
        if name not in members.names:
            known = ", ".join(members.names)
            raise ConfigError(f"the objective is about the group {name!r}, but the groups are {known}")
        return members.names.index(name)

    def value(self, per_user: dict[str, NDArray[np.float64]], members: UserGroups) -> float:
        """The objective from one value per user, [U] (NaN = no validation rows), and the users' groups.

        NaN if no user has a value.
        """
        values = np.mean([per_user[key] for key in self.keys], axis=0)
        if self.who is None:
            return mean(values)
        place = self.place(members)
        if place is not None:
            return mean(values[members.codes == place])
        means = [mean(values[members.codes == g]) for g in range(len(members.names))]
        return float(np.nanmin(means)) if not np.isnan(means).all() else float("nan")


def _check(text: str) -> str:
    Objective.parse(text)  # its ConfigError passes through pydantic as it is
    return text


ObjectiveText = Annotated[str, AfterValidator(_check)]
"""The text of an objective, as a field of a config."""


def mean(values: NDArray[np.float64]) -> float:
    """Mean of the users that have a value; NaN, without a warning, when none has."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")
