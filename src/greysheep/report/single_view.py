"""The reports of a page under one name each, with the numbers that several sections read from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from greysheep.evaluation.numbers import number
from greysheep.evaluation.text import by_label
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
        named = by_label(reports)
        drawn = styles([(name, report.model) for name, report in named.items()])
        return cls(named, drawn, reports[0].metric)

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
