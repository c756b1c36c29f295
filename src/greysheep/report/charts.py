"""The two dot plots of a page: means by group, and differences to the reference by group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from greysheep.evaluation.numbers import decimal, percent
from greysheep.report.dots import Dots, axis_of, dot_plot
from greysheep.report.html import Figure
from greysheep.report.view import ACTIVITY, MAINSTREAM, Triple, View, finite

FAR = -0.25
"""Models with a larger loss are named at the edge: on the axis they would squeeze all others."""
TOP = {MAINSTREAM: "Most niche users", ACTIVITY: "Least active users"}


def means_charts(view: View, groupings: Sequence[str]) -> list[Figure]:
    """Means by group with their intervals, on one scale for all groupings; a chart for each that has any."""
    drawn = [means_dots(view, grouping) for grouping in groupings]
    limits = axis_of([bound for dots in drawn for bound in _bounds(dots.values)])
    figures = []
    for grouping, dots in zip(groupings, drawn, strict=True):
        if not _bounds(dots.values):
            continue
        head = f"Mean {view.shown} with 95 % intervals by {grouping} group:"
        aria = _aria(view, dots, head, lambda mean: decimal(mean, 3))
        chart = dot_plot(replace(dots, limits=limits), f"means-{grouping}", aria)
        note = f"{TOP[grouping]} on top, 95 % intervals" if grouping in TOP else "95 % intervals"
        note += "; rows: mean train rows of a user." if dots.rows[0][1].endswith("rows") else "."
        heading = f"Mean by {view.of_groups if grouping == view.main else grouping}"
        figures.append(Figure(chart, heading, note))
    return figures


def means_dots(view: View, grouping: str = "") -> Dots:
    """What a chart of means by group shows; labels without this grouping are left out."""
    grouping = grouping or view.main
    labels = [label for label in view.labels if view.has(label, grouping)]
    rows = _rows(view, grouping)
    values = {label: [view.triple(label, grouping, group) for group, _ in rows] for label in labels}
    return Dots(rows, values, view.styles, f"mean {view.shown}", axis_of(_bounds(values)))


def differences_chart(view: View) -> Figure | None:
    """Relative differences to the reference by group; None where nothing was tested.

    Both are measured on the same users, so a difference is judged by these intervals.
    """
    rows = _rows(view, view.main)
    values = {label: [view.share(label, group) for group, _ in rows] for label in view.others}
    known = _bounds(values)
    if not known:
        return None
    limits, levels = _window(known, view.margin), ((0.0, False), (-view.margin, True))
    dots = Dots(rows, values, view.styles, "relative difference", limits, levels, shares=True)
    head = f"Relative difference in {view.shown} to {view.against} by {view.of_groups}:"
    aria = _aria(view, dots, head, lambda share: percent(share, 1, sign=True))
    chart = dot_plot(dots, "differences", aria)
    note = f"User by user, 90 % intervals. Dashed: a loss of {percent(view.margin)}, where harm begins."
    return Figure(chart, f"Difference to {view.against}", note)


def _rows(view: View, grouping: str) -> list[tuple[str, str]]:
    """Name of each group, and as its note its users' train rows, else its number of users."""
    noted = []
    for group in view.groups(grouping):
        rows, users = view.size(grouping, group, "mean_train_rows"), view.size(grouping, group)
        note = f"{rows:,.0f} rows" if math.isfinite(rows) else f"{users:,.0f} users"
        noted.append((group, note if math.isfinite(users) else ""))
    return noted


def _aria(view: View, dots: Dots, head: str, written: Callable[[float], str]) -> str:
    """What a dot plot shows, as plain text."""
    sentences = [head]
    for n, (group, _) in enumerate(dots.rows):
        values = (f"{view.short[label]} {written(line[n][0])}" for label, line in dots.values.items())
        sentences.append(f"{group}: {', '.join(values)}.")
    return " ".join(sentences)


def _bounds(values: Mapping[str, Sequence[Triple]]) -> list[float]:
    return finite(bound for line in values.values() for triple in line for bound in triple)


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
