"""Item-kNN: what the neighbours of a person's items are (Deshpande & Karypis, TOIS 2004)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix, vstack

from greysheep.data.splitting import Split
from greysheep.metrics.ranking import top_n
from greysheep.models.base import Model
from greysheep.models.config import MANY, ModelConfig
from greysheep.models.linear.product import linear_scores
from greysheep.models.linear.sparse_state import sparse_state, take_sparse
from greysheep.models.search_space import Dimension, Real, Whole
from greysheep.models.training.progress import Steps

BLOCK_CELLS = 1 << 22
"""Similarities held at once (32 MB in float64)."""


class ItemKNNConfig(ModelConfig):
    """Settings of item-kNN."""

    neighbours: int = Field(100, ge=1, le=MANY)
    """Most similar items kept of each item, the item itself not counted."""
    shrinkage: float = Field(0.0, ge=0, le=1e9)
    """Added to the product of lengths under the cosine: it lowers similarities that rest on few users."""


class ItemKNN(Model):
    """Scores = X W, with W[i, j] = x_i . x_j / (|x_i| |x_j| + shrinkage) where j is a neighbour of i.

    x_i is item i's column of the (weighted) rows, [U]. Item i's neighbours are its `neighbours` most similar
    other items with a similarity above 0; of equally similar ones those with the smaller code (the earlier
    id) come first. An item with no rows has no neighbours and is a neighbour of none. So each of a user's
    items votes for its neighbours, as in the package `implicit`.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.ItemKNN(neighbours=10).fit(log).recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "itemknn"
    linear = True
    Config = ItemKNNConfig
    search_space: ClassVar[dict[str, Dimension]] = {
        "neighbours": Whole(10, 500, log=True),
        "shrinkage": Real(0.0, 200.0),
    }

    def _fit(self, split: Split) -> None:
        # blocks are quick: a bar on a terminal, but no line per block in a pipe
        show = False if self.options.progress is False else None
        n_blocks = -(-split.log.n_items // block_size(split.log.n_items))
        with Steps(self.label, n_blocks, show, "block of items") as steps:
            self.weights = neighbour_weights(
                self.fit_rows, self.config.neighbours, self.config.shrinkage, steps.step
            )

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        return linear_scores(rows, lambda rows: (rows @ self.weights).toarray())

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Similarity [n, I] of items to their neighbours; 0 to all other items."""
        return np.asarray(self.weights[items].toarray())

    def _state(self) -> dict[str, NDArray[Any]]:
        return sparse_state(self.weights)

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        self.weights = take_sparse(state, n_items)
        if self.weights.shape[0] != n_items:
            raise ValueError(f"the weights have {self.weights.shape[0]} rows for {n_items} items")


def block_size(n_items: int) -> int:
    """Items whose similarities to all others are dense at once."""
    return max(1, BLOCK_CELLS // max(1, n_items))


def neighbour_weights(
    rows: csr_matrix, neighbours: int, shrinkage: float = 0.0, step: Callable[[], None] = lambda: None
) -> csr_matrix:
    """Item-kNN's weights of rows [U, I]: [I, I] float32, at most `neighbours` per row, none on the diagonal.

    At most BLOCK_CELLS similarities are dense at a time, so memory grows with I x `neighbours`; `step` is
    called after each block.

    >>> neighbour_weights(csr_matrix([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]), neighbours=1).toarray().round(4)
    array([[0.    , 0.7071, 0.    ],
           [0.7071, 0.    , 0.    ],
           [0.    , 0.7071, 0.    ]], dtype=float32)
    """
    x = rows.astype(np.float64)
    columns = x.T.tocsr()
    n = x.shape[1]
    length = np.sqrt(np.asarray(columns.multiply(columns).sum(1)).ravel())
    size = block_size(n)
    blocks = []
    for start in range(0, n, size):
        block = np.arange(start, min(start + size, n))
        similarity = (columns[block] @ x).toarray()
        under = length[block, None] * length + shrinkage
        np.divide(similarity, under, out=similarity, where=under > 0)
        similarity[np.arange(len(block)), block] = 0.0
        similarity[similarity <= 0] = -np.inf
        best = top_n(similarity, neighbours)
        best.sort(axis=1)  # by code; the places without a neighbour (-1) come first
        kept = best >= 0
        values = similarity[np.nonzero(kept)[0], best[kept]].astype(np.float32)
        blocks.append(csr_matrix((values, best[kept], [0, *kept.sum(1).cumsum()]), shape=(len(block), n)))
        step()
    return vstack(blocks, format="csr")
