"""A trained mixture of many experts against the index compiled from it: docs/results/compiled-index.md.

    python benchmarks/index.py train --experts 100    # ML-1M, strict, seed 0; kept in build/index/
    python benchmarks/index.py measure --experts 100  # seconds in turns, NDCG by group; writes the page

Both answer for all known users. `scores` is decoding alone, rows and gates (or vectors) at hand, users in
blocks of 512; `lists` is `recommend` as a user calls it, 20 items, known ones left out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import greysheep as gs
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.autoencoders.index import by_group, compile_index
from greysheep.models.recommender import Recommender
from greysheep.system.machine import peak_memory_bytes

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "index"
PAGE = ROOT / "docs" / "results" / "compiled-index.md"
DATA = Path(os.environ.get("GREYSHEEP_DATA", ROOT.parent / "shared" / "data"))
SETTINGS: dict[str, Any] = {
    "dropout": 0.3, "beta": 1.3, "learning_rate": 0.004, "start_epoch": 10, "patience": 5, "epochs": 25,
}  # fmt: skip
"""As tuned, but with a higher rate and fewer epochs: an index only needs experts that have learned."""
ROWS = 512
TURNS = 5


def train(log: gs.Interactions, experts: int) -> None:
    """Fit and keep the model."""
    parts = gs.split(log, protocol="strict", seed=0)
    model = gs.TALL(n_experts=experts, seed=0, progress=True, **SETTINGS).fit(parts)
    model.save(BUILD / f"tall-{experts}")
    print(f"best epoch {model.best_epoch} of {model.epochs}, {model.train_seconds:.0f} s")


def scores(ranker: Recommender) -> None:
    """Decode every known user once."""
    for start in range(0, ranker.log.n_users, ROWS):
        users = np.arange(start, min(start + ROWS, ranker.log.n_users))
        ranker._scores(ranker.rows[users], ranker.user_state[users])


def seconds(work: Callable[[Any], Any], rankers: list[Any]) -> list[float]:
    """Median seconds of each, taking turns after a first round that is not counted."""
    found: list[list[float]] = [[] for _ in rankers]
    for _ in range(TURNS + 1):
        for ranker, times in zip(rankers, found, strict=True):
            begun = time.perf_counter()
            work(ranker)
            times.append(time.perf_counter() - begun)
    return [float(np.median(times[1:])) for times in found]


def measure(experts: int) -> str:
    """The page."""
    model = gs.load(BUILD / f"tall-{experts}")
    assert isinstance(model, MixtureModel)
    begun = time.perf_counter()
    index = compile_index(model)
    built = time.perf_counter() - begun
    users = model.log.user_ids
    decode = seconds(scores, [model, index])
    lists = seconds(lambda ranker: ranker.recommend(users, k=20), [model, index])
    full, compiled = by_group(model, "test"), by_group(index, "test")
    validation = {row["group"]: row["loss"] for row in index.quality.to_dicts()}
    head = f"| | mixture, K = {experts} | index, r = {index.length} | ratio |\n| --- | --- | --- | --- |"
    time_rows = [
        f"| {what} of {len(users):,} users, s | {a:.3f} | {b:.3f} | {a / b:.1f} x |"
        for what, (a, b) in (("scores", decode), ("lists", lists))
    ]
    group_rows = [
        f"| test NDCG@20, {name} | {full[name]:.4f} | {compiled[name]:.4f} "
        f"| {100 * (compiled[name] / full[name] - 1):+.2f} % |"
        for name in full
    ]
    worst = max(loss for loss in validation.values() if loss is not None)
    load, settings = os.getloadavg()[0], ", ".join(f"{key}={value}" for key, value in SETTINGS.items())
    return "\n".join([
        "# A compiled index against the mixture it was made from", "",
        f"`python benchmarks/index.py measure --experts {experts}`, after `train`: ML-1M, protocol `strict`, "
        f"seed 0, TALL at its best epoch, {model.best_epoch} ({settings}). "
        f"{len(os.sched_getaffinity(0))} CPU cores, load {load:.1f}; medians of {TURNS}, taking turns.", "",
        f"The smallest rank with which no group loses more than .5 % on validation rows is {index.length} "
        f"(largest loss there {100 * worst:.2f} %); built in {built:.1f} s; "
        f"peak memory of the process {peak_memory_bytes() / 1e9:.2f} GB.", "",
        head, *time_rows, *group_rows, "",
        "`scores` is decoding alone; `lists` adds leaving out known items and the 20 best, which cost the "
        "same on both sides.", "",
    ])  # fmt: skip


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("train", "measure"))
    parser.add_argument("--experts", type=int, default=100)
    given = parser.parse_args()
    if given.action == "train":
        train(gs.Interactions.read(DATA / "ml-1m" / "interactions.parquet"), given.experts)
    else:
        PAGE.write_text(measure(given.experts))
        print(PAGE.read_text())


if __name__ == "__main__":
    main()
