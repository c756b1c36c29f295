"""Recommendations made by any other library, as the matrix of ranked item codes that metrics read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from greysheep.data.columns import ITEM, RANK, SCORE, USER
from greysheep.data.interactions import Interactions
from greysheep.data.reading import read_id_column
from greysheep.data.sources import open_source
from greysheep.errors import DataError, GreysheepWarning
from greysheep.metrics.ranking import tie_order


def ranked_lists(
    recs: Any, log: Interactions, users: NDArray[np.int64], k: int, seen: sparse.csr_matrix
) -> NDArray[np.int64]:
    """Turn a frame of lists into ranked item codes; whatever is odd about it is counted in a warning.

    Args:
        recs: pandas, polars or Arrow frame with user_id, item_id and rank (from 1) or score; rank wins. Of
            equal places the item with more rows in `seen` comes first, then the smaller id, as in `rank`.
        log: whose ids the frame uses.
        users: [n] codes of the users to measure; the lists of others are not looked at.
        k: places that count.
        seen: [U, I] rows each user had as input; such items in her list are misses.

    Returns:
        [n, at most k] item codes, as wide as the longest list; -1 where a list is short, or names an item
        the log does not know.

    Raises:
        DataError: a column is missing or holds anything but ids or numbers, or no user or no item is known.
    """
    frame, order = _columns(recs)
    user_codes = _known(frame[USER], log.encode_users(frame[USER]), log.user_ids, "user")
    items = _known(frame[ITEM], log.encode_items(frame[ITEM]), log.item_ids, "item")
    strangers = frame[USER].filter(pl.Series(user_codes < 0)).n_unique()
    if strangers:
        _warn(f"the lists of {strangers} users who are not in the log are ignored")
    position = np.full(log.n_users + 1, -1, dtype=np.int64)  # the last place serves code -1
    position[users] = np.arange(len(users))
    mine = np.flatnonzero(position[user_codes] >= 0)
    rows, items, place = position[user_codes[mine]], items[mine], order[mine]
    popularity = tie_order(np.bincount(seen.indices, minlength=log.n_items))
    sequence = np.lexsort((np.append(popularity, log.n_items)[items], place, rows))  # -1 is the last
    rows, items = _without_repeats(rows[sequence], items[sequence], log.n_items)
    lengths = np.bincount(rows, minlength=len(users))
    _complain_of_lengths(lengths, min(k, log.n_items))
    place_in_list = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    width = min(k, int(lengths.max(initial=1)))
    top = place_in_list < width
    ranked = np.full((len(users), width), -1, dtype=np.int64)
    ranked[rows[top], place_in_list[top]] = items[top]
    _complain_of_items(ranked, int((items[top] < 0).sum()), users, seen)
    return ranked


def _columns(recs: Any) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Return the two id columns, and numbers that are smaller the better the place."""
    if isinstance(recs, (str, Path)):
        raise DataError(f"lists must come as a frame: read {recs} with polars or pandas first")
    source = open_source(recs)
    by = next((name for name in (RANK, SCORE) if name in source.columns), None)
    missing = [name for name in (USER, ITEM) if name not in source.columns]
    if missing or by is None:
        lacking = " and ".join(repr(name) for name in missing) or "'rank' or 'score'"
        there = ", ".join(repr(name[:40]) for name in source.columns[:8])
        raise DataError(f"{source.label} of lists has no column {lacking}; its columns are {there}")
    frame = source.load([USER, ITEM, by])
    if frame.height == 0:
        raise DataError(f"{source.label} of lists has no rows")
    numbers = frame[by].cast(pl.Float64, strict=False) if frame[by].dtype.is_numeric() else None
    if numbers is None:
        raise DataError(f"column '{by}' of the lists is of type {frame[by].dtype}; it must hold numbers")
    bad = numbers.fill_nan(None).null_count()
    if bad:
        raise DataError(f"column '{by}' of the lists has no number in {bad} of {frame.height} rows")
    ids = pl.DataFrame([read_id_column(frame, name).alias(name) for name in (USER, ITEM)])
    values = numbers.to_numpy()
    return ids, values if by == RANK else -values


def _known(ids: pl.Series, codes: NDArray[np.int64], stored: pl.Series, kind: str) -> NDArray[np.int64]:
    if (codes >= 0).any():
        return codes
    raise DataError(
        f"no {kind} of the lists is in the log: theirs are {ids.dtype} like {ids[0]!r}, "
        f"the log's are {stored.dtype} like {stored[0]!r}"
    )


def _without_repeats(
    rows: NDArray[np.int64], items: NDArray[np.int64], n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep the best place of an item that a list names twice; both arrays are in the order of the lists."""
    first = np.zeros(len(rows), dtype=np.bool_)
    first[np.unique(rows * n_items + items, return_index=True)[1]] = True
    first |= items < 0  # items unknown to the log share the code -1 and are not each other's repeats
    if not first.all():
        _warn(f"{int((~first).sum())} rows repeat an item of the same list; the best place counts")
    return rows[first], items[first]


def _complain_of_lengths(lengths: NDArray[np.int64], expected: int) -> None:
    without = int((lengths == 0).sum())
    if without:
        _warn(f"{without} of {len(lengths)} users with test rows have no list; they count as zero")
    longest = int(lengths.max(initial=0))
    if 0 < longest < expected:
        _warn(f"no list is longer than {longest}, but {expected} places are measured; the rest are misses")


def _complain_of_items(
    ranked: NDArray[np.int64], unknown: int, users: NDArray[np.int64], seen: sparse.csr_matrix
) -> None:
    if unknown:
        _warn(f"{unknown} places of the lists hold items that are not in the log; they count as misses")
    rows, places = np.nonzero(ranked >= 0)
    named = sparse.csr_matrix((np.ones(len(rows)), (rows, ranked[rows, places])), (len(users), seen.shape[1]))
    repeated = int(named.multiply(seen[users] != 0).nnz)
    if repeated:
        _warn(
            f"{repeated} of {len(rows)} places of the lists hold items the user already had as input; "
            "they count as misses: leave such items out of the lists"
        )


def _warn(message: str) -> None:
    warnings.warn(message, GreysheepWarning, stacklevel=4)
