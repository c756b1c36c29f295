"""How mainstream each user is, and the five groups the reports are made of.

The score is the paper's: a user's mean Jaccard similarity with every other user, over train rows. No U x U
matrix is ever built: the common items are counted by sparse products over blocks of users, and each block is
reduced to one number a user before the next one starts.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from greysheep.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from greysheep.splitting import Split

GROUPS = ("low", "med-low", "medium", "med-high", "high")

# Pairs of users with a common item that may be in memory at once, over all threads: about 32 bytes each.
_PAIRS_AT_ONCE = 1 << 23

# Size of the space in which the density score looks for neighbours.
_DIMENSIONS = 64


def mainstream_scores(
    rows: sparse.csr_matrix, against: sparse.csr_matrix | None = None, *, threads: int | None = None
) -> NDArray[np.float64]:
    """Return each user's mean Jaccard similarity with all others: exact, 0 to 1, high = mainstream.

    Time grows with the sum over items of squared popularity, memory with U plus the stored rows.

    Args:
        rows: [U, I], a stored entry = the user has the item (weights are ignored).
        against: [V, I] users to compare with, for people who are not among them: the mean runs over all V.
            Without it the mean runs over the U - 1 others.
        threads: how many to use; None = every core this process may use. The result does not depend on it.

    Returns:
        [U] means; 0 for a user without rows.

    Raises:
        ValueError: `rows` and `against` have different numbers of items.

    >>> log = sparse.csr_matrix([[1, 1, 0], [1, 1, 0], [0, 1, 1]])
    >>> mainstream_scores(log).round(3)
    array([0.667, 0.667, 0.333])
    """
    mine = _binary(rows)
    theirs = mine if against is None else _binary(against)
    if mine.shape[1] != theirs.shape[1]:
        raise ValueError(f"rows have {mine.shape[1]} items, the users to compare with {theirs.shape[1]}")
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, threads)
    sizes = np.diff(mine.indptr).astype(np.float64)
    their_sizes = np.diff(theirs.indptr).astype(np.float64)
    columns = theirs.T.tocsr()
    totals: NDArray[np.float64] = np.zeros(mine.shape[0])

    def fill(block: slice) -> None:
        totals[block] = _jaccard_sums(mine[block], columns, sizes[block], their_sizes)

    blocks = _blocks(mine, columns, _PAIRS_AT_ONCE // threads)
    with ThreadPoolExecutor(threads) as pool:  # scipy's sparse product releases the GIL
        list(pool.map(fill, blocks))
    if against is None:
        # Each user met herself, at similarity 1. Subtracting keeps users with the same rows exactly equal.
        totals -= sizes > 0
    others = len(totals) - 1 if against is None else theirs.shape[0]
    return totals / max(1, others)


def _binary(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return `rows` with 1 at every stored entry, sharing its index arrays."""
    ones = np.ones(rows.nnz, dtype=np.float32)  # float32 counts exactly up to 16 million common items
    return sparse.csr_matrix((ones, rows.indices, rows.indptr), shape=rows.shape)


def _blocks(mine: sparse.csr_matrix, columns: sparse.csr_matrix, pairs: int) -> list[slice]:
    """Cut the users into runs that meet at most about `pairs` others in all."""
    popularity = np.diff(columns.indptr).astype(np.float64)
    meets = np.minimum(mine @ popularity, columns.shape[1])
    if not len(meets):
        return []
    number = np.floor(np.cumsum(meets) / max(1, pairs))
    starts = np.unique(number, return_index=True)[1]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], mine.shape[0]], strict=True)]


def _jaccard_sums(
    block: sparse.csr_matrix,
    columns: sparse.csr_matrix,
    sizes: NDArray[np.float64],
    their_sizes: NDArray[np.float64],
) -> NDArray[np.float64]:
    common = block @ columns  # [b, V], an entry where the two share an item
    union = their_sizes[common.indices]
    union += np.repeat(sizes, np.diff(common.indptr))
    union -= common.data
    np.divide(common.data, union, out=union)
    sums = np.zeros(len(sizes))
    some = np.diff(common.indptr) > 0
    if some.any():
        sums[some] = np.add.reduceat(union, common.indptr[:-1][some])
    return sums


@dataclass(frozen=True)
class Mainstream:
    """Scores of a log's users and the five groups they fall into.

    Attributes:
        scores: [U] float64, the higher the more mainstream.
        groups: [U] int8, 0 = `low` (niche) to 4 = `high`, as in `GROUPS`.
        cuts: [4] lowest score of groups 1 to 4, for users who come later; inf where a group is empty.
    """

    scores: NDArray[np.float64]
    groups: NDArray[np.int8]
    cuts: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: sparse.csr_matrix, user_ids: pl.Series, *, threads: int | None = None) -> Mainstream:
        """Score the users of a log and cut them in five.

        Args:
            rows: [U, I] train rows.
            user_ids: [U] ids, which decide between equal scores.
            threads: see `mainstream_scores`.
        """
        return cls.from_scores(mainstream_scores(rows, threads=threads), user_ids)

    @classmethod
    def from_scores(cls, scores: NDArray[np.float64], user_ids: pl.Series) -> Mainstream:
        """Cut users in five by any score: order by (score, user_id), then `numpy.array_split`.

        Raises:
            DataError: a score is NaN.

        >>> Mainstream.from_scores(np.array([0.5, 0.1, 0.4, 0.2, 0.3]), pl.Series([1, 2, 3, 4, 5])).groups
        array([4, 0, 3, 1, 2], dtype=int8)
        """
        scores = np.asarray(scores, dtype=np.float64)
        if np.isnan(scores).any():
            raise DataError(f"{int(np.isnan(scores).sum())} users have no mainstream score (NaN)")
        groups = _quintiles(scores, user_ids)
        lowest = [scores[groups == group].min(initial=np.inf) for group in range(1, len(GROUPS))]
        return cls(scores, groups, np.array(lowest))

    @classmethod
    def of_split(cls, split: Split) -> Mainstream:
        """Score the users of a split on its train rows; computed once for each split object."""
        found = _of_split.get(split)
        if found is None:
            found = _of_split[split] = cls.fit(split.rows("train"), split.log.user_ids)
        return found

    def assign(self, scores: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the groups, [n] int8, of new users' scores, [n], by the cut points.

        >>> known = Mainstream.from_scores(np.arange(5.0), pl.Series(range(5)))
        >>> known.assign(np.array([2.5]))
        array([2], dtype=int8)
        """
        return np.searchsorted(self.cuts, scores, side="right").astype(np.int8)


_of_split: WeakKeyDictionary[Any, Mainstream] = WeakKeyDictionary()  # key: Split


def activity_groups(counts: NDArray[Any], user_ids: pl.Series) -> NDArray[np.int8]:
    """Cut users in five by activity: order by (number of rows, user_id), 0 = fewest rows.

    Args:
        counts: [U] rows of each user.
        user_ids: [U] ids, which decide between equal counts.

    Returns:
        [U] int8 groups.
    """
    return _quintiles(np.asarray(counts), user_ids)


def _quintiles(values: NDArray[Any], user_ids: pl.Series) -> NDArray[np.int8]:
    if len(values) != len(user_ids):
        raise ValueError(f"{len(values)} values for {len(user_ids)} users")
    by_id = user_ids.rank("ordinal").to_numpy()
    groups = np.empty(len(values), dtype=np.int8)
    for group, members in enumerate(np.array_split(np.lexsort((by_id, values)), len(GROUPS))):
        groups[members] = group
    return groups


def density_scores(rows: sparse.csr_matrix, *, seed: int = 0) -> NDArray[np.float64]:
    """Return minus the local outlier factor of each user on 64 SVD dimensions of the binary rows.

    The WSDM 2022 alternative to Jaccard: about -1 within a crowd, far lower for a user who stands alone.

    Args:
        rows: [U, I] train rows.
        seed: start vector of the decomposition.

    Returns:
        [U] scores, the higher the more mainstream.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        DataError: fewer than 3 users.
    """
    try:
        from sklearn.neighbors import LocalOutlierFactor
    except ImportError as error:
        raise MissingExtraError("baselines", "the density score (scikit-learn)") from error
    n_users, n_items = rows.shape
    if n_users < 3:
        raise DataError(f"the density score needs at least 3 users, got {n_users}")
    binary = _binary(rows).astype(np.float64)
    if min(n_users, n_items) <= 4 * _DIMENSIONS:  # small enough for the direct method, which needs no seed
        left, values, _ = np.linalg.svd(binary.toarray(), full_matrices=False)
        left, values = left[:, :_DIMENSIONS], values[:_DIMENSIONS]
    else:
        start = np.random.default_rng(seed).standard_normal(min(n_users, n_items))
        left, values, _ = svds(binary, k=_DIMENSIONS, v0=start)
    factor = LocalOutlierFactor(n_neighbors=min(20, n_users - 1)).fit(left * values)
    return np.asarray(factor.negative_outlier_factor_, dtype=np.float64)


def distribution_scores(rows: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return the cosine of each user's binary row with the mean of all rows.

    Args:
        rows: [U, I] train rows.

    Returns:
        [U] cosines, 0 to 1, the higher the more mainstream; 0 for a user without rows.

    >>> distribution_scores(sparse.csr_matrix([[1, 1, 0], [1, 0, 0], [0, 0, 1]])).round(3)
    array([0.866, 0.816, 0.408])
    """
    binary = _binary(rows)
    profile = np.bincount(binary.indices, minlength=binary.shape[1]).astype(np.float64)
    norms = np.sqrt(np.diff(binary.indptr)) * np.linalg.norm(profile)
    cosines: NDArray[np.float64] = (binary @ profile) / np.where(norms > 0, norms, 1.0)
    return cosines
