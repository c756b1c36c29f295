"""The two dot plots of a comparison: means by group, and differences to the reference by group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from greysheep.evaluation.numbers import decimal, number, percent
from greysheep.report import html as page
from greysheep.report.dots import Dots, dot_plot
from greysheep.report.single_groups import axis_of
from greysheep.report.single_view import Triple
from greysheep.report.view import MAINSTREAM, Compared, finite

FAR = -0.25
"""A model this much worse than the reference would squeeze all others: it is named at the edge instead."""


def means_chart(compared: Compared) -> str:
    """Means by group with their intervals; empty where there is none."""
    rows = _rows(compared)
    values = {
        label: [compared.triple(label, MAINSTREAM, group) for group, _ in rows] for label in compared.labels
    }
    known = _bounds(values)
    if not known:
        return ""
    dots = Dots(rows, values, compared.styles, f"mean {compared.shown}", axis_of(known))
    said = [f"Mean {compared.shown} with 95 % intervals by mainstream group:"]
    for n, (group, _) in enumerate(rows):
        told = ", ".join(
            f"{compared.short[label]} {decimal(line[n][0], 3)}" for label, line in values.items()
        )
        said.append(f"{group}: {told}.")
    note = "95 % intervals over users; rows: mean train rows of a user."
    return page.figure(dot_plot(dots, "means", " ".join(said)), "Mean by mainstream group", note)


def differences_chart(compared: Compared) -> str:
    """Relative differences to the reference by group; empty where nothing was tested.

    The same users stand under both, so these intervals are the ones to judge a difference by.
    """
    rows = _rows(compared)
    values = {
        label: [_share(compared.tests.get((label, group), {})) for group, _ in rows]
        for label in compared.others
    }
    known = _bounds(values)
    if not known:
        return ""
    margin, against = compared.comparison.margin, compared.against
    levels = ((0.0, False), (-margin, True))
    dots = Dots(
        rows,
        values,
        compared.styles,
        "relative difference",
        _window(known, margin),
        levels=levels,
        shares=True,
    )
    said = [f"Relative difference in {compared.shown} to {against} by mainstream group:"]
    for n, (group, _) in enumerate(rows):
        told = ", ".join(
            f"{compared.short[label]} {percent(line[n][0], 1, sign=True)}" for label, line in values.items()
        )
        said.append(f"{group}: {told}.")
    note = f"User by user, 90 % intervals. Dashed: a loss of {percent(margin)}, where harm begins."
    return page.figure(dot_plot(dots, "differences", " ".join(said)), f"Difference to {against}", note)


def _rows(compared: Compared) -> list[tuple[str, str]]:
    """Name and note of each row."""
    noted = []
    for group in compared.groups(MAINSTREAM):
        size = compared.size(MAINSTREAM, group, "mean_train_rows")
        noted.append((group, f"{size:,.0f} rows" if math.isfinite(size) else ""))
    return noted


def _bounds(values: Mapping[str, Sequence[Triple]]) -> list[float]:
    return finite(bound for line in values.values() for triple in line for bound in triple)


def _share(row: Mapping[str, Any]) -> Triple:
    """(ratio, low, high) of a test; NaN where there is none."""
    return number(row.get("ratio")), number(row.get("ratio_low")), number(row.get("ratio_high"))


def _window(bounds: Sequence[float], margin: float) -> tuple[float, float]:
    """Range of the axis of differences: zero and the margin inside, what lies far below left out.

    >>> low, high = _window([-0.7, -0.6, -0.01, 0.09], 0.02)
    >>> round(low, 3), round(high, 3)
    (-0.026, 0.096)
    """
    near = [bound for bound in bounds if bound > FAR] or list(bounds)
    low, high = min(*near, -margin, 0.0), max(*near, margin, 0.0)
    space = 0.05 * (high - low)
    return low - space, high + space
