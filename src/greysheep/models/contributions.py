"""Which rows of a person speak for an item, and which experts or members of a model, and how loudly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.columns import ITEM
from greysheep.data.interactions import Interactions

Score = Callable[[csr_matrix], NDArray[Any]]
"""Scores [n, I] of rows [n, I], all with the state of one person."""
ROWS_AT_ONCE = 256
"""Of a person, scored in one go."""
VOICE, SHARE = "voice", "weight"


@dataclass(frozen=True)
class Contributions:
    """Why items are recommended to one person."""

    rows: pl.DataFrame
    """item_id, history_item_id, contribution: for each item her rows, those that speak most for it first."""
    voices: pl.DataFrame
    """voice, weight: the experts or members that speak, the loudest first; empty where there is one voice."""
    exact: bool
    """True: an item's contributions sum to its score. False: each is what the score loses without a row."""


def alone(score: Score, row: csr_matrix, items: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each of a person's n rows gives by itself: [n, m] for m items; `row` [1, I] is her input.

    >>> alone(lambda rows: rows.toarray() * 2, csr_matrix([[1.0, 0.0, 3.0]]), np.array([0, 2]))
    array([[2., 0.],
           [0., 6.]])
    """
    return _of_parts(score, row, items, np.equal)


def left_out(score: Score, row: csr_matrix, items: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the scores of m items lose without each of a person's n rows: [n, m].

    >>> left_out(lambda rows: rows.toarray() ** 2, csr_matrix([[1.0, 0.0, 3.0]]), np.array([0, 2]))
    array([[1., 0.],
           [0., 9.]])
    """
    whole = np.asarray(score(row), np.float64)[0, items]
    return np.asarray(whole - _of_parts(score, row, items, np.not_equal))


def _of_parts(score: Score, row: csr_matrix, items: NDArray[np.int64], has: Any) -> NDArray[np.float64]:
    """Scores [n, m] of n parts of a row: the i-th has its entries j for which `has(i, j)`."""
    entries, pieces = np.arange(row.nnz), [np.empty((0, len(items)))]
    for start in range(0, row.nnz, ROWS_AT_ONCE):
        part, entry = np.nonzero(has(entries[start : start + ROWS_AT_ONCE, None], entries))
        shape = (min(ROWS_AT_ONCE, row.nnz - start), row.shape[1])
        rows = csr_matrix((row.data[entry], (part, row.indices[entry])), shape)
        pieces.append(np.asarray(score(rows), np.float64)[:, items])
    return np.concatenate(pieces)


def as_frames(
    log: Interactions,
    row: csr_matrix,
    items: NDArray[np.int64],
    each: NDArray[np.float64],
    voices: Sequence[tuple[str, float]],
    exact: bool,
) -> Contributions:
    """Contributions [n, m] of the n entries of `row` to m items, as frames."""
    order = np.argsort(-each, axis=0, kind="stable")  # [n, m]
    rows = pl.DataFrame(
        {
            ITEM: log.decode_items(np.repeat(items, row.nnz)),
            f"history_{ITEM}": log.decode_items(row.indices[order].T.ravel()),
            "contribution": np.take_along_axis(each, order, axis=0).T.ravel(),
        }
    )
    named = pl.DataFrame(voices, schema={VOICE: pl.String, SHARE: pl.Float64}, orient="row")
    return Contributions(rows, named.sort(SHARE, descending=True, maintain_order=True), exact)
