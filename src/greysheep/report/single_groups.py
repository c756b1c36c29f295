"""The section of a page that shows how well each group is served."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import polars as pl

from greysheep.data.columns import GROUP
from greysheep.evaluation.numbers import DASH, decimal, seconds
from greysheep.evaluation.report import N_USERS, TRAIN_ROWS
from greysheep.report import html as page
from greysheep.report.dots import Dots, dot_plot
from greysheep.report.single_view import Triple, View, triples

if TYPE_CHECKING:
    from greysheep.evaluation.report import Report


def groups_section(view: View) -> str:
    """Table by group, then the dot plots by group and by activity side by side, on one scale."""
    mainstream = {name: report.by_group for name, report in view.reports.items()}
    active = {name: frame for name, report in view.reports.items() if (frame := report.by_activity).height}
    limits = limits_of([*mainstream.values(), *active.values()], view.metric)
    drawn = [_figure(view, mainstream, limits, "By mainstream group", "Most niche users on top")]
    more = ""
    if active:
        drawn.append(_figure(view, active, limits, "By activity", "Least active users on top"))
        inner = _table(view, f"{view.shown} by quintile of activity", active, sums=False)
        more = page.details("The table by quintile of activity", inner)
    lead = (
        f"Mean {view.shown} of each fifth of the users, most niche taste first, above its 95 % interval. "
        "Gap: best group minus worst. Ratio: worst divided by best. Bold: best of its column."
    )
    return page.section(
        "How well each group is served",
        page.paragraph(lead),
        _table(view, f"{view.shown} by mainstream group", mainstream, sums=True),
        page.legend(view.styles),
        page.figures(drawn),
        page.paragraph(_confounded(view, mainstream)) if active else "",
        more,
    )


def _confounded(view: View, frames: Mapping[str, pl.DataFrame]) -> str:
    """Why the two plots stand side by side."""
    text = "Niche users are often the less active ones"
    rows = _train_rows(next(iter(frames.values())))
    if rows:
        groups = view.groups
        text += f" (here {rows[0]} a user in {groups[0]}, {rows[-1]} in {groups[-1]})"
    return f"{text}: what both plots show alike may be due to activity rather than taste."


def _figure(
    view: View, frames: Mapping[str, pl.DataFrame], limits: tuple[float, float], heading: str, note: str
) -> str:
    dots = dots_of(view, frames, limits)
    said = [f"Mean {view.shown} with 95 % intervals. {heading}:"]
    for n, (group, _) in enumerate(dots.rows):
        values = ", ".join(f"{name} {decimal(line[n][0], 3)}" for name, line in dots.values.items())
        said.append(f"{group}: {values}.")
    rows = "; rows: mean train rows of a user." if _train_rows(next(iter(frames.values()))) else "."
    return page.figure(dot_plot(dots, heading.split()[-1], " ".join(said)), heading, note + rows)


def dots_of(view: View, frames: Mapping[str, pl.DataFrame], limits: tuple[float, float]) -> Dots:
    """A dot plot of frames; below a group's name stand its users' train rows, else its number of users."""
    first = next(iter(frames.values()))
    notes = _train_rows(first) or [f"{users:,} users" for users in first[N_USERS]]
    values = {name: triples(frame, view.metric) for name, frame in frames.items()}
    rows = list(zip(map(str, first[GROUP]), notes, strict=True))
    return Dots(rows, values, view.styles, view.shown, limits)


def _train_rows(frame: pl.DataFrame) -> list[str]:
    """Mean train rows of a group's users, as text; empty where the frame does not say."""
    if TRAIN_ROWS not in frame.columns:
        return []
    return [DASH if mean is None else f"{mean:,.0f} rows" for mean in frame[TRAIN_ROWS]]


def limits_of(frames: Sequence[pl.DataFrame], metric: str) -> tuple[float, float]:
    """Range of the axis of all means and bounds of some frames."""
    return axis_of([value for frame in frames for triple in triples(frame, metric) for value in triple])


def axis_of(bounds: Sequence[float]) -> tuple[float, float]:
    """Range of an axis; it starts at zero unless that left the first third of it empty."""
    finite = [value for value in bounds if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    margin = 0.04 * ((high - low) or 1.0)
    return (0.0 if low < high / 3 else low - margin), high + margin


def _table(view: View, caption: str, frames: Mapping[str, pl.DataFrame], *, sums: bool) -> str:
    """Models down, groups across; with `sums` also mean, gap, ratio and seconds."""
    first = next(iter(frames.values()))
    notes = [f"<small>{users:,} users</small>" for users in first[N_USERS]]
    for n, rows in enumerate(_train_rows(first)):
        notes[n] += f"<small>{rows}</small>"
    head = ["model", *(escape(str(group)) + note for group, note in zip(first[GROUP], notes, strict=True))]
    lines: dict[str, list[Triple]] = {name: triples(frame, view.metric) for name, frame in frames.items()}
    if sums:
        head += ["mean", "gap", "ratio", "seconds"]
        lines = {name: [*line, view.overall(name)] for name, line in lines.items()}
    columns = [
        [mean for mean, _, _ in column if math.isfinite(mean)] for column in zip(*lines.values(), strict=True)
    ]
    best = [max(column) if len(column) > 1 else math.nan for column in columns]
    body = []
    for name, line in lines.items():
        cells = [_cell(triple, top) for triple, top in zip(line, best, strict=True)]
        body.append(
            [page.name_with_key(name, view.styles), *cells, *(_sums(view.reports[name]) if sums else ())]
        )
    return page.table(caption, head, body)


def _cell(triple: Triple, best: float) -> str:
    mean, low, high = triple
    text = f'<span class="best">{decimal(mean)}</span>' if mean == best else decimal(mean)
    return text + (f"<small>{low:.3f}{DASH}{high:.3f}</small>" if math.isfinite(low) else "")


def _sums(report: Report) -> tuple[str, str, str]:
    return decimal(report.gap()), decimal(report.ratio(), 2), escape(seconds(report.train_seconds))
