"""The section of a page that says what training cost, and of a comparison what quality costs."""

from __future__ import annotations

import math

from greysheep.evaluation.numbers import DASH, decimal, duration, number, seconds
from greysheep.mainstream.groups import OVERALL
from greysheep.report.html import Content, Details, Figure, Figures, Name, Part, Section, Table, Text
from greysheep.report.scatter import Point, front, scatter
from greysheep.report.sentences import sentence
from greysheep.report.view import MAINSTREAM, View, average


def cost_section(view: View) -> Section | None:
    """Seconds, epochs, memory; of a comparison first quality against seconds of training."""
    table = _table(view)
    if view.comparison is None:
        note = Text(sentence("memory_of_process"))
        return Section("What training cost", [note, table]) if table else None
    charts = [chart for group in (view.focus, OVERALL) if (chart := _chart(view, group))]
    if not charts and not table:
        return None
    lead = Text(sentence("cost", even=view.even))
    parts: list[Part] = [lead, Figures(charts)] if charts else []
    if untimed := [view.short[label] for label in view.labels if not math.isfinite(view.seconds(label))]:
        parts.append(Text(f"No time of training is known of {', '.join(untimed)}."))
    if table:
        parts.append(Details("What training cost, mean over the runs of a model", [table]))
    return Section("What quality costs", parts)


def _chart(view: View, group: str) -> Figure | None:
    """Quality in one group, or of all users, against seconds of training; None of fewer than two models."""
    known = [label for label in view.labels if math.isfinite(view.seconds(label) + view.mean(label, group))]
    points = [
        Point(view.short[label], view.seconds(label), view.mean(label, group), view.styles[label])
        for label in known
    ]
    if len(points) < 2:
        return None
    listed = ", ".join(
        f"{point.label} {decimal(point.mean, 3)} after {duration(point.seconds)}" for point in points
    )
    best = ", ".join(point.label for point in front(points))
    whom = f"the users of {group}" if group != OVERALL else "all users"
    aria = f"{view.shown} of {whom} against the time of training: {listed}. On the front: {best}."
    heading = "All users" if group == OVERALL else _heading(view)
    chart, far = scatter(points, f"mean {view.shown}", f"cost-{group}", aria)
    names = []
    for point in points:
        where = ", far below" if point in far else ""
        note = f"after {duration(point.seconds)}{where}: {point.mean:.3f}"
        names.append(Name(point.label, point.style, notes=[note]))
    return Figure(chart, heading, f"On the front: {best}.", names)


def _heading(view: View) -> str:
    return "Most niche users (low)" if view.main == MAINSTREAM else f"Users of {view.focus}"


def _table(view: View) -> Table | None:
    """Seconds, epochs, memory and gate entropy of each label, means over its runs; None if none is known."""
    rows: list[list[Content]] = []
    for label, runs in view.runs.items():
        memory = view.memory(label)
        rows.append(
            [
                view.named(label),
                str(len(runs)),
                seconds(view.seconds(label)),
                decimal(average(number(run.epochs) or math.nan for run in runs), 0),
                decimal(average(number(run.best_epoch) or math.nan for run in runs), 0),
                f"{memory:,.0f}" if math.isfinite(memory) else DASH,
                decimal(average(number(run.gate_entropy) for run in runs)),
            ]
        )
    if all(cell == DASH for row in rows for cell in row[2:]):
        return None
    head = ["model", "runs", "seconds", "epochs", "epoch kept", "peak memory (MiB)", "gate entropy"]
    return Table("Cost of training", head, rows)
