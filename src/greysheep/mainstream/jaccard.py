"""Mean Jaccard similarity of each user with all others, or with a sample of them and a bound on the error.

No U x U matrix is ever built: the common items are counted by sparse products over blocks of users, and each
block is reduced to one or two numbers a user before the next one starts.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from greysheep.errors import DataError
from greysheep.system.checks import MOST_THREADS, seed_number, whole_number

Floats = NDArray[np.float64]

# Pairs of users with a common item that may be in memory at once, over all threads: about 32 bytes each.
_PAIRS_AT_ONCE = 1 << 23

# Chances of error spent on the two bounds of `_error_bounds`: 5 % together, each two-sided.
_BY_RANGE, _BY_SPREAD = 0.01, 0.04


def mean_jaccard(
    rows: sparse.csr_matrix,
    against: sparse.csr_matrix | None,
    threads: int | None,
    sample: int | None,
    seed: int,
) -> tuple[Floats, Floats]:
    """Means and bounds on their errors, [U] each; see `greysheep.mainstream.scores.sampled_scores`."""
    mine = binary(rows)
    theirs = mine if against is None else binary(against)
    if mine.shape[1] != theirs.shape[1]:
        raise DataError(f"rows have {mine.shape[1]} items, the users to compare with {theirs.shape[1]}")
    sample = None if sample is None else whole_number("sample", sample)
    threads = None if threads is None else whole_number("threads", threads, most=MOST_THREADS)
    seed = seed_number(seed)
    n_users = mine.shape[0]
    others = theirs.shape[0] - (against is None)
    sampled = sample is not None and sample < others
    herself = np.full(n_users, against is None)  # whether a user is among those she is compared with
    if sample is not None and sampled:
        # All users share one sample. Where they are compared among themselves it has one user more than
        # requested: a user in the sample is compared with the rest of it, a uniform draw from all others.
        size = sample + (against is None)
        chosen = np.sort(np.random.default_rng(seed).choice(theirs.shape[0], size, replace=False))
        theirs = theirs[chosen]
        herself &= np.isin(np.arange(n_users), chosen)
    sums, squares = _sums(mine, theirs, threads, squared=sampled)
    # The sums hold a user's similarity with herself, 1; without it users with equal rows stay exactly equal.
    met_herself = herself & (np.diff(mine.indptr) > 0)
    sums -= met_herself
    met = np.maximum(theirs.shape[0] - herself, 1)
    means = sums / met
    if squares is None:
        return means, np.zeros(n_users)
    return means, _error_bounds(means, (squares - met_herself) / met, met, others)


def _error_bounds(means: Floats, squares: Floats, met: NDArray[np.int64], others: int) -> Floats:
    """Bounds on |mean over the sample - mean over all others|, [U]; each holds with probability 95 %.

    The smaller of two bounds for numbers between 0 and 1 drawn without replacement (Bardenet and Maillard,
    "Concentration inequalities for sampling without replacement", Bernoulli 21(3), 2015), which fail with
    probability 1 % and 4 % at most: Hoeffding-Serfling (corollary 2.5), which knows the range only, and
    empirical Bernstein-Serfling (theorem 4.3), which reads the sample's variance. Both hold for every sample
    size and whatever the similarities are.

    squares: [U] means of the squared similarities. met: [U] users compared with.
    """
    # The correction for a finite population: 1 for a small sample, 0 where everybody is in it.
    left = np.where(met <= others / 2, 1 - (met - 1) / others, (1 - met / others) * (1 + 1 / met))
    by_range = np.sqrt(left * math.log(2 / _BY_RANGE) / (2 * met))
    logarithm = math.log(2 * 5 / _BY_SPREAD)
    variance = np.maximum(squares - means**2, 0)
    by_spread = np.sqrt(2 * left * variance * logarithm / met) + (7 / 3 + 3 / math.sqrt(2)) * logarithm / met
    return np.minimum(by_range, by_spread)


def binary(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return `rows` with 1 at every stored entry, sharing its index arrays.

    Raises:
        DataError: `rows` is no sparse matrix.
    """
    rows = as_rows(rows)
    ones = np.ones(rows.nnz, dtype=np.float32)  # float32 counts exactly up to 16 million common items
    return sparse.csr_matrix((ones, rows.indices, rows.indptr), shape=rows.shape)


def as_rows(rows: Any) -> sparse.csr_matrix:
    """Rows as a CSR matrix.

    Raises:
        DataError: `rows` is no sparse matrix.
    """
    if not sparse.issparse(rows) or rows.ndim != 2:
        kind = type(rows).__name__
        raise DataError(f"rows must be a sparse matrix, users by items, as log.matrix() is, not a {kind}")
    return rows if rows.format == "csr" else sparse.csr_matrix(rows)  # others index otherwise


class Crowd:
    """The users [V, I] whom people are compared with, made ready once for many calls.

    >>> crowd = Crowd(sparse.csr_matrix([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
    >>> crowd.mean_similarity(sparse.csr_matrix([[1, 1, 0]])).round(3)
    array([0.444])
    """

    def __init__(self, rows: sparse.csr_matrix):
        theirs = binary(rows)
        self.columns = theirs.T.tocsr()
        self.sizes = np.diff(theirs.indptr).astype(np.float64)

    def mean_similarity(self, rows: sparse.csr_matrix) -> Floats:
        """[B] means over all V users of the similarity with rows [B, I]: few people at a time."""
        mine = binary(rows)
        sizes = np.diff(mine.indptr).astype(np.float64)
        sums = np.zeros(len(sizes))
        for block in _blocks(mine, self.columns, _PAIRS_AT_ONCE):
            sums[block] = _row_sums(_similarities(mine[block], self.columns, sizes[block], self.sizes))
        return sums / max(1, len(self.sizes))


def _sums(
    mine: sparse.csr_matrix, theirs: sparse.csr_matrix, threads: int | None, *, squared: bool
) -> tuple[Floats, Floats | None]:
    """Sums over V users of similarities and, if asked for, of their squares, [U] each."""
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, threads)
    sizes, their_sizes = (np.diff(m.indptr).astype(np.float64) for m in (mine, theirs))
    columns = theirs.T.tocsr()
    sums: Floats = np.zeros(mine.shape[0])
    squares = np.zeros(mine.shape[0]) if squared else None

    def fill(block: slice) -> None:
        common = _similarities(mine[block], columns, sizes[block], their_sizes)
        sums[block] = _row_sums(common)
        if squares is not None:
            np.square(common.data, out=common.data)
            squares[block] = _row_sums(common)

    blocks = _blocks(mine, columns, _PAIRS_AT_ONCE // threads)
    with ThreadPoolExecutor(threads) as pool:  # scipy's sparse product releases the GIL
        list(pool.map(fill, blocks))
    return sums, squares


def _blocks(mine: sparse.csr_matrix, columns: sparse.csr_matrix, pairs: int) -> list[slice]:
    """Cut the users into blocks with about `pairs` pairs of users with a common item at most."""
    popularity = np.diff(columns.indptr).astype(np.float64)
    meets = np.minimum(mine @ popularity, columns.shape[1])
    if not len(meets):
        return []
    number = np.floor(np.cumsum(meets) / max(1, pairs))
    starts = np.unique(number, return_index=True)[1]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], mine.shape[0]], strict=True)]


def _similarities(
    block: sparse.csr_matrix, columns: sparse.csr_matrix, sizes: Floats, their_sizes: Floats
) -> sparse.csr_matrix:
    """Jaccard similarities [b, V], stored where the two share an item."""
    common = block @ columns
    union = their_sizes[common.indices]
    union += np.repeat(sizes, np.diff(common.indptr))
    union -= common.data
    np.divide(common.data, union, out=union)
    common.data = union
    return common


def _row_sums(matrix: sparse.csr_matrix) -> Floats:
    sums = np.zeros(matrix.shape[0])
    some = np.diff(matrix.indptr) > 0
    if some.any():
        sums[some] = np.add.reduceat(matrix.data, matrix.indptr[:-1][some])
    return sums
