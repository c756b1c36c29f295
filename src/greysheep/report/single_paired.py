"""The section of a page that compares each model with a reference, user by user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from greysheep.data.columns import USER
from greysheep.evaluation.numbers import number, p_value, percent, signed
from greysheep.metrics.statistics import holm
from greysheep.report import html as page
from greysheep.report.single_view import View

if TYPE_CHECKING:
    from greysheep.evaluation.report import Report

SIGNS = {"no harm": "✓", "harm": "✗", "undecided": "?"}
MARGIN = 0.02


def paired_section(view: View, reference: str) -> str:
    """Difference, p value after Holm over the whole table, and verdict, for each model and group.

    A report is compared when it and the reference hold values per user for the same test rows.
    """
    base = view.reports[reference]
    found = {
        name: report.versus(base, metric=view.metric, margin=MARGIN).to_dicts()
        for name, report in view.reports.items()
        if name != reference and _comparable(report, base)
    }
    if not found:
        return ""
    adjusted = iter(holm([number(row["p_value"]) for rows in found.values() for row in rows]))
    head = ["model", *(escape(str(row["group"])) for row in next(iter(found.values())))]
    body = [
        [page.name_with_key(name, view.styles), *(_cell(row, float(next(adjusted))) for row in rows)]
        for name, rows in found.items()
    ]
    lead = (
        f"Difference in mean {view.shown} over the same users, and as a share of the mean of {reference}. "
        "Bold: p below .05 in a paired sign-flip test after Holm over all cells; it compares these trained "
        f"models, not the methods under other seeds. No harm (✓): a loss of {percent(MARGIN)} or more is "
        "ruled out. Harm (✗): it is certain. Undecided (?): neither; then stands the smallest loss that this "
        "log could have ruled out."
    )
    caption = f"Paired differences in {view.shown} to {reference}"
    return page.section(f"Against {reference}", page.paragraph(lead), page.table(caption, head, body))


def _comparable(report: Report, base: Report) -> bool:
    """Whether both hold values per user, for the same test rows."""
    rows = [USER, "n_test"]
    if report.per_user.is_empty() or base.per_user.is_empty():
        return False
    return report.per_user.select(rows).equals(base.per_user.select(rows))


def _cell(row: Mapping[str, Any], p_holm: float) -> str:
    difference, reference = number(row["difference"]), number(row["reference"])
    text = signed(difference)
    if not math.isfinite(difference):
        return text
    if p_holm < 0.05:
        text = f'<span class="best">{text}</span>'
    share = percent(difference / reference if reference else math.nan, 1, sign=True)
    verdict = str(row["verdict"])
    margin = number(row["resolvable_margin"])
    more = f", {percent(margin, 1)}" if verdict == "undecided" and math.isfinite(margin) else ""
    sign = SIGNS.get(verdict, "")
    return (
        f"{text}<small>{share}, {escape(p_value(p_holm))}</small>"
        f'<small class="{escape(verdict.replace(" ", "-"))}">{sign} {escape(verdict + more)}</small>'
    )
