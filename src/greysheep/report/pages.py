"""What was measured, as one self-contained HTML page and as a picture. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greysheep.comparison.result import Comparison
from greysheep.errors import ConfigError
from greysheep.evaluation.report import Report
from greysheep.report import headline as words
from greysheep.report.beyond import beyond_section
from greysheep.report.canvas import picture_kind
from greysheep.report.charts import means_dots
from greysheep.report.cost import cost_section
from greysheep.report.dots import picture
from greysheep.report.examples import Example, examples_section, niche_examples
from greysheep.report.groups import groups_section, other_groupings
from greysheep.report.html import document
from greysheep.report.provenance import missing_section, provenance_section
from greysheep.report.training import training_sections
from greysheep.report.verdicts import verdicts_section
from greysheep.report.view import Drawable, View
from greysheep.system.checks import a_path, a_text, shown
from greysheep.system.files import write_bytes

if TYPE_CHECKING:
    from greysheep.tuning.result import Tuning

__all__ = ["Example", "chart_by_group", "headline", "html", "niche_examples", "write_html"]


def write_html(
    record: Drawable | Tuning,
    path: Path | str,
    *,
    title: str | None = None,
    reference: str | None = None,
    examples: Sequence[Example] = (),
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one self-contained HTML page, in one step; needs the extra `report`. Returns its path.

    Args:
        record: What to show: one report of `evaluate` or several, a comparison, or what `tune` found.
        path: The file.
        title: What was measured; stands above the headline.
        reference: Of reports: label of the one that the others are compared with; the first one if not given.
        examples: Users to show with what they chose and what they are recommended, from `niche_examples`.
        facts: More lines for "How it was made", such as the log and its filter.

    Raises:
        ConfigError: No report, different k, an unknown reference, or more than a title for a search.
        MissingExtraError: matplotlib is not installed.
    """
    path = a_path("path", path)
    page = html(record, title=title, reference=reference, examples=examples, facts=facts)
    return write_bytes(path, page.encode("utf-8"))


def html(
    record: Drawable | Tuning,
    *,
    title: str | None = None,
    reference: str | None = None,
    examples: Sequence[Example] = (),
    facts: Mapping[str, str] | None = None,
) -> str:
    """The text of the page that `write_html` writes; a section whose data is absent is left out."""
    _check(record, title, reference, examples, facts)
    if not isinstance(record, (Report, Comparison, Sequence)):
        from greysheep.report.tuning import tuning_page  # what it shows brings torch

        if reference or examples or facts:
            raise ConfigError("the page of a search takes a title, nothing else")
        return tuning_page(record, title)
    view = View.of(record, reference)
    cost, training = cost_section(view), training_sections(view)
    sections = [
        *([groups_section(view), verdicts_section(view)] if view.runs else []),
        *([*training, cost] if view.comparison is None else [cost, *training, other_groupings(view)]),
        beyond_section(view),
        examples_section(view, examples),
        missing_section(view),
        provenance_section(view, facts or {}),
    ]
    return document(title or _title(view), words.headline(view), " ".join(words.lead(view)), sections)


def _check(record: Any, title: Any, reference: Any, examples: Any, facts: Any) -> None:
    """Refuse what no page can show; a search is known by what it has: its class would bring torch."""
    for name, value in (("title", title), ("reference", reference)):
        if value is not None:
            a_text(name, value)
    if not isinstance(examples, Sequence) or not all(isinstance(one, Example) for one in examples):
        raise ConfigError(f"examples={shown(examples)} is not a list of what niche_examples gives")
    if not isinstance(facts, Mapping | None):
        raise ConfigError(f"facts={shown(facts)} is not a dict of texts")
    if hasattr(record, "trials") and hasattr(record, "to_yaml"):
        return
    single = isinstance(record, (Report, Comparison, str)) or not isinstance(record, Sequence)
    for one in [record] if single else record:
        if not isinstance(one, Report) and not (single and isinstance(one, Comparison)):
            wanted = "a report, a list of reports, a comparison or a search"
            raise ConfigError(f"a page shows {wanted}, not a {type(one).__name__}")


def headline(record: Drawable) -> str:
    """The one sentence that a page begins with: who is served worst, or which model serves niche users best.

    Raises:
        ConfigError: There is no report, or they were made for lists of different lengths.
    """
    return words.headline(View.of(record))


def chart_by_group(reports: Sequence[Report], path: Path | str) -> Path:
    """Write a picture of the mean NDCG by group with 95 % intervals; returns its path, .svg or .png.

    Raises:
        ConfigError: Another ending, no report, or different k.
        MissingExtraError: matplotlib is not installed.
    """
    path = a_path("path", path)
    kind = picture_kind(path)
    view = View.of(reports)
    title = f"{view.shown} by mainstream group, most niche users first"
    return write_bytes(path, picture(means_dots(view), kind, title))


def _title(view: View) -> str:
    if view.comparison is None:
        return "greysheep report"
    command = f"greysheep {'audit' if view.of_lists else 'compare'}"
    log = view.comparison.facts.get("Log", "")
    return f"{command}, {log}" if log else command
