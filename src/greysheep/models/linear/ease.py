"""EASE (Steck, WWW 2019): a linear item-item model in closed form."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix, eye_array

from greysheep.data.splitting import Split
from greysheep.models.base import Model, take
from greysheep.models.config import ModelConfig
from greysheep.models.linear.ease_forms import Form, ItemForm, UserForm, solve
from greysheep.models.linear.product import linear_scores
from greysheep.models.linear.sparse_state import take_sparse
from greysheep.models.search_space import Dimension, Real


class EASEConfig(ModelConfig):
    """Settings of EASE."""

    regularization: float = Field(1000.0, gt=0, le=1e30)
    """lambda, added to the Gram matrix's diagonal."""
    form: Form | None = None
    """What is solved and kept, for the same scores: `items`, a matrix [I, I], or `users`, a matrix [U, U] and
    the rows. None: `items`, unless there are more than 4,096 items and far fewer users."""


class EASE(Model):
    """B = argmin ||X - XB||^2 + lambda ||B||^2 with zero diagonal; scores = X B.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.EASE(regularization=10.0).fit(log).recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "ease"
    linear = True
    Config: ClassVar[type[EASEConfig]] = EASEConfig
    search_space: ClassVar[dict[str, Dimension]] = {"regularization": Real(10.0, 5000.0, log=True)}
    solution: ItemForm | UserForm

    def _fit(self, split: Split) -> None:
        self._keep(solve(self.fit_rows, self.config.regularization, self.config.form))

    def _keep(self, solution: ItemForm | UserForm) -> None:
        self.solution = solution
        why = "it reads its weights through them (the setting form=items does without)"
        self.needs_rows = why if isinstance(solution, UserForm) else None

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        return linear_scores(rows, self.solution.scores)

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """The weights [n, I] of these items."""
        alone = eye_array(self.log.n_items, format="csr", dtype=np.float32)[items]
        return self.solution.scores(csr_matrix(alone))

    def _state(self) -> dict[str, NDArray[Any]]:
        return self.solution.state()

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        if "weights" in state:
            self._keep(ItemForm(take(state, "weights", n_items, n_items)))
            return
        rows = take_sparse(state, n_items)
        inverse = take(state, "inverse", rows.shape[0], rows.shape[0])
        self._keep(UserForm(inverse, rows, take(state, "factors", n_items)))
