"""One trial of a search on Ray, in a process of its own: `python -m greysheep.tuning.worker`."""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from greysheep.data.own_groups import read_groups
from greysheep.data.splitting import Split
from greysheep.errors import GreysheepWarning
from greysheep.models.origin import import_source
from greysheep.system import jobs
from greysheep.system.files import write_text
from greysheep.tuning.plan import TuneRequest
from greysheep.tuning.score import Score
from greysheep.tuning.search import Trials, Watch

GROUPS = "groups.parquet"


@dataclass(frozen=True)
class Files:
    """What a trial and the search tell each other, in files that both see."""

    folder: Path
    number: int

    @property
    def epochs(self) -> Path:
        """Lines of the trial: epoch and value."""
        return self.folder / f"trial-{self.number}.epochs"

    @property
    def prune(self) -> Path:
        """There once the search wants the trial to end."""
        return self.folder / f"trial-{self.number}.prune"

    @property
    def record(self) -> Path:
        """What came of the trial."""
        return self.folder / f"trial-{self.number}.json"

    @property
    def log(self) -> Path:
        """What its process says."""
        return self.folder / f"trial-{self.number}.log"


@dataclass
class Reporter:
    """Stands for the trial of Optuna, which the search keeps."""

    files: Files

    def report(self, value: float, step: int) -> None:
        """Tell the search what an epoch is worth."""
        with self.files.epochs.open("a", encoding="utf-8") as file:
            file.write(json.dumps([step, value]) + "\n")

    def should_prune(self) -> bool:
        """Whether the search wants no more of it."""
        return self.files.prune.exists()


def measure(job: dict[str, Any]) -> None:
    """Make a trial and write what came of it."""
    for module, folder in job["sources"]:
        import_source(module, folder)
    plan = TuneRequest(**job["request"]).plan
    files = Files(Path(job["folder"]), job["number"])
    files.epochs.unlink(missing_ok=True)  # of a worker that was lost
    reference = None if job["reference"] is None else Score(**job["reference"])
    watch = Watch(Reporter(files), plan, reference, time.monotonic() + job["seconds"])
    record, _ = Trials(plan, _split(Path(job["folder"])), show=False).measure(job["settings"], watch)
    write_text(files.record, json.dumps(record.stored()))


def _split(folder: Path) -> Split:
    """The split of the search, with groups of one's own where it has some."""
    split = Split.read(folder / "split")
    if not (folder / GROUPS).is_file():
        return split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GreysheepWarning)  # given when the groups were first read
        return replace(split, groups=read_groups(folder / GROUPS, split.log))


if __name__ == "__main__":
    jobs.serve(measure, sys.stdin)
