"""A log with the rows of another one, or without some of its users."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.cleaning import merge_pairs
from greysheep.data.columns import ITEM, USER
from greysheep.data.ids import ids_like
from greysheep.data.interactions import Interactions
from greysheep.errors import DataError

WIDER = (pl.Int64(), pl.UInt64(), pl.Int128())


def joined(log: Interactions, new: Interactions) -> Interactions:
    """The rows of both, one a pair: the latest time, the sum of the weights; rows without weights weigh 1.

    Ids are in the type of `log`, or in a wider one where new ids do not fit it. Times of `new` are left out
    where `log` has none.

    Raises:
        DataError: ids are of another type than the log's, or times of another kind, or missing.

    >>> rows = pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"]})
    >>> both = joined(Interactions.read(rows), Interactions.read(rows.with_columns(item_id=pl.lit("c"))))
    >>> both.n_users, both.item_ids.to_list(), len(both)
    (2, ['a', 'b', 'c'], 4)
    """
    user_ids, users = _ids(log.user_ids, new.user_ids, USER)
    item_ids, items = _ids(log.item_ids, new.item_ids, ITEM)
    codes = np.concatenate([users[0][log.users], users[1][new.users]])
    of_items = np.concatenate([items[0][log.items], items[1][new.items]])
    merged = merge_pairs(codes, of_items, len(item_ids), _weights(log, new), _times(log, new))
    return Interactions(user_ids, item_ids, *merged)


def without_users(log: Interactions, users: NDArray[np.int64]) -> Interactions:
    """The log without some users, by their codes; items stay, those without rows too.

    Raises:
        DataError: nobody would be left.
    """
    stays = np.ones(log.n_users, bool)
    stays[users] = False
    if not stays.any():
        raise DataError(f"all {log.n_users} users would go, and nobody would be left")
    keep = stays[log.users]
    return replace(
        log,
        user_ids=log.user_ids.filter(pl.Series(stays)),
        users=(np.cumsum(stays, dtype=np.int32) - 1)[log.users[keep]].astype(np.int32),
        items=log.items[keep],
        weights=None if log.weights is None else log.weights[keep],
        times=None if log.times is None else log.times.filter(pl.Series(keep)),
    )


def _ids(
    known: pl.Series, new: pl.Series, column: str
) -> tuple[pl.Series, tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Ids of both, ascending, and the codes that those of each get."""
    ids_like(new, "the log to add", column, known)
    if known.dtype == pl.String:
        ids = pl.concat([known, new]).unique().sort()
    else:
        wide = pl.concat([known.cast(pl.Int128), new.cast(pl.Int128)]).unique().sort()
        ids = next(fit for dtype in (known.dtype, *WIDER) if not (fit := _cast(wide, dtype)).null_count())
    blank = np.empty(0, np.int32)
    table = Interactions(ids, ids, blank, blank)
    before, after = (table.encode_users(some).astype(np.int32) for some in (known, new))
    return ids.alias(column), (before, after)


def _cast(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    return ids.cast(dtype, strict=False)


def _weights(log: Interactions, new: Interactions) -> pl.Series | None:
    if log.weights is None and new.weights is None:
        return None
    both = [np.ones(len(one), np.float32) if one.weights is None else one.weights for one in (log, new)]
    return pl.Series(np.concatenate(both).astype(np.float64))


def _times(log: Interactions, new: Interactions) -> pl.Series | None:
    if log.times is None:
        return None
    if new.times is None:
        raise DataError(
            "the log to add has no times, and the stored rows have: add a column of times; "
            "if it has one, name it with time_col (--time-col)"
        )
    kind, other = log.times.dtype, new.times.dtype
    if kind == other:
        return pl.concat([log.times, new.times])
    if kind.is_numeric() and other.is_numeric():
        return pl.concat([log.times, new.times], how="vertical_relaxed")
    if kind.is_temporal() and other.is_temporal():
        return pl.concat([log.times, new.times.cast(kind)])
    raise DataError(f"times of the log to add are {other}, the stored ones {kind}: make them of one kind")
