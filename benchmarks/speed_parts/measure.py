"""Ask the programs in turn for one block each, so that all of them see the same load; keep what they say."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from speed_parts.settings import (
    BARE,
    LIBRARY,
    ROOT,
    WHOLE_EPOCH_FLOPS,
    Cell,
    How,
    Shape,
    flops,
    machine,
    needed_bytes,
)

CODE = {
    **dict.fromkeys(LIBRARY, ("src/greysheep/nn/*.py", "src/greysheep/models/autoencoders/*.py")),
    "loop-sparse": ("benchmarks/speed_parts/looped.py",),
    "loop-dense": ("benchmarks/speed_parts/looped.py",),
    BARE: (),
    "evaluate": ("src/greysheep/nn/*.py", "src/greysheep/models/**/*.py", "src/greysheep/metrics/*.py"),
    "memory": ("src/greysheep/*.py", "src/greysheep/system/*.py", "src/greysheep/models/**/*.py"),
}
Record = dict[str, Any]


class Stopped(RuntimeError):
    """A program ended before it had answered."""


class Worker:
    """A program in a fresh process, and the blocks it has done."""

    def __init__(self, name: str, cell: Cell, how: How):
        self.name = name
        asked = {"program": name, "device": how.device, "threads": how.threads, **vars(cell)}
        self.process = subprocess.Popen(
            command("worker", json.dumps(asked)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(how.threads),
        )
        self.blocks: dict[str, list[list[float]]] = {"train": [], "validate": []}
        self.sizes: dict[str, int] = {}
        self.facts: Record = {}
        self.peak = 0

    def ask(self, what: str, users: int = 0) -> Record:
        """Give an order and wait for the answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": what, "users": users}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Stopped(f"{self.name} ended with exit {self.process.wait()}") from None
        return self._answer()

    def _answer(self) -> Record:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Stopped(f"{self.name} ended with exit {self.process.wait()}")
        found: Record = json.loads(line)
        return found

    def warm_up(self, shape: Shape, how: How, whole: bool) -> None:
        """Wait until it has loaded; two batches of each kind; from their time, how many a block holds."""
        self.facts = self._answer()
        for what in self.blocks:
            first = self.ask(what, 2 * shape.batch_size)
            batch = first["seconds"] / first["users"] * shape.batch_size
            batches = min(how.batches, max(2, int(how.block_seconds / batch)))
            self.sizes[what] = shape.n_users if whole else min(shape.n_users, batches * shape.batch_size)
        self.ask("keep")

    def block(self, what: str, clock: str) -> None:
        """One block: seconds and users, and the share of its threads' time that it had a core."""
        done = self.ask(what, self.sizes[what])
        seconds = done["seconds"] if clock == "wall" else done["cpu_seconds"]
        self.blocks[what].append([seconds, done["users"], done["cpu_seconds"] / done["seconds"]])
        if what == "validate":
            self.ask("keep")  # untimed, as training does after a better epoch: the peak shows it

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def command(module: str, *words: str) -> list[str]:
    """A fresh interpreter for one of the parts."""
    return [sys.executable, "-m", f"speed_parts.{module}", *words]


def environment(threads: int) -> dict[str, str]:
    """Variables of a child: it finds the parts, and has so many threads."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": str(threads),
    }


def one_shot(module: str, *words: str, threads: int) -> Record:
    """A child's one answer."""
    done = subprocess.run(
        command(module, *words), check=True, stdout=subprocess.PIPE, text=True, env=environment(threads)
    )
    found: Record = json.loads(done.stdout.splitlines()[-1])
    return found


def shape_of(log: str, kept: Path) -> Shape:
    """Size of a log's training problem, read once, in a child so that this process stays small."""
    file = kept / f"shape-{log}.json"
    if not file.exists():
        found = one_shot("worker", json.dumps({"program": "shape", "log": log}), threads=1)
        replace(file, json.dumps(found))
    return Shape(**json.loads(file.read_text()))


def replace(file: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(text)
    unfinished.replace(file)


def fingerprint(program: str) -> str:
    """Hash of the code that a result is about."""
    digest = hashlib.sha256()
    for pattern in CODE[program]:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def place(kept: Path, program: str, cell: Cell, how: How) -> Path:
    """Where a result is kept."""
    name = f"{cell.log}-k{cell.n_experts}-d{cell.latent}-{program}-{how.device}-t{how.threads}.json"
    return kept / name


def kept_result(kept: Path, program: str, cell: Cell, how: How) -> Record | None:
    """A result of the same code and settings."""
    file = place(kept, program, cell, how)
    if not file.exists():
        return None
    found: Record = json.loads(file.read_text())
    same = found["how"] == how.key() and found["code"] == fingerprint(program)
    return found if same else None


def write(kept: Path, program: str, cell: Cell, how: How, record: Record) -> Record:
    """Keep a result, whole or not at all."""
    whole = {"program": program, **vars(cell), "how": how.key(), **record}
    replace(place(kept, program, cell, how), json.dumps(whole))
    return whole


def packed(programs: list[str], cell: Cell, shape: Shape, limit: float) -> list[list[str]]:
    """Programs in groups that fit into memory together with the bare products; one too large stands alone."""
    groups: list[list[str]] = []
    bare = needed_bytes(BARE, cell, shape)
    for program in programs:
        size = needed_bytes(program, cell, shape)
        for group in groups:
            if bare + size + sum(needed_bytes(p, cell, shape) for p in group) <= limit:
                group.append(program)
                break
        else:
            groups.append([program])
    return groups


def measure_cell(programs: list[str], cell: Cell, shape: Shape, how: How, kept: Path) -> list[Record]:
    """Results of the programs in one cell: kept ones, skipped ones, and the rest measured now."""
    records, todo = [], []
    for program in programs:
        need = needed_bytes(program, cell, shape)
        found = kept_result(kept, program, cell, how)
        if found is not None:
            records.append(found)
        elif need > how.max_memory:
            said = f"needs about {need / 1e9:.0f} GB, the limit is {how.max_memory / 1e9:.0f} GB"
            records.append({"program": program, **vars(cell), "shape": vars(shape), "skipped": said})
        else:
            todo.append(program)
    for group in packed(todo, cell, shape, how.max_memory):
        print(f"{cell.log}, K = {cell.n_experts}: {', '.join(group)}", file=sys.stderr, flush=True)
        records += _measure_group(group, cell, shape, how, kept)
    return records


def _measure_group(group: list[str], cell: Cell, shape: Shape, how: How, kept: Path) -> list[Record]:
    """All of a group side by side, the bare products among them (alone, where memory has no room for two)."""
    code = {name: fingerprint(name) for name in group}  # before anything runs: it may be edited meanwhile
    facts = {"machine": machine(), "begun": time.strftime("%Y-%m-%d %H:%M"), "run": time.time_ns()}
    together = sum(needed_bytes(p, cell, shape) for p in (BARE, *group)) <= how.max_memory
    rounds = [[BARE, *group]] if together else [[BARE], *([p] for p in group)]
    workers: dict[str, Worker] = {}
    said: dict[str, str] = {}
    stages: dict[str, Record] = {}
    for names in rounds:
        _blocks(names, cell, shape, how, workers, said)
        for name in names:
            if name in said:
                continue
            if how.stages and name != BARE:
                stages[name] = workers[name].ask("stages", min(workers[name].sizes.values()))
            workers[name].close()
    bare = workers[BARE]
    records = []
    for name in group:
        record = {"code": code[name], "shape": vars(shape), **facts}
        if name in said:
            records.append({"program": name, **vars(cell), **record, "skipped": said[name]})
            continue
        worker = workers[name]
        record |= {
            "facts": worker.facts,
            "blocks": worker.blocks,
            "bare": bare.blocks,
            "together": together,
            "peak": worker.peak,
            "bare_peak": bare.peak,
            "stages": stages.get(name),
        }
        records.append(write(kept, name, cell, how, record))
    return records


def _blocks(
    names: list[str], cell: Cell, shape: Shape, how: How, workers: dict[str, Worker], said: dict[str, str]
) -> None:
    """Start the programs, warm them up, and ask each in turn for a block until all have theirs."""

    def drop(name: str, error: Stopped) -> None:
        if name == BARE:
            raise error
        said[name] = str(error)

    whole = sum(flops(cell, shape)) < WHOLE_EPOCH_FLOPS
    for name in names:
        workers[name] = Worker(name, cell, how)  # all load at the same time
    for name in names:
        try:
            workers[name].warm_up(shape, how, whole)
        except Stopped as error:
            drop(name, error)
    for number in range(how.blocks):
        for what in ("train", "validate"):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                try:
                    if name not in said:
                        workers[name].block(what, how.clock)
                except Stopped as error:
                    drop(name, error)
    for name in names:
        if name not in said:
            workers[name].peak = workers[name].ask("peak")["peak"]


def measure_whole(what: str, cell: Cell, how: How, kept: Path) -> Record:
    """The evaluation of all users, or memory after loading."""
    found = kept_result(kept, what, cell, how)
    if found is not None:
        return found
    print(f"{cell.log}, K = {cell.n_experts}: {what}", file=sys.stderr, flush=True)
    facts = {"machine": machine(), "begun": time.strftime("%Y-%m-%d %H:%M"), "code": fingerprint(what)}
    asked = json.dumps({**vars(cell), "device": how.device, "threads": how.threads})
    measured = one_shot("whole", what, asked, threads=how.threads)
    return write(kept, what, cell, how, {**facts, "measured": measured})
