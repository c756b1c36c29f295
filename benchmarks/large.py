"""Half a million users x 30,000 items on one machine: seconds and memory of every stage.

    python benchmarks/large.py                      # every stage that has no result yet, then the page
    python benchmarks/large.py --users 50000        # a tenth of it; no page
    python benchmarks/large.py --stages fit --again # one stage anew

Each stage is a fresh process and leaves build/large/<users>/<stage>.json. A stage is made of steps; the
steps before the one it is about (reading the log, for instance) are measured again, because its memory is
that of the whole process.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stage import BUILD, RESULTS, Record, result, write_page

import greysheep as gs
from greysheep.errors import GreysheepWarning
from greysheep.system.machine import peak_memory_bytes

PAGE = RESULTS / "large.md"
LIMIT = 12e9
USERS, ITEMS, ROWS_A_USER = 500_000, 30_000, 50
WORLD: Record = {"n_items": ITEMS, "n_communities": 8, "rows_per_user": ROWS_A_USER, "seed": 0}
MODEL: Record = {"n_experts": 4, "latent": 64, "epochs": 1, "batch_size": 512, "seed": 0}


class Steps(list[Record]):
    """Seconds, processor seconds and peak memory of each step of a stage."""

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a step and return what it made."""
        gc.collect()
        if (peaks := Path("/proc/self/clear_refs")).exists():
            peaks.write_text("5")  # from here on the peak is this step's
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        step = {"step": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak": peak_memory_bytes()}
        self.append(step)
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
        trainer: Any = super()._trainer(split, objective)
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


def simulate(folder: str, users: int) -> Record:
    """Make the log and write it."""
    steps, file = Steps(), Path(folder) / "log.parquet"
    made = steps("simulate", lambda: gs.simulate(n_users=users, **WORLD))
    steps("write parquet", lambda: made.log.frame().write_parquet(file))
    return {"steps": steps, "facts": {"bytes": file.stat().st_size}}


def read_and_split(folder: str, steps: Steps) -> Any:
    """The log as every later stage needs it."""
    log = steps("Interactions.read", lambda: gs.Interactions.read(Path(folder) / "log.parquet"))
    return steps("split, protocol strict", lambda: gs.split(log, protocol="strict"))


def split(folder: str) -> Record:
    """Read and split."""
    steps = Steps()
    log = read_and_split(folder, steps).log
    return {"steps": steps, "facts": {"rows": len(log), "users": log.n_users, "items": log.n_items}}


def score(parts: Any, steps: Steps) -> tuple[Any, list[str]]:
    """Mainstream scores of the train rows, and what was warned about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GreysheepWarning)
        scores = steps("mainstream scores", lambda: parts.mainstream)
    return scores, [str(one.message) for one in caught]


def mainstream(folder: str) -> Record:
    """Score every user."""
    steps = Steps()
    parts = read_and_split(folder, steps)
    scored, said = score(parts, steps)
    popularity = np.bincount(parts.rows("train").indices).astype(float)
    facts = {
        "pairs": float(popularity @ popularity), "sampled": scored.sampled, "bound": scored.bound,
        "said": said, "quantiles": np.quantile(scored.scores, [0.05, 0.5, 0.95]).tolist(),
    }  # fmt: skip
    return {"steps": steps, "facts": facts}


def fit(folder: str, batch_size: int, train_users: int | None) -> Record:
    """Train one epoch with validation and save the model."""
    steps = Steps()
    parts = read_and_split(folder, steps)
    score(parts, steps)
    model = Watched(**{**MODEL, "batch_size": batch_size}, progress=True)
    model.most = train_users
    steps("TALL.fit, one epoch", lambda: model.fit(parts))
    row = model.history[0]
    steps("save", lambda: model.save(Path(folder) / "model"))
    facts = {
        "cpu_seconds": model.cpu_seconds,
        "wall_seconds": {"epoch": row["train_seconds"], "validation": row["validation_seconds"]},
        "trained_users": train_users or parts.log.n_users, "ndcg@20 on validation": row["ndcg@20"],
        "batch_size": batch_size,
    }  # fmt: skip
    return {"steps": steps, "facts": facts}


def evaluate(folder: str) -> Record:
    """Load the model and measure every user."""
    steps = Steps()
    model = steps("load", lambda: gs.load(Path(folder) / "model"))
    score(model.split, steps)
    report = steps("evaluate, every user", lambda: gs.evaluate(model))
    return {"steps": steps, "facts": {"users": report.overall["n_users"], "text": str(report)}}


STAGES: dict[str, tuple[Callable[..., Record], tuple[str, ...]]] = {
    "simulate": (simulate, ("users",)),
    "split": (split, ()),
    "mainstream": (mainstream, ()),
    "fit": (fit, ("batch_size", "train_users")),
    "evaluate": (evaluate, ()),
}
"""Each stage's function and the options it takes beside the folder."""


def measured(options: argparse.Namespace, names: list[str], again: bool = False) -> dict[str, Record]:
    """The results of these stages, which are run now where there are none."""
    folder = BUILD / "large" / str(options.users)
    given = {name: {key: getattr(options, key) for key in STAGES[name][1]} for name in names}
    return {
        name: result(folder / f"{name}.json", STAGES[name][0], again=again, folder=str(folder), **given[name])
        for name in names
    }


def page(records: dict[str, Record]) -> Path:
    """docs/results/large.md."""
    rows = [
        ["" if number else name, step["step"], f"{step['seconds']:,.0f}", f"{step['cpu_seconds']:,.0f}",
         f"{step['peak'] / 1e9:.2f} GB"]
        for name, record in records.items() for number, step in enumerate(record["steps"])
    ]  # fmt: skip
    days = sorted({record["day"] for record in records.values()})
    facts = {name: record["facts"] for name, record in records.items()}
    return write_page(
        PAGE, rows=rows, version=gs.__version__, limit=LIMIT, shape=facts["split"],
        peak=max(step["peak"] for record in records.values() for step in record["steps"]),
        threads=", ".join(map(str, sorted({record["threads"] for record in records.values()}))),
        loads=[record["load"] for record in records.values()],
        days=" to ".join(dict.fromkeys((days[0], days[-1]))),
        scores=facts["mainstream"], trained=facts["fit"], seconds=facts["fit"]["cpu_seconds"],
        report=facts["evaluate"],
    )  # fmt: skip


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--batch-size", type=int, default=MODEL["batch_size"])
    parser.add_argument("--train-users", type=int, help="train on so many users only; the page says so")
    options = parser.parse_args()
    measured(options, options.stages.split(","), options.again)
    if options.users == USERS:
        print(page(measured(options, list(STAGES))))


if __name__ == "__main__":
    main()
