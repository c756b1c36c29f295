"""Inverses of regularised Gram matrices, X'X + lambda: symmetric, positive definite, made in place.

LAPACK's Cholesky pair (potrf, potri) takes n^3 multiplications, a third of what a general inverse takes, and
overwrites the matrix, so that a fit needs the memory of one matrix and some blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import get_blas_funcs
from scipy.linalg.lapack import get_lapack_funcs
from scipy.sparse import csr_matrix

from greysheep.system.machine import usable_cores

DENSE_GAIN = 100
"""Multiplications that a dense product makes while a sparse one makes one: 3.5e10 and 3.6e8 a second of one
core, measured on ML-1M. Only speed depends on it."""
CELLS = 1 << 22
"""Numbers in one block (16 MB in float32)."""


def inverse(rows: csr_matrix, regularization: float, dtype: Any) -> NDArray[Any] | None:
    """(X'X + lambda)^-1 of rows X [n, m]: [m, m] in `dtype`; None where it is singular in that precision.

    >>> inverse(csr_matrix([[1.0, 1.0]]), 1.0, np.float64).round(3)
    array([[ 0.667, -0.333],
           [-0.333,  0.667]])
    """
    matrix = gram(csr_matrix(rows, dtype=dtype))
    matrix[np.diag_indices(len(matrix))] += regularization
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (matrix,))
    factor, failed = potrf(matrix, lower=1, overwrite_a=1)
    if failed:
        return None
    found, failed = potri(factor, lower=1, overwrite_c=1)
    return None if failed else _mirrored(found.T)


def gram(rows: csr_matrix) -> NDArray[Any]:
    """X'X [m, m] of rows X [n, m], in Fortran's order; only its lower triangle is whole.

    Long rows are multiplied as dense ones, short rows as sparse ones: a row of k entries costs k^2 sparse or
    m^2 / 2 dense multiplications.
    """
    m = rows.shape[1]
    out = np.zeros((m, m), rows.dtype)
    lengths = np.diff(rows.indptr)
    long = lengths > m / math.sqrt(2 * DENSE_GAIN)
    _add_sparse(out, csr_matrix(rows[~long]))
    (syrk,) = get_blas_funcs(("syrk",), (out,))
    result, dense = out.T, csr_matrix(rows[long])  # out is symmetric: its transpose has Fortran's order
    for block in blocks(dense.shape[0], m):
        result = syrk(1.0, dense[block].toarray().T, beta=1.0, c=result, lower=1, overwrite_c=1)
    return np.asarray(result)


def _add_sparse(out: NDArray[Any], rows: csr_matrix) -> None:
    """Add X'X to `out`, a block of its rows a time and thread: scipy's sparse product releases the GIL."""
    if not rows.nnz:
        return
    columns = csr_matrix(rows.T)

    def add(block: slice) -> None:
        out[block] += (columns[block] @ rows).toarray()

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(add, blocks(*out.shape)))


def _mirrored(upper: NDArray[Any]) -> NDArray[Any]:
    """A square matrix whose upper triangle is filled, made symmetric in place, block by block."""
    for block in blocks(*upper.shape):
        corner = np.triu(upper[block, block])
        upper[block, block] = corner + np.triu(corner, 1).T
        upper[block.stop :, block] = upper[block, block.stop :].T
    return upper


def precise_product(x: NDArray[np.float64], matrix: NDArray[Any]) -> NDArray[np.float64]:
    """X M [B, m] in float64 without a float64 copy of M [n, m]."""
    out = np.zeros((len(x), matrix.shape[1]))
    for block in blocks(*matrix.shape):
        out += x[:, block] @ matrix[block].astype(np.float64)
    return out


def blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows of `width` numbers, CELLS numbers each at most."""
    size = max(1, CELLS // max(1, width))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
