"""The sections of a comparison's page that show means by group: main table, charts, other groupings."""

from __future__ import annotations

import math
from html import escape

from greysheep.evaluation.numbers import DASH, decimal, seconds
from greysheep.report import html as page
from greysheep.report.charts import differences_chart, means_chart
from greysheep.report.view import MAINSTREAM, OVERALL, Compared, finite

OTHERS = {
    "activity": "Quintiles of the number of train rows, fewest first. The mainstream score grows with it: a "
    "gap that shows here as well may be due to activity rather than taste.",
    "density": "Quintiles of the density of a user's neighbourhood (local outlier factor), most isolated "
    "users first.",
    "distribution": "Quintiles of the similarity of a user's rows with the mean profile, least "
    "similar first.",
}


def groups_section(compared: Compared) -> str:
    """The table by mainstream group, then the charts of means and of differences."""
    lead = (
        f"Mean {compared.shown} of each fifth of the users, most niche taste first: mean over the seeds, "
        "below it the standard deviation over the seeds (±). Bold: best of its column. Gap: best group minus "
        "worst. Seconds of training: mean over the seeds. Memory: the highest peak of a run."
    )
    if not compared.even:
        lead += (
            " Some runs are missing, and means over different splits cannot be ranked: bold is then the best "
            f"difference to {compared.against} over the seeds that both have."
        )
    if len(compared.comparison.seeds) > 1:
        lead += " Users: all who are in the group under at least one seed; rows: mean of a user."
    drawn = [means_chart(compared), differences_chart(compared)]
    return page.section(
        "How well each group is served",
        page.paragraph(lead),
        _signs(compared) if compared.others else "",
        _table(compared),
        page.legend({compared.short[label]: style for label, style in compared.styles.items()}),
        page.figures([chart for chart in drawn if chart]),
    )


def other_groupings(compared: Compared) -> str:
    """One folded table for each other way to cut users into groups."""
    found = dict.fromkeys(grouping for _, grouping, _ in compared.means)
    tables = [
        page.details(
            f"By {grouping}",
            page.paragraph(OTHERS.get(grouping, ""))
            + _means_table(compared, grouping, f"{compared.shown} by {grouping}"),
        )
        for grouping in found
        if grouping != MAINSTREAM and compared.groups(grouping)
    ]
    if not tables:
        return ""
    lead = "The same lists with users grouped in other ways; these differences are not tested."
    return page.section("The same users, grouped otherwise", page.paragraph(lead), *tables)


def sign(compared: Compared, label: str, group: str) -> str:
    """HTML of the mark of a significant difference; empty where none is shown."""
    what = compared.significance(label, group)
    if not what:
        return ""
    name, mark, word = ("up", "▲", "better") if what > 0 else ("down", "▼", "worse")
    return f'<span class="{name}">{mark}<span class="unseen"> significantly {word}</span></span>'


def _signs(compared: Compared) -> str:
    """What the marks of significance mean."""
    against = escape(compared.against)
    return (
        '<p class="quiet"><span class="up">▲</span> better, <span class="down">▼</span> worse than '
        f"{against}: p below .05 in a paired test over the users, after Holm over all "
        f"{len(compared.tests)} tests. No mark: no difference was shown.</p>"
    )


def _table(compared: Compared) -> str:
    """Models down; groups, mean, gap, seconds and memory across."""
    groups = compared.groups(MAINSTREAM)
    columns = [*groups, OVERALL]
    best = {group: compared.best(group) for group in columns}
    head = ["model", *(escape(group) + _size(compared, MAINSTREAM, group) for group in groups)]
    head += ["mean" + _size(compared, MAINSTREAM, OVERALL), "gap", "seconds", "memory<small>MiB</small>"]
    body = []
    for label in compared.labels:
        cells = [
            _cell(compared, label, MAINSTREAM, group, best[group], sign(compared, label, group))
            for group in columns
        ]
        means = finite(compared.mean(label, group) for group in groups)
        memory = compared.memory(label)
        cells += [
            decimal(max(means) - min(means) if means else math.nan),
            escape(seconds(compared.seconds(label))),
            f"{memory:,.0f}" if math.isfinite(memory) else DASH,
        ]
        body.append([compared.named(label), *cells])
    return page.table(f"{compared.shown} by mainstream group", head, body)


def _means_table(compared: Compared, grouping: str, caption: str) -> str:
    """Models down, groups of one grouping across."""
    groups = compared.groups(grouping)
    head = ["model", *(escape(group) + _size(compared, grouping, group) for group in groups)]
    body = [
        [
            compared.named(label),
            *(_cell(compared, label, grouping, group, compared.best(group, grouping)) for group in groups),
        ]
        for label in compared.labels
    ]
    return page.table(caption, head, body)


def _cell(compared: Compared, label: str, grouping: str, group: str, best: float, mark: str = "") -> str:
    """A mean, bold where it is the best, its mark, and its standard deviation over the seeds."""
    mean, spread = compared.mean(label, group, grouping), compared.deviation(label, group, grouping)
    text = decimal(mean)
    if compared.score(label, group, grouping) == best:
        text = f'<span class="best">{text}</span>'
    # The mark's place is kept, so that figures stand below each other.
    text = f'{text}<span class="mark">{mark}</span>' if grouping == MAINSTREAM and compared.others else text
    return text + (f"<small>± {spread:.4f}</small>" if math.isfinite(spread) else "")


def _size(compared: Compared, grouping: str, group: str) -> str:
    """How many users a group has and how many rows they have, as small lines below its name."""
    facts = (("n_users", "users", 0), ("mean_train_rows", "train", 0), ("mean_test_rows", "test", 1))
    known = [(compared.size(grouping, group, what), unit, places) for what, unit, places in facts]
    return "".join(
        f"<small>{size:,.{places}f} {unit}</small>" for size, unit, places in known if math.isfinite(size)
    )
