"""Which logs, models and settings the tables of docs/results/reproduction.md are about."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import yaml
from stage import BUILD, DATA, ROOT, Record

import greysheep as gs

RUNS = BUILD / "reproduction"
TUNED = ROOT / "benchmarks" / "tuned.yaml"
REFERENCE = "multvae"
CORE = {"min_user_items": 5, "min_item_users": 5}


@dataclass(frozen=True)
class Table:
    """One table of the page: a log, a protocol, seeds."""

    log: str
    protocol: str
    seeds: tuple[int, ...] = (0,)
    n_users: int | None = None
    read: Record = field(default_factory=dict)
    more: Record = field(default_factory=dict)
    """Settings of every local model and mixture, where K is held down."""

    def interactions(self) -> gs.Interactions:
        """The log; with `n_users` a sample of those whom the filter keeps, seed 0, then the filter again."""
        path = DATA / self.log / "interactions.parquet"
        log = gs.Interactions.read(path if path.exists() else path.with_suffix(".csv"), **self.read)
        if self.n_users is None or log.n_users <= self.n_users:
            return log
        kept = np.random.default_rng(0).choice(log.n_users, self.n_users, replace=False)
        frame = log.frame().filter(pl.col("user_id").is_in(log.user_ids.gather(kept).implode()))
        return gs.Interactions.read(frame, **{key: self.read[key] for key in CORE if key in self.read})


SAMPLED: Record = {"more": {"n_experts": 10}}
TABLES = {
    "ml-1m-paper": Table("ml-1m", "paper", (0, 1, 2)),
    "ml-1m-strict": Table("ml-1m", "strict", (0, 1, 2)),
    "yelp": Table("yelp", "strict", n_users=5000, read=CORE, **SAMPLED),
    "cds": Table("amazon-cds", "strict", n_users=5000, read=CORE, **SAMPLED),
    "digital-music": Table(
        "amazon-digital-music", "strict", n_users=8000, read={**CORE, "min_rating": 4}, **SAMPLED
    ),
}
PLAIN = ("popular", "itemknn", "ease", "ease-weighted", "ials", "multvae", "tall")
"""Shown with their defaults, too; TALL, which takes longest, on ML-1M only."""
LOCAL = ("loca", "lft", "enlft")
TUNABLE = ("itemknn", "ease", "ease-weighted", "ials", "multvae", "wl", *LOCAL, "moe", "lmoe", "tall")
HELD: dict[str, Record] = {
    "loca": {"local_epochs": 6, "n_experts": 20},
    "enlft": {"local_epochs": 3, "local_patience": 2, "n_experts": 20},
    "moe": {"n_experts": 4, "patience": 8},
    "lmoe": {"n_experts": 4, "patience": 8},
    "tall": {"n_experts": 4, "patience": 8, "weighting": "loss-change"},
}
"""What a search holds: few experts, so that a trial takes one or two minutes (`run` takes what it chose to
K = 10), and the weights, without which TALL is `lmoe`; few anchors and epochs (docs/results/local-models.md),
which `run` holds, too."""
PATIENCE = 8
"""Of mixtures in the tables."""
VARIANTS: dict[str, Record] = {
    "tall, uniform gate": {"gate": "uniform"},
    "tall, loss weight": {"weighting": "loss", "start_epoch": 0},
    "tall, loss weight and gap": {"weighting": "loss"},
}


def text_of(name: str, settings: Record) -> str:
    """`name[key=value,...]`, as `compare` takes it."""
    inside = ",".join(f"{key}={value}" for key, value in settings.items())
    return f"{name}[{inside}]" if inside else name


def tuned_settings() -> dict[str, Record]:
    """What the searches chose: {model: settings}."""
    settings: dict[str, Record] = yaml.safe_load(TUNED.read_text())["settings"]
    return settings


def stopping(name: str) -> Record:
    """The patience of a model in the tables, where it is not the default."""
    return {"patience": PATIENCE} if name in HELD else {}


def models(table: Table) -> dict[str, str]:
    """Name in the page -> text for `compare`."""
    tuned = tuned_settings()
    texts = {name: name for name in PLAIN if not (table.more and name == "tall")}
    for name in TUNABLE:
        held = HELD.get(name, {}) if name in LOCAL else stopping(name)
        if name in LOCAL or not tuned.get(name):
            texts[name] = text_of(name, held)
        if tuned.get(name):
            texts[f"{name}, tuned"] = text_of(name, {**tuned[name], **held})
    members = "+".join(text_of(name, tuned.get(name, {})) for name in ("ials", "ease-weighted"))
    texts["ials + ease-weighted"] = f"ensemble[members={members}]"
    for name in ("lft", "enlft") if not table.more else ():
        its = {key: value for key, value in tuned.get("wl", {}).items() if key != "power"}
        texts[f"{name} on wl as tuned"] = text_of(name, {"global_model": "wl", **its, **HELD.get(name, {})})
    variants = {**VARIANTS, **({"tall, K = 40": {"n_experts": 40}} if table.protocol == "paper" else {})}
    for name, changes in variants.items():  # the target asks for 40 experts under `paper`
        texts[name] = text_of("tall", {**tuned.get("tall", {}), **changes, **stopping("tall")})
    return texts
