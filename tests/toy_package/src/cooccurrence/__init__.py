"""Items that share users with a person's items."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix

from greysheep.data.splitting import Split
from greysheep.models.base import Model, take
from greysheep.models.config import ModelConfig
from greysheep.models.search_space import Dimension, Real


class CooccurrenceConfig(ModelConfig):
    """Settings of Cooccurrence."""

    power: float = Field(0.5, ge=0, le=2)
    """Counts are divided by popularity to this power; 0 leaves them as they are."""


class Cooccurrence(Model):
    """score(u, j) = sum over u's items i of count(i, j) / pop(j)^power."""

    name = "cooccurrence"
    Config = CooccurrenceConfig
    search_space: ClassVar[dict[str, Dimension]] = {"power": Real(0.0, 1.0)}

    def _fit(self, split: Split) -> None:
        rows = self.fit_rows  # [U, I]: the rows this model may learn from under the split's protocol
        counts = (rows.T @ rows).toarray()
        popularity = np.maximum(counts.diagonal().copy(), 1) ** self.config.power
        np.fill_diagonal(counts, 0)
        self.table = (counts / popularity).astype(np.float32)

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        return np.asarray(rows @ self.table)

    def _state(self) -> dict[str, Any]:
        return {"table": self.table}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        self.table = take(state, "table", n_items, n_items)
