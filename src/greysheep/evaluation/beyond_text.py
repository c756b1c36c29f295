"""The figures beside accuracy as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from greysheep.data.columns import GROUP
from greysheep.evaluation.beyond import BEYOND
from greysheep.evaluation.numbers import number, percent, short
from greysheep.evaluation.report import Report
from greysheep.evaluation.text import aligned
from greysheep.mainstream.groups import OVERALL

NAMES = {
    "coverage": "catalogue coverage",
    "gini": "Gini of the items' places",
    "popularity": "popularity of the lists",
    "popularity_chosen": "popularity of their choices",
    "popularity_lift": "popularity lift",
    "novelty": "novelty (bits)",
    "diversity": "diversity of a list",
    "auc": "AUC",
}


def figures_of(report: Report) -> list[str]:
    """Keys of the figures that a report has at its longest lists, in the order of a table."""
    keys = (key for name in BEYOND for key in (f"{name}@{report.k}", name))
    return [key for key in keys if key in report.overall]


def named(key: str) -> str:
    """What a figure is called: `novelty@20` is "novelty (bits)"."""
    return NAMES[key.partition("@")[0]]


def written(key: str, value: object) -> str:
    """A figure as it is read: a share in per cent, a number of rows, or a number between 0 and 1.

    >>> written("coverage@20", 0.1234), written("popularity@20", 1234.5), written("gini@20", 0.5)
    ('12.3 %', '1,234.5', '.5000')
    """
    plain = number(value)
    if not math.isfinite(plain):
        return "-"
    name = key.partition("@")[0]
    if name in ("coverage", "popularity_lift"):
        return percent(plain, 1, sign=name == "popularity_lift")
    return f"{plain:,.1f}" if name in ("popularity", "popularity_chosen") else short(plain)


def of_group(report: Report, key: str) -> Iterable[dict[str, Any]]:
    """(mean, ci_low, ci_high) of each group of a report, then of all users."""
    for row in report.by_group.iter_rows(named=True):
        yield {"mean": row[key], "ci_low": row[f"{key}_low"], "ci_high": row[f"{key}_high"]}
    yield report.overall[key]


def beyond_table(report: Report) -> list[str]:
    """The figures by group, and what was found by popularity of the item, as text; nothing without them."""
    keys = figures_of(report)
    if not keys:
        return []
    rows = [[f"lists of {report.k}", *report.groups, OVERALL]]
    rows += [[named(key), *(written(key, cell["mean"]) for cell in of_group(report, key))] for key in keys]
    tail = report.by_item_popularity
    found = [short(value) for value in tail[f"recall@{report.k}"]]
    popular = [["items by popularity", *tail[GROUP]], [f"test rows found @{report.k}", *found]]
    return [*aligned(rows), "", *aligned(popular)]
