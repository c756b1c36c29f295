"""The section of a comparison's page that says what each model does against the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from greysheep.evaluation.numbers import number, p_value, percent, signed
from greysheep.report import html as page
from greysheep.report.single_paired import SIGNS
from greysheep.report.view import SIGNIFICANT, Compared

OPEN = 8  # rows of differences that stand open; more are a click away


def verdicts_section(compared: Compared) -> str:
    """One sentence a model, then the differences behind it, by group."""
    verdicts = {
        label: words for label, words in compared.comparison.verdicts.items() if label != compared.reference
    }
    lines = "".join(
        f"<dt>{compared.named(label)}</dt><dd>{page.prose(words)}</dd>\n" for label, words in verdicts.items()
    )
    told = f'<dl class="verdicts">\n{lines}</dl>' if lines else ""
    table = _table(compared)
    if not told and not table:
        return ""
    return page.section(f"Against {compared.against}", told, table)


def _table(compared: Compared) -> str:
    """Difference, share, p value and verdict, for each model and group."""
    labels = compared.others
    if not labels:
        return ""
    groups = list(dict.fromkeys(group for _, group in compared.tests))
    body = [
        [compared.named(label), *(_cell(compared.tests.get((label, group), {})) for group in groups)]
        for label in labels
    ]
    margin = percent(compared.comparison.margin)
    lead = (
        f"Difference in mean {compared.shown} over the same users; as a share of the mean of "
        f"{compared.against}, with its standard deviation over the seeds (±); p of a paired sign-flip test "
        f"after Holm, bold below .05. No harm (✓): a loss of {margin} or more is ruled out. Harm (✗): it is "
        "certain. Undecided (?): neither; then stands the smallest loss that this log could have ruled out."
    )
    caption = f"Paired differences in {compared.shown} to {compared.against}"
    inner = page.paragraph(lead) + page.table(caption, ["model", *map(escape, groups)], body)
    return page.details("The differences by group, with p values", inner, opened=len(labels) <= OPEN)


def _cell(row: Mapping[str, Any]) -> str:
    difference, p_holm = number(row.get("difference")), number(row.get("p_holm"))
    text = signed(difference)
    if not math.isfinite(difference):
        return text
    if p_holm < SIGNIFICANT:
        text = f'<span class="best">{text}</span>'
    base, spread = number(row.get("reference_mean")), number(row.get("difference_sd"))
    share = percent(number(row.get("ratio")), 1, sign=True)
    if math.isfinite(spread) and base > 0:
        share += f" ± {percent(spread / base, 1)}"
    verdict, margin = str(row.get("verdict") or ""), number(row.get("resolvable_margin"))
    more = f", {percent(margin, 1)}" if verdict == "undecided" and math.isfinite(margin) else ""
    return (
        f"{text}<small>{escape(share)}</small><small>{escape(p_value(p_holm))}</small>"
        f'<small class="{escape(verdict.replace(" ", "-"))}">{SIGNS.get(verdict, "")} '
        f"{escape(verdict + more)}</small>"
    )
