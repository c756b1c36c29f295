"""Mean Jaccard similarity of each user with all others, or with a sample of them and a bound on the error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from greysheep.errors import DataError
from greysheep.mainstream.similarities import Users, sums_among, sums_of, sums_with
from greysheep.system.checks import MOST_THREADS, seed_number, whole_number
from greysheep.system.machine import usable_cores

Floats = NDArray[np.float64]

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
    threads = usable_cores() if threads is None else whole_number("threads", threads, most=MOST_THREADS)
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
    if against is None and not sampled:
        sums, squares = sums_among(mine, threads), np.zeros(n_users)
    else:
        sums, squares = sums_with(mine, theirs, threads)
    # The sums hold a user's similarity with herself, 1; without it users with equal rows stay exactly equal.
    met_herself = herself & (np.diff(mine.indptr) > 0)
    sums -= met_herself
    met = np.maximum(theirs.shape[0] - herself, 1)
    means = sums / met
    if not sampled:
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
        self.users = Users.of(binary(rows), None)

    def mean_similarity(self, rows: sparse.csr_matrix) -> Floats:
        """[B] means over all V users of the similarity with rows [B, I]: few people at a time."""
        return sums_of(Users.of(binary(rows), None), self.users, 1)[0] / max(1, len(self.users))
