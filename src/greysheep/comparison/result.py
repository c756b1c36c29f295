"""The public record of a comparison, as text and as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from greysheep.comparison import text
from greysheep.comparison.record import Failure, Record
from greysheep.comparison.run_folder import Run
from greysheep.errors import DataError
from greysheep.evaluation.report import Report, jsonable
from greysheep.system.checks import a_path
from greysheep.system.files import refused, write_together

RESULTS = "results.json"


class Comparison(Record):
    """What `compare` found; the tables are made once, when they are first read."""

    def __str__(self) -> str:
        return text.text(self)

    def to_dict(self) -> dict[str, Any]:
        """All but values per user and histories as plain types: unrounded, None where there is no value."""
        names = ("protocol", "k", "seeds", "labels", "reference", "margin", "verdicts", "missing", "facts")
        content = {name: getattr(self, name) for name in names}
        content |= {"tests": self.tests.to_dicts(), "summary": self.summary.to_dicts()}
        content |= {"runs": [run.to_dict() for run in self.runs], "failures": list(map(vars, self.failures))}
        return dict(jsonable(content))

    def write(self, out: str | Path) -> list[Path]:
        """Write results.json, results.csv and results.md, all or none.

        Raises:
            ConfigError: they cannot be written.
        """
        folder = a_path("out", out)
        texts = {
            RESULTS: json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n",
            "results.csv": text.flat(self).write_csv(quote_style="non_numeric"),
            "results.md": text.markdown(self),
        }
        with refused(folder):
            return write_together({folder / name: content for name, content in texts.items()})

    @classmethod
    def read(cls, out: str | Path) -> Comparison:
        """Read what `compare` wrote to a folder.

        Raises:
            DataError: there is no results.json, or a run that it names is not there.
        """
        folder = a_path("out", out)
        try:
            content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
            runs = [Run(one["label"], one["seed"], folder) for one in content["runs"]]
            failures = [Failure(**one) for one in content["failures"]]
            rest = {key: content[key] for key in
                    ("seeds", "protocol", "k", "reference", "margin", "facts", "labels")}  # fmt: skip
        except OSError as error:
            raise DataError(f"{folder} holds no comparison: {RESULTS}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{folder / RESULTS} is not what compare writes: {error}") from None
        return cls([_read(run) for run in runs], failures, **rest)


def _read(run: Run) -> Report:
    report = run.read()
    if report is None:
        raise DataError(f"the run {run.label}, seed {run.seed}, of {run.out} is gone: compare anew")
    return report
