"""The paper's tables again: the runs behind docs/results/reproduction.md.

    python benchmarks/reproduction.py tune multvae tall --minutes 20  # on validation rows of ML-1M, strict
    python benchmarks/reproduction.py run ml-1m-paper ml-1m-strict    # all models; resumes where it stopped
    python benchmarks/reproduction.py page                            # the page from what there is

`tune` is `greysheep tune` and `run` is `greysheep compare`, with the logs, filters and models of the page
(reproduction_tables.py). What tuning chose is written to benchmarks/tuned.yaml, which is committed: `run`
needs no tuning first. Runs lie in build/reproduction/; delete it to measure anew.
"""

from __future__ import annotations

import argparse
from typing import Any

import polars as pl
import yaml
from reproduction_tables import HELD, REFERENCE, RUNS, TABLES, TUNABLE, TUNED, models

import greysheep as gs


def tune(names: list[str], minutes: float) -> None:
    """Search each model's settings for as many minutes, and write down what was chosen."""
    log = TABLES["ml-1m-strict"].interactions()
    for name in names:
        storage = RUNS / "tune" / name / "study.journal"
        tuning = gs.tune(
            name, log, protocol="strict", seed=0, minutes=minutes, fixed=HELD.get(name), storage=storage
        )
        trials = tuning.trials
        text = TUNED.read_text()  # again: another search may have written meanwhile
        known = yaml.safe_load(text)
        known["settings"][name] = {k: v for k, v in tuning.best.items() if k not in HELD.get(name, {})}
        known["searches"][name] = {
            "trials": trials.height,
            "minutes": round(float(trials["seconds"].sum()) / 60, 1),
            "defaults": round(float(trials.filter(pl.col("number") == tuning.defaults)["value"][0]), 4),
            "best": round(float(tuning.best_value), 4),
        }
        comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        TUNED.write_text(comments + yaml.safe_dump(known, sort_keys=True))


def run(names: list[str], only: list[str] | None, seeds: list[int] | None, jobs: int, most: float) -> None:
    """Train and measure what is missing."""
    for name in names:
        wanted = [text for alias, text in models(TABLES[name]).items() if only is None or alias in only]
        compared(name, [REFERENCE, *wanted], seeds=seeds, jobs=jobs, max_minutes=most)


def compared(name: str, texts: list[str], seeds: list[int] | None = None, **options: Any) -> gs.Comparison:
    """The finished runs of a table, those that are missing made first."""
    table = TABLES[name]
    return gs.compare(
        table.interactions(), list(dict.fromkeys(texts)), protocol=table.protocol,
        seeds=seeds or list(table.seeds), out=RUNS / name, reference=REFERENCE,
        command=f"python benchmarks/reproduction.py run {name}", **options,
    )  # fmt: skip


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    tuning = actions.add_parser("tune")
    tuning.add_argument("models", nargs="*", default=list(TUNABLE))
    tuning.add_argument("--minutes", type=float, default=20)
    running = actions.add_parser("run")
    running.add_argument("tables", nargs="*", default=list(TABLES))
    running.add_argument("--only", action="append", help="a name of the page; repeat it")
    running.add_argument("--seeds", type=int, nargs="*")
    running.add_argument("--jobs", type=int, default=2)
    running.add_argument("--max-minutes", type=float, default=170)
    actions.add_parser("page")
    given = parser.parse_args()
    if given.action == "tune":
        tune(given.models, given.minutes)
    elif given.action == "run":
        run(given.tables, given.only, given.seeds, given.jobs, given.max_minutes)
    else:
        from reproduction_page import write

        print(write())


if __name__ == "__main__":
    main()
