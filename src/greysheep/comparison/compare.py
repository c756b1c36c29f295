"""Compare models on the same splits of one log, over seeds, user group by user group."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from greysheep.comparison import text
from greysheep.comparison.facts import facts
from greysheep.comparison.progress import Board
from greysheep.comparison.request import check, check_seeds, check_texts, joined, named, split_texts
from greysheep.comparison.run_folder import Run, check_place, claim, locked
from greysheep.comparison.tables import paired_tests, summarise
from greysheep.comparison.verdicts import verdict
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import TEST, split
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.evaluation.report import Report, _plain
from greysheep.report import pages
from greysheep.system.files import write_html
from greysheep.system.jobs import Splits, carry_out

__all__ = ["Comparison", "Failure", "compare"]

RESULTS = "results.json"


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result."""

    label: str
    seed: int
    message: str
    """One line."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found; the tables are made once, when they are first read."""

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
        """Means by group: a row a label, grouping and group.

        Groupings: mainstream, activity, density, distribution (the first the default, the last two where
        every run has them); groups: overall, then the five names, niche or fewest rows first. Columns: label,
        grouping, group, n_users (different users over all seeds), mean_train_rows, mean_test_rows, mean (over
        seeds, of the groups' means), sd (over seeds; null with one), ci_low, ci_high (95 % percentile
        bootstrap over users, each drawn with all her seeds; for overall from all users, whereas a report of
        one run draws within its groups).
        """
        return summarise(self.runs, self.metric)

    @cached_property
    def tests(self) -> pl.DataFrame:
        """Every other model against the reference: a row a label and group, overall and the five of
        mainstream, over the seeds that both have finished.

        A user's value is her mean over the seeds in which she is in the group, and mean, reference_mean,
        difference and ratio are about these values (so `mean` may differ from the summary's a little).
        Columns: label, reference, group, n_users, mean, reference_mean, difference, difference_sd (of the
        seeds' differences; null with one), ratio (difference / reference_mean), p_value (paired sign-flip
        test, two-sided), p_holm (Holm over all rows), ratio_low, ratio_high (one-sided 95 % bounds), verdict
        (no harm, harm, undecided), resolvable_margin. P values over users compare these trained models;
        difference_sd says how much another split and another start change.
        """
        return paired_tests(self.runs, self.metric, self.reference, self.margin)

    @cached_property
    def verdicts(self) -> dict[str, str]:
        """A sentence for each label but the reference: what happens to `low`, and at whose price."""
        rows = self.tests.partition_by("label", as_dict=True) if self.tests.height else {}
        measured = {run.label for run in self.runs}
        found = {}
        for label in self.labels:
            if label == self.reference:
                continue
            if (label,) in rows:
                found[label] = verdict(rows[label,].to_dicts(), self.margin)
            elif label in measured:
                found[label] = f"no verdict: {self.reference} has no finished run on the same split"
            else:
                found[label] = "no verdict: no run of it is finished"
        return found

    def __str__(self) -> str:
        return text.text(self)

    def to_dict(self) -> dict[str, Any]:
        """All but values per user and histories as plain types: unrounded, None where there is no value."""
        return dict(
            _plain(
                {
                    "protocol": self.protocol,
                    "k": self.k,
                    "seeds": self.seeds,
                    "labels": self.labels,
                    "reference": self.reference,
                    "margin": self.margin,
                    "runs": [run.to_dict() for run in self.runs],
                    "tests": self.tests.to_dicts(),
                    "summary": self.summary.to_dicts(),
                    "verdicts": self.verdicts,
                    "failures": [vars(failure) for failure in self.failures],
                    "missing": self.missing,
                    "facts": self.facts,
                }
            )
        )

    def write(self, out: str | Path) -> list[Path]:
        """Write results.json, results.csv, results.md and, where matplotlib is installed, report.html."""
        folder = Path(out).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        texts: dict[str, Callable[[], str]] = {
            RESULTS: lambda: json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n",
            "results.csv": lambda: text.flat(self).write_csv(quote_style="non_numeric"),
            "results.md": lambda: text.markdown(self),
        }
        if self.runs and find_spec("matplotlib") is not None:
            texts["report.html"] = lambda: pages.comparison_html(self)
        return [write_html(folder / name, make()) for name, make in texts.items()]

    @classmethod
    def read(cls, out: str | Path) -> Comparison:
        """Read what `compare` wrote to a folder.

        Raises:
            DataError: there is no results.json, or a run that it names is not there.
        """
        folder = Path(out).expanduser()
        try:
            found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
            runs = [Run(one["label"], one["seed"], folder) for one in found["runs"]]
            failures = [Failure(**one) for one in found["failures"]]
            rest = {key: found[key] for key in
                    ("seeds", "protocol", "k", "reference", "margin", "facts", "labels")}  # fmt: skip
        except OSError as error:
            raise DataError(f"{folder} holds no comparison: {RESULTS}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / RESULTS} is not what compare writes: {error}") from None
        return cls([_read(run) for run in runs], failures, **rest)


def _read(run: Run) -> Report:
    report = run.read()
    if report is None:
        raise DataError(f"the run {run.label}, seed {run.seed}, of {run.out} is gone: compare anew")
    return report


def compare(
    log: Interactions,
    models: Sequence[str] | Mapping[str, str],
    *,
    protocol: str = "strict",
    seeds: int | Sequence[int] = 3,
    k: int = 20,
    out: str | Path,
    reference: str | None = None,
    margin: float = 0.02,
    max_minutes: float | None = None,
    jobs: int = 1,
    progress: bool = True,
    command: str | None = None,
) -> Comparison:
    """Train and measure models on the same splits, each run in a fresh process, and compare them.

    A finished run is a file in `out`: a comparison that was interrupted, or is asked for more models or
    seeds, goes on where it stopped. A run that fails does so alone.

    Args:
        log: the log.
        models: registry names or variants such as `tall[gate=uniform]`; the text is the label. Or names of
            your own: `{"flat gate": "tall[gate=uniform]"}`, or texts such as `flat gate=tall[gate=uniform]`.
        protocol: strict, paper or temporal (docs/method.md, "Protocols").
        seeds: how many (3 = 0, 1, 2), or a list. Seed s drives both the split and the training, and groups
            are cut anew for each split.
        k: length of the lists that NDCG and the other metrics are about.
        out: folder for the runs and the results. It holds personal data: ids.
        reference: label of the model to compare with; the first one if not given.
        margin: relative loss that still counts as no harm.
        max_minutes: start no run later than this; those under way are finished. None: no limit.
        jobs: runs at a time, each with its share of the cores.
        progress: show on stderr which runs are done: live on a terminal, else as plain lines.
        command: what to write down as the command that made it.

    Returns:
        The comparison; its tables stand in `out` as results.json, results.csv, results.md and report.html.

    Raises:
        ConfigError: an unknown model or setting, equal labels, a number out of range, or an `out` that was
            made for another log, protocol, k or version.
        DataError: the protocol needs times and the log has none.
    """
    begun = time.monotonic()
    if not isinstance(log, Interactions):
        raise DataError(f"compare takes what Interactions.read gives, not {type(log).__name__}")
    if isinstance(models, Mapping):
        models = joined(models)
    texts = split_texts(models) if isinstance(models, str) else list(models)
    if strange := [one for one in texts if not isinstance(one, str)]:
        raise ConfigError(f"models are texts such as 'ease' or 'tall[gate=uniform]', not {strange[0]!r}")
    numbers = check_seeds(seeds)
    reference = check(
        texts, protocol=protocol, k=k, reference=reference, margin=margin, max_minutes=max_minutes, jobs=jobs
    )
    configs = check_texts(texts)
    folder = Path(out).expanduser()
    check_place(folder)
    if not (split(log, protocol, numbers[0]).part == TEST).any():
        raise DataError(f"protocol {protocol!r} leaves no test rows in this log: nothing can be compared")
    claim(folder, {"fingerprint": log.fingerprint(), "protocol": protocol, "k": k})
    model_of = dict(map(named, texts))
    runs = {(label, seed): Run(label, seed, folder, model_of[label]) for label in configs for seed in numbers}
    deadline = begun + 60 * max_minutes if max_minutes is not None else float("inf")
    with locked(folder), Board(list(configs), numbers, f"ndcg@{k}", progress) as board:
        found = {key: old for key, run in runs.items() if (old := run.read(configs[run.label])) is not None}
        for old in found.values():
            board.found(old)
        # Seed by seed, so that the models can be compared wherever the time is over.
        waiting = [
            run
            for run in sorted(runs.values(), key=lambda run: numbers.index(run.seed))
            if (run.label, run.seed) not in found
        ]
        new, failed = carry_out(
            waiting, Splits(log, protocol, folder), board, k=k, jobs=jobs, deadline=deadline
        )
        found |= new
        comparison = Comparison(
            runs=[found[key] for key in runs if key in found],
            failures=[Failure(*key, failed[key]) for key in runs if key in failed],
            seeds=numbers,
            protocol=protocol,
            k=k,
            reference=reference,
            margin=margin,
            facts={},
            labels=list(configs),
        )
        board.busy("making the tables")
        groupings = set(comparison.summary["grouping"])
        comparison.facts.update(facts(log, groupings, jobs, command or _call(texts, protocol, seeds, k)))
        if own := [f"{label} = {text}" for label, text in model_of.items() if label != text]:
            comparison.facts["Names"] = "; ".join(own)
        comparison.write(folder)
    _tell([runs[key] for key in new])
    return comparison


def _tell(runs: Sequence[Run]) -> None:
    """Repeat, once for each model, what its processes warned about."""
    for told in dict.fromkeys(f"{run.label}: {message}" for run in runs for message in run.warnings()):
        warnings.warn(told, GreysheepWarning, stacklevel=3)


def _call(labels: Sequence[str], protocol: str, seeds: int | Sequence[int], k: int) -> str:
    return f"greysheep.compare(log, {labels!r}, protocol={protocol!r}, seeds={seeds!r}, k={k})"
