"""The section of a comparison's page that sets quality against the cost of training."""

from __future__ import annotations

import math
from html import escape

from greysheep.evaluation.numbers import DASH, decimal, duration, number, seconds
from greysheep.report import html as page
from greysheep.report.scatter import Point, front, scatter
from greysheep.report.view import NICHE, OVERALL, Compared, average


def cost_section(compared: Compared) -> str:
    """Quality of the niche group and of all users against seconds of training, then the cost as a table."""
    charts = [chart for group in (NICHE, OVERALL) if (chart := _chart(compared, group))]
    table = _table(compared)
    if not charts and not table:
        return ""
    lead = (
        "Each point is a model: mean over the seeds of its quality and of its seconds of training, fitting "
        "only. Dashed: the best that any of these models reaches within a time. A model right of and below "
        "that line is beaten in both by another one."
    )
    if not compared.even:
        lead += " Some runs are missing: these means are over different splits."
    note = ""
    if untimed := [
        compared.short[label] for label in compared.labels if not math.isfinite(compared.seconds(label))
    ]:
        note = page.paragraph(f"No time of training is known of {', '.join(untimed)}.")
    return page.section(
        "What quality costs", page.paragraph(lead) if charts else "", page.figures(charts), note, table
    )


def _chart(compared: Compared, group: str) -> str:
    points = [
        Point(
            compared.short[label],
            compared.seconds(label),
            compared.mean(label, group),
            compared.styles[label],
        )
        for label in compared.labels
        if math.isfinite(compared.seconds(label)) and math.isfinite(compared.mean(label, group))
    ]
    if len(points) < 2:
        return ""
    told = ", ".join(
        f"{point.label} {decimal(point.mean, 3)} after {duration(point.seconds)}" for point in points
    )
    best = ", ".join(point.label for point in front(points))
    whom = f"the users of {group}" if group == NICHE else "all users"
    aria = f"{compared.shown} of {whom} against the time of training: {told}. On the front: {best}."
    heading = "Most niche users (low)" if group == NICHE else "All users"
    chart = scatter(points, f"mean {compared.shown}", f"cost-{group}", aria)
    return page.figure(chart, heading, f"On the front: {best}.")


def _table(compared: Compared) -> str:
    """Seconds, epochs, memory and gate entropy of each label, means over its runs."""
    rows = []
    for label, runs in compared.runs.items():
        memory = compared.memory(label)
        epochs = average(number(run.epochs) or math.nan for run in runs)
        kept = average(number(run.best_epoch) or math.nan for run in runs)
        rows.append(
            [
                compared.named(label),
                str(len(runs)),
                escape(seconds(compared.seconds(label))),
                decimal(epochs, 0),
                decimal(kept, 0),
                f"{memory:,.0f}" if math.isfinite(memory) else DASH,
                decimal(average(number(run.gate_entropy) for run in runs)),
            ]
        )
    if all(cell == DASH for row in rows for cell in row[2:]):
        return ""
    head = ["model", "runs", "seconds", "epochs", "epoch kept", "peak memory (MiB)", "gate entropy"]
    return page.details(
        "What training cost, mean over the runs of a model", page.table("Cost of training", head, rows)
    )
