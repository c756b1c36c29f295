"""The report that `evaluate` makes: groups, paired comparisons, JSON and back."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import GROUP, USER
from greysheep.errors import ConfigError, DataError
from greysheep.evaluation.numbers import DASH, seconds, short
from greysheep.evaluation.small_groups import notes_on_small_groups
from greysheep.mainstream.groups import OVERALL
from greysheep.metrics.statistics import holm, no_harm, sign_flip_test
from greysheep.system.checks import MOST_DRAWS, a_path, a_text, number, seed_number, whole_number
from greysheep.system.files import write_text

LISTS = "recommendations"
"""What stands for the model where another library's lists were measured."""
N_USERS, TRAIN_ROWS = "n_users", "mean_train_rows"
COUNTS = (N_USERS, "n_items", "n_test_rows")
MAINSTREAM_GROUP = "mainstream_group"
"""Column of the mainstream group where `group` holds one's own."""


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
    """Length of the lists that gap, ratio, worst group and tests are about: the longest that was measured."""
    overall: dict[str, Any]
    """{"n_users": int, "ndcg@20": {"mean", "ci_low", "ci_high"}, ...}."""
    by_group: pl.DataFrame
    """One row per group, mainstream ones niche first: group, n_users, mean_train_rows, ndcg@20, ..."""
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
    """One dict per epoch; not part of the JSON."""
    mainstream_sample: int = 0
    """How many others each user was compared with for the groups; 0 = all of them."""
    mainstream_bound: float = 0.0
    """How far a mainstream score may be from the exact one, see `Mainstream.bound`; 0 = exact."""
    grouping: str = "mainstream"
    """What `by_group` is about: `mainstream`, or `own`, the groups that were given."""
    by_mainstream: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Beside groups of one's own, the same by mainstream group; else empty, as `by_group` has it."""
    by_item_popularity: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Of `evaluate(..., beyond=True)`, rarest items first: group, n_items, n_test_rows, recall@20, ..."""
    lengths: list[int] = field(default_factory=list)
    """Every length that was measured, k the last of them; only k if not given."""

    def __post_init__(self) -> None:
        if not self.lengths:
            self.lengths.append(self.k)

    @property
    def metric(self) -> str:
        """The metric that `gap`, `ratio` and `worst_group` are about."""
        return f"ndcg@{self.k}"

    @property
    def groups(self) -> list[str]:
        """Names of the groups of `by_group`."""
        return [str(group) for group in self.by_group[GROUP]] if GROUP in self.by_group.columns else []

    @property
    def notes(self) -> list[str]:
        """Of groups of one's own: what those of a few users can show, a sentence each."""
        return notes_on_small_groups(self.by_group, self.metric) if self.grouping == "own" else []

    @property
    def worst_group(self) -> str | None:
        """Name of the group with the lowest mean NDCG; None where no group has test rows."""
        means = self._group_means(self.metric)
        return min(means, key=means.__getitem__) if means else None

    def gap(self, metric: str | None = None) -> float:
        """Best group's mean minus worst group's mean; NaN without groups."""
        means = self._group_means(self._named(metric)).values()
        return max(means) - min(means) if means else math.nan

    def ratio(self, metric: str | None = None) -> float:
        """Worst group's mean divided by best group's; NaN where that is 0 or there is none."""
        means = self._group_means(self._named(metric)).values()
        return min(means) / max(means) if means and max(means) > 0 else math.nan

    def _named(self, metric: str | None) -> str:
        return self.metric if metric is None else a_text("metric", metric)

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
        if not isinstance(reference, Report):
            raise DataError(f"versus takes another report, not a {type(reference).__name__}")
        margin = number("margin", margin, least=0)
        draws, seed = whole_number("draws", draws, most=MOST_DRAWS), seed_number(seed)
        metric = self._named(metric)
        users = _paired(self, reference, metric)
        rows: list[dict[str, Any]] = []
        for group in (OVERALL, *self.groups):
            pair = users if group == OVERALL else users.filter(pl.col(GROUP) == group)
            tested = compared(pair["mine"].to_numpy(), pair["theirs"].to_numpy(), margin, draws, seed)
            rows.append({GROUP: group, N_USERS: pair.height, **tested})
        frame = pl.DataFrame(rows).with_columns(pl.Series("p_holm", holm([row["p_value"] for row in rows])))
        return frame.drop("ratio_high").fill_nan(None)

    def to_dict(self) -> dict[str, Any]:
        """All but per-user values and history as plain types: unrounded, None where there is no value."""
        exact = () if self.mainstream_sample else ("mainstream_sample", "mainstream_bound")
        left_out = ("history", "lengths", "by_mainstream", "by_item_popularity", *exact)
        content: dict[str, Any] = {}
        for one in fields(self):
            if one.name == "per_user":  # what is computed from the means stands in its place
                content |= {"gap": self.gap(), "ratio": self.ratio(), "worst_group": self.worst_group}
            elif one.name not in left_out:
                content[one.name] = getattr(self, one.name)
        content["k"] = self.lengths
        content |= {"by_group": _nested(self.by_group), "by_activity": _nested(self.by_activity)}
        if self.grouping == "own":
            content["by_mainstream"] = _nested(self.by_mainstream)
        if self.by_item_popularity.height:
            content["by_item_popularity"] = _nested(self.by_item_popularity)
        return dict(jsonable(content))

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the dictionary as JSON text, and write it if a path is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_text(a_path("path", path), text)
        return text

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """Rebuild a report from `to_dict`; `per_user` and `history` are empty.

        Raises:
            DataError: a key is missing.
        """
        try:
            values = {key: content[key] for key in ("model", "config", "protocol", "seed", "overall")}
            values |= {"k": max(content["k"]), "lengths": list(content["k"])}
            values["by_group"] = _flat(content["by_group"])
            values["by_activity"] = _flat(content.get("by_activity", []))
            values["by_mainstream"] = _flat(content.get("by_mainstream", []))
            values["by_item_popularity"] = _flat(content.get("by_item_popularity", []))
            values["label"] = content.get("label", content["model"])
        except (LookupError, TypeError, AttributeError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(f"this is no report of greysheep: {error} is missing or odd") from None
        optional = (one.name for one in fields(cls) if one.default is not MISSING)
        values |= {name: content[name] for name in optional if name in content}
        return cls(per_user=pl.DataFrame(), **values)

    def __str__(self) -> str:
        return "\n".join([text_table([self]), *self.notes])


def text_table(reports: Sequence[Report]) -> str:
    """Plain text for a terminal or a pipe: one row per model; groups niche first, mean, gap, ratio, seconds.

    Fits in 80 columns for labels of up to 14 characters. NDCG stands without its leading zero.

    Raises:
        ConfigError: There is no report, or they were made for lists of different lengths.
    """
    shown = by_label(reports)
    groups = [str(group) for group in reports[0].by_group[GROUP]]
    rows = [["model", *groups, "mean", "gap", "ratio", "seconds"]]
    for name, report in shown.items():
        means = dict(zip(map(str, report.by_group[GROUP]), report.by_group[report.metric], strict=True))
        overall = report.overall.get(report.metric)
        mean = overall.get("mean") if isinstance(overall, dict) else None
        values = [*(means.get(group) for group in groups), mean, report.gap()]
        cells = [short(value) for value in values]
        rows.append(
            [name, *cells, short(report.ratio(), 2), seconds(report.train_seconds).replace(DASH, "-")]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths)
    ends = {1, last - 4, last - 3, last - 1}  # a wider gap before groups, mean, gap and seconds
    lines = []
    for first, *rest in rows:
        line = first.ljust(widths[0])
        for n, cell in enumerate(rest, 1):
            line += ("  " if n in ends else " ") + cell.rjust(widths[n])
        lines.append(line)
    return "\n".join(lines)


def by_label(reports: Sequence[Report]) -> dict[str, Report]:
    """Reports that share a table, by unique label in the order given.

    Raises:
        ConfigError: There is no report, or they were made for lists of different lengths.
    """
    lengths = sorted({report.k for report in reports})
    if not lengths:
        raise ConfigError("there is no report to show: give at least one")
    if len(lengths) > 1:
        listed = ", ".join(map(str, lengths))
        raise ConfigError(f"reports of different k ({listed}) cannot share a table: use one k")
    return dict(zip(_labels(reports), reports, strict=True))


def _labels(reports: Sequence[Report]) -> list[str]:
    """One name per report: its label, with the seed, and a number, where several would share it."""
    shared = Counter(report.label for report in reports)
    names: list[str] = []
    for report in reports:
        name = report.label if shared[report.label] == 1 else f"{report.label}, seed {report.seed}"
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def mean_of(values: NDArray[Any]) -> float:
    """Return the mean, NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def compared(
    mine: NDArray[Any], theirs: NDArray[Any], margin: float, draws: int, seed: int = 0
) -> dict[str, Any]:
    """Means, paired test and verdict for the same users' values; p_holm needs all rows and is set later."""
    harm = no_harm(mine, theirs, margin=margin, draws=draws, seed=seed)
    return {
        "mean": mean_of(mine),
        "reference": mean_of(theirs),
        "difference": mean_of(mine - theirs),
        "ratio": harm.ratio,
        "p_value": sign_flip_test(mine - theirs, seed=seed),
        "p_holm": math.nan,
        "ratio_low": harm.low,
        "ratio_high": harm.high,
        "verdict": harm.verdict,
        "resolvable_margin": harm.resolvable_margin,
    }


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
    types |= {GROUP: pl.String} | {name: pl.Int64 for name in COUNTS if name in types}
    return pl.DataFrame([dict(line) for line in lines], schema=types).fill_nan(None)


def _nested(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Turn ndcg@20, ndcg@20_low, ndcg@20_high into one {mean, ci_low, ci_high}."""
    rows = []
    for line in frame.to_dicts():
        metrics = [name for name in line if f"{name}_low" in line]
        row = {key: line[key] for key in (GROUP, *COUNTS, TRAIN_ROWS) if key in line}
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
