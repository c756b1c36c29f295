"""EASE (Steck, WWW 2019): a linear item-item model in closed form."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.errors import ConfigError
from greysheep.models.base import Model, take
from greysheep.models.config import ModelConfig
from greysheep.models.linear.product import linear_scores
from greysheep.models.search_space import Dimension, Real
from greysheep.system.machine import available_bytes, readable


class EASEConfig(ModelConfig):
    """Settings of EASE."""

    regularization: float = Field(1000.0, gt=0, le=1e30)
    """lambda, added to the Gram matrix's diagonal."""


class EASE(Model):
    """B = argmin ||X - XB||^2 + lambda ||B||^2 with zero diagonal; scores = X B.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.EASE(regularization=10.0).fit(log).recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "ease"
    Config: ClassVar[type[EASEConfig]] = EASEConfig
    search_space: ClassVar[dict[str, Dimension]] = {"regularization": Real(10.0, 5000.0, log=True)}

    def _fit(self, split: Split) -> None:
        self.weights = item_weights(self.fit_rows, self.config.regularization)

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        return linear_scores(rows, lambda rows: rows @ self.weights)

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        return self.weights[items]

    def _state(self) -> dict[str, Tensor]:
        return {"weights": torch.from_numpy(self.weights)}

    def _restore(self, state: dict[str, Tensor], n_items: int) -> None:
        self.weights = take(state, "weights", n_items, n_items)


def item_weights(rows: csr_matrix, regularization: float) -> NDArray[np.float32]:
    """EASE's item-item weights of rows [U, I]: [I, I] float32, zero diagonal.

    Raises:
        ConfigError: the I x I matrices do not fit in memory, or the weights are beyond float32.
    """
    n = rows.shape[1]
    needed, free = 2.6 * 8 * n * n, available_bytes()
    if needed > free:
        raise ConfigError(
            f"EASE of {n} items needs about {readable(needed)} of memory, {readable(free)} are free: "
            "drop rare items (min_item_users) or use another model"
        )
    x = rows.astype(np.float64)
    gram = np.asfortranarray((x.T @ x).toarray())
    gram[np.diag_indices(n)] += regularization
    # inverse of a positive definite matrix by Cholesky, in place: half the work and memory of `inv`
    factor, failed = dpotrf(gram, lower=1, overwrite_a=1)
    inverse, failed_too = dpotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise ConfigError(
            f"EASE's matrix is singular with regularization={regularization}: try a larger one, or smaller "
            "weights of the log"
        )
    out = np.empty((n, n), dtype=np.float32)
    diagonal = np.diag(inverse).copy()
    for start in range(0, n, 1024):  # only the lower triangle is filled: mirror it block by block
        stop = min(start + 1024, n)
        block = np.concatenate([inverse[start:stop, :start], inverse[start:, start:stop].T], axis=1)
        corner = np.tril(block[:, start:stop].T)  # = lower triangle of the diagonal block
        block[:, start:stop] = corner + np.tril(corner, -1).T
        with np.errstate(over="ignore", invalid="ignore"):
            out[start:stop] = -block / diagonal
    out[np.diag_indices(n)] = 0.0
    if not np.isfinite(out).all():
        raise ConfigError(
            "EASE's item weights are beyond the largest number: the weights of the log differ by too much, "
            "or are too large for this regularization"
        )
    return out
