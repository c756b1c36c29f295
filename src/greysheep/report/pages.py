"""Reports as a text table, a picture and one self-contained HTML page. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greysheep.errors import ConfigError
from greysheep.evaluation.text import text_table
from greysheep.report import html as page
from greysheep.report.comparison_page import comparison_page
from greysheep.report.dots import picture
from greysheep.report.examples import Example, examples_section, niche_examples
from greysheep.report.single_groups import dots_of, groups_section, limits_of
from greysheep.report.single_headline import headline
from greysheep.report.single_history import training_sections
from greysheep.report.single_made import made_section
from greysheep.report.single_paired import paired_section
from greysheep.report.single_view import View
from greysheep.system.files import write_bytes
from greysheep.system.files import write_text as write_html

if TYPE_CHECKING:
    from greysheep.comparison.result import Comparison
    from greysheep.evaluation.report import Report

__all__ = [
    "Example",
    "chart_by_group",
    "comparison_html",
    "headline",
    "html",
    "niche_examples",
    "text_table",
    "write_html",
]


def html(
    reports: Sequence[Report],
    *,
    histories: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    examples: Sequence[Example] = (),
    title: str = "greysheep report",
    reference: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> str:
    """One self-contained HTML page; a section whose data is absent is left out.

    Args:
        reports: One a model, in the order of the tables.
        histories: Training by epoch for a label, in place of its report's own history.
        examples: Users to show with what they chose and what they are recommended, from `niche_examples`.
        title: What was measured; stands above the headline.
        reference: Label of the report that the others are compared with; the first one if not given.
        facts: More lines for "How it was made", such as the log and its filter.

    Raises:
        ConfigError: No report, different k, or an unknown reference.
        MissingExtraError: matplotlib is not installed.
    """
    view = View.of(reports)
    names = list(view.reports)
    if reference is not None and reference not in names:
        raise ConfigError(f"reference {reference!r} is none of the reports: {', '.join(names)}")
    told = {name: (histories or {}).get(name, report.history) for name, report in view.reports.items()}
    first = page.prose(headline(reports))
    body = [
        f'<header><p class="over">{escape(title)}</p>\n<h1>{first}</h1></header>',
        groups_section(view),
        paired_section(view, reference or names[0]),
        *training_sections(view, told),
        examples_section(view, examples),
        made_section(view, facts or {}),
    ]
    return page.document(title, "\n".join(part for part in body if part))


def comparison_html(comparison: Comparison, *, title: str | None = None) -> str:
    """One self-contained HTML page of a comparison; a section whose data is absent is left out.

    Args:
        comparison: What `greysheep.compare` returned or `Comparison.read` found.
        title: What was compared; stands above the headline. The log, if not given.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return comparison_page(comparison, title)


def chart_by_group(reports: Sequence[Report], path: Path | str) -> Path:
    """Write a picture of the mean NDCG by group with 95 % intervals; returns its path, .svg or .png.

    Raises:
        ConfigError: Another ending, no report, or different k.
        MissingExtraError: matplotlib is not installed.
    """
    path = Path(path).expanduser()
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise ConfigError(f"picture {path} ends in {path.suffix or 'nothing'!r}: use .svg or .png")
    view = View.of(reports)
    frames = {name: report.by_group for name, report in view.reports.items()}
    dots = dots_of(view, frames, limits_of(list(frames.values()), view.metric))
    return write_bytes(path, picture(dots, kind, f"{view.shown} by mainstream group, most niche users first"))
