"""Size, time and round trips on the other data sets: the runs behind docs/results/real-data.md.

    python benchmarks/real_data.py            # all checks, each in fresh processes, then the page
    python benchmarks/real_data.py --check yelp-k4

Every check prints one line of JSON: what was asked, what was measured, whether the one meets the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import greysheep as gs

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "real-data.md"
DATA = Path(os.environ.get("GREYSHEEP_DATA", ROOT.parent / "shared" / "data"))
MUSIC = {"min_rating": 4, "min_user_items": 5, "min_item_users": 5}
Finding = dict[str, Any]


def peak_gb() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def finding(asked: str, measured: str, met: bool) -> Finding:
    """A line of the page."""
    return {"asked": asked, "measured": measured, "met": bool(met)}


def three_epochs(name: str, limit_gb: float, **keywords: Any) -> Finding:
    """Peak memory of three epochs, protocol `paper`."""
    log = gs.datasets.load(name).log
    model = gs.TALL(epochs=3, progress=True, **keywords).fit(gs.split(log, protocol="paper"))
    seconds = [row["train_seconds"] + row["validation_seconds"] for row in model.history]
    peak = model.peak_memory_bytes / 1e9
    asked = f"{name}, K = {keywords['n_experts']}, three epochs inside {limit_gb} GB"
    threads = torch.get_num_threads()
    measured = f"{peak:.2f} GB; {np.median(seconds):.0f} s an epoch with validation, {threads} thread(s)"
    return finding(asked, measured, peak <= limit_gb)


def yelp_mainstream() -> Finding:
    """Exact mainstream scores of all Yelp users."""
    log = gs.datasets.load("yelp").log
    begun = time.perf_counter()
    scores = gs.mainstream_scores(log.matrix())
    seconds = time.perf_counter() - begun
    asked = "mainstream scores of all 33,078 Yelp users, exact, under 10 s and 1.5 GB"
    measured = f"{len(scores):,} users, {seconds:.2f} s, {peak_gb():.2f} GB"
    return finding(asked, measured, seconds < 10 and peak_gb() < 1.5)


def same_bits() -> Finding:
    """A second fit with the same seed, on ML-1M."""
    split = gs.split(gs.datasets.load("ml-1m").log, protocol="paper")
    states = [gs.TALL(epochs=3, start_epoch=1, progress=False, seed=3).fit(split)._state() for _ in range(2)]
    same = all(np.array_equal(states[0][key].numpy(), states[1][key].numpy()) for key in states[0])
    return finding(
        "a second fit with the same seed gives bit-identical weights",
        f"{len(states[0])} tensors {'identical' if same else 'DIFFERENT'} after 3 epochs",
        same,
    )


def greysheep(*words: str) -> str:
    """Run the command; its standard output."""
    done = subprocess.run([sys.executable, "-m", "greysheep", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"greysheep {' '.join(words)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def round_trip(name: str, file: str, options: list[str], keywords: list[str]) -> Finding:
    """Fit, evaluate, recommend and save by command; load in this, another process: same lists, same ids."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, lists = Path(scratch) / "model", Path(scratch) / "recs.parquet"
        settings = [word for key in keywords for word in ("--set", key)]
        greysheep("fit", str(DATA / file), "-o", str(folder), *options, "--protocol", "temporal", *settings)
        report = json.loads(greysheep("evaluate", str(folder), "--json", "-"))
        greysheep("recommend", str(folder), "-k", "20", "-o", str(lists))
        model = gs.load(folder)
        mine, theirs = model.recommend(k=20), pl.read_parquet(lists)
        raw = pl.read_parquet(DATA / file) if file.endswith("parquet") else pl.read_csv(DATA / file)
        known = mine["item_id"].is_in(raw["item_id"].unique().implode()).all()
        same = mine.equals(theirs) and bool(known)
        overall = report["overall"]["ndcg@20"]["mean"]
        low = report["by_group"][0]["ndcg@20"]["mean"]
        measured = (
            f"{model.log.n_users:,} users x {model.log.n_items:,} items, "
            f"lists {'equal' if same else 'DIFFER'}; "
            f"example id {mine['item_id'][0]!r}; NDCG@20 {overall:.4f}, low {low:.4f}"
        )
    return finding(f"{name}, protocol temporal: fit, evaluate, recommend, save, load", measured, same)


def music() -> Finding:
    """Digital Music with its filter."""
    options = ["--min-rating", "4", "--min-user-items", "5", "--min-item-users", "5"]
    file = "amazon-digital-music/interactions.csv"
    return round_trip(
        "Digital Music 4+, 5-core", file, options, ["epochs=12", "start_epoch=5", "n_experts=4"]
    )


def cds() -> Finding:
    """CDs, text ids."""
    options, file = ["--time-col", "position"], "amazon-cds/interactions.parquet"
    return round_trip("Amazon CDs", file, options, ["epochs=4", "start_epoch=2", "n_experts=2", "latent=50"])


def start_up() -> Finding:
    """Import and help, medians of five."""

    def seconds(*command: str) -> float:
        times = []
        for _ in range(6):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            times.append(time.perf_counter() - begun)
        return float(np.median(times[1:]))

    bare = seconds("-c", "pass")
    imported = seconds("-c", "import greysheep, sys; assert 'torch' not in sys.modules") - bare
    helped = seconds("-m", "greysheep", "--help")
    return finding(
        "import under 0.3 s without torch; `greysheep --help` under 0.6 s",
        f"import {imported:.2f} s, --help {helped:.2f} s",
        imported < 0.3 and helped < 0.6,
    )


CHECKS: dict[str, Callable[[], Finding]] = {
    "start-up": start_up,
    "yelp-mainstream": yelp_mainstream,
    "same-bits": same_bits,
    "ml-1m-k100": lambda: three_epochs("ml-1m", 6, n_experts=100),
    "yelp-k4": lambda: three_epochs("yelp", 8, n_experts=4),
    "digital-music": music,
    "cds": cds,
}


def main() -> None:
    """Run one check here, or all of them in fresh processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", choices=sorted(CHECKS))
    given = parser.parse_args()
    if given.check:
        print(json.dumps(CHECKS[given.check]()))
        return
    rows = []
    for name in CHECKS:
        command = [sys.executable, __file__, "--check", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Other data sets: size, time and round trips",
        "",
        f"Made by `make eval` (`python benchmarks/real_data.py`), greysheep {gs.__version__}, "
        f"{cores} CPU cores.",
        "Peak memory is that of a fresh process.",
        "",
        "| asked | measured | met |",
        "| --- | --- | --- |",
        *(f"| {r['asked']} | {r['measured']} | {'yes' if r['met'] else '**no**'} |" for r in rows),
        "",
    ]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines))
    if not all(r["met"] for r in rows):
        raise SystemExit("not everything that was asked is met")


if __name__ == "__main__":
    main()
