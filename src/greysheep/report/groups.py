"""The sections of a page that show means by group: main table, charts, other groupings."""

from __future__ import annotations

import math

from greysheep.evaluation.numbers import DASH, decimal, seconds
from greysheep.mainstream.groups import OVERALL
from greysheep.report.charts import differences_chart, means_charts
from greysheep.report.html import Cell, Content, Details, Figures, Legend, Marks, Part, Section, Table, Text
from greysheep.report.view import ACTIVITY, MAINSTREAM, View, finite

OTHERS = {
    ACTIVITY: "Quintiles of the number of train rows, fewest first. The mainstream score grows with it: a "
    "gap that shows here as well may be due to activity rather than taste.",
    "density": "Quintiles of the density of a user's neighbourhood (local outlier factor), most isolated "
    "users first.",
    "distribution": "Quintiles of the similarity of a user's rows with the mean profile, least "
    "similar first.",
}


def groups_section(view: View) -> Section:
    """The table by mainstream group, then the charts; for reports also the quintiles of activity."""
    active: list[Part] = []
    if view.comparison is not None:
        marks = Marks(view.against, len(view.tests)) if view.others else None
        lead, difference = _lead_of_seeds(view), differences_chart(view)
        drawn = [*means_charts(view, [MAINSTREAM]), *([difference] if difference else [])]
    else:
        marks = None
        lead = (
            f"Mean {view.shown} of each fifth of the users, most niche taste first, above its 95 % interval. "
            "Gap: best group minus worst. Ratio: worst divided by best. Bold: best of its column."
        )
        drawn = means_charts(view, [MAINSTREAM, ACTIVITY])
        if view.groups(ACTIVITY):
            table = _means_table(view, ACTIVITY, f"{view.shown} by quintile of activity")
            active = [Text(_confounded(view)), Details("The table by quintile of activity", [table])]
    names = Legend([view.name(label) for label in view.labels])
    return Section(
        "How well each group is served", [Text(lead), marks, _table(view), names, Figures(drawn), *active]
    )


def _lead_of_seeds(view: View) -> str:
    """How to read the main table of a comparison."""
    lead = (
        f"Mean {view.shown} of each fifth of the users, most niche taste first: mean over the seeds, "
        "below it the standard deviation over the seeds (±). Bold: best of its column. Gap: best group minus "
        "worst. Seconds of training: mean over the seeds. Memory: the highest peak of a run."
    )
    if not view.even:
        lead += (
            " Some runs are missing, and means over different splits cannot be ranked: bold is then the best "
            f"difference to {view.against} over the seeds that both have."
        )
    if len(view.seeds) > 1:
        lead += " Users: all who are in the group under at least one seed; rows: mean of a user."
    return lead


def _confounded(view: View) -> str:
    """Why the plots by taste and by activity stand side by side."""
    niche, *_, mainstream = view.groups(MAINSTREAM)
    rows = [view.size(MAINSTREAM, group, "mean_train_rows") for group in (niche, mainstream)]
    told = "Niche users are often the less active ones"
    if all(map(math.isfinite, rows)):
        told += f" (here {rows[0]:,.0f} rows a user in {niche}, {rows[1]:,.0f} rows in {mainstream})"
    return f"{told}: what both plots show alike may be due to activity rather than taste."


def other_groupings(view: View) -> Section | None:
    """One folded table for each other way to cut users into groups."""
    found = dict.fromkeys(grouping for _, grouping, _ in view.means)
    tables = [
        Details(
            f"By {grouping}",
            [Text(OTHERS.get(grouping, "")), _means_table(view, grouping, f"{view.shown} by {grouping}")],
        )
        for grouping in found
        if grouping != MAINSTREAM and view.groups(grouping)
    ]
    if not tables:
        return None
    lead = "The same lists with users grouped in other ways; these differences are not tested."
    return Section("The same users, grouped otherwise", [Text(lead), *tables])


def _table(view: View) -> Table:
    """Models down; groups, mean, gap and what training cost across; for reports also the ratio."""
    groups = view.groups(MAINSTREAM)
    reports = view.comparison is None
    head: list[Content] = [
        "model",
        *(_head(view, MAINSTREAM, group) for group in groups),
        _head(view, MAINSTREAM, OVERALL),
    ]
    head += (
        ["gap", "ratio", "seconds"] if reports else ["gap", "seconds", Cell("memory", notes=[("MiB", "")])]
    )
    rows: list[list[Content]] = []
    for label in view.labels:
        means = finite(view.mean(label, group) for group in groups)
        low, high = (min(means), max(means)) if means else (math.nan, math.nan)
        memory = view.memory(label)
        sums = [decimal(high - low)]
        sums += [decimal(low / high if high > 0 else math.nan, 2)] if reports else []
        sums += [seconds(view.seconds(label))]
        sums += [] if reports else [f"{memory:,.0f}" if math.isfinite(memory) else DASH]
        cells = [_cell(view, label, MAINSTREAM, group) for group in (*groups, OVERALL)]
        rows.append([view.named(label), *cells, *sums])
    return Table(f"{view.shown} by mainstream group", head, rows)


def _means_table(view: View, grouping: str, caption: str) -> Table:
    """Models down, groups of one grouping across."""
    groups = view.groups(grouping)
    rows = [
        [view.named(label), *(_cell(view, label, grouping, group) for group in groups)]
        for label in view.labels
        if view.has(label, grouping)
    ]
    return Table(caption, ["model", *(_head(view, grouping, group) for group in groups)], rows)


def _cell(view: View, label: str, grouping: str, group: str) -> Cell:
    """A mean, bold where it is the best, its mark, and below it how sure it is.

    Of a comparison: the standard deviation over the seeds. Of a report: the interval over the users.
    """
    mean, low, high = view.triple(label, grouping, group)
    spread = view.deviation(label, group, grouping)
    marked = grouping == MAINSTREAM and view.comparison is not None and view.others
    sure = f"± {spread:.4f}" if math.isfinite(spread) else ""
    if view.comparison is None and math.isfinite(low):
        sure = f"{low:.3f}{DASH}{high:.3f}"
    return Cell(
        decimal(mean),
        best=view.score(label, group, grouping) == view.best(group, grouping),
        mark=view.significance(label, group) if marked else None,
        notes=[(sure, "")] if sure else [],
    )


def _head(view: View, grouping: str, group: str) -> Cell:
    """A group's name, and as small lines how many users it has and how many rows they have."""
    train = "train" if math.isfinite(view.size(grouping, group, "mean_test_rows")) else "rows"
    facts = (("n_users", "users", 0), ("mean_train_rows", train, 0), ("mean_test_rows", "test", 1))
    known = [(view.size(grouping, group, what), unit, places) for what, unit, places in facts]
    notes = [(f"{size:,.{places}f} {unit}", "") for size, unit, places in known if math.isfinite(size)]
    return Cell("mean" if group == OVERALL else group, notes=notes)
