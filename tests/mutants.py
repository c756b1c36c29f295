"""Plant small faults, one at a time, in a copy of the project; say which a room's tests let through.

    python tests/mutants.py COPY --seed 0 --start 0 --count 100

COPY: a copy of the repository, which is changed. Of all faults that can be planted in ROOMS a seeded sample
is drawn; each is tried against the tests of its room, which end at the first failure or after LIMIT seconds.
A fault that lives is a test that is missing, or code that does not matter (say which).
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LIMIT = 240.0
ROOMS = {
    "models/autoencoders": "stopping settings moe routing index nn_oracle training footprint models",
    "models/local": "local_oracle settings stopping local_worlds models",
    "models/linear": "closed_forms_oracle baselines_oracle baseline_worlds corners models",
    "models/training": "training stopping footprint corners ensemble local_oracle models",
    "models": "trained_items new_people settings stopping ensemble training own_models corners models tuning",
    "nn": "nn_oracle local_oracle routing settings parallel moe corners worlds models",
    "evaluation": "evaluation settings comparison report comparison_report",
    "comparison": "comparison compare_cli comparison_report",
    "data": "interactions splitting regressions datasets new_people cli",
}
"""Folder of src/greysheep -> the tests of its room, the quickest and most telling first."""
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMBINED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.Mod: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Change the tree and yield line and name of the fault; it is undone when the next one is asked for."""
    types = {
        id(n) for one in ast.walk(tree) for n in ast.walk(getattr(one, "annotation", None) or ast.Pass())
    }
    types |= {id(n) for one in ast.walk(tree) for n in ast.walk(getattr(one, "returns", None) or ast.Pass())}
    for node in ast.walk(tree):
        if id(node) in types:
            continue
        if isinstance(node, ast.Compare) and (other := COMPARED.get(type(node.ops[0]))):
            yield from _changed(node, "ops", [other(), *node.ops[1:]])
        elif isinstance(node, ast.BinOp | ast.AugAssign) and (other := COMBINED.get(type(node.op))):
            yield from _changed(node, "op", other())
        elif isinstance(node, ast.BoolOp):
            yield from _changed(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            yield from _changed(node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not())
        elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield from _changed(node, "value", value)
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield from _changed(node, "test", ast.UnaryOp(ast.Not(), node.test))
        elif isinstance(node, ast.Call) and node.keywords:
            for n in range(len(node.keywords)):
                yield from _changed(node, "keywords", node.keywords[:n] + node.keywords[n + 1 :])


def _changed(node: ast.AST, field: str, value: object) -> Iterator[tuple[int, str]]:
    before = getattr(node, field)
    setattr(node, field, value)
    yield getattr(node, "lineno", 0), f"{type(node).__name__}.{field}"
    setattr(node, field, before)


def sample(source: Path, seed: int) -> list[tuple[Path, str, int]]:
    """Every fault as (file, folder of ROOMS, number in the file), in a seeded order."""
    files = {file: room for room in reversed(ROOMS) for file in sorted((source / room).rglob("*.py"))}
    for room in ROOMS:  # the longest name of a folder counts
        files |= {file: room for file in files if f"/{room}/" in f"{file.parent}/" and "/" in room}
    every = [
        (file, room, number)
        for file, room in sorted(files.items())
        for number, _ in enumerate(faults(ast.parse(file.read_text(encoding="utf-8"))))
    ]
    random.Random(seed).shuffle(every)
    return every


def planted(text: str, number: int) -> tuple[str, str]:
    """The text with one fault, and what the fault is."""
    tree, lines = ast.parse(text), text.splitlines()
    for n, (line, name) in enumerate(faults(tree)):
        if n == number:
            return ast.unparse(tree), f"{line} {name}: {lines[line - 1].strip()[:90]}"
    raise ValueError(f"there is no fault {number}")


def main() -> None:
    """Try a part of the sample and print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("copy", type=Path)
    for name, default in (("--seed", 0), ("--start", 0), ("--count", 100)):
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    source = given.copy.resolve() / "src" / "greysheep"
    env = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for file, room, number in sample(source, given.seed)[given.start : given.start + given.count]:
        text = file.read_text(encoding="utf-8")
        changed, what = planted(text, number)
        tests = [f"tests/test_{name}.py" for name in ROOMS[room].split()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        file.write_text(changed, encoding="utf-8")
        try:
            done = subprocess.run(command, cwd=given.copy, env=env, timeout=LIMIT, capture_output=True)
            outcome = "lives " if done.returncode == 0 else "killed"
        except subprocess.TimeoutExpired:
            outcome = "slow  "
        finally:
            file.write_text(text, encoding="utf-8")
        print(f"{outcome} {file.relative_to(source)}:{what}", flush=True)


if __name__ == "__main__":
    main()
