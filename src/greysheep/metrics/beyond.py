"""What lists are like beside their hits: catalogue coverage, Gini, popularity, novelty, diversity; and AUC.

Plain functions on lists of item codes ([n, N], best first, -1 where there is no item). A user without what a
figure needs has NaN, and the caller decides what a mean is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]


def exposure(ranked: NDArray[Any], n_items: int) -> NDArray[np.int64]:
    """How often each item stands in the lists, [I].

    >>> exposure(np.array([[0, 2], [2, -1]]), 4)
    array([1, 0, 2, 0])
    """
    counts: NDArray[np.int64] = np.bincount(ranked[ranked >= 0].ravel(), minlength=n_items)
    return counts


def coverage(exposed: NDArray[Any]) -> float:
    """Share of the catalogue that stands in some list (Ge, Delgado-Battenfeld and Jannach, RecSys 2010).

    exposed: [I] from `exposure`.

    >>> coverage(np.array([1, 0, 2, 0]))
    0.5
    """
    return float((exposed > 0).mean()) if len(exposed) else np.nan


def gini(exposed: NDArray[Any]) -> float:
    """Gini coefficient of the items' places in the lists (Fleder and Hosanagar, Management Science 2009).

    0: every item of the catalogue stands in as many lists; close to 1: a few items have all places. With the
    counts x in ascending order, sum_i (2 i - I - 1) x_i / (I sum x). NaN where all lists are empty.

    exposed: [I] from `exposure`.

    >>> gini(np.array([2, 2, 2])), gini(np.array([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    counts = np.sort(np.asarray(exposed, dtype=np.float64))
    n, total = len(counts), counts.sum()
    if not total > 0:
        return np.nan
    return float(((2 * np.arange(1, n + 1) - n - 1) * counts).sum() / (n * total))


def mean_over_list(ranked: NDArray[Any], values: NDArray[Any]) -> Floats:
    """Mean over the items of each list of a value of the item, [n]; values: [I]; NaN for an empty list."""
    there = ranked >= 0
    sums = np.where(there, np.asarray(values, dtype=np.float64)[ranked], 0.0).sum(axis=1)
    return _divided(sums, there.sum(axis=1))


def popularity(ranked: NDArray[Any], counts: NDArray[Any]) -> Floats:
    """Mean number of rows of the items of each list, [n] (average recommendation popularity: Abdollahpouri,
    Burke and Mobasher, FLAIRS 2019).

    counts: [I] rows of each item that the recommender had seen.

    >>> popularity(np.array([[0, 1], [1, -1]]), np.array([10, 4]))
    array([7., 4.])
    """
    return mean_over_list(ranked, counts)


def chosen_popularity(rows: sparse.csr_matrix) -> Floats:
    """Mean number of rows of the items that each user chose, [U]; rows: [U, I]; NaN for a user without rows.

    Popularity against it is the popularity lift of a group of users, as in Abdollahpouri, Mansoury, Burke and
    Mobasher, "The unfairness of popularity bias in recommendation", RMSE 2019: (mean popularity of their
    lists - mean popularity of their choices) / mean popularity of their choices.
    """
    chosen = rows != 0
    counts = np.asarray(chosen.sum(axis=0), dtype=np.float64).ravel()
    return _divided(np.asarray(chosen @ counts).ravel(), np.asarray(chosen.sum(axis=1)).ravel())


def novelty(ranked: NDArray[Any], counts: NDArray[Any], n_users: int) -> Floats:
    """Mean self-information of the items of each list in bits, [n] (Zhou et al., PNAS 2010; Vargas and
    Castells, RecSys 2011): -log2 of the share of users who have the item; an item that nobody has counts as
    if one had it.

    counts: [I] users of each item. n_users: users who have any.

    >>> novelty(np.array([[0, 1]]), np.array([8, 2]), 16)
    array([2.])
    """
    share = np.maximum(np.asarray(counts, dtype=np.float64), 1) / max(n_users, 1)
    return mean_over_list(ranked, -np.log2(share))


def diversity(ranked: NDArray[Any], vectors: Floats) -> Floats:
    """Intra-list diversity, [n]: mean over pairs of a list's items of 1 - cosine of their vectors (Smyth and
    McClave, ICCBR 2001; Ziegler et al., WWW 2005).

    vectors: [I, F], genres as 0 and 1 or any other; an item whose vector is 0 or NaN is left out of the
    pairs. NaN for a list with fewer than two others.

    >>> diversity(np.array([[0, 1, 2]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).round(3)
    array([0.667])
    """
    length = np.linalg.norm(vectors, axis=1)
    known = np.isfinite(length) & (length > 0)
    unit = np.zeros_like(vectors, dtype=np.float64)
    unit[known] = vectors[known] / length[known, None]
    there = (ranked >= 0) & known[ranked]
    rows = np.repeat(np.arange(len(ranked)), there.sum(axis=1))
    members = sparse.csr_matrix((np.ones(len(rows)), (rows, ranked[there])), (len(ranked), len(vectors)))
    n = there.sum(axis=1)
    # the squared sum of unit vectors is n plus twice the sum of the cosines of the pairs
    cosines = (np.square(members @ unit).sum(axis=1) - n) / 2
    pairs = n * (n - 1) / 2
    return _divided(pairs - cosines, pairs)


def auc(scores: NDArray[Any], truth: sparse.csr_matrix) -> Floats:
    """Area under the ROC curve of each user, [B] (Rendle et al., BPR, UAI 2009): the share of pairs of an
    item to be found and another candidate that the scores order rightly; equal scores count half.

    scores: [B, I], -inf = no candidate. truth: [B, I] items to be found, among the candidates. NaN where a
    user has no item of one of the two kinds.

    >>> auc(np.array([[0.9, 0.1, 0.5, 0.5]]), sparse.csr_matrix([[0.0, 0.0, 1.0, 0.0]]))
    array([0.5])
    """
    areas = np.full(len(scores), np.nan)
    for row, line in enumerate(np.asarray(scores)):
        found = truth.indices[truth.indptr[row] : truth.indptr[row + 1]]
        right = line[found]
        others = np.delete(line, found)
        others = np.sort(others[others > -np.inf])
        if len(right) and len(others):
            below = np.searchsorted(others, right, "left") + np.searchsorted(others, right, "right")
            areas[row] = below.mean() / (2 * len(others))
    return areas


def _divided(sums: NDArray[Any], counts: NDArray[Any]) -> Floats:
    """Sums / counts, NaN where the count is 0."""
    out = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=out, where=np.asarray(counts) > 0)
    return out
