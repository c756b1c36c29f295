"""A sparse matrix among the arrays of a saved model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.models.base import take


def sparse_state(matrix: csr_matrix) -> dict[str, NDArray[Any]]:
    """The arrays of a matrix, as they are saved."""
    codes = {name: getattr(matrix, name).astype(np.int64) for name in ("indices", "indptr")}
    return {"data": matrix.data, **codes}


def take_sparse(state: dict[str, Any], n_columns: int) -> csr_matrix:
    """The matrix back.

    Raises:
        ValueError: its arrays do not fit each other, or a code is out of range.
    """
    n_rows = len(state.get("indptr", [0])) - 1
    starts = take(state, "indptr", n_rows + 1, kind="i")
    data, indices = (
        take(state, key, int(starts[-1]), kind=kind) for key, kind in (("data", "f"), ("indices", "i"))
    )
    if (np.diff(starts) < 0).any() or (len(indices) and not 0 <= indices.min() <= indices.max() < n_columns):
        raise ValueError("tensors 'indptr' and 'indices' do not make a sparse matrix")
    matrix = csr_matrix((data, indices, starts), shape=(n_rows, n_columns))
    matrix.check_format()
    return matrix
