"""EASE's weights in two forms: over items, a matrix [I, I], or over users, an inverse [U, U].

With P = (X'X + lambda)^-1 the weights are B = 1 - P diag(f). f_j = 1 / P_jj makes the diagonal of B zero
(Steck, WWW 2019, eq. 8). Where it may go up to `relax`, f_j = max(lambda, (1 - relax) / P_jj): lambda alone
is ridge regression, and the multiplier of the constraint adds to it only where the constraint binds (Moon,
Kim & Lee, SIGIR 2023, RDLAE).

Over users P is (1 - X'GX) / lambda with G = (XX' + lambda)^-1, so x B = h xX'GX - (h - 1) x with
h = f / lambda, and no I x I matrix is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, eye_array, vstack

from greysheep.errors import ConfigError
from greysheep.models.linear.gram import CELLS, blocks, inverse, precise_product
from greysheep.models.linear.sparse_state import sparse_state
from greysheep.system.machine import available_bytes, readable

Form = Literal["items", "users"]
Floats = NDArray[np.float64]

TOLERANCE = 4e-5
"""Most error of a score beside the largest score of its row that float32 may leave. It is taken of some rows;
twice as much in another row is still below 1e-4."""
PRECISE = 2048
"""Matrices up to this size are inverted in float64 at once: half a second on one core."""
FEW_ITEMS = 4096
"""Up to so many items the item form is small (67 MB), quick to score with, and free of anybody's rows."""
PROBED_USERS, PROBED_ITEMS = 24, 8
"""Rows whose scores are held to float64."""


@dataclass
class ItemForm:
    """The weights B [I, I] themselves."""

    weights: NDArray[np.float32]

    @classmethod
    def fit(
        cls, rows: csr_matrix, regularization: float, relax: float, dtype: Any
    ) -> tuple[Self, Floats] | None:
        """Weights of rows [U, I] and h [I]; None where they cannot be had in this precision."""
        found = inverse(rows, regularization, dtype)
        if found is None:
            return None
        diagonal = found.diagonal().astype(np.float64) * regularization
        weights = found if found.dtype == np.float32 else np.empty(found.shape, np.float32)
        with np.errstate(all="ignore"):  # what overflows is no number, and is found by the check
            h = column_factors(diagonal, relax)
            factors = (h * -regularization).astype(found.dtype)
            for block in blocks(*found.shape):
                weights[block] = found[block] * factors
            np.fill_diagonal(weights, 1 - diagonal * h)
        return cls(weights), h

    def scores(self, x: csr_matrix) -> NDArray[Any]:
        """X B [B, I] of rows X [B, I]."""
        return np.asarray(x @ self.weights)

    def precise_scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """X B in float64."""
        return precise_product(x, self.weights)

    def state(self) -> dict[str, NDArray[Any]]:
        """What is saved."""
        return {"weights": self.weights}


@dataclass
class UserForm:
    """The inverse G [U, U], and the rows X [U, I] through which it is read."""

    inverse: NDArray[Any]
    rows: csr_matrix
    factors: Floats
    """h [I]."""

    def __post_init__(self) -> None:
        self.columns = csr_matrix(self.rows.T)
        """[I, U]"""

    @classmethod
    def fit(
        cls, rows: csr_matrix, regularization: float, relax: float, dtype: Any
    ) -> tuple[Self, Floats] | None:
        """The form of rows [U, I] and h [I]; None where they cannot be had in this precision."""
        columns = csr_matrix(rows.T)
        found = inverse(columns, regularization, dtype)
        if found is None:
            return None
        with np.errstate(all="ignore"):
            h = column_factors(1 - quadratic_forms(columns, found), relax)
        return cls(found, csr_matrix(rows, dtype=dtype), h), h

    def scores(self, x: csr_matrix) -> NDArray[Any]:
        """X B [B, I] of rows X [B, I], in the precision of the inverse."""
        x = csr_matrix(x, dtype=self.inverse.dtype)
        shared = csr_matrix(x @ self.columns)  # [B, U]
        few = shared.nnz * 50 < shared.shape[0] * shared.shape[1]  # a dense product is that much faster
        through = (shared if few else shared.toarray()) @ self.inverse
        scores = np.ascontiguousarray((self.columns @ through.T).T)
        scores *= self.factors.astype(scores.dtype)
        scores -= x.toarray() * (self.factors - 1).astype(scores.dtype)
        return scores

    def precise_scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """X B in float64."""
        through = precise_product(x @ self.columns, self.inverse)
        return np.asarray((through @ self.rows) * self.factors - x * (self.factors - 1))

    def state(self) -> dict[str, NDArray[Any]]:
        """What is saved."""
        return {"inverse": self.inverse, "factors": self.factors, **sparse_state(self.rows)}


def column_factors(diagonal: Floats, relax: float) -> Floats:
    """Return h = f / lambda [I] of lambda diag(P) [I]: no item weighs more than `relax` on itself.

    >>> column_factors(np.array([0.2, 0.8]), relax=0.5)
    array([2.5, 1. ])
    """
    return np.asarray(np.maximum((1 - relax) / diagonal, 1.0))


def quadratic_forms(columns: csr_matrix, matrix: NDArray[Any]) -> NDArray[np.float64]:
    """x_i' M x_i [I] of sparse columns, given as rows [I, U], and M [U, U]: sum over i of n_i^2 products.

    >>> quadratic_forms(csr_matrix([[1.0, 2.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]))
    array([13.,  3.])
    """
    out = np.zeros(columns.shape[0])
    for i, (start, stop) in enumerate(pairwise(columns.indptr.tolist())):
        who, x = columns.indices[start:stop], columns.data[start:stop].astype(np.float64)
        for block in blocks(len(who), len(who)):
            out[i] += x[block] @ (matrix[np.ix_(who[block], who)] @ x)
    return out


def solve(
    rows: csr_matrix, regularization: float, form: Form | None = None, relax: float = 0.0
) -> ItemForm | UserForm:
    """EASE's weights of rows [U, I], in float32 where that is exact enough, else in float64.

    Raises:
        ConfigError: the matrix does not fit in memory, or is singular.
    """
    form = form or smaller_form(*rows.shape)
    kind: type[ItemForm | UserForm] = ItemForm if form == "items" else UserForm
    size = rows.shape[1] if form == "items" else rows.shape[0]
    for dtype in (np.float64,) if size <= PRECISE else (np.float32, np.float64):
        _check_memory(size, rows.shape[1], dtype)
        found = kind.fit(rows, regularization, relax, dtype)
        if found is not None and score_error(found[0], found[1], rows, regularization) <= TOLERANCE:
            return found[0]
        del found  # before the next, larger one
    raise ConfigError(
        f"EASE's matrix is singular with regularization={regularization}: try a larger one, or smaller "
        "weights of the log"
    )


def smaller_form(n_users: int, n_items: int) -> Form:
    """The form to choose: over items, unless there are many of them and far fewer users."""
    if n_items <= FEW_ITEMS or n_users >= n_items:
        return "items"
    fits = needed_bytes(n_items, np.float32) <= available_bytes()
    return "items" if fits and 2 * n_users > n_items else "users"


def needed_bytes(size: int, dtype: Any) -> float:
    """Memory for one matrix in the making, and in float64 for what is kept of it in float32 beside it."""
    return (4.4 if dtype == np.float32 else 12.4) * size * size + 32 * CELLS


def _check_memory(size: int, n_items: int, dtype: Any) -> None:
    needed, free = needed_bytes(size, dtype), available_bytes()
    if needed > free:
        raise ConfigError(
            f"EASE of {n_items} items needs about {readable(needed)} of memory, {readable(free)} are free: "
            "drop rare items (min_item_users) or use another model"
        )


def score_error(found: ItemForm | UserForm, h: Floats, rows: csr_matrix, regularization: float) -> float:
    """Largest error of a score beside the largest score of its row, in some rows; NaN where one is no number.

    Scores come from y = lambda x P, whose residual r = x - y (X'X + lambda) / lambda can be taken in float64
    without the exact inverse. Then r - r B is the error of x's scores, but for terms of second order. Rows of
    single items say how far off the diagonal of P is, by which all scores of an item are divided.
    """
    n_users, n_items = rows.shape
    lengths, popularity = np.diff(rows.indptr), np.bincount(rows.indices, minlength=n_items)
    users = np.argsort(lengths, kind="stable")[np.linspace(0, n_users - 1, PROBED_USERS).astype(np.int64)]
    items = np.argsort(-popularity, kind="stable")[:PROBED_ITEMS]
    unit = eye_array(n_items, format="csr")[items]
    exact = csr_matrix(rows, dtype=np.float64)
    probes = csr_matrix(vstack([exact[users], unit], format="csr"))
    x = probes.toarray()
    with np.errstate(all="ignore"):
        score = found.precise_scores(x)
        y = (x - score) / h
        residual = x - y - (y @ exact.T) @ exact / regularization
        error = residual - found.precise_scores(residual)
        error = np.abs(error) + np.abs(found.scores(csr_matrix(probes, dtype=np.float32)) - score)
        # where nothing is to be said, scores are rounding errors of the input
        scale = np.maximum(np.abs(score).max(axis=1), 1e-4 * np.abs(x).max(axis=1))
        scale[-len(items) :] = 1.0  # a share of the diagonal
        return float((error / np.where(scale == 0, 1.0, scale)[:, None]).max(initial=0.0))
