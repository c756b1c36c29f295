"""Plant small faults, one at a time, in a copy of the project; say which the tests let through.

    python tests/mutants.py COPY --seed 0 --count 300            # goes on where it was stopped
    python tests/mutants.py COPY --seed 0 --count 300 --seconds 30

COPY: a copy of the repository, which is changed. Of all faults that can be planted in ROOMS a seeded sample
is drawn; COPY/mutants/results.jsonl gets a line for each. The first call runs every test once and keeps which
test runs which line. A fault is tried against the tests that run its line, first those that run many lines of
its file in little time, one of each function before a second one; then against the files of those tests
whole, as a fixture runs in its first test only; then against all others. The first failure ends it. A fault
under which the tests take five times as long counts as killed. --seconds: try no more tests than take about
so long; a fault that outlives them "lives so far", and is taken up again by a call with more. One that lives
is a test that is missing, or code that does not matter (say which).

Each trial is a fork of this process, which has imported the libraries, but nothing of greysheep.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import cache_from_source
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

ROOMS = ("models", "nn", "evaluation", "comparison", "data")
NOT_TRIED = ("tests/test_house.py", "tests/test_full_size.py")
"""Of the first some hold the text of the source to its rules: a planted fault changes its lines."""
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMBINED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.Mod: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
GUARDS = ("strict", "frozen", "stacklevel")
"""Keywords that change nothing while the code is right: that of `zip`, of data classes, of warnings."""


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Change the tree and yield line and name of the fault; it is undone when the next one is asked for."""
    skipped = set()
    for one in ast.walk(tree):
        types = (getattr(one, "annotation", None), getattr(one, "returns", None))
        skipped |= {id(n) for type_ in types if type_ for n in ast.walk(type_)}
        if isinstance(one, ast.keyword) and one.arg in GUARDS:
            skipped.add(id(one.value))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Compare) and (other := COMPARED.get(type(node.ops[0]))):
            yield from _changed(node, "ops", [other(), *node.ops[1:]])
        elif isinstance(node, ast.BinOp | ast.AugAssign) and (other := COMBINED.get(type(node.op))):
            yield from _changed(node, "op", other())
        elif isinstance(node, ast.BoolOp):
            yield from _changed(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
            yield from _changed(node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield from _changed(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
        elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield from _changed(node, "value", value)
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield from _changed(node, "test", ast.UnaryOp(ast.Not(), node.test))
        elif isinstance(node, ast.Call) and node.keywords:
            for n, keyword in enumerate(node.keywords):
                if keyword.arg not in GUARDS:
                    yield from _changed(node, "keywords", node.keywords[:n] + node.keywords[n + 1 :])


def _changed(node: ast.AST, field: str, value: object) -> Iterator[tuple[int, str]]:
    before = getattr(node, field)
    setattr(node, field, value)
    yield getattr(node, "lineno", 0), f"{type(node).__name__}.{field}"
    setattr(node, field, before)


def sample(source: Path, seed: int) -> list[tuple[Path, int]]:
    """Every fault as (file, number in the file), in a seeded order."""
    every = [
        (file, number)
        for room in ROOMS
        for file in sorted((source / room).rglob("*.py"))
        for number, _ in enumerate(faults(ast.parse(file.read_text(encoding="utf-8"))))
    ]
    random.Random(seed).shuffle(every)
    return every


def planted(text: str, number: int) -> tuple[str, int, str]:
    """The text with one fault, its line, and what it is."""
    tree, lines = ast.parse(text), text.splitlines()
    for n, (line, name) in enumerate(faults(tree)):
        if n == number:
            return ast.unparse(tree), line, f"{name}: {lines[line - 1].strip()[:90]}"
    raise ValueError(f"there is no fault {number}")


class Watch:
    """Plug-in of pytest: which test runs which line, how long each takes, the first that fails."""

    def __init__(self, coverage: Any = None):
        self.coverage, self.seconds, self.failed = coverage, {}, ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        if self.coverage is not None:
            self.coverage.switch_context(item.nodeid)
        begun = time.process_time()  # not of the clock: others may be busy
        found = yield
        self.seconds[item.nodeid] = time.process_time() - begun
        return found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid or "collection"


def run_tests(tests: list[str], watch: Watch) -> int:
    """Run tests in this process."""
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests], plugins=[watch]))


def keep_map(place: Path, tests: list[str]) -> None:
    """Run the tests once and keep which of greysheep's lines each one ran, and its seconds."""
    from coverage import Coverage

    coverage = Coverage(data_file=str(place / "lines.sqlite"), source_pkgs=["greysheep"])
    watch = Watch(coverage)
    coverage.start()
    run_tests([*(f"--ignore={file}" for file in NOT_TRIED), *tests], watch)
    coverage.stop()
    if watch.failed:
        sys.exit(f"{watch.failed} fails before any fault is planted")
    coverage.save()
    (place / "seconds.json").write_text(json.dumps(watch.seconds), encoding="utf-8")


class Tests:
    """Which tests to try a fault against, in which order."""

    def __init__(self, place: Path):
        from coverage import CoverageData

        self.data = CoverageData(str(place / "lines.sqlite"))
        self.data.read()
        self.seconds: dict[str, float] = json.loads((place / "seconds.json").read_text(encoding="utf-8"))

    def of(self, file: Path, line: int) -> list[list[str]]:
        """Three groups: those that run the line, or else its file; the rest of their files; all others."""
        by_line = self.data.contexts_by_lineno(str(file))
        lines = Counter(name for names in by_line.values() for name in names if name in self.seconds)
        ran = {name for name in by_line.get(line, ()) if name in lines} or set(lines)
        files = {name.partition("::")[0] for name in ran}
        beside = [name for name in self.seconds if name.partition("::")[0] in files and name not in ran]
        rest = [name for name in self.seconds if name.partition("::")[0] not in files]
        cost = {name: (self.seconds[name] + 0.01) / lines[name] for name in ran}
        return [_turns(sorted(ran, key=lambda name: (cost[name], name))), beside, rest]

    def upto(self, names: list[str], seconds: float) -> list[str]:
        """As many of the tests, from the first on, as take so long."""
        left, chosen = seconds, []
        for name in names:
            left -= self.seconds[name]
            if left < 0 and chosen:
                break
            chosen.append(name)
        return chosen


def _turns(names: list[str]) -> list[str]:
    """One test of each function in turn."""
    functions: dict[str, list[str]] = {}
    for name in names:
        functions.setdefault(name.partition("[")[0], []).append(name)
    return [name for turn in zip_longest(*functions.values()) for name in turn if name is not None]


def trial(tests: list[str], seconds: float, log: Path) -> tuple[str, str]:
    """Outcome of some tests that should take so long, and the test that failed, in a fork of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            limit = int(5 * seconds + 30)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            watch = Watch()
            code = run_tests(tests, watch)
            os.write(writer, json.dumps([code, watch.failed]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    begun, ended = time.monotonic(), 0
    while not ended and time.monotonic() - begun < 30 * seconds + 100:
        ended, _ = os.waitpid(child, os.WNOHANG)
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests have started, too
    if not ended:
        os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as said:
        answer = said.read()
    if not answer:
        return "killed", "it takes too long, or the process breaks"
    code, failed = json.loads(answer)
    return ("killed" if code else "lives"), failed or f"pytest ends with {code}"


def try_fault(tests: Tests, file: Path, number: int, done: int, budget: float, place: Path) -> dict[str, Any]:
    """Plant a fault and try it against the tests after the first `done` ones, for so many seconds."""
    text = file.read_text(encoding="utf-8")
    changed, line, what = planted(text, number)
    ordered = [name for group in tests.of(file, line) for name in group]
    chosen = tests.upto(ordered[done:], budget)
    begun = time.monotonic()
    Path(cache_from_source(str(file))).unlink(missing_ok=True)  # a change within a second may not show
    file.write_text(changed, encoding="utf-8")
    try:
        outcome, by = trial(chosen, sum(tests.seconds[name] for name in chosen), place / "last.log")
    finally:
        file.write_text(text, encoding="utf-8")
        Path(cache_from_source(str(file))).unlink(missing_ok=True)
    if outcome == "lives":
        by, done = "", done + len(chosen)
        outcome = "lives" if done == len(ordered) else "lives so far"
    return {"file": "", "number": number, "line": line, "what": what, "outcome": outcome, "by": by,
            "tests": done, "of_tests": round(sum(tests.seconds[name] for name in ordered[:done]), 1),
            "seconds": round(time.monotonic() - begun, 1)}  # fmt: skip


def import_libraries(copy: Path) -> None:
    """Import here what the tests import, but for greysheep and the tests themselves."""
    show = "import sys, pytest; pytest.main(['-q', '--collect-only', '-p', 'no:cacheprovider']); " \
        "print('\\n'.join(['-' * 9, *sys.modules]))"  # fmt: skip
    listed = subprocess.run(
        [sys.executable, "-c", show], cwd=copy, capture_output=True, text=True, check=True
    )
    own = {path.stem for path in (copy / "tests").iterdir()} | {"greysheep", "tests", "conftest", "__main__"}
    for name in listed.stdout.rpartition("-" * 9)[2].split():
        if name.partition(".")[0] not in own:
            with suppress(Exception):
                importlib.import_module(name)


def main() -> None:
    """Try a part of the sample and print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("copy", type=Path)
    for name, default in (("--seed", 0), ("--start", 0), ("--count", 100)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--tests", nargs="*", default=[])
    given = parser.parse_args()
    os.chdir(given.copy)
    place, source = Path("mutants").resolve(), Path("src/greysheep").resolve()
    place.mkdir(exist_ok=True)
    os.environ |= {"PYTHONPATH": str(source.parent), "OMP_NUM_THREADS": "1"}
    sys.path.insert(0, str(source.parent))
    import_libraries(Path.cwd())
    if not (place / "seconds.json").is_file() and os.fork() == 0:
        keep_map(place, given.tests)
        os._exit(0)
    with suppress(ChildProcessError):
        os.wait()
    tests, results = Tests(place), place / "results.jsonl"
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    known = {(one["file"], one["number"]): one for one in map(json.loads, lines)}
    for file, number in sample(source, given.seed)[given.start : given.start + given.count]:
        name = str(file.relative_to(source))
        before = known.get((name, number), {"outcome": "", "tests": 0, "of_tests": 0.0})
        enough = before["tests"] and before["of_tests"] >= given.seconds
        if before["outcome"] in ("killed", "lives") or enough:
            continue
        found = try_fault(tests, file, number, before["tests"], given.seconds, place) | {"file": name}
        with results.open("a", encoding="utf-8") as out:
            out.write(json.dumps(found) + "\n")
        print(f"{found['outcome']:12} {name}:{found['line']} {found['what']}", flush=True)


if __name__ == "__main__":
    main()
