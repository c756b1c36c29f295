"""EASE with user rows and item columns weighted: a closed form that is good for niche users."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix, diags_array

from greysheep.data.splitting import Split
from greysheep.models.base import take
from greysheep.models.linear.ease import EASE, EASEConfig
from greysheep.models.linear.ease_forms import solve
from greysheep.models.linear.product import linear_scores
from greysheep.models.search_space import Dimension, Real


class WeightedEASEConfig(EASEConfig):
    """Settings of weighted EASE; the defaults were chosen on validation rows of ML-1M."""

    regularization: float = Field(12.0, gt=0, le=1e30)
    """lambda, added to the weighted Gram matrix's diagonal."""
    user_power: float = Field(0.53, ge=0, le=2)
    """p: a user's row counts n_u^-p in the Gram matrix. 0: every row counts alike, 1: every user does."""
    item_power: float = Field(0.16, ge=0, le=2)
    """b: an item's column is divided by pop_i^b before the fit and multiplied by it afterwards."""
    relax: float = Field(0.62, ge=0, lt=1)
    """The largest weight that an item may have on itself. 0: none, as in EASE. More lets the popular items'
    columns shrink, whose own rows explain them."""


class WeightedEASE(EASE):
    """EASE on diag(n_u^(-p/2)) X diag(pop_i^-b); scores = (X diag(pop^-b)) B diag(pop^b).

    n_u and pop_i count the rows trained on; a popularity of 0 counts as 1.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.WeightedEASE().fit(log).recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "ease-weighted"
    Config = WeightedEASEConfig
    search_space: ClassVar[dict[str, Dimension]] = {
        "regularization": Real(0.1, 300.0, log=True),
        "user_power": Real(0.0, 1.0),
        "item_power": Real(0.0, 1.0),
        "relax": Real(0.0, 0.9),
    }
    # without item powers the Gram matrix is larger, and so is the lambda that suits it
    search_starts: ClassVar[tuple[dict[str, Any], ...]] = (
        {"regularization": 30.0, "user_power": 0.5, "item_power": 0.0},
    )

    def _fit(self, split: Split) -> None:
        rows = self.fit_rows
        per_user = np.maximum(np.diff(rows.indptr), 1).astype(np.float64)
        per_item = np.maximum(np.bincount(rows.indices, minlength=rows.shape[1]), 1).astype(np.float64)
        self.item_scale = per_item**self.config.item_power
        by_user, by_item = per_user ** (-self.config.user_power / 2), 1 / self.item_scale
        scaled = csr_matrix(diags_array(by_user) @ rows @ diags_array(by_item))
        self._keep(solve(scaled, self.config.regularization, self.config.form, self.config.relax))

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        def score(rows: csr_matrix) -> NDArray[Any]:
            scaled = csr_matrix(rows @ diags_array(1 / self.item_scale), dtype=np.float32)
            return np.asarray(self.solution.scores(scaled) * self.item_scale.astype(np.float32))

        return linear_scores(rows, score)

    def _state(self) -> dict[str, NDArray[Any]]:
        return {**super()._state(), "item_scale": self.item_scale}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        super()._restore(state, n_items)
        self.item_scale = take(state, "item_scale", n_items)
