"""Neighbours of users by their rows, and anchors that cover the most of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


class Jaccard:
    """Jaccard similarity with the binary rows [V, I]; what many calls share is computed once.

    >>> near = Jaccard(csr_matrix([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
    >>> near(csr_matrix([[1, 1, 0]])).round(3).tolist()
    [[1.0, 0.333, 0.0]]
    """

    def __init__(self, against: csr_matrix):
        self.columns = _binary(against).T.tocsr()
        self.sizes = np.diff(against.indptr)

    def __call__(self, rows: csr_matrix) -> NDArray[np.float64]:
        """Similarity of binary rows [B, I] with all: [B, V]; 0 where both are empty."""
        common = (_binary(rows) @ self.columns).toarray().astype(np.float64)
        union = np.diff(rows.indptr)[:, None] + self.sizes - common
        return np.asarray(common / np.maximum(union, 1))


def _binary(rows: csr_matrix) -> csr_matrix:
    return csr_matrix((np.ones(rows.nnz, np.float32), rows.indices, rows.indptr), rows.shape)


def nearest(similarity: NDArray[np.float64], threshold: float, most: int) -> NDArray[np.int64]:
    """Positions of at most `most` values of [V], those above `threshold`, largest first, ties in order."""
    above = np.flatnonzero(similarity > threshold)
    return np.asarray(above[np.argsort(-similarity[above], kind="stable")[:most]])


def greedy_cover(
    n_anchors: int, n_users: int, covers: Callable[[NDArray[np.int64]], NDArray[np.bool_]], chunk: int = 256
) -> NDArray[np.int64]:
    """Anchors [min(K, U)] chosen one by one, each covering the most users not covered yet; ties by order.

    When all users are covered, covering starts anew for the remaining anchors. `covers` takes candidates [n]
    and returns which users each covers, [n, U]. Gains only shrink within a round, so an old gain is an upper
    bound: a candidate is counted again only when it comes to the top of a heap.
    """
    everybody = np.arange(n_users)
    start = np.concatenate(
        [covers(everybody[i : i + chunk]).sum(1) for i in range(0, n_users, chunk)] or [np.empty(0, np.int64)]
    )
    chosen: list[int] = []
    while len(chosen) < min(n_anchors, n_users):
        left = np.ones(n_users, dtype=bool)
        heap = [(-int(start[u]), int(u)) for u in np.setdiff1d(everybody, chosen)]
        heapq.heapify(heap)
        fresh = True
        while heap and len(chosen) < min(n_anchors, n_users):
            user = heapq.heappop(heap)[1]
            mine = covers(np.array([user]))[0] & left
            gain = int(mine.sum())
            if heap and (-gain, user) > heap[0]:
                heapq.heappush(heap, (-gain, user))
                continue
            if gain == 0 and not fresh:
                break
            chosen.append(user)
            left &= ~mine
            fresh = False
    return np.array(chosen, dtype=np.int64)
