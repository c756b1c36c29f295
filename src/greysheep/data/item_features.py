"""What is known of items beside who chose them: genres or vectors, by the ids of a log."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import ITEM
from greysheep.data.ids import ids_like
from greysheep.data.interactions import Interactions
from greysheep.data.reading import read_id_column
from greysheep.data.sources import open_source
from greysheep.errors import DataError, warn

GENRES, VECTOR = "genres", "vector"


def read_vectors(source: Any, log: Interactions) -> NDArray[np.float64]:
    """[I, F] a vector for each item of the log, of a file or frame with item_id and `genres` or `vector`.

    `genres`: texts with | between two genres, or lists of texts; each genre is a dimension of 0 and 1.
    `vector`: lists of numbers of one length. An item without either has NaN; a warning counts them.

    Raises:
        DataError: a column is missing, an item stands there twice, no item is known, or these are no vectors.

    >>> log = Interactions.read(pl.DataFrame({"user_id": [1, 1], "item_id": ["x", "y"]}))
    >>> frame = pl.DataFrame({"item_id": ["y", "x"], "genres": ["Drama|War", "War"]})
    >>> read_vectors(frame, log).tolist()
    [[0.0, 1.0], [1.0, 1.0]]
    """
    if isinstance(source, np.ndarray) and source.ndim == 2 and len(source) == log.n_items:
        return source  # read before
    opened = open_source(source)
    column = next((name for name in (VECTOR, GENRES) if name in opened.columns), None)
    if column is None or ITEM not in opened.columns:
        lacking = repr(ITEM) if column else f"{GENRES!r} or {VECTOR!r}"
        there = ", ".join(repr(name[:40]) for name in opened.columns[:8])
        raise DataError(f"{opened.label} of items has no column {lacking}; its columns are {there}")
    frame = opened.load([ITEM, column])
    ids = ids_like(read_id_column(frame, ITEM), "the frame of items", ITEM, log.item_ids)
    if twice := len(ids) - ids.n_unique():
        raise DataError(f"{twice} rows of the frame of items repeat an item: give each one row")
    codes = log.encode_items(ids)
    known = codes >= 0
    if not known.any():
        raise DataError(
            f"no item of {opened.label} is in the log: theirs are {ids.dtype} like {ids[0]!r}, "
            f"the log's are {log.item_ids.dtype} like {log.item_ids[0]!r}"
        )
    values = frame[column].filter(pl.Series(known))
    found = _of_genres(values) if column == GENRES else _of_lists(values)
    vectors = np.full((log.n_items, found.shape[1]), np.nan)
    vectors[codes[known]] = found
    if without := int(np.isnan(vectors).any(axis=1).sum()):
        warn(f"{without} of {log.n_items} items have no {column}: their pairs do not count in diversity", 3)
    return vectors


def _of_genres(values: pl.Series) -> NDArray[np.float64]:
    """[n, F] 0 and 1; NaN for an item without a genre."""
    if values.dtype == pl.String:
        values = values.str.split("|")
    if values.dtype != pl.List(pl.String):
        raise DataError(
            f"the column {GENRES!r} is of type {values.dtype}; it must hold texts or lists of texts"
        )
    rows = pl.DataFrame({"row": np.arange(len(values)), GENRES: values}).explode(GENRES)
    rows = rows.with_columns(pl.col(GENRES).str.strip_chars()).filter(pl.col(GENRES).str.len_bytes() > 0)
    names = rows[GENRES].unique().sort().to_list()
    if not names:
        raise DataError(f"the column {GENRES!r} names no genre")
    out = np.full((len(values), len(names)), np.nan)
    out[rows["row"].unique().to_numpy()] = 0.0
    places = rows[GENRES].replace_strict(names, range(len(names)), return_dtype=pl.Int64)
    out[rows["row"].to_numpy(), places.to_numpy()] = 1.0
    return out


def _of_lists(values: pl.Series) -> NDArray[np.float64]:
    """[n, F]; NaN for an item without a vector."""
    inner = values.dtype.inner if isinstance(values.dtype, pl.List | pl.Array) else None
    if inner is None or not inner.is_numeric():
        raise DataError(f"the column {VECTOR!r} is of type {values.dtype}; it must hold lists of numbers")
    lists = values.cast(pl.List(pl.Float64))
    sizes = lists.list.len().drop_nulls().unique().to_list()
    if len(sizes) != 1 or sizes[0] == 0:
        listed = ", ".join(map(str, sorted(sizes)[:5])) or "none"
        raise DataError(f"the lists in {VECTOR!r} have lengths {listed}: all vectors must be of one length")
    out = np.full((len(lists), sizes[0]), np.nan)
    there = lists.is_not_null().to_numpy()
    numbers = lists.drop_nulls().explode().fill_null(np.nan).to_numpy().reshape(-1, sizes[0])
    if bad := int((~np.isfinite(numbers)).any(axis=1).sum()):
        raise DataError(
            f"{bad} of {len(numbers)} lists in {VECTOR!r} hold something other than finite numbers"
        )
    out[there] = numbers
    return out
