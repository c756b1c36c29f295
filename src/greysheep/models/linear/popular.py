"""Popularity: the same list for every user."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.splitting import Split
from greysheep.models.base import Model, take
from greysheep.models.config import ModelConfig


class PopularConfig(ModelConfig):
    """Popularity has no settings."""


class Popular(Model):
    """Items by their number of rows, or by their sum of weights where the log has weights.

    >>> import greysheep as gs, polars as pl
    >>> log = gs.Interactions.read(pl.DataFrame({"user_id": ["a", "b", "b"], "item_id": [1, 1, 2]}))
    >>> gs.Popular().fit(log).recommend(["a"], k=2)["item_id"].to_list()
    [2]
    """

    name = "popular"
    Config = PopularConfig

    def _fit(self, split: Split) -> None:
        rows = self.fit_rows
        # bincount adds in float64: weights may be as large as float32 goes
        self.counts = np.bincount(rows.indices, rows.data, minlength=rows.shape[1])

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        return np.tile(self.counts, (rows.shape[0], 1))

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"counts": self.counts}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        self.counts = take(state, "counts", n_items)
