"""User-kNN: what the people most like a person have (Herlocker et al., SIGIR 1999)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix, diags_array

from greysheep.data.splitting import Split
from greysheep.metrics.ranking import top_n
from greysheep.models.base import Model
from greysheep.models.config import MANY, ModelConfig
from greysheep.models.linear.product import LARGEST
from greysheep.models.linear.sparse_state import sparse_state, take_sparse
from greysheep.models.search_space import Dimension, Real, Whole

BLOCK_CELLS = 1 << 22
"""Similarities held at once (16 MB in float32)."""


class UserKNNConfig(ModelConfig):
    """Settings of user-kNN."""

    neighbours: int = Field(200, ge=1, le=MANY)
    """Most similar users who speak for a person."""
    power: float = Field(1.0, ge=0, le=10)
    """A neighbour speaks with her similarity raised to this: the larger, the more the nearest ones decide."""


class UserKNN(Model):
    """Scores = S X, where S[u, v] = cos(u, v)^power if v is one of the users most similar to u, else 0.

    The cosine is taken of rows in which an item weighs log((1 + U) / (1 + n_i)), n_i the users it was trained
    on: what nearly everybody has says little of taste. The neighbours are the `neighbours` users with the
    largest cosine above 0, of equal ones those with the smaller code. A known user is among her own
    neighbours, where she only adds to items she has seen.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.UserKNN(neighbours=10).fit(log).recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "userknn"
    Config = UserKNNConfig
    needs_rows = "the rows of neighbours are what it recommends from"
    search_space: ClassVar[dict[str, Dimension]] = {
        "neighbours": Whole(20, 1000, log=True),
        "power": Real(0.5, 4.0),
    }

    def _fit(self, split: Split) -> None:
        self._keep(csr_matrix(self.fit_rows, dtype=np.float32))

    def _keep(self, rows: csr_matrix) -> None:
        n_users, n_items = rows.shape
        largest = float(rows.data.max(initial=0))
        self.unit = largest if largest > LARGEST else 1.0  # in which sums of rows stay within float32
        self.neighbour_rows, self.votes = rows, csr_matrix(rows / np.float32(self.unit))
        popularity = np.bincount(rows.indices, minlength=n_items)
        self.item_weights = np.log((1 + n_users) / (1 + popularity))
        self.directions = csr_matrix(self._directions(rows).T)

    def _directions(self, rows: csr_matrix) -> csr_matrix:
        """Weighted rows [B, I] of length 1 (0 where nothing is left), whatever the size of their weights."""
        rows = csr_matrix(rows, dtype=np.float64)
        largest = rows.max(axis=1).toarray().ravel() if rows.nnz else np.ones(rows.shape[0])
        weighted = diags_array(1 / np.maximum(largest, 1e-300)) @ rows @ diags_array(self.item_weights)
        length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
        return csr_matrix(diags_array(scale) @ weighted, dtype=np.float32)

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        directions, n_users = self._directions(rows), self.neighbour_rows.shape[0]
        size = max(1, BLOCK_CELLS // n_users)
        parts = [
            self._neighbours(directions[start : start + size]) @ self.votes
            for start in range(0, rows.shape[0], size)
        ]
        scores = np.concatenate([part.toarray() for part in parts]) if parts else rows.toarray()
        return scores if self.unit == 1 else scores * self.unit

    def _neighbours(self, directions: csr_matrix) -> csr_matrix:
        """S [B, U] of people with these directions [B, I]."""
        similarity = (directions @ self.directions).toarray()
        similarity[similarity <= 0] = -np.inf
        best = top_n(similarity, self.config.neighbours)
        kept = best >= 0
        voices = similarity[np.nonzero(kept)[0], best[kept]] ** np.float32(self.config.power)
        return csr_matrix((voices, best[kept], [0, *kept.sum(1).cumsum()]), shape=similarity.shape)

    def _state(self) -> dict[str, NDArray[Any]]:
        return sparse_state(self.neighbour_rows)

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        rows = take_sparse(state, n_items)
        if rows.shape[0] != self.log.n_users:
            raise ValueError(f"the neighbours' rows are {rows.shape[0]} for {self.log.n_users} users")
        self._keep(rows)
