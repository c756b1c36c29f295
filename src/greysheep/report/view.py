"""Reports as the sections of a page read them: runs by label, means, tests, names, styles.

A page shows a comparison, or single reports. These are treated as a comparison with one run per label, whose
means and intervals are the reports' own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from greysheep.comparison.result import Comparison
from greysheep.comparison.verdicts import FOCUS
from greysheep.data.columns import GROUP, USER
from greysheep.errors import ConfigError
from greysheep.evaluation.numbers import number
from greysheep.evaluation.report import N_USERS, TRAIN_ROWS, Report, by_label
from greysheep.mainstream.groups import OVERALL
from greysheep.metrics.statistics import LEVEL, holm
from greysheep.report.html import Name
from greysheep.report.palette import Style, styles

MAINSTREAM, OWN, ACTIVITY, NICHE = "mainstream", "own", "activity", FOCUS
MARGIN = 0.02
"""Relative loss that still counts as no harm between single reports."""

Triple = tuple[float, float, float]
Row = Mapping[str, Any]
Means = dict[tuple[str, str, str], Row]
Drawable = Report | Sequence[Report] | Comparison


@dataclass(frozen=True)
class View:
    """What a page shows, by label, grouping and group, as tables and charts need it."""

    runs: Mapping[str, list[Report]]
    """Finished runs of each label, labels in the order of the comparison."""
    short: Mapping[str, str]
    """What prose and charts call a label; tables have it in full."""
    styles: Mapping[str, Style]
    means: Mapping[tuple[str, str, str], Row]
    """Rows as those of `Comparison.summary` by (label, grouping, group)."""
    reference: str
    """What the others are compared with."""
    seeds: Sequence[int]
    k: int
    margin: float
    main: str
    """The grouping that is tested: `mainstream`, or `own`."""
    comparison: Comparison | None
    """None for single reports, each of which has its own label."""

    @classmethod
    def of(cls, record: Drawable, reference: str | None = None) -> View:
        """The view of one report, of several, or of a comparison.

        reference: label of the report that the others are compared with, the first one if not given; a
        comparison has its own.

        Raises:
            ConfigError: No report, different k, or an unknown reference.
        """
        if not isinstance(record, Comparison):
            return _of_reports([record] if isinstance(record, Report) else record, reference)
        if reference not in (None, record.reference):
            raise ConfigError(f"this comparison's reference is {record.reference!r}, not {reference!r}")
        runs: dict[str, list[Report]] = {}
        for run in record.runs:
            runs.setdefault(run.label, []).append(run)
        means: Means = {
            (row["label"], row["grouping"], row[GROUP]): row for row in record.summary.iter_rows(named=True)
        }
        if record.of_lists:  # one split: the intervals are the reports' own
            for label, (report,) in runs.items():
                means = _joined(means, _own_means(label, report))
        return cls(
            runs, short_names(record.labels), _styles(runs), means, record.reference, record.seeds, record.k,
            record.margin, record.grouping, record,
        )  # fmt: skip

    @cached_property
    def tests(self) -> Mapping[tuple[str, str], Row]:
        """Rows as those of `Comparison.tests` by (label, group)."""
        if self.comparison is None:
            return _paired(self)
        return {(row["label"], row[GROUP]): row for row in self.comparison.tests.iter_rows(named=True)}

    @property
    def labels(self) -> list[str]:
        """Labels with a finished run."""
        return list(self.runs)

    @property
    def others(self) -> list[str]:
        """Labels that were tested against the reference."""
        tested = {label for label, _ in self.tests}
        return [label for label in self.runs if label in tested]

    @property
    def against(self) -> str:
        """The short name of the reference."""
        return self.short.get(self.reference, self.reference)

    @property
    def of_lists(self) -> bool:
        """Whether it is an audit: lists of other recommenders, compared on one split."""
        return self.comparison is not None and self.comparison.of_lists

    @property
    def noun(self) -> str:
        """What stands in the first column of a table."""
        return "lists" if self.of_lists else "model"

    @property
    def focus(self) -> str:
        """The group that sentences are about first."""
        return NICHE if self.comparison is None else self.comparison.focus

    @property
    def of_groups(self) -> str:
        """What the tested groups are called."""
        return "mainstream group" if self.main == MAINSTREAM else "group of one's own"

    @property
    def notes(self) -> list[str]:
        """What small groups can show."""
        return next((runs[0].notes for runs in self.runs.values()), [])

    @property
    def even(self) -> bool:
        """Whether all labels have runs of the same seeds, so that their means can be ranked.

        Assumed of single reports: the caller put them side by side.
        """
        return (
            self.comparison is None
            or len({frozenset(run.seed for run in runs) for runs in self.runs.values()}) == 1
        )

    @property
    def shown(self) -> str:
        """The metric as a reader knows it."""
        return f"NDCG@{self.k}"

    def groups(self, grouping: str) -> list[str]:
        """Names of the groups of a grouping, niche or fewest first, without `overall`."""
        names = dict.fromkeys(group for _, other, group in self.means if other == grouping)
        return [name for name in names if name != OVERALL]

    def triple(self, label: str, grouping: str, group: str) -> Triple:
        """(mean, low, high); NaN where there is none."""
        row = self.means.get((label, grouping, group), {})
        return number(row.get("mean")), number(row.get("ci_low")), number(row.get("ci_high"))

    def mean(self, label: str, group: str, grouping: str = "") -> float:
        """Mean over the seeds of a group's means; NaN where there is none."""
        return self.triple(label, grouping or self.main, group)[0]

    def deviation(self, label: str, group: str, grouping: str = "") -> float:
        """Standard deviation over the seeds of a group's means; NaN with one seed."""
        return number(self.means.get((label, grouping or self.main, group), {}).get("sd"))

    def score(self, label: str, group: str, grouping: str = "") -> float:
        """What labels are ranked by: the mean; NaN where that is unknown or cannot be ranked.

        The means of different splits cannot be ranked, so where a run is missing it is the difference to the
        reference over the seeds that both have, as a share.
        """
        if self.even:
            return self.mean(label, group, grouping)
        if grouping not in ("", self.main):
            return math.nan
        if label == self.reference:
            return 0.0 * self.mean(label, group)
        return number(self.tests.get((label, group), {}).get("ratio"))

    def best(self, group: str, grouping: str = "") -> float:
        """Highest score of a column; NaN where fewer than two labels have one."""
        known = finite(self.score(label, group, grouping) for label in self.labels)
        return max(known) if len(known) > 1 else math.nan

    def has(self, label: str, grouping: str) -> bool:
        """Whether a label's users were put in the groups of a grouping."""
        return any((label, grouping, group) in self.means for group in self.groups(grouping))

    def size(self, grouping: str, group: str, what: str = N_USERS) -> float:
        """A fact of a group (n_users, mean_train_rows, mean_test_rows) under the label with most runs."""
        known = [label for label in self.labels if (label, grouping, group) in self.means]
        most = max(known, key=lambda label: len(self.runs[label]), default="")
        return number(self.means.get((most, grouping, group), {}).get(what))

    def seconds(self, label: str) -> float:
        """Mean seconds of training of a label; NaN where none is known."""
        return average(s for run in self.runs[label] if (s := number(run.train_seconds)) > 0)

    def memory(self, label: str) -> float:
        """Highest peak memory of a label's runs in MiB; NaN where none is known."""
        known = [size for run in self.runs[label] if (size := number(run.peak_memory_bytes)) > 0]
        return max(known) / 2**20 if known else math.nan

    def share(self, label: str, group: str) -> Triple:
        """(ratio, low, high) of the test against the reference; NaN where there is none."""
        row = self.tests.get((label, group), {})
        return number(row.get("ratio")), number(row.get("ratio_low")), number(row.get("ratio_high"))

    def significance(self, label: str, group: str) -> int:
        """1 = better than the reference after Holm, -1 = worse, 0 = not shown."""
        row = self.tests.get((label, group), {})
        difference = number(row.get("difference"))
        if not number(row.get("p_holm")) < LEVEL or not math.isfinite(difference):
            return 0
        return 1 if difference > 0 else -1

    def ranked(self) -> list[str]:
        """Labels with a score in the group that sentences are about, the best first."""
        group = self.focus
        known = [label for label in self.labels if math.isfinite(self.score(label, group))]
        return sorted(known, key=lambda label: -self.score(label, group))

    def named(self, label: str) -> Name:
        """A label in a table: the model's name, its settings, whether it is the reference or lacks runs."""
        name, settings = parts_of(label)
        notes = []
        if self.comparison is not None:
            if label == self.reference and len(self.runs) > 1:
                notes.append("reference")
            if 0 < (done := len(self.runs.get(label, ()))) < len(self.seeds):
                notes.append(f"{done} of {len(self.seeds)} seeds")
        return Name(name, self.styles.get(label), settings, notes)

    def name(self, label: str) -> Name:
        """A label in a legend."""
        return Name(self.short.get(label, label), self.styles.get(label))


def parts_of(label: str) -> tuple[str, list[str]]:
    """A label's name and its settings.

    >>> parts_of("tall[gate=uniform,weighting=none]"), parts_of("my model")
    (('tall', ['gate=uniform', 'weighting=none']), ('my model', []))
    """
    name, bracket, rest = label.partition("[")
    if not bracket or not name or not rest.endswith("]"):
        return label, []
    return name, [text for text in rest[:-1].split(",") if text]


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """A name for each label: its model, with the settings in which the labels of this model differ.

    >>> names = short_names(["multvae[latent=50]", "tall[epochs=9]", "tall[epochs=9,gate=uniform]"])
    >>> list(names.values())
    ['multvae', 'tall', 'tall[gate=uniform]']
    """
    parts = {label: parts_of(label) for label in labels}
    names: dict[str, str] = {}
    for label, (name, settings) in parts.items():
        others = [set(theirs) for other, theirs in parts.values() if other == name]
        shared = set.intersection(*others)
        own = [text for text in settings if text not in shared]
        names[label] = f"{name}[{','.join(own)}]" if own else name
    times = Counter(names.values())
    return {label: name if times[name] == 1 else label for label, name in names.items()}


def finite(values: Iterable[float]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if math.isfinite(value)]


def average(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN of none.

    >>> average([1.0, float("nan"), 3.0])
    2.0
    """
    known = finite(values)
    return sum(known) / len(known) if known else math.nan


def _styles(runs: Mapping[str, Sequence[Report]]) -> dict[str, Style]:
    return styles([(label, reports[0].model) for label, reports in runs.items()])


def _of_reports(reports: Sequence[Report], reference: str | None) -> View:
    """The view of reports: their own means and intervals."""
    named = by_label(reports)
    if reference is not None and reference not in named:
        raise ConfigError(f"reference {reference!r} is none of the reports: {', '.join(named)}")
    means: dict[tuple[str, str, str], Row] = {}
    for label, report in named.items():
        means |= _own_means(label, report)
    runs = {label: [report] for label, report in named.items()}
    seeds = sorted({report.seed for report in reports})
    return View(
        runs, short_names(list(named)), _styles(runs), means, reference or next(iter(named)), seeds,
        reports[0].k, MARGIN, reports[0].grouping, None,
    )  # fmt: skip


def _own_means(label: str, report: Report) -> dict[tuple[str, str, str], Row]:
    """Means and intervals of one report by (label, grouping, group)."""
    means: dict[tuple[str, str, str], Row] = {}
    metric = report.metric
    columns = {"mean": metric, "ci_low": f"{metric}_low", "ci_high": f"{metric}_high"}
    columns |= {name: name for name in (N_USERS, TRAIN_ROWS)}
    overall = report.overall.get(metric)
    all_users = dict(overall) if isinstance(overall, dict) else {}
    means[label, report.grouping, OVERALL] = all_users | {N_USERS: report.overall.get(N_USERS)}
    tables = {report.grouping: report.by_group, ACTIVITY: report.by_activity}
    if report.grouping == OWN:
        tables[MAINSTREAM] = report.by_mainstream
    for grouping, frame in tables.items():
        for row in frame.iter_rows(named=True):
            means[label, grouping, str(row[GROUP])] = {to: row.get(name) for to, name in columns.items()}
    return means


def _joined(one: Means, other: Means) -> Means:
    """The rows of both, the other's values before the one's."""
    return {**one, **{key: {**one.get(key, {}), **row} for key, row in other.items()}}


def _paired(view: View) -> Mapping[tuple[str, str], Row]:
    """Each report against the reference, p values after Holm over all of them.

    A report is compared when it and the reference hold values per user for the same test rows.
    """
    (base,) = view.runs[view.reference]
    rows = ["n_test", USER]
    tests: dict[tuple[str, str], dict[str, Any]] = {}
    for label, (report,) in view.runs.items():
        if label == view.reference or report.per_user.is_empty() or base.per_user.is_empty():
            continue
        if report.per_user.select(rows).equals(base.per_user.select(rows)):
            for row in report.versus(base, margin=view.margin).iter_rows(named=True):
                tests[label, row[GROUP]] = {**row, "reference_mean": row["reference"]}
    adjusted = holm([number(row["p_value"]) for row in tests.values()])
    for row, p_holm in zip(tests.values(), adjusted, strict=True):
        row["p_holm"] = float(p_holm)
    return tests
