"""The page of a comparison of several models over several seeds."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from greysheep.report import html as page
from greysheep.report.cost import cost_section
from greysheep.report.groups import groups_section, other_groupings
from greysheep.report.headline import comparison_headline, comparison_lead
from greysheep.report.provenance import made_section, missing_section
from greysheep.report.training import training_sections
from greysheep.report.verdicts import verdicts_section
from greysheep.report.view import Compared

if TYPE_CHECKING:
    from greysheep.comparison.result import Comparison


def comparison_page(comparison: Comparison, title: str | None) -> str:
    """The whole document; a section whose data is absent is left out. title: plain text."""
    compared = Compared.of(comparison)
    if title is None:
        log = comparison.facts.get("Log", "")
        title = f"greysheep compare, {log}" if log else "greysheep compare"
    lead = page.paragraph(" ".join(comparison_lead(compared)))
    body = [
        f'<header><p class="over">{escape(title)}</p>\n<h1>{page.prose(comparison_headline(compared))}</h1>'
        f"\n{lead}</header>"
    ]
    if compared.runs:
        body += [
            groups_section(compared),
            verdicts_section(compared),
            cost_section(compared),
            *training_sections(compared),
            other_groupings(compared),
        ]
    body += [missing_section(compared), made_section(compared)]
    return page.document(title, "\n".join(part for part in body if part))
