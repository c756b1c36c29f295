"""The sections of a page that show means by group: main table, charts, other groupings."""

from __future__ import annotations

import math

from greysheep.evaluation.numbers import DASH, decimal, seconds
from greysheep.mainstream.groups import OVERALL
from greysheep.report.charts import differences_chart, means_charts
from greysheep.report.html import (
    Cell,
    Content,
    Details,
    Figures,
    Legend,
    Marks,
    Part,
    Section,
    Table,
    Text,
    group_head,
)
from greysheep.report.sentences import sentence
from greysheep.report.view import ACTIVITY, MAINSTREAM, View, finite


def groups_section(view: View) -> Section:
    """The table by mainstream group, then the charts; for reports also the quintiles of activity."""
    active: list[Part] = []
    if view.comparison is not None:
        marks = Marks(view.against, len(view.tests)) if view.others else None
        several, difference = len(view.seeds) > 1, differences_chart(view)
        values = {
            "shown": view.shown,
            "reference": view.against,
            "even": view.even,
            "several": several,
            "main": view.main,
        }
        lead = sentence("means_of_seeds", **values)
        if view.of_lists:
            lead = sentence("means_of_lists", shown=view.shown, main=view.main)
        drawn = [*means_charts(view, [view.main]), *([difference] if difference else [])]
    else:
        marks = None
        lead = sentence("means_of_report", shown=view.shown, main=view.main)
        drawn = means_charts(view, [view.main, ACTIVITY])
        if view.groups(ACTIVITY):
            table = _means_table(view, ACTIVITY, f"{view.shown} by quintile of activity")
            confounded = [Text(_confounded(view))] if view.main == MAINSTREAM else []
            active = [*confounded, Details("The table by quintile of activity", [table])]
        if view.groups(MAINSTREAM) and view.main != MAINSTREAM:
            table = _means_table(view, MAINSTREAM, f"{view.shown} by mainstream group")
            active.append(Details("The table by mainstream group", [table]))
    small = [Text(" ".join(view.notes))] if view.notes else []
    names = Legend([view.name(label) for label in view.labels])
    return Section(
        "How well each group is served",
        [Text(lead), marks, _table(view), *small, names, Figures(drawn), *active],
    )


def _confounded(view: View) -> str:
    """Why the plots by taste and by activity stand side by side."""
    niche, *_, mainstream = view.groups(MAINSTREAM)
    rows = [view.size(MAINSTREAM, group, "mean_train_rows") for group in (niche, mainstream)]
    known = rows if all(map(math.isfinite, rows)) else None
    return sentence("confounded", niche=niche, mainstream=mainstream, rows=known)


def other_groupings(view: View) -> Section | None:
    """One folded table for each other way to cut users into groups."""
    tables = [
        Details(f"By {grouping}", [Text(sentence("grouping", name=grouping)), _means_table(view, grouping)])
        for grouping in dict.fromkeys(grouping for _, grouping, _ in view.means)
        if grouping != view.main and view.groups(grouping)
    ]
    if not tables:
        return None
    return Section("The same users, grouped otherwise", [Text(sentence("other_groupings")), *tables])


def _table(view: View) -> Table:
    """Models down; groups, mean, gap and what training cost across; for reports also the ratio."""
    groups = view.groups(view.main)
    reports = view.comparison is None
    columns = (*groups, OVERALL)
    head: list[Content] = [view.noun, *(_head(view, view.main, group) for group in columns)]
    memory_head = Cell("memory", notes=[("MiB", "")])
    head += (
        ["gap", "ratio"]
        if view.of_lists
        else ["gap", "ratio", "seconds"]
        if reports
        else ["gap", "seconds", memory_head]
    )
    rows: list[list[Content]] = []
    for label in view.labels:
        means = finite(view.mean(label, group) for group in groups)
        low, high = (min(means), max(means)) if means else (math.nan, math.nan)
        memory = view.memory(label)
        sums = [decimal(high - low)]
        sums += [decimal(low / high if high > 0 else math.nan, 2)] if reports or view.of_lists else []
        sums += [] if view.of_lists else [seconds(view.seconds(label))]
        sums += [] if reports or view.of_lists else [f"{memory:,.0f}" if math.isfinite(memory) else DASH]
        cells = [_cell(view, label, view.main, group) for group in columns]
        rows.append([view.named(label), *cells, *sums])
    return Table(f"{view.shown} by {view.of_groups}", head, rows)


def _means_table(view: View, grouping: str, caption: str = "") -> Table:
    """Models down, groups of one grouping across."""
    groups = view.groups(grouping)
    rows = [
        [view.named(label), *(_cell(view, label, grouping, group) for group in groups)]
        for label in view.labels
        if view.has(label, grouping)
    ]
    head: list[Content] = [view.noun, *(_head(view, grouping, group) for group in groups)]
    return Table(caption or f"{view.shown} by {grouping}", head, rows)


def _cell(view: View, label: str, grouping: str, group: str) -> Cell:
    """A mean, bold where it is the best, its mark, and below it how sure it is.

    Of a comparison: the standard deviation over the seeds. Of a report: the interval over the users.
    """
    mean, low, high = view.triple(label, grouping, group)
    spread = view.deviation(label, group, grouping)
    marked = grouping == view.main and view.comparison is not None and view.others
    sure = f"± {spread:.4f}" if math.isfinite(spread) else ""
    if (view.comparison is None or view.of_lists) and math.isfinite(low):
        sure = f"{low:.3f}{DASH}{high:.3f}"
    return Cell(
        decimal(mean),
        best=view.score(label, group, grouping) == view.best(group, grouping),
        mark=view.significance(label, group) if marked else None,
        notes=[(sure, "")] if sure else [],
    )


def _head(view: View, grouping: str, group: str) -> Part:
    """A group's name, and as small lines how many users it has and how many rows they have."""
    train = "train" if math.isfinite(view.size(grouping, group, "mean_test_rows")) else "rows"
    facts = (("n_users", "users", 0), ("mean_train_rows", train, 0), ("mean_test_rows", "test", 1))
    known = [(view.size(grouping, group, what), unit, places) for what, unit, places in facts]
    notes = [f"{size:,.{places}f} {unit}" for size, unit, places in known if math.isfinite(size)]
    return group_head("mean" if group == OVERALL else group, notes)
