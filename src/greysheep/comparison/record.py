"""What `compare` found: runs, failures, and the tables made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from greysheep.comparison.tables import groupings_of, paired_tests, summarise
from greysheep.comparison.verdicts import FOCUS, verdict, worst_group
from greysheep.evaluation.report import LISTS, Report


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result."""

    label: str
    seed: int
    message: str
    """One line."""


@dataclass(frozen=True, eq=False)
class Record:
    """What `compare` found, without its texts and files; the tables are made when they are first read."""

    runs: list[Report]
    """Finished runs, models x seeds, with values per user and history; `label`: the model's name or text."""
    failures: list[Failure]
    seeds: list[int]
    """Each drives both the split and the training."""
    protocol: str
    k: int
    reference: str
    """Label of the model that the others are compared with."""
    margin: float
    """Relative loss that still counts as no harm."""
    facts: dict[str, str]
    """How it was made: log, filter, cores, versions, command."""
    labels: list[str] = field(default_factory=list)
    """Every model asked for; those of `runs` and `failures` if not given."""

    def __post_init__(self) -> None:
        if not self.labels:
            named = [run.label for run in self.runs] + [failure.label for failure in self.failures]
            self.labels.extend(dict.fromkeys(named))

    @property
    def metric(self) -> str:
        """The metric of every table."""
        return f"ndcg@{self.k}"

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Label and seed of runs that were not started."""
        known = {(run.label, run.seed) for run in self.runs}
        known |= {(failure.label, failure.seed) for failure in self.failures}
        pairs = ((label, seed) for label in self.labels for seed in self.seeds)
        return [pair for pair in pairs if pair not in known]

    @cached_property
    def summary(self) -> pl.DataFrame:
        """Means by group: one row per label, grouping and group.

        Groupings: own (where groups were given), mainstream, activity, density, distribution (the last two
        where every run has them); groups: overall, then the names, niche or fewest first. Columns: label,
        grouping, group, n_users (different users over all seeds), mean_train_rows, mean_test_rows, mean (over
        seeds, of the groups' means), sd (over seeds; null with one), ci_low, ci_high (95 % percentile
        bootstrap over users, each drawn with all her seeds; for overall from all users, whereas a report of
        one run draws within its groups).
        """
        return summarise(self.runs, self.metric)

    @cached_property
    def tests(self) -> pl.DataFrame:
        """Every other model against the reference: one row per label and group (overall, and one's own or
        the five of mainstream), over the seeds that both have finished.

        A user's value is her mean over the seeds in which she is in the group, and mean, reference_mean,
        difference and ratio are about these values (so `mean` may differ from the summary's a little).
        Columns: label, reference, group, n_users, mean, reference_mean, difference, difference_sd (of the
        seeds' differences; null with one), ratio (difference / reference_mean), p_value (paired sign-flip
        test, two-sided), p_holm (Holm over all rows), ratio_low, ratio_high (one-sided 95 % bounds), verdict
        (no harm, harm, undecided), resolvable_margin. P values over users compare these trained models;
        difference_sd says how much another split and another start change.
        """
        return paired_tests(self.runs, self.metric, self.reference, self.margin)

    @property
    def of_lists(self) -> bool:
        """Whether lists of other recommenders were measured: nothing was trained, and there is one split."""
        return bool(self.runs) and all(run.model == LISTS for run in self.runs)

    @property
    def grouping(self) -> str:
        """What the tested groups are: `mainstream`, or `own`."""
        return next(iter(groupings_of(self.runs)))

    @property
    def groups(self) -> list[str]:
        """The tested groups, of the mainstream ones niche first."""
        return list(groupings_of(self.runs)[self.grouping][1])

    @cached_property
    def focus(self) -> str:
        """The group that sentences are about first: `low`; of one's own the worst under the reference."""
        if self.grouping == "mainstream":
            return FOCUS
        mine = self.summary.filter(pl.col("label") == self.reference, pl.col("grouping") == "own")
        rows = mine.rename({"mean": "reference_mean"}).to_dicts()
        return worst_group(rows) if rows else self.groups[0]

    @property
    def notes(self) -> list[str]:
        """Of groups of one's own: what those of a few users can show, a sentence each."""
        first = next((run for run in self.runs if run.label == self.reference), None)
        return first.notes if first is not None else []

    @cached_property
    def verdicts(self) -> dict[str, str]:
        """A sentence for each label but the reference: what happens to `focus`, and which groups lose."""
        rows = self.tests.partition_by("label", as_dict=True) if self.tests.height else {}
        measured = {run.label for run in self.runs}
        sentences = {}
        for label in self.labels:
            if label == self.reference:
                continue
            if (label,) in rows:
                sentences[label] = verdict(rows[label,].to_dicts(), self.margin, self.focus)
            elif label in measured:
                sentences[label] = f"no verdict: {self.reference} has no finished run on the same split"
            else:
                sentences[label] = "no verdict: no run of it is finished"
        return sentences
