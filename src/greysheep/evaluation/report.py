"""The report that `evaluate` makes: groups, paired comparisons, JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import GROUP, USER
from greysheep.errors import ConfigError, DataError
from greysheep.evaluation.text import text_table
from greysheep.mainstream.groups import GROUPS, OVERALL
from greysheep.metrics.statistics import holm, no_harm, sign_flip_test
from greysheep.system.files import write_text

N_USERS, TRAIN_ROWS = "n_users", "mean_train_rows"


@dataclass(frozen=True, eq=False)
class Report:
    """What `evaluate` measured. Means run over users with test rows; empty groups have None."""

    model: str
    """Registry name, or `recommendations` for lists of another library."""
    label: str
    """What tables call it."""
    config: dict[str, Any]
    protocol: str
    seed: int
    """Seed of the split."""
    k: int
    overall: dict[str, Any]
    """{"n_users": int, "ndcg@20": {"mean", "ci_low", "ci_high"}, ...}."""
    by_group: pl.DataFrame
    """One row per mainstream group, niche first: group, n_users, mean_train_rows, ndcg@20, ndcg@20_low..."""
    by_activity: pl.DataFrame
    """The same by quintile of train rows, fewest first: the score is confounded with activity."""
    per_user: pl.DataFrame
    """One row per user: user_id, mainstream, group, activity, n_train, n_test, ndcg@20, ... or null."""
    gate_entropy: float | None = None
    train_seconds: float = 0.0
    peak_memory_bytes: int = 0
    epochs: int = 0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """One dict an epoch; not part of the JSON."""
    mainstream_sample: int = 0
    """How many others each user was compared with for the groups; 0 = all of them."""
    mainstream_bound: float = 0.0
    """How far a mainstream score may be from the exact one, see `Mainstream.bound`; 0 = exact."""

    @property
    def metric(self) -> str:
        """The metric that `gap`, `ratio` and `worst_group` are about."""
        return f"ndcg@{self.k}"

    @property
    def worst_group(self) -> str | None:
        """Name of the group with the lowest mean NDCG; None where no group has test rows."""
        means = self._group_means(self.metric)
        return min(means, key=means.__getitem__) if means else None

    def gap(self, metric: str | None = None) -> float:
        """Best group's mean minus worst group's mean; NaN without groups."""
        means = self._group_means(metric or self.metric).values()
        return max(means) - min(means) if means else math.nan

    def ratio(self, metric: str | None = None) -> float:
        """Worst group's mean divided by best group's; NaN where that is 0 or there is none."""
        means = self._group_means(metric or self.metric).values()
        return min(means) / max(means) if means and max(means) > 0 else math.nan

    def _group_means(self, metric: str) -> dict[str, float]:
        if metric not in self.by_group.columns:
            known = ", ".join(name for name in self.overall if name != N_USERS)
            raise ConfigError(f"this report has no metric {metric!r}; it has {known}")
        pairs = zip(self.by_group[GROUP], self.by_group[metric], strict=True)
        return {group: mean for group, mean in pairs if mean is not None}

    def versus(
        self,
        reference: Report,
        metric: str | None = None,
        margin: float = 0.02,
        *,
        draws: int = 2000,
        seed: int = 0,
    ) -> pl.DataFrame:
        """Compare with another report on the same test rows, user by user.

        Args:
            reference: report to compare with.
            metric: a metric of both; NDCG at this report's k if not given.
            margin: relative loss that still counts as no harm.
            draws: resamples of users behind the verdict.
            seed: of resamples and sign flips.

        Returns:
            A row for `overall` and for each group: group, n_users, mean, reference, difference,
            ratio ((mean - reference) / reference), p_value (two-sided paired sign-flip test), p_holm (Holm
            over these rows), ratio_low (one-sided 95 % bound), verdict ("no harm", "harm", "undecided"),
            resolvable_margin. It compares the two sets of lists, not the methods that made them.

        Raises:
            ConfigError: one of the two does not have the metric.
            DataError: the test rows differ, or a report was read from JSON and has no values per user.
        """
        metric = metric or self.metric
        users = _paired(self, reference, metric)
        rows: list[dict[str, Any]] = []
        for group in (OVERALL, *GROUPS):
            pair = users if group == OVERALL else users.filter(pl.col(GROUP) == group)
            mine, theirs = pair["mine"].to_numpy(), pair["theirs"].to_numpy()
            harm = no_harm(mine, theirs, margin=margin, draws=draws, seed=seed)
            rows.append(
                {
                    GROUP: group,
                    N_USERS: pair.height,
                    "mean": mean_of(mine),
                    "reference": mean_of(theirs),
                    "difference": mean_of(mine - theirs),
                    "ratio": harm.ratio,
                    "p_value": sign_flip_test(mine - theirs, seed=seed),
                    "p_holm": math.nan,
                    "ratio_low": harm.low,
                    "verdict": harm.verdict,
                    "resolvable_margin": harm.resolvable_margin,
                }
            )
        frame = pl.DataFrame(rows).with_columns(pl.Series("p_holm", holm([row["p_value"] for row in rows])))
        return frame.fill_nan(None)

    def to_dict(self) -> dict[str, Any]:
        """All but per-user values and history as plain types: unrounded, None where there is no value."""
        content = {
            "model": self.model,
            "label": self.label,
            "config": self.config,
            "protocol": self.protocol,
            "seed": self.seed,
            "k": self.k,
            "overall": self.overall,
            "by_group": _nested(self.by_group),
            "by_activity": _nested(self.by_activity),
            "gap": self.gap(),
            "ratio": self.ratio(),
            "worst_group": self.worst_group,
            "gate_entropy": self.gate_entropy,
            "train_seconds": self.train_seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
        }
        if self.mainstream_sample:
            content |= {key: getattr(self, key) for key in ("mainstream_sample", "mainstream_bound")}
        return dict(jsonable(content))

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the dictionary as JSON text, and write it if a path is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_text(path, text)
        return text

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """Rebuild a report from `to_dict`; `per_user` and `history` are empty.

        Raises:
            DataError: a key is missing.
        """
        try:
            plain = {key: content[key] for key in ("model", "config", "protocol", "seed", "k", "overall")}
            groups = _flat(content["by_group"])
        except (KeyError, TypeError) as error:
            raise DataError(f"this is no report of greysheep: {error} is missing") from None
        rest = (
            "gate_entropy", "train_seconds", "peak_memory_bytes", "epochs", "best_epoch",
            "mainstream_sample", "mainstream_bound",
        )  # fmt: skip
        return cls(
            label=content.get("label", content["model"]),
            by_group=groups,
            by_activity=_flat(content.get("by_activity", [])),
            per_user=pl.DataFrame(),
            **plain,
            **{key: content[key] for key in rest if key in content},
        )

    def __str__(self) -> str:
        return text_table([self])


def mean_of(values: NDArray[Any]) -> float:
    """Return the mean, NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def _paired(mine: Report, reference: Report, metric: str) -> pl.DataFrame:
    """Return group, mine and theirs of every measured user."""
    for one in (mine, reference):
        if one.per_user.is_empty():
            raise DataError(f"the report of {one.label} has no values per user (it was read from JSON)")
        if metric not in one.per_user.columns:
            known = ", ".join(name for name in one.overall if name != N_USERS)
            raise ConfigError(f"the report of {one.label} has no metric {metric!r}; it has {known}")
    a = mine.per_user.filter(pl.col("n_test") > 0)
    b = reference.per_user.filter(pl.col("n_test") > 0)
    same = a[USER].dtype == b[USER].dtype and a.select(USER, "n_test").equals(b.select(USER, "n_test"))
    if not same:
        raise DataError(
            f"{mine.label} and {reference.label} were not measured on the same test rows: "
            "use one split for both"
        )
    return pl.DataFrame({GROUP: a[GROUP], "mine": a[metric], "theirs": b[metric]})


def frame_of(lines: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return lines as a frame with the same types whether or not a group is empty."""
    if not lines:
        return pl.DataFrame()
    types: dict[str, Any] = {name: pl.Float64 for name in lines[0]}
    types |= {GROUP: pl.String, N_USERS: pl.Int64}
    return pl.DataFrame([dict(line) for line in lines], schema=types).fill_nan(None)


def _nested(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Turn ndcg@20, ndcg@20_low, ndcg@20_high into one {mean, ci_low, ci_high}."""
    rows = []
    for line in frame.to_dicts():
        metrics = [name for name in line if f"{name}_low" in line]
        row = {key: line[key] for key in (GROUP, N_USERS, TRAIN_ROWS) if key in line}
        for name in metrics:
            row[name] = {"mean": line[name], "ci_low": line[f"{name}_low"], "ci_high": line[f"{name}_high"]}
        rows.append(row)
    return rows


def _flat(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Undo `_nested`."""
    lines = []
    for row in rows:
        line: dict[str, Any] = {}
        for key, value in row.items():
            if isinstance(value, Mapping):
                line |= {key: value["mean"], f"{key}_low": value["ci_low"], f"{key}_high": value["ci_high"]}
            else:
                line[key] = value
        lines.append(line)
    return frame_of(lines)


def jsonable(value: Any) -> Any:
    """Return the value in types that JSON has; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
