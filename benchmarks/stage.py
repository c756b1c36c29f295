"""What the benchmarks share: folders, pages from templates, and stages in fresh processes,
which leave a JSON each.

A stage that has left its JSON is not run again, so an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from greysheep.evaluation.numbers import short
from greysheep.evaluation.text import markdown_table
from greysheep.system import jobs
from greysheep.system.files import write_text
from greysheep.system.machine import threads_each

Record = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
RESULTS = ROOT / "docs" / "results"
DATA = Path(os.environ.get("GREYSHEEP_DATA", ROOT.parent / "shared" / "data"))
COMMAND = [sys.executable, __file__]
"""Runs one stage; with a module's name as argument, answers orders through that module's `begin`."""


def result(
    file: Path, function: Callable[..., Record], /, *, again: bool = False, threads: int = 0, **options: Any
) -> Record:
    """What `function(**options)` returns in a fresh process, and the load beside it, read from `file`.

    function: of the top level of a file. threads: 0 = all cores, or OMP_NUM_THREADS. What the process says
    is in the .log beside the file.
    """
    if again or not file.exists():
        print(f"{function.__name__} {' '.join(map(str, options.values()))}", file=sys.stderr, flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        job: Record = {
            "code": inspect.getsourcefile(function), "function": function.__name__, "options": options,
            "file": str(file), "threads": threads or threads_each(1),
        }  # fmt: skip
        jobs.run(COMMAND, job, file.with_suffix(".log"), job["threads"])
    kept: Record = json.loads(file.read_text())
    return kept


def work(job: Record) -> None:
    """Do a stage in this process and write its result in one step."""
    code = Path(job["code"])
    if str(code.parent) not in sys.path:
        sys.path.insert(0, str(code.parent))
    answer: Record = getattr(importlib.import_module(code.stem), job["function"])(**job["options"])
    facts = {"load": os.getloadavg()[1], "threads": job["threads"], "day": time.strftime("%Y-%m-%d")}
    write_text(Path(job["file"]), json.dumps(facts | answer, indent=1) + "\n")


def dot(value: float | None) -> str:
    """`.3254`; nothing for no value."""
    return "" if value is None or math.isnan(value) else short(value)


def filled(template: str, **values: Any) -> str:
    """A template of benchmarks/pages/ with these values."""
    folder = FileSystemLoader(ROOT / "benchmarks" / "pages")
    pages = Environment(  # nosec B701  # Markdown, which has nothing to escape
        loader=folder, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.globals["table"] = lambda head, rows: "\n".join(markdown_table(head, rows))
    return pages.get_template(template).render(values).rstrip() + "\n"


def write_page(page: Path, **values: Any) -> Path:
    """Fill in the template of the page's name and write it; returns its path."""
    return write_text(page, filled(page.name, **values))


def section(page: Path, name: str) -> str:
    """What stands between a section's two marks in a page; nothing if it has none."""
    begin, end = _marks(name)
    _, found, rest = (page.read_text() if page.exists() else "").partition(begin)
    return rest.partition(end)[0].strip("\n") if found else ""


def put_section(page: Path, name: str, text: str) -> Path:
    """Write a section between its marks in a page, at the end of it the first time."""
    begin, end = _marks(name)
    before, _, rest = (page.read_text() if page.exists() else "").partition(begin)
    parts = (before.rstrip("\n"), f"{begin}\n{text.strip()}\n{end}", rest.partition(end)[2].strip("\n"))
    return write_text(page, "\n\n".join(part for part in parts if part) + "\n")


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin, written by benchmarks/{name}.py -->", f"<!-- {name}: end -->"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        jobs.converse(importlib.import_module(sys.argv[1]).begin, sys.stdin)
    else:
        jobs.serve(work, sys.stdin)
