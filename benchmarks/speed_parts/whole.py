"""Measurements that are one process each: evaluating every user, and memory after loading.

The model has its initial, random weights: how long ranking takes depends on shapes, not on what was learned.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from speed_parts.settings import Cell

REPEATS = 3


def resident() -> int:
    """Bytes this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def untrained(cell: Cell, device: str) -> Any:
    """A TALL with random weights that knows its split, ready to be evaluated and saved."""
    from greysheep.models.fitted import Fitted
    from speed_parts.worker import paper_split, tall

    model = tall(cell, device=device)
    model.fitted = Fitted(paper_split(cell.log), epochs=1, best_epoch=1)
    model._build(model.log.n_items)
    return model


def seconds(work: Callable[[], Any]) -> float:
    """Median of a few runs after a first one."""
    times = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return median(times[1:])


def evaluation(cell: Cell, device: str, threads: int) -> dict[str, Any]:
    """Every user with test rows against the whole catalogue: six metrics at 20, groups and intervals."""
    import torch

    import greysheep as gs
    from speed_parts.worker import Bare, tall

    torch.set_num_threads(threads)
    model = untrained(cell, device)
    bare = Bare(model.log.n_items, tall(cell).config.batch_size, cell, device)
    found: dict[str, Any] = {"users": model.log.n_users, "items": model.log.n_items}
    model._finish()
    begun = time.perf_counter()
    _ = model.mainstream  # computed once and kept, as after training
    found["groups"] = time.perf_counter() - begun
    found["bare"] = seconds(lambda: bare.validate(model.log.n_users))
    found["gates"] = seconds(model._finish)
    found["evaluate"] = seconds(lambda: gs.evaluate(model, k=20))
    found["bare again"] = seconds(lambda: bare.validate(model.log.n_users))
    return found


def memory(cell: Cell, folder: str | None) -> dict[str, Any]:
    """Bytes held after each step of loading; without a folder, a model is saved for a new process to load."""
    import subprocess

    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            model = untrained(cell, "cpu")
            model._finish()
            model.save(Path(scratch) / "model")
            command = [sys.executable, "-m", "speed_parts.whole", "memory", sys.argv[2], f"{scratch}/model"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            return dict(json.loads(done.stdout))
    held = {"python": resident()}
    import greysheep as gs

    held["import greysheep"] = resident()
    gs.TALL  # noqa: B018 - a lazy name: this is what brings torch
    held["greysheep.TALL (torch)"] = resident()
    model = gs.load(folder)
    held[f"model loaded, K = {cell.n_experts}"] = resident()
    model.recommend(model.log.user_ids[:100], k=20)
    held["100 users recommended to"] = resident()
    return held


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    wanted = Cell(asked["log"], asked["n_experts"], asked["latent"])
    if sys.argv[1] == "evaluate":
        answer = evaluation(wanted, asked["device"], asked["threads"])
    else:
        answer = memory(wanted, sys.argv[3] if len(sys.argv) > 3 else None)
    print(json.dumps(answer))
