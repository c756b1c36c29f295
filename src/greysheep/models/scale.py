"""Scores of different models on one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

FAR = 1e15
"""How far from 1 the largest score of a user may be before it is scaled."""


def standardised(scores: NDArray[Any], seen: csr_matrix) -> NDArray[Any]:
    """Scores [B, I] minus their mean, over their standard deviation, per row over the items not in `seen`.

    A row whose unseen items all have one score becomes 0.

    >>> standardised(np.array([[9.0, 1.0, 3.0]]), csr_matrix([[1.0, 0.0, 0.0]]))
    array([[ 7., -1.,  1.]])
    """
    peak = np.maximum(scores.max(1, initial=0), -scores.min(1, initial=0))
    far = ((peak > FAR) | (peak < 1 / FAR)) & (peak > 0)  # whose squares would leave float32
    if far.any():
        scores = scores.copy()
        scores[far] /= peak[far, None]
    row = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    left = np.maximum(seen.shape[1] - np.diff(seen.indptr), 1)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        of_seen = np.bincount(row, values[row, seen.indices], minlength=len(values))
        return np.asarray((values.sum(1, dtype=np.float64) - of_seen) / left)

    middle = mean(scores)
    centred: NDArray[Any] = scores - middle[:, None].astype(scores.dtype)
    deviation = np.sqrt(np.maximum(mean(np.square(centred)), 0))
    # equal scores differ from their mean by a rounding error, which must not become their scale
    flat = deviation <= 1e-6 * np.abs(middle)
    scale = np.where(flat, 0.0, 1 / np.where(flat, 1.0, deviation))
    centred *= scale[:, None].astype(scores.dtype)
    return centred
