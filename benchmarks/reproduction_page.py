"""docs/results/reproduction.md from the runs that `reproduction.py` left; measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from reproduction import compared
from reproduction_tables import RUNS, TABLES, TUNED, models
from stage import RESULTS, ROOT, Record, dot, write_page

import greysheep as gs
from greysheep.mainstream.groups import GROUPS
from greysheep.report.pages import chart_by_group
from greysheep.system.machine import usable_cores

PAGE = RESULTS / "reproduction.md"
PICTURE = ROOT / "docs" / "img" / "by_group.svg"
SHOWN = ("popular", "multvae", "tall, K = 40", "wl, tuned", "ease-weighted")
WORDS = ROOT / "benchmarks" / "reproduction.md"
"""What the figures say, in words; written by hand after looking at them, put at the head of the page."""

TARGETS: Record = yaml.safe_load((ROOT / "benchmarks" / "targets.yaml").read_text())
PUBLISHED: dict[str, list[float]] = TARGETS["published"]
"""NDCG@20 on ML-1M under `paper`: the five groups and the mean."""
RATIOS: list[tuple[str, str, float, list[str]]] = TARGETS["ratios"]
"""Model, group, least ratio to MultVAE, and the same model with other settings."""
HEAD = ("model", *GROUPS, "mean", "low / multvae", "mean / multvae", "verdict against multvae",
        "gate entropy", "best / last epoch", "fit s", "peak GB")  # fmt: skip


def lines_of(names: Mapping[str, str], comparison: gs.Comparison) -> Iterator[list[str]]:
    """One row per model of {name: text}: means ± standard deviation over seeds, ratios, verdict, cost."""
    summary = comparison.summary.filter(pl.col("grouping") == "mainstream")
    for alias, text in names.items():
        runs = [run for run in comparison.runs if run.label == text]
        if not runs:
            continue
        mine = {row["group"]: row for row in summary.filter(pl.col("label") == text).to_dicts()}
        cells = [
            dot(mine[group]["mean"]) + (f" ± {dot(mine[group]['sd'])}" if len(runs) > 1 else "")
            for group in (*GROUPS, "overall")
        ]
        tests = {row["group"]: row for row in comparison.tests.filter(pl.col("label") == text).to_dicts()}
        ratios = [f"{1 + tests[group]['ratio']:.3f}" if tests else "" for group in ("low", "overall")]
        epochs = ", ".join(f"{run.best_epoch}/{run.epochs}" for run in runs if run.epochs)
        seconds = f"{np.mean([run.train_seconds for run in runs]):.0f}"
        memory = f"{max(run.peak_memory_bytes for run in runs) / 1e9:.2f}"
        many = (
            "" if len(runs) == len(comparison.seeds) else f" ({len(runs)} of {len(comparison.seeds)} seeds)"
        )
        verdict, entropy = comparison.verdicts.get(text, ""), dot(runs[0].gate_entropy)
        yield [alias + many, *cells, *ratios, verdict, entropy, epochs, seconds, memory]


def section(name: str, comparison: gs.Comparison) -> Record:
    """One log under one protocol."""
    table, drawn = TABLES[name], ""
    first = (pl.col("grouping") == "mainstream") & (pl.col("label") == comparison.runs[0].label)
    test = comparison.summary.filter(first)
    rows = zip(test["group"], test["mean_test_rows"], strict=True)
    if table.n_users:
        drawn = f" Sample: {table.n_users:,} of the users left, seed 0, filtered again."
    return {
        "name": name, "table": table, "drawn": drawn, "rows": [*lines_of(models(table), comparison)],
        "seeds": f"seed{'s' * (len(table.seeds) > 1)} {', '.join(map(str, table.seeds))}",
        "counts": comparison.facts.get("Log", "").rpartition(": ")[2],  # without the place of the file
        "filter": ", ".join(f"{key}={value}" for key, value in table.read.items()) or "none",
        "test_rows": ", ".join(f"{group} {count:.0f}" for group, count in rows),
    }  # fmt: skip


def targets(comparison: gs.Comparison) -> list[list[str]]:
    """The targets on ML-1M, protocol `paper`, and what was measured."""
    texts = models(TABLES["ml-1m-paper"])
    summary = comparison.summary.filter(pl.col("grouping") == "mainstream")
    rows = []
    for alias, theirs in TARGETS["measured"].items():
        ours = {
            r["group"]: r["mean"] for r in summary.filter(pl.col("label") == texts.get(alias, "")).to_dicts()
        }
        if not ours:
            continue
        off = [abs(ours[g] - value) for g, value in zip((*GROUPS, "overall"), PUBLISHED[theirs], strict=True)]
        rows.append([f"{alias}: mean within .006 of {dot(PUBLISHED[theirs][-1])}", dot(ours["overall"]),
                     "yes" if off[-1] <= 0.006 else "**no**", ""])  # fmt: skip
        worst = int(np.argmax(off[:-1]))
        most = f"off by at most {dot(off[worst])} ({GROUPS[worst]})"
        met = "yes" if off[worst] <= 0.012 else "**no**"
        rows.append([f"{alias}: each group within .012", most, met, ""])
    ratios = {(r["label"], r["group"]): 1 + r["ratio"] for r in comparison.tests.to_dicts()}
    for alias, group, least, others in RATIOS:
        where = "overall" if group == "mean" else group
        value, *beside = (ratios.get((texts.get(name, ""), where)) for name in (alias, *others))
        reached = "not run" if value is None else f"{value:.3f}"
        met = "yes" if value is not None and value >= least else "**no**"
        more = [f"{name} {one:.3f}" for name, one in zip(others, beside, strict=True) if one is not None]
        rows.append([f"{alias}: {group} at least {least} x MultVAE", reached, met, ", ".join(more)])
    return rows


def picture(comparison: gs.Comparison) -> None:
    """The README's picture: some models by group, seed 0."""
    texts = models(TABLES["ml-1m-paper"])
    named = {texts[alias]: alias for alias in SHOWN if alias in texts}
    shown = [run for run in comparison.runs if run.label in named and run.seed == 0]
    if shown:
        chart_by_group([replace(run, label=named[run.label]) for run in shown], PICTURE)


def write() -> Path:
    """Write the page and the picture."""
    comparisons = {
        name: compared(name, list(models(TABLES[name]).values()), max_minutes=0, progress=False)
        for name in TABLES
        if (RUNS / name).is_dir()
    }
    if main := comparisons.get("ml-1m-paper"):
        picture(main)
    tuned = yaml.safe_load(TUNED.read_text())
    searches = [
        [name, f"{one['trials']}", f"{one['minutes']}", dot(one["defaults"]), dot(one["best"]),
         ", ".join(f"{k}={v}" for k, v in tuned["settings"][name].items()) or "the defaults"]
        for name, one in tuned["searches"].items()
    ]  # fmt: skip
    by_hand = [[f"`{one['model']}`", dot(one["mean"]), dot(one["low"])] for one in tuned.get("by-hand", [])]
    return write_page(
        PAGE, version=gs.__version__, cores=usable_cores(), groups=GROUPS, head=HEAD,
        words=WORDS.read_text() if WORDS.exists() else "",
        targets=targets(main) if main else None,
        sections=[section(name, one) for name, one in comparisons.items()],
        published=[[name, *map(dot, values)] for name, values in PUBLISHED.items()],
        searches=searches, by_hand=by_hand,
    )  # fmt: skip
