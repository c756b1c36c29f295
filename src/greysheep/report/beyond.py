"""The section of a page with the figures beside accuracy, for reports and audits that have them."""

from __future__ import annotations

import math

from greysheep.data.columns import GROUP
from greysheep.evaluation.beyond_text import figures_of, named, of_group, written
from greysheep.evaluation.numbers import DASH, number
from greysheep.evaluation.report import Report
from greysheep.report.html import Cell, Content, Details, Name, Part, Section, Table, Text, group_head
from greysheep.report.sentences import sentence
from greysheep.report.view import View


def beyond_section(view: View) -> Section | None:
    """A table of figures by group for each report, and what was found by popularity of the item."""
    reports = {label: runs[0] for label, runs in view.runs.items() if len(runs) == 1 and figures_of(runs[0])}
    if not reports:
        return None
    tables = [
        Details(view.short[label], [_figures(report, view.short[label])], opened=n == 0)
        for n, (label, report) in enumerate(reports.items())
    ]
    popular: list[Part] = [Text(sentence("by_item_popularity", k=view.k)), _by_popularity(view, reports)]
    lead = Text(sentence("beyond"))
    return Section("Beside accuracy", [lead, *tables, *popular])


def _figures(report: Report, name: str) -> Table:
    """Figures down, groups across."""
    rows: list[list[Content]] = []
    for key in figures_of(report):
        cells: list[Content] = []
        for cell in of_group(report, key):
            low, high = written(key, cell["ci_low"]), written(key, cell["ci_high"])
            known = math.isfinite(number(cell["ci_low"]))
            cells.append(
                Cell(written(key, cell["mean"]), notes=[(f"{low}{DASH}{high}", "")] if known else [])
            )
        rows.append([Name(named(key), None), *cells])
    return Table(
        f"Figures beside accuracy of {name}", ["figure", *map(group_head, report.groups), "all"], rows
    )


def _by_popularity(view: View, reports: dict[str, Report]) -> Table:
    """Labels down, fifths of popularity across."""
    first = next(iter(reports.values())).by_item_popularity
    head: list[Content] = [view.noun]
    for row in first.iter_rows(named=True):
        facts = [(f"{row['n_items']:,} items", ""), (f"{row['n_test_rows']:,} rows", "")]
        head.append(Cell(str(row[GROUP]), notes=facts))
    rows: list[list[Content]] = []
    for label, report in reports.items():
        key = f"recall@{report.k}"
        cells: list[Content] = []
        for row in report.by_item_popularity.iter_rows(named=True):
            low, high = number(row[f"{key}_low"]), number(row[f"{key}_high"])
            notes = [(f"{low:.3f}{DASH}{high:.3f}", "")] if math.isfinite(low) else []
            cells.append(Cell(written(key, row[key]), notes=notes))
        rows.append([view.named(label), *cells])
    return Table("Rows found by popularity of the item", head, rows)
