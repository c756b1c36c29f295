"""The open questions of the paper, answered by runs: docs/results/questions.md and a figure each.

    python benchmarks/questions.py run        # all questions (--only alpha gap ...); resumes where it stopped
    python benchmarks/questions.py page       # the page and the figures from what there is

Half of ML-1M's users (seed 0), protocol `strict`, one seed, TALL with 5 experts and the settings that tuning
chose on the whole log (benchmarks/tuned.yaml) but for what a question changes. Thinning keeps a share of
every user's rows, at least 4.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from panels import draw
from reproduction_tables import PATIENCE, text_of, tuned_settings
from stage import BUILD, DATA, RESULTS, ROOT, Record, dot, write_page

import greysheep as gs
from greysheep.mainstream.groups import GROUPS

RUNS = BUILD / "questions"
PAGE = RESULTS / "questions.md"
PICTURES = ROOT / "docs" / "img"
WORDS = ROOT / "benchmarks" / "questions.yaml"
"""{question: its answer in words}, and `head`; written by hand after looking at the figures."""
THIN = (1, 2, 4, 8)
SEED = 0
HELD: Record = {"n_experts": 5, "patience": PATIENCE}
"""Half of the default's experts, for half of its time."""


@dataclass(frozen=True)
class Question:
    """One figure: TALL under some changes, on logs thinned to one in `thin` rows."""

    title: str
    changes: dict[str, Record]
    """Name in the figure -> settings."""
    thin: tuple[int, ...] = (1,)


def values(key: str, some: tuple[Any, ...]) -> dict[str, Record]:
    """One setting over some values, with the weights that TALL has if not told otherwise."""
    return {str(value): {key: value, **PUBLISHED} for value in some}


PUBLISHED: Record = {"weighting": "loss-change"}
WEIGHTS: dict[str, Record] = {
    "no weights": {"weighting": "none"},
    "loss, standardised": {"weighting": "loss", "signal_scale": "standardised", "alpha": 1.0},
    "loss change, sum": {"weighting": "loss-change", "signal_scale": "sum", "alpha": 0.5},
    "loss change, mean": {"weighting": "loss-change", "signal_scale": "mean", "alpha": 0.01},
    "loss change, standardised": {"weighting": "loss-change", "signal_scale": "standardised", "alpha": 1.0},
}
GATES: dict[str, Record] = {
    "uniform": {"gate": "uniform"},
    "loss (published)": PUBLISHED,
    **{f"temperature {t}": {"gate": "temperature", "temperature": t} for t in (0.03, 0.1, 0.3, 1.0)},
}
ROUTING: dict[str, Record] = {
    "all": {"n_experts": 10, **PUBLISHED},
    "once an epoch": {"n_experts": 10, "gate_refresh": "epoch"},
    **{f"m = {m}": {"n_experts": 10, "active_experts": m, "warm_up": 10} for m in (5, 2, 1)},
}
QUESTIONS = {
    "signal": Question("Loss change against loss, by sparsity, and the three signal scales", WEIGHTS, THIN),
    "experts": Question("Experts K", values("n_experts", (1, 5, 10, 20, 40))),
    "gap": Question("Gap T (start_epoch)", values("start_epoch", (0, 10, 20, 40, 60))),
    "alpha": Question("alpha", values("alpha", (0.1, 0.25, 0.5, 1.0, 2.0, 4.0))),
    "gate": Question("Is held-out loss a signal for the gate?", GATES, (1, 8)),
    "routing": Question(
        "Cheaper gates: once an epoch, or m of 10 experts after a warm-up of 10 epochs", ROUTING
    ),
}


def half() -> pl.DataFrame:
    """Half of ML-1M's users."""
    frame = pl.read_parquet(DATA / "ml-1m" / "interactions.parquet")
    users = frame["user_id"].unique().sort()
    kept = users.gather(np.random.default_rng(SEED).choice(len(users), len(users) // 2, replace=False))
    return frame.filter(pl.col("user_id").is_in(kept.implode()))


def thinned(thin: int) -> gs.Interactions:
    """One in `thin` rows of every user, at least 4, drawn with the seed."""
    frame = half().sort("user_id", "item_id")
    order = np.random.default_rng(SEED).random(frame.height)
    place = pl.col("order").rank("ordinal").over("user_id")
    kept = pl.max_horizontal(pl.len().over("user_id") // thin, pl.lit(4))
    return gs.Interactions.read(
        frame.with_columns(order=order).filter(place <= kept).select("user_id", "item_id"), min_item_users=1
    )


def texts(question: Question) -> dict[str, str]:
    """Name in the figure -> text for `compare`; settings that another switches off are left out."""
    out = {}
    for name, changes in question.changes.items():
        settings = {**tuned_settings().get("tall", {}), **HELD, **changes}
        idle = ["alpha", "signal_scale", "start_epoch"] if settings.get("weighting") == "none" else []
        idle += ["temperature"] if settings.get("gate") != "temperature" else []
        out[name] = text_of("tall", {key: value for key, value in settings.items() if key not in idle})
    return out


def measured(key: str, thin: int, jobs: int, most: float, progress: bool) -> gs.Comparison:
    """The runs of a question on one log; those of other questions that are the same are not repeated."""
    wanted = texts(QUESTIONS[key])
    return gs.compare(
        thinned(thin), list(dict.fromkeys(wanted.values())), protocol="strict", seeds=[SEED],
        out=RUNS / f"thin-{thin}", jobs=jobs, max_minutes=most, progress=progress,
    )  # fmt: skip


def numbers(key: str, thin: int) -> dict[str, Record]:
    """Name -> mean by group, gate entropy, epochs, seconds and memory of its run, where it is finished."""
    finished = {run.label: run for run in measured(key, thin, 1, 0, False).runs}
    out: dict[str, Record] = {}
    for name, text in texts(QUESTIONS[key]).items():
        if text in finished:
            run = finished[text]
            groups = dict(zip(run.by_group["group"], run.by_group["ndcg@20"], strict=True))
            best = run.history[run.best_epoch - 1]
            out[name] = {
                **groups, "mean": run.overall["ndcg@20"]["mean"], "entropy": run.gate_entropy,
                "validation": best["objective"], "epochs": f"{run.best_epoch} / {run.epochs}",
                "seconds": run.train_seconds, "epoch": run.train_seconds / run.epochs,
                "memory": run.peak_memory_bytes,
            }  # fmt: skip
    return out


def picture(key: str, variants: dict[int, dict[str, Record]]) -> Path:
    """`low` and the mean of every variant; one panel per thinning."""
    panels = {
        "all rows" if thin == 1 else f"1 in {thin} rows": {
            what: {name: one[what] for name, one in named.items()} for what in ("mean", "low")
        }
        for thin, named in variants.items()
        if named
    }
    ordered = all(name.replace(".", "").isdigit() for named in variants.values() for name in named)
    line = "-" if ordered else ""  # no line where no order
    styles = {"mean": ("#1f6f8b", "s", line), "low": ("#c8553d", "o", line)}
    return draw(PICTURES / f"question_{key}.svg", panels, styles, "NDCG@20")


HEAD = ("variant", "rows kept", *GROUPS, "mean", "validation", "gate entropy", "best / last epoch", "fit s",
        "s an epoch", "GB")  # fmt: skip


def section(key: str, words: dict[str, str]) -> Record | None:
    """Question, answer, figure, table; None of a question without runs."""
    thins = [thin for thin in QUESTIONS[key].thin if (RUNS / f"thin-{thin}").is_dir()]
    variants = {thin: numbers(key, thin) for thin in thins}
    if not any(variants.values()):
        return None
    rows = [
        [name, f"1/{thin}", *(dot(one[what]) for what in (*GROUPS, "mean", "validation")),
         "" if one["entropy"] is None else f"{abs(one['entropy']):.4f}", one["epochs"],
         f"{one['seconds']:.0f}", f"{one['epoch']:.1f}", f"{one['memory'] / 1e9:.2f}"]
        for thin, named in variants.items() for name, one in named.items()
    ]  # fmt: skip
    about = {"title": QUESTIONS[key].title, "words": words.get(key, "")}
    return {**about, "picture": picture(key, variants).name, "rows": rows}


def page() -> Path:
    """Write the page and its figures."""
    words = yaml.safe_load(WORDS.read_text()) if WORDS.exists() else {}
    sections = [section(key, words) for key in QUESTIONS]
    tuned = texts(Question("", {"": {}}))[""]
    return write_page(
        PAGE, version=gs.__version__, log=thinned(1), tuned=tuned, head=HEAD,
        words={"head": "", **words}, sections=list(filter(None, sections)),
    )  # fmt: skip


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("run", "page"))
    parser.add_argument("--only", nargs="*", choices=tuple(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--max-minutes", type=float, default=170)
    given = parser.parse_args()
    if given.action == "page":
        print(page())
        return
    for key in given.only:
        for thin in QUESTIONS[key].thin:
            measured(key, thin, given.jobs, given.max_minutes, True)


if __name__ == "__main__":
    main()
