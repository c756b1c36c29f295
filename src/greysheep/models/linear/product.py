"""Scores that are a product of rows and item-item weights, without overflow, whatever the rows hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array

LARGEST = 1e12
"""Weight of a row up to which float32 holds scores, and their squares, with room to spare."""


def linear_scores(rows: csr_matrix, score: Callable[[csr_matrix], Any]) -> NDArray[Any]:
    """Scores [B, I] that `score` makes of rows [B, I], each in proportion to the row's weights.

    A row with a weight above LARGEST is divided by its largest one first, and its scores multiplied by it
    afterwards, in float64; other rows are scored as they are, whoever else is in the batch.

    >>> linear_scores(csr_matrix([[3e38, 3e38]], dtype=np.float32), lambda rows: rows.sum(1))
    array([[6.00000001e+38]])
    """
    largest = rows.max(axis=1).toarray().ravel() if rows.nnz else np.zeros(rows.shape[0])
    if not (largest > LARGEST).any():
        return np.asarray(score(rows))
    factor = np.where(largest > LARGEST, largest, 1).astype(np.float64)
    smaller = csr_matrix(diags_array(1 / factor) @ rows, dtype=np.float32)
    return np.asarray(score(smaller)).astype(np.float64) * factor[:, None]
