"""A comparison as the sections of its page read it: runs by label, means, tests, names, styles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from greysheep.data.columns import GROUP
from greysheep.evaluation.numbers import number
from greysheep.evaluation.report import N_USERS
from greysheep.report.palette import Style, key, styles
from greysheep.report.single_view import Triple

if TYPE_CHECKING:
    from greysheep.comparison.result import Comparison
    from greysheep.evaluation.report import Report

OVERALL, MAINSTREAM, NICHE = "overall", "mainstream", "low"
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Compared:
    """The parts of a comparison under the keys that tables and charts ask for."""

    comparison: Comparison
    runs: Mapping[str, list[Report]]
    """Finished runs of each label, labels in the order of the comparison."""
    short: Mapping[str, str]
    """What prose and charts call a label; tables have it in full."""
    styles: Mapping[str, Style]
    means: Mapping[tuple[str, str, str], Mapping[str, Any]]
    """Rows of the summary by (label, grouping, group)."""
    tests: Mapping[tuple[str, str], Mapping[str, Any]]
    """Rows of the tests by (label, group)."""

    @classmethod
    def of(cls, comparison: Comparison) -> Compared:
        """Sort a comparison's parts."""
        runs: dict[str, list[Report]] = {}
        for run in comparison.runs:
            runs.setdefault(run.label, []).append(run)
        means = {(row["label"], row["grouping"], row[GROUP]): row for row in _rows(comparison.summary)}
        tests = {(row["label"], row[GROUP]): row for row in _rows(comparison.tests)}
        drawn = styles([(label, reports[0].model) for label, reports in runs.items()])
        return cls(comparison, runs, short_names(comparison.labels), drawn, means, tests)

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
    def reference(self) -> str:
        """What the others are compared with."""
        return str(self.comparison.reference)

    @property
    def against(self) -> str:
        """The short name of the reference."""
        return self.short.get(self.reference, self.reference)

    @property
    def even(self) -> bool:
        """Whether all labels have runs of the same seeds, so that their means can be ranked."""
        return len({frozenset(run.seed for run in runs) for runs in self.runs.values()}) == 1

    @property
    def shown(self) -> str:
        """The metric as a reader knows it."""
        return f"NDCG@{self.comparison.k}"

    def groups(self, grouping: str) -> list[str]:
        """Names of the groups of a grouping, niche or fewest first, without `overall`."""
        names = dict.fromkeys(group for _, other, group in self.means if other == grouping)
        return [name for name in names if name != OVERALL]

    def triple(self, label: str, grouping: str, group: str) -> Triple:
        """(mean, low, high); NaN where there is none."""
        row = self.means.get((label, grouping, group), {})
        return number(row.get("mean")), number(row.get("ci_low")), number(row.get("ci_high"))

    def mean(self, label: str, group: str, grouping: str = MAINSTREAM) -> float:
        """Mean over the seeds of a group's means; NaN where there is none."""
        return self.triple(label, grouping, group)[0]

    def deviation(self, label: str, group: str, grouping: str = MAINSTREAM) -> float:
        """Standard deviation over the seeds of a group's means; NaN with one seed."""
        return number(self.means.get((label, grouping, group), {}).get("sd"))

    def score(self, label: str, group: str, grouping: str = MAINSTREAM) -> float:
        """What labels are ranked by: the mean; NaN where that is unknown or cannot be ranked.

        The means of different splits cannot be ranked, so where a run is missing it is the difference to the
        reference over the seeds that both have, as a share.
        """
        if self.even:
            return self.mean(label, group, grouping)
        if grouping != MAINSTREAM:
            return math.nan
        if label == self.reference:
            return 0.0 * self.mean(label, group)
        return number(self.tests.get((label, group), {}).get("ratio"))

    def best(self, group: str, grouping: str = MAINSTREAM) -> float:
        """Highest score of a column; NaN where fewer than two labels have one."""
        known = finite(self.score(label, group, grouping) for label in self.labels)
        return max(known) if len(known) > 1 else math.nan

    def size(self, grouping: str, group: str, what: str = N_USERS) -> float:
        """A fact of a group (n_users, mean_train_rows, mean_test_rows) under the label with most runs."""
        most = max(self.labels, key=lambda label: len(self.runs[label]), default="")
        return number(self.means.get((most, grouping, group), {}).get(what))

    def seconds(self, label: str) -> float:
        """Mean seconds of training of a label; NaN where none is known."""
        return average(s for run in self.runs[label] if (s := number(run.train_seconds)) > 0)

    def memory(self, label: str) -> float:
        """Highest peak memory of a label's runs in MiB; NaN where none is known."""
        known = [size for run in self.runs[label] if (size := number(run.peak_memory_bytes)) > 0]
        return max(known) / 2**20 if known else math.nan

    def significance(self, label: str, group: str) -> int:
        """1 = better than the reference after Holm, -1 = worse, 0 = not shown."""
        row = self.tests.get((label, group), {})
        difference = number(row.get("difference"))
        if not number(row.get("p_holm")) < SIGNIFICANT or not math.isfinite(difference):
            return 0
        return 1 if difference > 0 else -1

    def ranked(self, group: str = NICHE) -> list[str]:
        """Labels with a score in a group, the best first."""
        known = [label for label in self.labels if math.isfinite(self.score(label, group))]
        return sorted(known, key=lambda label: -self.score(label, group))

    def named(self, label: str) -> str:
        """HTML of a label behind its marker: the model's name, then its settings, free to wrap."""
        name, settings = parts_of(label)
        inner = (key(self.styles[label]) if label in self.styles else "") + escape(name)
        inner += f"<small>{', '.join(map(escape, settings))}</small>" if settings else ""
        note = "<small>reference</small>" if label == self.reference and len(self.runs) > 1 else ""
        done, asked = len(self.runs.get(label, ())), len(self.comparison.seeds)
        note += f"<small>{done} of {asked} seeds</small>" if 0 < done < asked else ""
        return f'<span class="label">{inner}{note}</span>'


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

    >>> made = short_names(["multvae[latent=50]", "tall[epochs=9]", "tall[epochs=9,gate=uniform]"])
    >>> list(made.values())
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


def _rows(frame: Any) -> list[dict[str, Any]]:
    return list(frame.to_dicts()) if frame is not None and frame.width else []
