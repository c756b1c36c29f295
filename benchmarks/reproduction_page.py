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
from stage import RESULTS, ROOT, Record, dot, markdown, write_page

import greysheep as gs
from greysheep.mainstream.groups import GROUPS
from greysheep.report.pages import chart_by_group
from greysheep.system.machine import usable_cores

PAGE = RESULTS / "reproduction.md"
PICTURE = ROOT / "docs" / "img" / "by_group.svg"
SHOWN = ("popular", "multvae", "tall, K = 40", "wl, tuned", "ease-weighted")
WORDS = ROOT / "benchmarks" / "reproduction.md"
"""What the figures say, in words; written by hand after looking at them, put at the head of the page."""

# NDCG@20 on ML-1M, protocol `paper`: the five groups and the mean. The authors' rows are on their own split;
# the others were measured for this project, outside it, on the split of one seed.
PAPER = {
    "TALL, K = 100 (authors' figures)": (0.2746, 0.2903, 0.3112, 0.3784, 0.4733, 0.3456),
    "LFT on WL (authors' notebook)": (0.2713, 0.2917, 0.3074, 0.3732, 0.4661, 0.3419),
    "EnLFT on WL (authors' notebook)": (0.2585, 0.2878, 0.3028, 0.3663, 0.4558, 0.3342),
    "LOCA, 100 anchors (authors' notebook)": (0.2574, 0.2799, 0.2996, 0.3649, 0.4602, 0.3324),
    "WL (authors' notebook)": (0.2471, 0.2785, 0.2985, 0.3620, 0.4542, 0.3281),
    "MoE (authors' notebook, label unsure)": (0.2591, 0.2778, 0.3003, 0.3617, 0.4497, 0.3297),
    "loss-gated MoE (authors' notebook, label unsure)": (0.2717, 0.2887, 0.3067, 0.3739, 0.4587, 0.3399),
    "TALL, authors' program, K = 10 (measured)": (0.2675, 0.2838, 0.3051, 0.3639, 0.4696, 0.3380),
    "MultVAE (measured)": (0.2491, 0.2710, 0.2920, 0.3571, 0.4580, 0.3254),
    "EASE (measured)": (0.2569, 0.2824, 0.3092, 0.3776, 0.4830, 0.3418),
    "weighted EASE (measured)": (0.2689, 0.2894, 0.3165, 0.3792, 0.4857, 0.3480),
    "iALS, 4 seeds (measured)": (0.2611, 0.2798, 0.3036, 0.3627, 0.4489, 0.3312),
    "iALS + weighted EASE (measured)": (0.2729, 0.2906, 0.3156, 0.3813, 0.4780, 0.3476),
    "popularity (measured)": (0.0728, 0.1028, 0.1275, 0.2054, 0.3544, 0.1726),
}
MEASURED = {"ease": "EASE (measured)", "ease-weighted": "weighted EASE (measured)",
            "multvae": "MultVAE (measured)"}  # fmt: skip
RATIOS = (("loca", "mean", 1.02, ("loca, tuned",)),
          ("enlft, tuned", "mean", 1.02, ("enlft", "enlft on wl as tuned")),
          ("lft on wl as tuned", "low", 1.05, ("lft", "lft, tuned")),
          ("tall, K = 40", "low", 1.06, ("tall, tuned",)),
          ("tall, K = 40", "mean", 1.03, ("tall, tuned",)))  # fmt: skip
"""Model, group, least ratio to MultVAE, and what the same model reached with other settings."""


def lines_of(names: Mapping[str, str], found: gs.Comparison) -> Iterator[list[str]]:
    """A row a model of {name: text}: means over seeds ± their standard deviation, ratios, verdict, cost."""
    summary = found.summary.filter(pl.col("grouping") == "mainstream")
    for alias, text in names.items():
        runs = [run for run in found.runs if run.label == text]
        if not runs:
            continue
        mine = {row["group"]: row for row in summary.filter(pl.col("label") == text).to_dicts()}
        cells = [
            dot(mine[group]["mean"]) + (f" ± {dot(mine[group]['sd'])}" if len(runs) > 1 else "")
            for group in (*GROUPS, "overall")
        ]
        tests = {row["group"]: row for row in found.tests.filter(pl.col("label") == text).to_dicts()}
        ratios = [f"{1 + tests[group]['ratio']:.3f}" if tests else "" for group in ("low", "overall")]
        epochs = ", ".join(f"{run.best_epoch}/{run.epochs}" for run in runs if run.epochs)
        seconds = f"{np.mean([run.train_seconds for run in runs]):.0f}"
        memory = f"{max(run.peak_memory_bytes for run in runs) / 1e9:.2f}"
        many = "" if len(runs) == len(found.seeds) else f" ({len(runs)} of {len(found.seeds)} seeds)"
        verdict, entropy = found.verdicts.get(text, ""), dot(runs[0].gate_entropy)
        yield [alias + many, *cells, *ratios, verdict, entropy, epochs, seconds, memory]


def rows_table(names: Mapping[str, str], found: gs.Comparison) -> list[str]:
    """`lines_of` under its head."""
    head = ["model", *GROUPS, "mean", "low / multvae", "mean / multvae", "verdict against multvae",
            "gate entropy", "best / last epoch", "fit s", "peak GB"]  # fmt: skip
    return markdown(head, lines_of(names, found))


def section(name: str, found: gs.Comparison) -> list[str]:
    """One log under one protocol."""
    table, facts = TABLES[name], found.facts
    first = (pl.col("grouping") == "mainstream") & (pl.col("label") == found.runs[0].label)
    test = found.summary.filter(first)
    rows = ", ".join(f"{g} {n:.0f}" for g, n in zip(test["group"], test["mean_test_rows"], strict=True))
    seeds = f"seed{'s' * (len(table.seeds) > 1)} {', '.join(str(seed) for seed in table.seeds)}"
    counts = facts.get("Log", "").rpartition(": ")[2]  # without the place of the file
    kept = ", ".join(f"{key}={value}" for key, value in table.read.items()) or "none"
    drawn = f" Sample: {table.n_users:,} of the users left, seed 0, filtered again." if table.n_users else ""
    return [
        f"## {name}: protocol `{table.protocol}`, {seeds}", "",
        f"`python benchmarks/reproduction.py run {name}`. {table.log}: {counts}. Filter: {kept}.{drawn} "
        f"Test rows a user: {rows}.", "",
        *rows_table(models(table), found),
    ]  # fmt: skip


def asked(found: gs.Comparison) -> list[str]:
    """The targets on ML-1M, protocol `paper`, and what was measured."""
    texts = models(TABLES["ml-1m-paper"])
    summary = found.summary.filter(pl.col("grouping") == "mainstream")
    rows = []
    for alias, theirs in MEASURED.items():
        ours = {
            r["group"]: r["mean"] for r in summary.filter(pl.col("label") == texts.get(alias, "")).to_dicts()
        }
        if not ours:
            continue
        off = [abs(ours[g] - value) for g, value in zip((*GROUPS, "overall"), PAPER[theirs], strict=True)]
        rows.append([f"{alias}: mean within .006 of {dot(PAPER[theirs][-1])}", dot(ours["overall"]),
                     "yes" if off[-1] <= 0.006 else "**no**", ""])  # fmt: skip
        worst = int(np.argmax(off[:-1]))
        most = f"off by at most {dot(off[worst])} ({GROUPS[worst]})"
        met = "yes" if off[worst] <= 0.012 else "**no**"
        rows.append([f"{alias}: each group within .012", most, met, ""])
    ratios = {(r["label"], r["group"]): 1 + r["ratio"] for r in found.tests.to_dicts()}
    for alias, group, least, others in RATIOS:
        where = "overall" if group == "mean" else group
        value, *beside = (ratios.get((texts.get(name, ""), where)) for name in (alias, *others))
        told = "not run" if value is None else f"{value:.3f}"
        met = "yes" if value is not None and value >= least else "**no**"
        more = [f"{name} {one:.3f}" for name, one in zip(others, beside, strict=True) if one is not None]
        rows.append([f"{alias}: {group} at least {least} x MultVAE", told, met, ", ".join(more)])
    return [
        "## Asked and measured, ML-1M, protocol `paper`",
        "",
        *markdown(["asked", "measured", "met", "with other settings"], rows),
    ]


def searches() -> list[str]:
    """What tuning tried and chose."""
    known = yaml.safe_load(TUNED.read_text())
    rows = [
        [name, f"{one['trials']}", f"{one['minutes']}", dot(one["defaults"]), dot(one["best"]),
         ", ".join(f"{k}={v}" for k, v in known["settings"][name].items()) or "the defaults"]
        for name, one in known["searches"].items()
    ]  # fmt: skip
    return [
        "## Tuning", "",
        "`python benchmarks/reproduction.py tune`: ML-1M, protocol `strict`, seed 0, mean of "
        "NDCG@{1, 5, 10, 20} on validation rows; one thread a search, two searches at a time. The same "
        "settings serve both protocols and all logs: under `paper` a gate reads the rows it would be tuned "
        "on. Where a table has seeds 1 and 2, about 5 % of their test rows are among the rows that settings "
        "were chosen on with seed 0.", "",
        *markdown(["model", "trials", "minutes", "defaults", "best", "settings"], rows),
        *by_hand(known.get("by-hand", [])),
    ]  # fmt: skip


def by_hand(trials: list[Record]) -> list[str]:
    """Trials beside the searches."""
    rows = [[f"`{one['model']}`", dot(one["mean"]), dot(one["low"])] for one in trials]
    text = "Trials by hand, on the same validation rows; `low` is NDCG@20 of that group."
    return [text, "", *markdown(["model", "mean", "low"], rows)] if rows else []


def picture(found: gs.Comparison) -> None:
    """The README's picture: some models by group, seed 0."""
    texts = models(TABLES["ml-1m-paper"])
    named = {texts[alias]: alias for alias in SHOWN if alias in texts}
    reports = [
        replace(run, label=named[run.label]) for run in found.runs if run.label in named and run.seed == 0
    ]
    if reports:
        chart_by_group(reports, PICTURE)


def write() -> Path:
    """Write the page and the picture."""
    found = {
        name: compared(name, list(models(TABLES[name]).values()), max_minutes=0, progress=False)
        for name in TABLES
        if (RUNS / name).is_dir()
    }
    body = [
        "# The paper's tables again", "",
        "NDCG@20 by mainstream group, niche first, mean over seeds ± standard deviation; "
        f"greysheep {gs.__version__}, {usable_cores()} CPU cores, no GPU; two runs at a time, one thread "
        "each: seconds are upper bounds. Every run is a fresh process. Ratios and verdicts are paired user "
        "by user against `multvae` with its defaults, margin 2 %.", "",
        WORDS.read_text() if WORDS.exists() else "",
    ]  # fmt: skip
    if "ml-1m-paper" in found:
        body += asked(found["ml-1m-paper"])
        picture(found["ml-1m-paper"])
    for name, one in found.items():
        body += section(name, one)
        if name == "ml-1m-paper":
            rows = [[alias, *(dot(value) for value in values)] for alias, values in PAPER.items()]
            body += ["Beside it, what others measured on other splits of the same log:", "",
                     *markdown(["model", *GROUPS, "mean"], rows)]  # fmt: skip
    return write_page(PAGE, body, searches())
