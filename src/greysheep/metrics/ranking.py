"""Top-N metrics, one value per user, defined as the package ranx 0.3.21 does (binary relevance).

Nothing here averages: users without relevant items come back as NaN and the caller decides what a mean is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from greysheep.errors import ConfigError, DataError
from greysheep.system.checks import whole_number

METRICS = ("ndcg", "recall", "precision", "hit_rate", "mrr", "map")

# Rows ranked together: about 4 MB of float32 scores, so the copy that is partitioned stays in cache.
_BLOCK_CELLS = 1 << 20


def tie_order(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each item among items of equal scores, [I]: by number of rows [I], most first, then by code.

    >>> tie_order(np.array([1, 5, 5, 0]))
    array([2, 0, 1, 3])
    """
    place = np.empty(len(counts), dtype=np.int64)
    place[np.argsort(-np.asarray(counts, dtype=np.int64), kind="stable")] = np.arange(len(counts))
    return place


def top_n(scores: NDArray[Any], n: int, place: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return the best n columns of every row, best first.

    Args:
        scores: [B, I], the higher the better; -inf marks an item that must not be recommended.
        n: length of the lists.
        place: [I] which of several items with equal scores comes first: the one with the smallest number
            (`tie_order` makes them); None = the one with the smaller code.

    Returns:
        [B, min(n, I)] item codes; -1 fills a row with fewer than n items above -inf.

    Raises:
        ConfigError: n is below 1.
        DataError: a score is NaN (a model that diverged, for instance).
        ValueError: `scores` is not a matrix.

    >>> scores = np.array([[0.1, 0.9, 0.9, -np.inf]])
    >>> top_n(scores, 4), top_n(scores, 2, tie_order(np.array([7, 1, 3, 5])))
    (array([[ 1,  2,  0, -1]]), array([[2, 1]]))
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must be a matrix of users by items, got {scores.ndim} dimensions")
    n = whole_number("k", n)
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    n_rows, n_items = scores.shape
    n = min(n, n_items)
    place = np.arange(n_items) if place is None else place
    first = np.argsort(place)
    best = np.full((n_rows, n), -1, dtype=np.int64)
    step = max(1, _BLOCK_CELLS // max(1, n_items))
    for start in range(0, n_rows if n else 0, step):
        stop = min(start + step, n_rows)
        best[start:stop] = _top_n_block(scores[start:stop], n, place, first)
    return best


def _top_n_block(
    scores: NDArray[Any], n: int, place: NDArray[np.int64], first: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`top_n` of some rows; first: [I] codes in the order of `place`."""
    n_rows, n_items = scores.shape
    bound = np.maximum(_lower_bound(scores, n), np.finfo(scores.dtype).min)  # -inf never counts
    candidates = scores >= bound[:, None]
    counts = np.count_nonzero(candidates, axis=1)
    for row in np.flatnonzero(counts > 8 * n):  # many equal scores: cut this row alone
        kept = _cut(scores[row], bound[row], n, first)
        candidates[row] = False
        candidates[row, kept] = True
        counts[row] = n
    flat = np.flatnonzero(candidates)  # by row, then ascending code
    rows = np.repeat(np.arange(n_rows), counts)
    columns = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = max(n, int(counts.max()))
    codes = np.full((n_rows, width), -1, dtype=np.int64)
    worst_first = np.full((n_rows, width), np.inf, dtype=scores.dtype)
    codes[rows, columns] = flat - rows * n_items
    worst_first[rows, columns] = -scores.ravel()[flat]
    order = np.argsort(worst_first, axis=1)
    sorted_scores = np.take_along_axis(worst_first, order[:, : n + 1], axis=1)
    # few rows have equal scores that count: only these are sorted a second time
    equal = (sorted_scores[:, 1:] == sorted_scores[:, :-1]) & (sorted_scores[:, 1:] < np.inf)
    tied = np.flatnonzero(equal.any(axis=1))
    order[tied] = np.lexsort((place[codes[tied]], worst_first[tied]), axis=1)
    return np.take_along_axis(codes, order[:, :n], axis=1)


def _cut(scores: NDArray[Any], bound: Any, n: int, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """The best n codes of one row, in any order; more than n of its scores reach `bound`."""
    above = np.flatnonzero(scores > bound)
    if len(above) >= n:
        return first[np.argsort(-scores[first], kind="stable")[:n]]
    # the usual case, as of a model that knows few items of a user: all the rest score alike
    return np.concatenate([above, first[scores[first] == bound][: n - len(above)]])


def _lower_bound(scores: NDArray[Any], n: int) -> NDArray[Any]:
    """Return for each row, [B], a value that at least n of its scores reach (or all, where n is nearly I).

    The row is cut into chunks; the n-th best of the chunks' maxima is reached by n chunks, hence by n scores.
    One cheap pass and a partition of the few maxima replace a partition of the whole row.
    """
    n_rows, n_items = scores.shape
    width = max(1, n_items // (8 * n))
    n_chunks = n_items // width
    # chunk c holds columns c, c + n_chunks, ...: the maximum runs over whole stretches of memory
    maxima = scores[:, : n_chunks * width].reshape(n_rows, width, n_chunks).max(axis=1)
    tail = scores[:, n_chunks * width :]
    if np.isnan(maxima).any() or np.isnan(tail).any():  # a maximum keeps NaN, so none can hide
        raise DataError("scores contain NaN: the model that made them has diverged or read broken input")
    bound: NDArray[Any] = np.partition(maxima, n_chunks - n, axis=1)[:, n_chunks - n]
    return bound


def hits(ranked: NDArray[Any], truth: sparse.csr_matrix) -> NDArray[np.bool_]:
    """Mark the places of each list that hold a relevant item.

    Args:
        ranked: [n, N] item codes, best first; -1 pads short lists and stands for items unknown to the log.
        truth: [n, I], a stored entry = relevant item; row r belongs to list r.

    Returns:
        [n, N] booleans.

    Raises:
        ValueError: the two have different numbers of rows, or a code is not below I.

    >>> hits(np.array([[2, 0, -1]]), sparse.csr_matrix([[1.0, 0.0, 0.0]]))
    array([[False,  True, False]])
    """
    ranked = np.asarray(ranked)
    n_rows, n_items = truth.shape
    if ranked.ndim != 2 or len(ranked) != n_rows:
        raise ValueError(f"ranked has shape {ranked.shape}, truth {n_rows} rows: one list per row is needed")
    if ranked.size == 0 or truth.nnz == 0:
        return np.zeros(ranked.shape, dtype=np.bool_)
    if ranked.max() >= n_items:
        raise ValueError(f"ranked holds code {ranked.max()}, but truth has {n_items} items")
    if not truth.has_sorted_indices:
        truth = truth.sorted_indices()
    # One number per (row, item) pair, ascending because rows and indices are: membership is a binary search.
    row_of = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(truth.indptr))
    relevant = row_of * n_items + truth.indices
    wanted = ranked.astype(np.int64) + np.arange(n_rows, dtype=np.int64)[:, None] * n_items
    place = np.minimum(np.searchsorted(relevant, wanted), len(relevant) - 1)
    hit: NDArray[np.bool_] = (relevant[place] == wanted) & (ranked >= 0)
    return hit


def per_user(
    hits: NDArray[np.bool_],
    n_relevant: NDArray[Any],
    k: int | Sequence[int],
    metrics: Sequence[str] = METRICS,
) -> dict[str, NDArray[np.float64]]:
    """Compute metrics of every user from the hits of one ranking.

    NDCG's ideal list is cut at k; recall and MAP divide by all relevant items; precision divides by k. Lists
    shorter than k count as padded with misses.

    Args:
        hits: [n, N] from `hits`.
        n_relevant: [n] number of relevant items of each user, those outside her list included.
        k: cut-off, or several.
        metrics: some of `METRICS`.

    Returns:
        {"ndcg@20": [n] values, ...}; NaN where a user has no relevant item.

    Raises:
        ConfigError: an unknown metric, or k below 1.

    >>> per_user(np.array([[True, False]]), np.array([1]), (1, 2), ["recall", "precision"])["precision@2"]
    array([0.5])
    """
    cuts = [whole_number("k", cut) for cut in (k if np.iterable(k) else [k])]
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ConfigError(f"unknown metric {unknown[0]!r}: choose among {', '.join(METRICS)}")
    n_relevant = np.asarray(n_relevant)
    depth = min(max(cuts, default=1), hits.shape[1])
    longest = max(depth, int(n_relevant.max(initial=1)))  # however large k is
    at = _Cumulated(np.asarray(hits[:, :depth], dtype=np.float64), n_relevant, longest)
    out: dict[str, NDArray[np.float64]] = {}
    for name in metrics:
        for cut in cuts:
            values = at.value(name, int(cut))
            values[n_relevant == 0] = np.nan
            out[f"{name}@{cut}"] = values
    return out


class _Cumulated:
    """Running sums along the lists, made once for all cut-offs and only when a metric needs them."""

    def __init__(self, gain: NDArray[np.float64], n_relevant: NDArray[Any], longest: int) -> None:
        self.gain = gain
        # 0 becomes 1 here and NaN afterwards
        self.relevant: NDArray[np.float64] = np.maximum(n_relevant, 1).astype(np.float64)
        self.discount = 1.0 / np.log2(np.arange(2, longest + 2))
        self.ideal = np.cumsum(self.discount)
        self.sums: dict[str, NDArray[np.float64]] = {}

    def _sum(self, kind: str, cut: int) -> NDArray[np.float64]:
        """Return the running sum `kind` at `cut`, [n]; a fresh array."""
        width = self.gain.shape[1]
        if kind not in self.sums:
            if kind == "dcg":
                self.sums[kind] = np.cumsum(self.gain * self.discount[:width], axis=1)
            elif kind == "count":
                self.sums[kind] = np.cumsum(self.gain, axis=1)
            else:
                precision = np.cumsum(self.gain, axis=1) / np.arange(1, width + 1)
                self.sums[kind] = np.cumsum(self.gain * precision, axis=1)
        if width == 0:
            return np.zeros(len(self.gain))
        return self.sums[kind][:, min(cut, width) - 1].copy()

    def value(self, name: str, cut: int) -> NDArray[np.float64]:
        if name == "ndcg":
            ideal: NDArray[np.float64] = self.ideal[np.minimum(self.relevant, cut).astype(np.int64) - 1]
            # Both are sums of the same terms added in the same order, so a perfect list is exactly 1.
            return self._sum("dcg", cut) / ideal
        if name == "recall":
            return self._sum("count", cut) / self.relevant
        if name == "precision":
            return self._sum("count", cut) / cut
        if name == "hit_rate":
            return (self._sum("count", cut) > 0).astype(np.float64)
        if name == "map":
            return self._sum("average precision", cut) / self.relevant
        if self.gain.shape[1] == 0:
            return np.zeros(len(self.gain))
        first = np.argmax(self.gain, axis=1)  # 0 where there is no hit: then the gain there is 0 as well
        is_hit = (self.gain[np.arange(len(first)), first] > 0) & (first < cut)
        return np.where(is_hit, 1.0 / (first + 1), 0.0)
