"""Compare models on the same splits of one log, over seeds, user group by user group."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greysheep.comparison.facts import facts
from greysheep.comparison.progress import Progress
from greysheep.comparison.record import Failure
from greysheep.comparison.request import CompareRequest, joined
from greysheep.comparison.result import Comparison
from greysheep.comparison.run_folder import Key, Run, check_place, claim, locked
from greysheep.comparison.splits import Splits
from greysheep.data.interactions import Interactions
from greysheep.data.own_groups import read_groups
from greysheep.data.splitting import TEST, split, why_no_test_rows
from greysheep.errors import DataError, GreysheepWarning
from greysheep.evaluation.report import Report
from greysheep.models.registry import sources
from greysheep.system import jobs
from greysheep.system.checks import a_path, list_lengths
from greysheep.system.machine import threads_each

COMMAND = jobs.command("greysheep.comparison.worker")
POLL = 0.05
"""Seconds between two looks at the processes."""


def compare(
    log: Any,
    models: Sequence[str] | Mapping[str, str],
    *,
    protocol: str = "strict",
    seeds: int | Sequence[int] = 3,
    k: int | Sequence[int] = 20,
    out: str | Path,
    reference: str | None = None,
    margin: float = 0.02,
    max_minutes: float | None = None,
    jobs: int = 1,
    groups: Any = None,
    progress: bool = True,
    command: str | None = None,
) -> Comparison:
    """Train and measure models on the same splits, each run in a fresh process, and compare them.

    A finished run is a file in `out`: a comparison that was interrupted, or is asked for more models or
    seeds, goes on where it stopped. A run that fails does so alone.

    Args:
        log: a log, or anything `Interactions.read` takes.
        models: registry names or variants such as `tall[gate=uniform]`; the text is the label. Or names of
            your own: `{"flat gate": "tall[gate=uniform]"}`, or texts such as `flat gate=tall[gate=uniform]`.
        protocol: one with test rows, such as strict or temporal (docs/method.md, "Protocols").
        seeds: how many (3 = 0, 1, 2), or a list. Seed s drives both the split and the training, and groups
            are cut anew for each split.
        k: length of the lists that NDCG and the other metrics are about, or several: the tables are about
            the longest, the runs in results.json have all.
        out: folder for the runs and the results. It holds personal data: ids.
        reference: label of the model to compare with; the first one if not given.
        margin: relative loss that still counts as no harm.
        max_minutes: start no run later than this; those under way are finished. None: no limit.
        jobs: runs at a time, each with its share of the cores.
        groups: a file or frame of user_id and group: groups of your own to stop, measure and test by, in
            place of the five by mainstream taste, which stand beside them then.
        progress: show on stderr which runs are done: live on a terminal, else as plain lines.
        command: what to write down as the command that made it.

    Returns:
        The comparison; its tables stand in `out` as results.json, results.csv and results.md. Its page:
        `greysheep.write_html(comparison, path)`.

    Raises:
        ConfigError: an unknown model or setting, equal labels, a number out of range, or an `out` that was
            made for another log, protocol, k, groups or version.
        DataError: the protocol needs times and the log has none.
    """
    *shorter, longest = list_lengths(k)
    request = CompareRequest(
        models=models, protocol=protocol, seeds=seeds, k=longest, shorter=shorter, reference=reference,
        margin=margin, max_minutes=max_minutes, jobs=jobs,
    )  # fmt: skip
    texts = joined(request.models)
    call = f"greysheep.compare(log, {texts!r}, protocol={protocol!r}, seeds={seeds!r}, k={k!r})"
    return run_request(request, log, out, groups=groups, progress=progress, command=command or call)


def run_request(
    request: CompareRequest, log: Any, out: str | Path, *, groups: Any = None, progress: bool, command: str
) -> Comparison:
    """Make the runs of a request that are not in `out` yet, and the tables of all; see `compare`."""
    deadline = time.monotonic() + 60 * (math.inf if request.max_minutes is None else request.max_minutes)
    folder = a_path("out", out)
    check_place(folder)
    protocol, seeds = request.protocol, request.seeds
    log = Interactions.of(log)
    own = None if groups is None else read_groups(groups, log)
    first = split(log, protocol, seeds[0])
    if not (first.part == TEST).any():
        raise DataError(f"nothing can be compared: {why_no_test_rows(first)}")
    claim(folder, {"fingerprint": log.fingerprint(), "protocol": protocol, "k": _listed(request),
                   "groups": None if own is None else own.fingerprint()[:8]})  # fmt: skip
    # Seed by seed, so that the models can be compared wherever the time is over.
    runs = [Run(label, seed, folder, text) for seed in seeds for label, text in request.models.items()]
    with locked(folder), Progress(list(request.models), seeds, f"ndcg@{request.k}", progress) as display:
        reports = {
            run.key: report for run in runs if (report := run.read(request.configs[run.label])) is not None
        }
        for report in reports.values():
            display.finished_before(report)
        waiting = [run for run in runs if run.key not in reports]
        new, failed = carry_out(waiting, Splits(log, protocol, folder, own), display, request, deadline)
        display.busy("making the tables")
        comparison = _summed_up(request, reports | new, failed)
        groupings = set(comparison.summary["grouping"])
        comparison.facts.update(facts(log, groupings, request.jobs, command))
        if names := [f"{label} = {text}" for label, text in request.models.items() if label != text]:
            comparison.facts["Names"] = "; ".join(names)
        comparison.write(folder)
    _repeat_warnings([run for run in runs if run.key in new])
    return comparison


def _listed(request: CompareRequest) -> str:
    """The lengths of the lists as a text."""
    return ", ".join(map(str, (*request.shorter, request.k)))


def _summed_up(
    request: CompareRequest, reports: Mapping[Key, Report], failed: Mapping[Key, str]
) -> Comparison:
    """The record, model by model."""
    keys = [(label, seed) for label in request.models for seed in request.seeds]
    return Comparison(
        runs=[reports[key] for key in keys if key in reports],
        failures=[Failure(*key, failed[key]) for key in keys if key in failed],
        seeds=request.seeds, protocol=request.protocol, k=request.k, reference=request.reference,
        margin=request.margin, facts={}, labels=list(request.models),
    )  # fmt: skip


def _repeat_warnings(runs: Sequence[Run]) -> None:
    """Repeat, once for each model, what its processes warned about."""
    for text in dict.fromkeys(f"{run.label}: {message}" for run in runs for message in run.warnings()):
        warnings.warn(text, GreysheepWarning, stacklevel=4)


@dataclass
class Process:
    """A run under way."""

    run: Run
    job: jobs.Process

    @classmethod
    def start(cls, run: Run, folder: Path, lengths: list[int], threads: int) -> Process:
        """Start a run; what it says goes to <stem>.log."""
        for suffix in (".json", ".parquet"):  # of another version of the model
            run.file(suffix).unlink(missing_ok=True)
        run.file(".log").parent.mkdir(parents=True, exist_ok=True)
        text = run.text or run.label
        job = {"label": run.label, "text": text, "seed": run.seed, "out": str(run.out), "split": str(folder),
               "k": lengths, "threads": threads, "sources": sources(text)}  # fmt: skip
        return cls(run, jobs.Process.start(COMMAND, job, run.file(".log"), threads))

    def progress(self) -> str:
        """The last line that it wrote about an epoch."""
        head = f"{self.run.label}: "
        latest_first = reversed(self.job.said())
        return next((line[len(head) :] for line in latest_first if line.startswith(head)), "")

    def outcome(self) -> Report | str:
        """The report of a process that ended, or one line that says why there is none."""
        self.job.close()
        report = self.run.read() if self.job.process.returncode == 0 else None
        if report is None:
            return self.job.failure()
        self.job.log.unlink(missing_ok=True)
        return report


def carry_out(
    runs: Sequence[Run], splits: Splits, display: Progress, request: CompareRequest, deadline: float
) -> tuple[dict[Key, Report], dict[Key, str]]:
    """Make the runs; return the reports of those that end well and why others do not.

    After `deadline` (of `time.monotonic`) none is started, and those under way are waited for.
    """
    waiting, under_way = list(runs), list[Process]()
    reports, failures = dict[Key, Report](), dict[Key, str]()
    threads = threads_each(request.jobs)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < request.jobs and time.monotonic() < deadline:
                run = waiting.pop(0)
                display.busy(f"seed {run.seed}: splitting, scoring users" if run.seed not in splits else "")
                folder = splits.of(run.seed)
                display.busy("")
                display.started(run.key)
                under_way.append(Process.start(run, folder, [*request.shorter, request.k], threads))
            if not under_way:
                break
            time.sleep(POLL)
            for process in [process for process in under_way if process.job.ended()]:
                under_way.remove(process)
                outcome, key, seed = process.outcome(), process.run.key, process.run.seed
                if isinstance(outcome, Report):
                    reports[key] = outcome
                    display.done(outcome)
                else:
                    failures[key] = outcome
                    display.failed(key, outcome)
                if all(run.seed != seed for run in (*waiting, *(other.run for other in under_way))):
                    splits.drop(seed)
            for process in under_way:
                display.progress(process.run.key, process.progress())
    finally:
        for process in under_way:
            process.job.stop()
        splits.clear()
    return reports, failures
