"""Programs take turns, one block each, so that all see the same load; their results are kept.

A result is kept as a suite of `pyperf`, seconds per epoch, block by block, so that two states of the code can
be compared by `python -m pyperf compare_to`. Its runner measures one program after another; turns are
therefore taken here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyperf
from stage import COMMAND, ROOT, Record, result

from greysheep.errors import ProcessEndedError
from greysheep.system import jobs
from greysheep.system.files import write_text
from speed_parts import settings
from speed_parts.settings import BARE, EVALUATE, LIBRARY, Cell, Setup, Shape, needed_bytes

CODE = {
    **dict.fromkeys(LIBRARY, ("src/greysheep/nn/*.py", "src/greysheep/models/autoencoders/*.py")),
    "loop-sparse": ("benchmarks/speed_parts/looped.py",),
    "loop-dense": ("benchmarks/speed_parts/looped.py",),
    EVALUATE: ("src/greysheep/nn/*.py", "src/greysheep/models/**/*.py", "src/greysheep/metrics/*.py"),
    "memory": ("src/greysheep/*.py", "src/greysheep/system/*.py", "src/greysheep/models/**/*.py"),
}


class Worker:
    """A program in a fresh process, and the blocks it has done."""

    def __init__(self, name: str, cell: Cell, setup: Setup, kept: Path):
        self.name, self.error, self.peak = name, "", 0
        job = {"program": name, "device": setup.device, "threads": setup.threads, **vars(cell)}
        command = [*COMMAND, "speed_parts.worker"]
        self.process = jobs.Process.start(command, job, kept / f"{name}.log", setup.threads, answers=True)
        self.blocks: dict[str, list[float]] = {}
        self.sizes: dict[str, int] = {}
        self.busy: list[float] = []
        self.facts: Record = {}

    def ask(self, what: str, users: int = 0) -> Record:
        """Give an order and wait for the answer."""
        return self.process.ask({"do": what, "users": users})

    def attempt(self, work: Callable[..., None], *given: Any) -> None:
        """Do something, unless the program has ended; without the bare products the whole cell fails."""
        try:
            if not self.error:
                work(*given)
        except ProcessEndedError as error:
            if self.name == BARE:
                raise
            self.error = str(error)

    def warm_up(self, kinds: tuple[str, ...], shape: Shape, setup: Setup, whole: bool) -> None:
        """Wait until it has loaded; two batches of each kind; from their time, how many a block holds."""
        self.facts = self.ask("facts")
        for what in kinds:
            first = self.ask(what, 2 * shape.batch_size)
            batch = first["seconds"] / first["users"] * shape.batch_size
            batches = min(setup.batches, max(2, int(setup.block_seconds / batch)))
            self.sizes[what] = shape.n_users if whole else min(shape.n_users, batches * shape.batch_size)
            self.blocks[what] = []
        self.ask("keep")

    def block(self, what: str, shape: Shape, setup: Setup) -> None:
        """One block, scaled to an epoch; the share of its threads' time that it had a core."""
        done = self.ask(what, self.sizes[what])
        seconds = done["seconds"] if setup.clock == "wall" else done["cpu_seconds"]
        self.blocks[what].append(seconds / done["users"] * shape.n_users)
        self.busy.append(done["cpu_seconds"] / done["seconds"] / setup.threads)
        if what == "validate":
            self.ask("keep")  # untimed, as training does after a better epoch: the peak shows it

    def end(self) -> None:
        """End the process; the log of one that failed stays."""
        if self.error:
            self.process.close()
        else:
            self.process.stop()


def fingerprint(program: str) -> str:
    """Hash of the code that a result is about."""
    digest = hashlib.sha256()
    for pattern in CODE[program]:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def place(kept: Path, program: str, cell: Cell, setup: Setup) -> Path:
    """Where a result is kept."""
    return (
        kept / f"{cell.log}-k{cell.n_experts}-d{cell.latent}-{program}-{setup.device}-t{setup.threads}.json"
    )


def keep(file: Path, record: Record) -> Record:
    """Write a result: a suite of pyperf, its metadata all but the blocks; or plain JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if "blocks" not in record:
        write_text(file, json.dumps(record))
        return record
    about = json.dumps({key: value for key, value in record.items() if key not in ("blocks", "bare")})
    suite = []
    for who, prefix, peak in (("blocks", "", "peak"), ("bare", "bare ", "bare_peak")):
        for kind, values in record[who].items():
            metadata = {"name": prefix + kind, "mem_max_rss": record[peak], "about": about}
            suite.append(pyperf.Benchmark([pyperf.Run(values, metadata=metadata, collect_metadata=True)]))
    draft = file.with_suffix(".tmp.json")
    pyperf.BenchmarkSuite(suite).dump(str(draft), replace=True)
    draft.replace(file)
    return read(file)


def read(file: Path) -> Record:
    """A result that was kept."""
    kept_record: Record = json.loads(file.read_text())
    if "benchmarks" not in kept_record:
        return kept_record
    suite = pyperf.BenchmarkSuite.load(str(file))
    metadata = suite.get_benchmarks()[0].get_metadata()
    seconds = {benchmark.get_name(): list(benchmark.get_values()) for benchmark in suite}
    return {
        **json.loads(metadata["about"]),
        "machine": f"{metadata.get('cpu_model_name', 'unknown CPU')}, {metadata['cpu_count']} cores",
        "blocks": {kind: values for kind, values in seconds.items() if not kind.startswith("bare ")},
        "bare": {kind[5:]: values for kind, values in seconds.items() if kind.startswith("bare ")},
    }


def known(kept: Path, program: str, cell: Cell, setup: Setup) -> Record | None:
    """A result of the same code and settings."""
    file = place(kept, program, cell, setup)
    record = read(file) if file.exists() else {}
    same = record.get("how") == setup.key() and record.get("code") == fingerprint(program)
    return record if same and "skipped" not in record else None


def all_kept(kept: Path) -> list[Record]:
    """Every result in a folder that is about the code as it is now; the latest where there are several."""
    files = [file for file in kept.glob("*-k*-d*-*-t*.json") if not file.name.endswith(".tmp.json")]
    records = map(read, sorted(files, key=lambda file: file.stat().st_mtime_ns))
    now = [record for record in records if record["code"] == fingerprint(record["program"])]
    return list({(r["log"], r["n_experts"], r["latent"], r["program"]): r for r in now}.values())


def shape_of(log: str, kept: Path) -> Shape:
    """Size of a log's training problem, read once."""
    file = kept / f"shape-{log}.json"
    if not file.exists():
        from speed_parts.worker import sizes_of  # brings torch

        write_text(file, json.dumps(sizes_of(log)))
    return Shape(**json.loads(file.read_text()))


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


def measure_cell(programs: list[str], cell: Cell, setup: Setup, kept: Path) -> list[Record]:
    """Results of the programs in one cell: kept ones, skipped ones, and the rest measured now."""
    shape, records, todo = shape_of(cell.log, kept), [], []
    for program in programs:
        need = needed_bytes(program, cell, shape)
        finished = known(kept, program, cell, setup)
        if finished is not None:
            records.append(finished)
        elif need > setup.max_memory:
            reason = f"needs about {need / 1e9:.0f} GB, the limit is {setup.max_memory / 1e9:.0f} GB"
            record = {**facts_of(program, cell, setup), "shape": vars(shape), "skipped": reason}
            records.append(keep(place(kept, program, cell, setup), record))
        else:
            todo.append(program)
    for group in packed(todo, cell, shape, setup.max_memory):
        print(f"{cell.log}, K = {cell.n_experts}: {', '.join(group)}", file=sys.stderr, flush=True)
        records += measure_group(group, cell, shape, setup, kept)
    return records


def facts_of(program: str, cell: Cell, setup: Setup) -> Record:
    """What a result is about."""
    begun = time.strftime("%Y-%m-%d %H:%M")
    facts = {"code": fingerprint(program), "begun": begun, "load": os.getloadavg()[0]}
    return {"program": program, **vars(cell), "how": setup.key(), **facts}


def measure_group(group: list[str], cell: Cell, shape: Shape, setup: Setup, kept: Path) -> list[Record]:
    """All of a group side by side, the bare products among them (alone, where memory has no room for two)."""
    records = {name: facts_of(name, cell, setup) for name in group}  # the code may be edited meanwhile
    run, kinds = time.time_ns(), settings.EVALUATION_KINDS if group == [EVALUATE] else tuple(settings.KINDS)
    together = sum(needed_bytes(p, cell, shape) for p in (BARE, *group)) <= setup.max_memory
    done: dict[str, Worker] = {}
    for names in [[BARE, *group]] if together else [[BARE], group]:
        workers = [Worker(name, cell, setup, kept) for name in names]  # all load at the same time
        try:
            take_turns(workers, kinds, cell, shape, setup)
            for worker in workers:
                if worker.name in settings.PROGRAMS and not worker.error:
                    stages = worker.ask("stages", min(worker.sizes.values()))
                    records[worker.name]["stages"] = stages
        finally:
            for worker in workers:
                worker.end()
        done |= {worker.name: worker for worker in workers}
    bare = done[BARE]
    for name, record in records.items():
        worker = done[name]
        record |= {"shape": vars(shape), "run": run, "together": together, "facts": worker.facts}
        record |= {"busy": worker.busy, "peak": worker.peak, "bare_peak": bare.peak}
        record |= (
            {"skipped": worker.error} if worker.error else {"blocks": worker.blocks, "bare": bare.blocks}
        )
        records[name] = keep(place(kept, name, cell, setup), record)
    return list(records.values())


def take_turns(workers: list[Worker], kinds: tuple[str, ...], cell: Cell, shape: Shape, setup: Setup) -> None:
    """Warm the programs up, ask each in turn for a block until all have theirs, then for their peaks."""

    def peak(worker: Worker) -> None:
        worker.peak = worker.ask("peak")["peak"]

    whole = sum(settings.flops(cell, shape)) < settings.WHOLE_EPOCH_FLOPS
    for worker in workers:
        worker.attempt(worker.warm_up, kinds, shape, setup, whole)
    for number in range(setup.blocks):
        for what in kinds:
            turn = number % len(workers)
            for worker in workers[turn:] + workers[:turn]:
                worker.attempt(worker.block, what, shape, setup)
    for worker in workers:
        worker.attempt(peak, worker)


def measure_memory(cell: Cell, setup: Setup, kept: Path) -> Record:
    """Memory after loading."""
    from speed_parts.memory import loaded, save

    if (finished := known(kept, "memory", cell, setup)) is not None:
        return finished
    with tempfile.TemporaryDirectory() as scratch:
        folder = f"{scratch}/model"
        result(Path(scratch, "save.json"), save, threads=setup.threads, folder=folder, **vars(cell))
        options: Record = {"folder": folder, "n_experts": cell.n_experts}
        held = result(Path(scratch, "loaded.json"), loaded, threads=setup.threads, **options)["held"]
    return keep(place(kept, "memory", cell, setup), {**facts_of("memory", cell, setup), "held": held})
