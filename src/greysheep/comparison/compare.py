"""Compare models on the same splits of one log, over seeds, user group by user group."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from greysheep.comparison.facts import facts
from greysheep.comparison.progress import Board, Key
from greysheep.comparison.request import check, check_seeds, check_texts, joined, named, split_texts
from greysheep.comparison.result import Comparison, Failure
from greysheep.comparison.run_folder import Run, check_place, claim, locked
from greysheep.comparison.splits import Splits
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import TEST, split
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.evaluation.report import Report
from greysheep.models.registry import sources
from greysheep.system import jobs
from greysheep.system.machine import threads_each

COMMAND = jobs.command("greysheep.comparison.worker")
POLL = 0.05
"""Seconds between two looks at the processes."""


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
            waiting, Splits(log, protocol, folder), board, k=k, at_once=jobs, deadline=deadline
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


@dataclass
class Process:
    """A run under way."""

    run: Run
    job: jobs.Process

    @classmethod
    def start(cls, run: Run, folder: Path, k: int, threads: int) -> Process:
        """Start a run; what it says goes to <stem>.log."""
        for suffix in (".json", ".parquet"):  # of another version of the model
            run.file(suffix).unlink(missing_ok=True)
        run.file(".log").parent.mkdir(parents=True, exist_ok=True)
        text = run.text or run.label
        job = {"label": run.label, "text": text, "seed": run.seed, "out": str(run.out), "split": str(folder),
               "k": k, "threads": threads, "sources": sources(text)}  # fmt: skip
        return cls(run, jobs.Process.start(COMMAND, job, run.file(".log"), threads))

    @property
    def key(self) -> Key:
        """Label and seed."""
        return self.run.label, self.run.seed

    def progress(self) -> str:
        """The last epoch it told of."""
        head = f"{self.run.label}: "
        told = reversed(self.job.said())
        return next((line[len(head) :] for line in told if line.startswith(head)), "")

    def outcome(self) -> Report | str:
        """The report of a process that ended, or one line that says why there is none."""
        self.job.close()
        report = self.run.read() if self.job.process.returncode == 0 else None
        if report is None:
            return self.job.failure()
        self.job.log.unlink(missing_ok=True)
        return report


def carry_out(
    runs: Sequence[Run], splits: Splits, board: Board, *, k: int, at_once: int, deadline: float
) -> tuple[dict[Key, Report], dict[Key, str]]:
    """Make the runs, `at_once` at a time; return the reports of those that end well and why others do not.

    After `deadline` (of `time.monotonic`) none is started, and those under way are waited for.
    """
    waiting, under_way = list(runs), list[Process]()
    reports, failures = dict[Key, Report](), dict[Key, str]()
    threads = threads_each(at_once)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < at_once and time.monotonic() < deadline:
                run = waiting.pop(0)
                board.busy(f"seed {run.seed}: splitting, scoring users" if run.seed not in splits else "")
                folder = splits.of(run.seed)
                board.busy("")
                board.started((run.label, run.seed))
                under_way.append(Process.start(run, folder, k, threads))
            if not under_way:
                break
            time.sleep(POLL)
            for process in [process for process in under_way if process.job.ended()]:
                under_way.remove(process)
                found = process.outcome()
                if isinstance(found, Report):
                    reports[process.key] = found
                    board.done(found)
                else:
                    failures[process.key] = found
                    board.failed(process.key, found)
                seed = process.run.seed
                if all(run.seed != seed for run in (*waiting, *(other.run for other in under_way))):
                    splits.drop(seed)
            for process in under_way:
                board.progress(process.key, process.progress())
    finally:
        for process in under_way:
            process.job.stop()
        splits.clear()
    return reports, failures
