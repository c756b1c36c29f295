"""Half a million users x 30,000 items on one machine: seconds and memory of every stage.

    python benchmarks/large.py                      # every stage that has no result yet, then the page
    python benchmarks/large.py --users 50000        # a tenth of it; no page
    python benchmarks/large.py --stages fit --again # one stage anew

Each stage runs in a fresh process and leaves build/large/<users>/<stage>.json; an interrupted run goes on
after the last finished stage. A stage is made of steps; the steps before the one it is about (reading the
log, for instance) are measured again, because its memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import greysheep as gs
from greysheep.errors import GreysheepWarning
from greysheep.mainstream.groups import Mainstream
from greysheep.system.machine import peak_memory_bytes

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "large"
USERS, ITEMS, ROWS_A_USER = 500_000, 30_000, 50
WORLD = {"n_items": ITEMS, "n_communities": 8, "rows_per_user": ROWS_A_USER, "seed": 0}
MODEL = {"n_experts": 4, "latent": 64, "epochs": 1, "batch_size": 512, "seed": 0}
STAGES = ("simulate", "split", "mainstream", "fit", "evaluate")


class Steps:
    """Seconds, processor seconds and peak memory of each step of a stage."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a step and return what it made."""
        gc.collect()
        if (peaks := Path("/proc/self/clear_refs")).exists():
            peaks.write_text("5")  # from here on the peak is this step's
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        step = {"step": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak": peak_memory_bytes()}
        self.found.append(step)
        print(f"  {name}: {seconds:.1f} s, {step['peak'] / 1e9:.2f} GB", file=sys.stderr, flush=True)
        return made


class Watched(gs.TALL):
    """TALL that counts the processor seconds of its parts.

    Its epoch may pass over some of the users only, where a whole one takes too long.
    """

    most: int | None = None

    def __init__(self, **keywords: Any):
        super().__init__(**keywords)
        self.cpu_seconds: dict[str, float] = {}

    def _trainer(self, split: Any, objective: Any) -> Any:
        trainer = super()._trainer(split, objective)
        if self.most is not None:
            trainer.users = np.random.default_rng(0).permutation(trainer.users)[: self.most]
        trainer.train_epoch = self._counted("epoch", trainer.train_epoch)
        trainer.validate = self._counted("validation", trainer.validate)
        return trainer

    def _finish(self) -> None:
        self._counted("gates", super()._finish)()

    def _counted(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            begun = time.process_time()
            made = work(*given)
            self.cpu_seconds[name] = time.process_time() - begun
            return made

        return counted


def simulate(folder: Path, n_users: int, steps: Steps, _: argparse.Namespace) -> dict[str, Any]:
    """Make the log and write it."""
    made = steps("simulate", lambda: gs.simulate(n_users=n_users, **WORLD))
    steps("write parquet", lambda: made.log.frame().write_parquet(folder / "log.parquet"))
    return {"bytes": (folder / "log.parquet").stat().st_size}


def read_and_split(folder: Path, steps: Steps) -> Any:
    """The log as every later stage needs it."""
    log = steps("Interactions.read", lambda: gs.Interactions.read(folder / "log.parquet"))
    return steps("split, protocol strict", lambda: gs.split(log, protocol="strict"))


def split(folder: Path, n_users: int, steps: Steps, _: argparse.Namespace) -> dict[str, Any]:
    """Read and split."""
    parts = read_and_split(folder, steps)
    return {"rows": len(parts.log), "users": parts.log.n_users, "items": parts.log.n_items}


def score(parts: Any, steps: Steps) -> tuple[Any, list[str]]:
    """Mainstream scores of the train rows, and what was said about them."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", GreysheepWarning)
        found = steps("mainstream scores", lambda: Mainstream.of_split(parts))
    return found, [str(one.message) for one in said]


def mainstream(folder: Path, n_users: int, steps: Steps, _: argparse.Namespace) -> dict[str, Any]:
    """Score every user."""
    parts = read_and_split(folder, steps)
    found, said = score(parts, steps)
    popularity = np.bincount(parts.rows("train").indices).astype(float)
    spread = np.quantile(found.scores, [0.05, 0.5, 0.95]).tolist()
    return {
        "pairs": float(popularity @ popularity), "sampled": found.sampled, "bound": found.bound, "said": said,
        "quantiles": spread,
    }  # fmt: skip


def fit(folder: Path, n_users: int, steps: Steps, options: argparse.Namespace) -> dict[str, Any]:
    """Train one epoch with validation and save the model."""
    parts = read_and_split(folder, steps)
    score(parts, steps)
    model = Watched(**{**MODEL, "batch_size": options.batch_size}, progress=True)
    model.most = options.train_users
    steps("TALL.fit, one epoch", lambda: model.fit(parts))
    row = model.history[0]
    steps("save", lambda: model.save(folder / "model"))
    return {
        "cpu_seconds": model.cpu_seconds,
        "wall_seconds": {"epoch": row["train_seconds"], "validation": row["validation_seconds"]},
        "trained_users": options.train_users or n_users, "ndcg@20 on validation": row["ndcg@20"],
        "batch_size": options.batch_size,
    }  # fmt: skip


def evaluate(folder: Path, n_users: int, steps: Steps, _: argparse.Namespace) -> dict[str, Any]:
    """Load the model and measure every user."""
    model = steps("load", lambda: gs.load(folder / "model"))
    score(model.split, steps)
    report = steps("evaluate, every user", lambda: gs.evaluate(model))
    return {"users": report.overall["n_users"], "text": str(report)}


def run_stage(name: str, options: argparse.Namespace) -> None:
    """Do a stage in this process and keep what was measured."""
    folder = BUILD / str(options.users)
    folder.mkdir(parents=True, exist_ok=True)
    steps = Steps()
    facts = globals()[name](folder, options.users, steps, options)
    found = {"stage": name, "steps": steps.found, "facts": facts, "load": os.getloadavg()[1],
             "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
             "day": time.strftime("%Y-%m-%d")}  # fmt: skip
    draft = folder / f".{name}.json"
    draft.write_text(json.dumps(found, indent=2) + "\n")
    draft.replace(folder / f"{name}.json")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--batch-size", type=int, default=MODEL["batch_size"])
    parser.add_argument("--train-users", type=int, help="train on so many users only; the page says so")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, options)
        return
    for name in options.stages.split(","):
        if options.again or not (BUILD / str(options.users) / f"{name}.json").exists():
            print(f"{name}, {options.users:,} users", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--stage", name], check=True)
    if options.users == USERS:
        from large_page import write

        print(f"wrote {write(BUILD / str(USERS)).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
