"""What writing a checkpoint costs at the size of ML-1M, as a share of the epoch before it.

    python benchmarks/chaos/cost.py OUT.json [--epochs 5] [--model tall]

One fit in one process writes a checkpoint after every epoch, whatever it costs: each is divided by the time
of its own epoch, training and validation, so that what else the machine does weighs on both. The fit itself
writes one when that takes at most SHARE of the time since the one before.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import greysheep as gs
from greysheep.models import create
from greysheep.models.training import checkpoints
from greysheep.models.training.checkpoints import Checkpoints, State


def measure(model: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Seconds and bytes of each checkpoint, and the seconds of its epoch."""
    seconds, sizes = list[float](), list[int]()
    write = Checkpoints.write

    def timed(self: Checkpoints, stage: int, epoch: int, state: State) -> None:
        begun = time.perf_counter()
        write(self, stage, epoch, state)
        seconds.append(time.perf_counter() - begun)
        sizes.append(sum(tensor.nbytes for tensor in state.tensors.values()))
        print(f"epoch {epoch}: {seconds[-1]:.2f} s for {sizes[-1]:,} bytes", flush=True)

    allowed, checkpoints.SHARE, Checkpoints.write = checkpoints.SHARE, math.inf, timed  # type: ignore[method-assign]
    log = gs.datasets.load("ml-1m").log
    fitted = create(model, epochs=epochs, threads=1, progress=True).fit(log, checkpoints=folder / "c")
    of_epochs = [row["train_seconds"] + row["validation_seconds"] for row in fitted.history]
    shares = [cost / epoch for cost, epoch in zip(seconds, of_epochs, strict=True)]
    share = statistics.median(shares)
    every = math.ceil(share / allowed)  # epochs from one checkpoint to the next
    return {
        "model": model, "experts": fitted.config.n_experts, "bytes": max(sizes), "seconds": seconds,
        "epoch_seconds": of_epochs, "shares": shares, "share": share, "allowed": allowed, "every": every,
        "share_of_fit": share / every,
    }  # fmt: skip


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--model", default="tall")
    ask = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        facts = measure(ask.model, ask.epochs, Path(folder))
    ask.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
