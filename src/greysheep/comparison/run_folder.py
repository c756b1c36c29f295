"""The folder of a comparison: its marker, its lock and the files of its runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from greysheep.errors import ConfigError, DataError
from greysheep.evaluation.report import Report
from greysheep.system import files
from greysheep.system.machine import own_version

MARKER = "compare.json"
RUNS = "runs"
Key = tuple[str, int]
"""Label and seed of a run."""


@dataclass(frozen=True)
class Run:
    """One model on one split, and where its files lie in the folder `out`."""

    label: str
    seed: int
    out: Path
    text: str = ""
    """The model, where the label is a name given to it."""

    @property
    def key(self) -> Key:
        """Label and seed."""
        return self.label, self.seed

    @property
    def stem(self) -> str:
        """Name of its files; texts with brackets get a hash, so that no two texts share a name."""
        safe = re.sub(r"[^a-z0-9.=-]+", "_", self.label.lower())[:60].strip("_")
        if safe != self.label:
            safe += "-" + hashlib.sha256(self.label.encode()).hexdigest()[:8]
        return f"{safe}-s{self.seed}"

    def file(self, suffix: str) -> Path:
        """OUT/runs/<stem><suffix>."""
        return self.out / RUNS / (self.stem + suffix)

    def write(self, report: Report, warnings: list[str], config: Mapping[str, Any]) -> None:
        """Write values per user, then the JSON, whose presence says that the run is finished.

        config: the one before the fit, which may have written choices of its own into it.
        """
        more = {"asked": dict(config), "history": report.history, "warnings": warnings}
        with files.written_or_refused(self.file(".parquet")) as draft:
            report.per_user.write_parquet(draft)
        files.write_text(self.file(".json"), json.dumps(report.to_dict() | more) + "\n")

    def read(self, config: Mapping[str, Any] | None = None) -> Report | None:
        """Read a finished run; None if there is none, or (given a config) one with other settings."""
        try:
            content = json.loads(self.file(".json").read_text(encoding="utf-8"))
            per_user = pl.read_parquet(self.file(".parquet"), glob=False)
            report = Report.from_dict(content)
        except (OSError, ValueError, pl.exceptions.PolarsError, DataError):
            return None
        if (report.label, report.seed) != self.key or config not in (None, content.get("asked")):
            return None
        return replace(report, per_user=per_user, history=list(content.get("history", ())))

    def warnings(self) -> list[str]:
        """What a finished run warned about."""
        return list(json.loads(self.file(".json").read_text(encoding="utf-8")).get("warnings", ()))


def check_place(out: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a folder that cannot be written, or that holds something other than a comparison.

    Raises:
        ConfigError: it is a file, holds files but no marker, is an input or in one, or cannot be written.
    """
    files.check_folder(out, marker=MARKER, overwrite=True, inputs=inputs)


def claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Mark a new folder with the facts that all its runs share, or check that they are those of an old one.

    facts: fingerprint, protocol, k, groups.

    Raises:
        ConfigError: the folder was made for another log, protocol, k, groups or version.
    """
    check_place(out)
    wanted = {"format": 1, "version": own_version(), **facts}
    marker = out / MARKER
    if marker.is_file():
        known = json.loads(marker.read_text(encoding="utf-8"))
        for key, value in wanted.items():
            if known.get(key) != value:
                raise ConfigError(f"output {out} {_other(key, known.get(key), value)}: name another folder")
        return
    files.write_text(marker, json.dumps(wanted, indent=2) + "\n")


def _other(key: str, known: Any, wanted: Any) -> str:
    if key == "fingerprint":
        return f"holds runs of another log (fingerprint {str(known)[:8]}, this one {str(wanted)[:8]})"
    if key == "version":
        return f"was made by greysheep {known}, this is {wanted}"
    if key == "groups":
        return "was made for other groups of users"
    return f"was made for {key} {known}, not {wanted}"


def locked(out: Path) -> AbstractContextManager[None]:
    """Hold the lock of the folder, which keeps a second comparison out.

    Raises:
        ConfigError: another process is at work in it.
    """
    return files.locked(out / ".lock", f"another greysheep compare is at work in {out}: wait for it to end")
