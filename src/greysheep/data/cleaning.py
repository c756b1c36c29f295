"""Merge equal pairs, filter to the k-core, and count the rows that were removed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.errors import DataError

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Summary:
    """Rows, users and items read, removed (and why) and kept; `str()` is a few readable lines."""

    source: str = ""
    rows_in: int = 0
    users_in: int = 0
    items_in: int = 0
    min_rating: float | None = None
    min_user_items: int = 0
    min_item_users: int = 0
    without_id: int = 0
    """Rows without a user or an item id, left out because `missing_ids` is "drop"."""
    weight_col: str | None = None
    """The column that weights the rows; None = every row counts the same."""
    below_min_rating: int = 0
    """Rows with a rating below `min_rating`."""
    duplicates_merged: int = 0
    """Rows that went into another row of the same user and item."""
    outside_core: int = 0
    """Rows removed by the filter on items per user and users per item."""
    rows: int = 0
    users: int = 0
    items: int = 0

    def __str__(self) -> str:
        """A few lines: in, each reason that took rows away, kept."""
        lines = [f"in    {_sizes(self.rows_in, self.users_in, self.items_in)}  {self.source}".rstrip()]
        if self.weight_col is not None:
            lines.append(
                f"      column '{self.weight_col}' is the weight of a row, its strength as a signal "
                "(off: --weight-col none)"
            )
        if self.without_id:
            lines.append(f"      -{self.without_id:,} rows without a user or an item id")
        if self.below_min_rating:
            lines.append(f"      -{self.below_min_rating:,} rows rated below {self.min_rating:g}")
        if self.duplicates_merged:
            lines.append(
                f"      -{self.duplicates_merged:,} rows merged (same pair; latest time, weights summed)"
            )
        if self.outside_core:
            lines.append(
                f"      -{self.outside_core:,} rows outside the core "
                f"({self.min_user_items} items a user, {self.min_item_users} users an item)"
            )
        return "\n".join([*lines, f"kept  {_sizes(self.rows, self.users, self.items)}"])


def _sizes(rows: int, users: int, items: int) -> str:
    return f"{rows:,} rows, {users:,} users, {items:,} items"


def merge_pairs(
    users: Codes, items: Codes, n_items: int, weights: pl.Series | None, times: pl.Series | None
) -> tuple[Codes, Codes, NDArray[np.float32] | None, pl.Series | None]:
    """One row per pair, sorted by (user, item): the latest time, the sum of the weights.

    All arguments and results have one entry per row.

    Raises:
        DataError: If a sum of weights is too large for float32.
    """
    key = users.astype(np.int64) * n_items + items
    if (key[1:] > key[:-1]).all():  # a log that we wrote, or one kept in order
        return users, items, None if weights is None else _narrow(weights.to_numpy()), times
    # Rows of one pair in order of weight: a float sum must not depend on the row order of the source.
    order = np.argsort(key, kind="stable") if weights is None else np.lexsort((weights.to_numpy(), key))
    key = key[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    merged_weights = None
    if weights is not None:
        merged_weights = _narrow(np.add.reduceat(weights.to_numpy()[order], first))
    merged_times = None
    if times is not None:
        merged_times = times.gather(order[first])
        if len(first) < len(order):
            pair = np.repeat(np.arange(len(first)), np.diff(first, append=len(order)))
            grouped = pl.DataFrame({"pair": pair, "time": times.gather(order)}).group_by("pair")
            merged_times = grouped.agg(pl.col("time").max()).sort("pair")["time"]
    return users[order][first], items[order][first], merged_weights, merged_times


def _narrow(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = weights.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise DataError("weights are too large: their sum over the rows of a pair is beyond 3.4e38")
    return narrow


def core(users: Codes, items: Codes, min_user_items: int, min_item_users: int) -> NDArray[np.bool_]:
    """Mask [n] of the rows that stay when poor users and items leave until none is left to leave.

    >>> core(np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32), 2, 0).tolist()
    [True, True, False]
    """
    keep = np.ones(len(users), dtype=bool)
    if min_user_items <= 1 and min_item_users <= 1:
        return keep
    left = np.arange(len(users))
    while len(left):
        u, i = users[left], items[left]
        kept = (np.bincount(u)[u] >= min_user_items) & (np.bincount(i)[i] >= min_item_users)
        if kept.all():
            break
        left = left[kept]
    keep[:] = False
    keep[left] = True
    return keep


def core_hint(users: Codes, items: Codes, min_user_items: int, min_item_users: int) -> str:
    """What to say when nothing is left: the largest values that would leave something."""

    def rows_left(a: int, b: int) -> int:
        return int(core(users, items, a, b).sum())

    tries: list[tuple[str, int, Callable[[int], int]]] = [
        ("min_user_items", min_user_items, lambda v: rows_left(v, min_item_users)),
        ("min_item_users", min_item_users, lambda v: rows_left(min_user_items, v)),
    ]
    hints = []
    for name, requested, left in tries:
        best = _largest(requested, left)
        if best is not None:
            hints.append(f"{name}={best} would leave {left(best)} rows")
    if not hints:
        both = _largest(max(min_user_items, min_item_users), lambda v: rows_left(v, v)) or 0
        hints = [f"{both} for both would leave {rows_left(both, both)} rows"]
    options = f"min_user_items={min_user_items} and min_item_users={min_item_users}"
    return f"{options} leave no row; {', '.join(hints)}"


def _largest(requested: int, left: Callable[[int], int]) -> int | None:
    """The largest value below `requested` that leaves rows (fewer are left as the value grows), or None."""
    largest = bisect_left(range(1, requested), True, key=lambda value: left(value) == 0)
    return largest if left(0) else None
