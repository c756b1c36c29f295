"""The runs of a comparison: each one a fresh process, started, watched and stopped here.

`python -m greysheep.system.jobs` is such a process. It reads one line of JSON from stdin, and ends when stdin
does: whatever becomes of the process that started it, nothing is left running.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import polars as pl

from greysheep.comparison.progress import Board, Key
from greysheep.comparison.run_folder import Run
from greysheep.data.columns import USER
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import Split, split
from greysheep.errors import DataError, GreysheepError, GreysheepWarning, MissingExtraError
from greysheep.evaluation.report import Report
from greysheep.mainstream.groups import GROUPS, Mainstream, _of_split
from greysheep.mainstream.scores import density_scores, distribution_scores
from greysheep.system.machine import THREAD_VARIABLES, peak_memory_bytes, threads_each

COMMAND = [sys.executable, "-P", "-m", "greysheep.system.jobs"]
"""Without modules of the working folder (-P), which might have the name of one of ours."""
POLL = 0.05
"""Seconds between two looks at the processes."""
PATIENCE = 10.0
"""Seconds that a process gets to end after it was asked to."""


# Splits


def scores_of(parts: Split) -> pl.DataFrame:
    """Every user's score by each measure of mainstreamness: user_id, mainstream, density, distribution.

    Density is left out where scikit-learn is absent or there are too few users.
    """
    rows = parts.rows("train")
    found = Mainstream.fit(rows, parts.log.user_ids)  # as `evaluate` does, sampled on a very large log
    how = {"sampled": pl.lit(found.sampled), "bound": pl.lit(found.bound)}
    frame = pl.DataFrame({USER: parts.log.user_ids, "mainstream": found.scores}).with_columns(**how)
    with suppress(MissingExtraError, DataError):  # `Comparison.facts` says which grouping is not there
        frame = frame.with_columns(density=density_scores(rows))
    return frame.with_columns(distribution=distribution_scores(rows))


class Splits:
    """One split a seed, written once for all models and kept while they need it."""

    def __init__(self, log: Interactions, protocol: str, out: Path):
        self.log, self.protocol = log, protocol
        self.folder, self.scores = out / "splits", out / "groups"
        self.clear()  # of a comparison that was killed

    def __contains__(self, seed: int) -> bool:
        return (self.folder / f"s{seed}").is_dir()

    def of(self, seed: int) -> Path:
        """The folder of a seed's split, with groups.parquet."""
        folder = self.folder / f"s{seed}"
        if seed not in self:
            parts = split(self.log, self.protocol, seed)
            draft = self.folder / f".s{seed}"
            parts.write(draft)
            self._scores(parts).write_parquet(draft / "groups.parquet")
            draft.rename(folder)
        return folder

    def _scores(self, parts: Split) -> pl.DataFrame:
        """Scores take longer than the split: they outlive an interruption."""
        known = self.scores / f"s{parts.seed}.parquet"
        if not known.is_file():
            self.scores.mkdir(parents=True, exist_ok=True)
            draft = known.with_suffix(".tmp")
            scores_of(parts).write_parquet(draft)
            draft.replace(known)
        return pl.read_parquet(known, glob=False)

    def drop(self, seed: int) -> None:
        """No model needs it any more."""
        shutil.rmtree(self.folder / f"s{seed}", ignore_errors=True)

    def clear(self) -> None:
        """Take every split away: they are copies of the log."""
        shutil.rmtree(self.folder, ignore_errors=True)


# The side that starts and watches


@dataclass
class Process:
    """A run under way."""

    run: Run
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, run: Run, folder: Path, k: int, threads: int) -> Process:
        """Start a run; what it says goes to <stem>.log."""
        for suffix in (".json", ".parquet"):  # of another version of the model
            run.file(suffix).unlink(missing_ok=True)
        run.file(".log").parent.mkdir(parents=True, exist_ok=True)
        job = {"label": run.label, "text": run.text or run.label, "seed": run.seed, "out": str(run.out),
               "split": str(folder), "k": k, "threads": threads}  # fmt: skip
        with run.file(".log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=os.environ | dict.fromkeys((*THREAD_VARIABLES, "POLARS_MAX_THREADS"), str(threads)),
                start_new_session=True,  # Ctrl-C reaches the starter alone, which decides
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone already; its log says why
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        return cls(run, process)

    @property
    def key(self) -> Key:
        """Label and seed."""
        return self.run.label, self.run.seed

    def said(self) -> list[str]:
        """The last lines of its log."""
        with self.run.file(".log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            return [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]

    def progress(self) -> str:
        """The last epoch it told of."""
        head = f"{self.run.label}: "
        return next((line[len(head) :] for line in reversed(self.said()) if line.startswith(head)), "")

    def outcome(self) -> Report | str:
        """The report of a process that ended, or one line that says why there is none."""
        self.close()
        code = self.process.returncode
        report = self.run.read() if code == 0 else None
        if report is not None:
            self.run.file(".log").unlink(missing_ok=True)
            return report
        last = self.said()[-1:] or ["it said nothing"]
        if code == 2 and last[0].startswith("error: "):
            return last[0].removeprefix("error: ")
        if code < 0:
            name = signal.Signals(-code).name
            return f"ended by {name}" + (": perhaps it needs more memory" if name == "SIGKILL" else "")
        return f"{last[0]} (more in {self.run.file('.log')})"

    def close(self) -> None:
        """Close the pipe that keeps it alive."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def stop(self) -> None:
        """End it now; what it did is lost."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.close()
        self.run.file(".log").unlink(missing_ok=True)


def carry_out(
    runs: Sequence[Run], splits: Splits, board: Board, *, k: int, jobs: int, deadline: float
) -> tuple[dict[Key, Report], dict[Key, str]]:
    """Make the runs, `jobs` at a time; return the reports of those that end well and why others do not.

    After `deadline` (of `time.monotonic`) none is started, and those under way are waited for.
    """
    waiting, under_way = list(runs), list[Process]()
    reports, failures = dict[Key, Report](), dict[Key, str]()
    threads = threads_each(jobs)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs and time.monotonic() < deadline:
                run = waiting.pop(0)
                board.busy(f"seed {run.seed}: splitting, scoring users" if run.seed not in splits else "")
                folder = splits.of(run.seed)
                board.busy("")
                board.started((run.label, run.seed))
                under_way.append(Process.start(run, folder, k, threads))
            if not under_way:
                break
            time.sleep(POLL)
            for process in [process for process in under_way if process.process.poll() is not None]:
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
            process.stop()
        splits.clear()
    return reports, failures


# The process that is started


def main(stdin: IO[str]) -> None:
    """Make the run that one line on stdin describes."""
    job = json.loads(stdin.readline())
    # Whoever waits for the end of stdin learns that the starter is gone.
    threading.Thread(target=_end_with, args=(stdin.fileno(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # half a training must not pass for a finished one
    try:
        measure(job)
    except GreysheepError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _end_with(pipe: int) -> None:
    # Not stdin.read(): a thread that waits in it holds a lock which the interpreter wants when it ends.
    while os.read(pipe, 1):
        pass
    os._exit(3)


def measure(job: dict[str, Any]) -> None:
    """Fit and evaluate one model and write what came out."""
    from greysheep.evaluation.evaluate import evaluate
    from greysheep.models import parse

    run = Run(job["label"], job["seed"], Path(job["out"]))
    parts = Split.read(job["split"])
    scores = pl.read_parquet(Path(job["split"]) / "groups.parquet", glob=False)
    # The groups are those of every model on this split, so no model's time or memory includes them.
    known = Mainstream.from_scores(scores["mainstream"].to_numpy(), parts.log.user_ids)
    _of_split[parts] = replace(known, sampled=scores["sampled"][0], bound=scores["bound"][0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GreysheepWarning)
        model = parse(job["text"], seed=run.seed, threads=job["threads"], progress=True)
        model.label = run.label
        asked = model.config.model_dump(mode="json")
        report = evaluate(model.fit(parts), parts, k=job["k"])
    names = pl.Series(GROUPS)
    more = {
        name: names.gather(Mainstream.from_scores(scores[name].to_numpy(), parts.log.user_ids).groups)
        for name in ("density", "distribution")
        if name in scores.columns
    }
    report = replace(
        report, per_user=report.per_user.with_columns(**more), peak_memory_bytes=peak_memory_bytes()
    )
    told = [str(one.message) for one in caught if issubclass(one.category, GreysheepWarning)]
    run.write(report, list(dict.fromkeys(told)), asked)


if __name__ == "__main__":
    main(sys.stdin)
