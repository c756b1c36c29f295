"""The section of a page that says what each model does against the reference."""

from __future__ import annotations

import math

from greysheep.evaluation.numbers import number, p_value, percent, signed
from greysheep.metrics.statistics import LEVEL
from greysheep.report.html import Cell, Definitions, Details, Part, Section, Table, Text, group_head
from greysheep.report.sentences import sentence
from greysheep.report.view import Row, View

OPEN = 8  # rows of differences that stand open; more are a click away
SIGNS = {"no harm": "✓", "harm": "✗", "undecided": "?"}


def verdicts_section(view: View) -> Section | None:
    """One verdict per model where there is a comparison, then the differences behind it, by group."""
    sentences = view.comparison.verdicts if view.comparison is not None else {}
    verdicts = [(view.named(label), text) for label, text in sentences.items() if label != view.reference]
    parts: list[Part] = [Definitions(verdicts, verdicts=True)] if verdicts else []
    if view.others:
        parts.append(_differences(view))
    return Section(f"Against {view.against}", parts) if parts else None


def _differences(view: View) -> Details:
    """Difference, share, p value and verdict, for each model and group."""
    labels = view.others
    groups = list(dict.fromkeys(group for _, group in view.tests))
    values = {
        "shown": view.shown,
        "reference": view.against,
        "seeds": view.comparison is not None and not view.of_lists,
        "lists": view.of_lists,
    }
    lead = sentence("differences", margin=percent(view.margin), **values)
    rows = [
        [view.named(label), *(_cell(view.tests.get((label, group), {})) for group in groups)]
        for label in labels
    ]
    table = Table(
        f"Paired differences in {view.shown} to {view.against}", [view.noun, *map(group_head, groups)], rows
    )
    opened = len(labels) <= OPEN
    return Details("The differences by group, with p values", [Text(lead), table], opened=opened)


def _cell(row: Row) -> Cell:
    difference, p_holm = number(row.get("difference")), number(row.get("p_holm"))
    if not math.isfinite(difference):
        return Cell(signed(difference))
    base, spread = number(row.get("reference_mean")), number(row.get("difference_sd"))
    share = percent(number(row.get("ratio")), 1, sign=True)
    if math.isfinite(spread) and base > 0:
        share += f" ± {percent(spread / base, 1)}"
    verdict, margin = str(row.get("verdict") or ""), number(row.get("resolvable_margin"))
    more = f", {percent(margin, 1)}" if verdict == "undecided" and math.isfinite(margin) else ""
    judged = f"{SIGNS.get(verdict, '')} {verdict}{more}"
    notes = [(share, ""), (p_value(p_holm), ""), (judged, verdict.replace(" ", "-"))]
    return Cell(signed(difference), best=p_holm < LEVEL, notes=notes)
