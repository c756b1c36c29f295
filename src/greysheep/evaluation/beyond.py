"""The figures beside accuracy, of all users and by group, and what was found by popularity of the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from greysheep.data.columns import GROUP
from greysheep.mainstream.groups import UserGroups
from greysheep.metrics import beyond
from greysheep.metrics.ranking import hits
from greysheep.metrics.statistics import bootstrap_means, interval

Floats = NDArray[np.float64]

BEYOND = (
    "coverage",
    "gini",
    "popularity",
    "popularity_chosen",
    "popularity_lift",
    "novelty",
    "diversity",
    "auc",
)
"""Names of the figures, before @k; docs/audit.md and `metrics.beyond` define them."""
POPULARITY = ("tail", "lower", "middle", "upper", "head")
"""Fifths of the rows by popularity of their items, the rarest items first."""


@dataclass(frozen=True)
class Lists:
    """What is judged: n users, their lists, what they had and what was to be found.

    ranked: [n, N] item codes. seen: [U, I] rows shown as input. users: [n] codes. truth: [n, I].
    vectors: [I, F] of the items, or None. auc: [n], or None for lists without scores.
    """

    ranked: NDArray[np.int64]
    seen: sparse.csr_matrix
    users: NDArray[np.int64]
    truth: sparse.csr_matrix
    lengths: Sequence[int]
    vectors: Floats | None = None
    auc: Floats | None = None

    def per_user(self) -> dict[str, Floats]:
        """Figures that each user has, [n] each, NaN where she has none."""
        counts, own = self.counts, beyond.chosen_popularity(self.seen)[self.users]
        n_users = int((np.diff(self.seen.indptr) > 0).sum())
        values: dict[str, Floats] = {"popularity_chosen": own}
        for k in self.lengths:
            cut = self.ranked[:, :k]
            values[f"popularity@{k}"] = beyond.popularity(cut, counts)
            values[f"novelty@{k}"] = beyond.novelty(cut, counts, n_users)
            if self.vectors is not None:
                values[f"diversity@{k}"] = beyond.diversity(cut, self.vectors)
        return values if self.auc is None else {**values, "auc": self.auc}

    @property
    def counts(self) -> NDArray[np.int64]:
        """[I] rows of each item that were shown as input."""
        return np.bincount(self.seen.indices, minlength=self.seen.shape[1])

    def of_everybody(self, users: NDArray[np.bool_]) -> dict[str, float]:
        """Coverage and Gini of the lists of some users, [n] which."""
        found = {}
        for k in self.lengths:
            exposed = beyond.exposure(self.ranked[users, :k], self.seen.shape[1])
            listed = exposed.sum() > 0
            found[f"coverage@{k}"] = beyond.coverage(exposed) if listed else np.nan
            found[f"gini@{k}"] = beyond.gini(exposed)
        return found


def figures(
    lists: Lists, per_user: Mapping[str, Floats], members: UserGroups, draws: int, seed: int
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Means and intervals by group, and overall, as `evaluate` has them for accuracy.

    members: the groups of the n users. Coverage and Gini are about a set of lists: they have no interval,
    and those of a group of few users are low, and high, for that reason alone.
    """
    ratios = {name: (value, np.ones(len(value)), 0.0) for name, value in per_user.items()}
    for k in lists.lengths:
        shown = per_user[f"popularity@{k}"]
        ratios[f"popularity_lift@{k}"] = (shown, per_user["popularity_chosen"], -1.0)
    rows, overall = _ratios(ratios, members, draws, seed)
    for code, row in enumerate(rows):
        row |= {
            name: (value, np.nan, np.nan) for name, value in lists.of_everybody(members.codes == code).items()
        }
    everybody = lists.of_everybody(np.ones(len(lists.users), dtype=bool))
    overall |= {name: (value, np.nan, np.nan) for name, value in everybody.items()}
    order = _in_order(overall)
    frame = _frame([{name: row[name] for name in order} for row in rows])
    ends = ("mean", "ci_low", "ci_high")
    return frame, {name: dict(zip(ends, overall[name], strict=True)) for name in order}


def by_item_popularity(lists: Lists, draws: int, seed: int) -> pl.DataFrame:
    """The share of the rows to be found that the lists hold, by popularity of the item.

    Items in order of the rows that were shown as input are cut so that each fifth holds a fifth of those
    rows. Columns: group, n_items, n_test_rows, recall@k (rows found / rows), recall@k_low, _high (users
    resampled).
    """
    counts = lists.counts
    order = np.lexsort((np.arange(len(counts)), counts))
    before = np.cumsum(counts[order]) - counts[order]
    part = np.empty(len(counts), dtype=np.int64)
    part[order] = np.minimum(5 * before // max(1, counts.sum()), len(POPULARITY) - 1)
    hit = hits(lists.ranked, lists.truth)
    fifth, rows = part[np.maximum(lists.ranked, 0)], part[lists.truth.indices]
    user_of = np.repeat(np.arange(len(lists.users)), np.diff(lists.truth.indptr))
    everybody = UserGroups(("all",), np.zeros(len(lists.users), dtype=np.int64), "own")
    lines = []
    for code, name in enumerate(POPULARITY):
        wanted = np.bincount(user_of[rows == code], minlength=len(lists.users)).astype(np.float64)
        ratios = {
            f"recall@{k}": (((hit & (fifth == code))[:, :k]).sum(axis=1).astype(np.float64), wanted, 0.0)
            for k in lists.lengths
        }
        found, _ = _ratios(ratios, everybody, draws, seed)
        facts = {GROUP: name, "n_items": int((part == code).sum()), "n_test_rows": int(wanted.sum())}
        lines.append(facts | _frame(found).row(0, named=True))
    return pl.DataFrame(lines)


Ratio = tuple[Floats, Floats, float]
Triple = tuple[float, float, float]


def _ratios(
    ratios: Mapping[str, Ratio], members: UserGroups, draws: int, seed: int
) -> tuple[list[dict[str, Triple]], dict[str, Triple]]:
    """Sum a / sum b + c with its interval for each (a [n], b [n], c), by group and overall.

    Users for whom one of the two is NaN leave. They are resampled within their group, the same ones for all
    figures; overall is made of all groups' resamples.
    """
    known = {name: np.isfinite(a) & np.isfinite(b) for name, (a, b, _) in ratios.items()}
    parts = [np.where(known[name], part, 0.0) for name, (a, b, _) in ratios.items() for part in (a, b)]
    table = np.stack(parts, axis=1)
    offsets = np.array([c for _, _, c in ratios.values()])
    rows, total = [], np.zeros((draws, table.shape[1]))
    for code in range(len(members.names) + 1):
        mine = members.codes == (code if code < len(members.names) else -1)
        drawn = bootstrap_means(table[mine], draws=draws, seed=[seed, code])
        if mine.any():
            total += drawn * (mine.sum() / len(table))
        if code < len(members.names):
            rows.append(_triples([*ratios], table[mine].sum(axis=0), drawn, offsets))
    return rows, _triples([*ratios], table.sum(axis=0), total, offsets)


def _triples(names: Sequence[str], sums: Floats, drawn: Floats, offsets: Floats) -> dict[str, Triple]:
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sums[0::2] / sums[1::2] + offsets
        resampled = drawn[:, 0::2] / drawn[:, 1::2] + offsets
    # a resample in which nobody has a value says nothing: rather no interval than one of the others
    low, high = interval(np.where(np.isfinite(resampled), resampled, np.nan))
    return {name: (float(means[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _frame(rows: Sequence[Mapping[str, Triple]]) -> pl.DataFrame:
    """One row a group: name, name_low, name_high of each figure."""
    lines = [
        {
            f"{name}{end}": value
            for name, triple in row.items()
            for end, value in zip(("", "_low", "_high"), triple, strict=True)
        }
        for row in rows
    ]
    return pl.DataFrame(lines).fill_nan(None)


def _in_order(found: Mapping[str, Any]) -> list[str]:
    return sorted(found, key=lambda name: BEYOND.index(name.partition("@")[0]))
