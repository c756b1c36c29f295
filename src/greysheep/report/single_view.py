"""The reports of a page under one name each, with the numbers that several sections read from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from greysheep.errors import ConfigError
from greysheep.evaluation.numbers import number
from greysheep.report.palette import Style, styles

if TYPE_CHECKING:
    from greysheep.evaluation.report import Report

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """Reports by unique label in the order given, the style of each, and the metric they share, `ndcg@k`."""

    reports: dict[str, Report]
    styles: dict[str, Style]
    metric: str

    @classmethod
    def of(cls, reports: Sequence[Report]) -> View:
        """Name the reports.

        Raises:
            ConfigError: There is no report, or they were made for lists of different lengths.
        """
        lengths = sorted({report.k for report in reports})
        if not lengths:
            raise ConfigError("there is no report to show: give at least one")
        if len(lengths) > 1:
            found = ", ".join(map(str, lengths))
            raise ConfigError(f"reports of different k ({found}) cannot share a table: use one k")
        named = dict(zip(_labels(reports), reports, strict=True))
        drawn = styles([(name, report.model) for name, report in named.items()])
        return cls(named, drawn, f"ndcg@{lengths[0]}")

    @property
    def shown(self) -> str:
        """The metric as a reader knows it."""
        return self.metric.upper()

    @property
    def groups(self) -> list[str]:
        """Names of the groups, niche first."""
        return [str(group) for group in next(iter(self.reports.values())).by_group["group"]]

    def by_group(self, name: str) -> dict[str, Triple]:
        """(mean, low, high) of each group under one report; NaN where no user has test rows."""
        frame = self.reports[name].by_group
        return dict(zip(map(str, frame["group"]), triples(frame, self.metric), strict=True))

    def overall(self, name: str) -> Triple:
        """(mean, low, high) over all users."""
        value = self.reports[name].overall.get(self.metric)
        if not isinstance(value, dict):
            return math.nan, math.nan, math.nan
        return number(value.get("mean")), number(value.get("ci_low")), number(value.get("ci_high"))


def triples(frame: pl.DataFrame, metric: str) -> list[Triple]:
    """(mean, low, high) of each row of a frame of means; NaN where there is none."""
    columns = [frame[name].to_list() for name in (metric, f"{metric}_low", f"{metric}_high")]
    return [(number(mean), number(low), number(high)) for mean, low, high in zip(*columns, strict=True)]


def _labels(reports: Sequence[Report]) -> list[str]:
    """One name a report: its label, with the seed, and a number, where several would share it."""
    shared = Counter(report.label for report in reports)
    names: list[str] = []
    for report in reports:
        name = report.label if shared[report.label] == 1 else f"{report.label}, seed {report.seed}"
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names
