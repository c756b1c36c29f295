"""A trained mixture of many experts against the index compiled from it: docs/results/compiled-index.md.

    python benchmarks/index.py --experts 100    # ML-1M, strict, seed 0: both stages, then the page

`train` keeps its model in build/index/; `measure` takes turns between the two and is run anew each time. Both
answer for all known users. `scores` is decoding alone, rows and gates (or vectors) at hand, users in blocks
of 512; `lists` is `recommend` as a user calls it, 20 items, known ones left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stage import BUILD, DATA, RESULTS, Record, result, write_page

import greysheep as gs
from greysheep.models.autoencoders.index import by_group, compile_index
from greysheep.models.recommender import Recommender
from greysheep.system.machine import peak_memory_bytes, usable_cores

PAGE = RESULTS / "compiled-index.md"
SETTINGS: Record = {
    "dropout": 0.3, "learning_rate": 0.004, "start_epoch": 10, "patience": 5, "epochs": 25,
}  # fmt: skip
"""A higher rate and fewer epochs than a good model has: an index only needs experts that have learned."""
ROWS = 512
TURNS = 5


def train(log: str, folder: str, experts: int) -> Record:
    """Fit and keep the model."""
    parts = gs.split(gs.Interactions.read(log), protocol="strict", seed=0)
    model = gs.TALL(n_experts=experts, seed=0, progress=True, **SETTINGS).fit(parts)
    model.save(Path(folder))
    return {"best epoch": model.best_epoch, "train seconds": model.train_seconds}


def scores(ranker: Recommender) -> None:
    """Decode every known user once."""
    for start in range(0, ranker.log.n_users, ROWS):
        users = np.arange(start, min(start + ROWS, ranker.log.n_users))
        ranker._scores(ranker.rows[users], ranker.user_state[users])


def seconds(work: Callable[[Any], Any], rankers: list[Any]) -> list[float]:
    """Median seconds of each, taking turns after a first round that is not counted."""
    seconds_of: list[list[float]] = [[] for _ in rankers]
    for _ in range(TURNS + 1):
        for ranker, times in zip(rankers, seconds_of, strict=True):
            begun = time.perf_counter()
            work(ranker)
            times.append(time.perf_counter() - begun)
    return [float(np.median(times[1:])) for times in seconds_of]


def measure(folder: str) -> Record:
    """Seconds in turns, NDCG by group, and what the index is like."""
    model: Any = gs.load(folder)
    begun = time.perf_counter()
    index = compile_index(model)
    built, users = time.perf_counter() - begun, model.log.user_ids
    losses = [row["loss"] for row in index.quality.to_dicts() if row["loss"] is not None]
    return {
        "seconds": {
            "scores": seconds(scores, [model, index]),
            "lists": seconds(lambda ranker: ranker.recommend(users, k=20), [model, index]),
        },
        "ndcg": [by_group(model, "test"), by_group(index, "test")], "users": len(users), "built": built,
        "rank": index.length, "worst": max(losses), "peak": peak_memory_bytes(), "epoch": model.best_epoch,
    }  # fmt: skip


def page(experts: int, measured: Record) -> Path:
    """Write docs/results/compiled-index.md."""
    full, compiled = measured["ndcg"]
    rows = [
        [f"{what} of {measured['users']:,} users, s", f"{a:.3f}", f"{b:.3f}", f"{a / b:.1f} x"]
        for what, (a, b) in measured["seconds"].items()
    ] + [
        [f"test NDCG@20, {name}", f"{full[name]:.4f}", f"{compiled[name]:.4f}",
         f"{100 * (compiled[name] / full[name] - 1):+.2f} %"]
        for name in full
    ]  # fmt: skip
    settings = ", ".join(f"{key}={value}" for key, value in SETTINGS.items())
    head = ["", f"mixture, K = {experts}", f"index, r = {measured['rank']}", "ratio"]
    machine = {"cores": usable_cores(), "turns": TURNS}
    return write_page(
        PAGE, experts=experts, measured=measured, settings=settings, head=head, rows=rows, **machine
    )


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--experts", type=int, default=100)
    experts = parser.parse_args().experts
    folder, log = str(BUILD / "index" / f"tall-{experts}"), str(DATA / "ml-1m" / "interactions.parquet")
    result(BUILD / "index" / f"train-{experts}.json", train, log=log, folder=folder, experts=experts)
    measured = result(BUILD / "index" / f"measure-{experts}.json", measure, again=True, folder=folder)
    print(page(experts, measured).read_text())


if __name__ == "__main__":
    main()
