"""Sums of Jaccard similarities over pairs of users; of users among themselves each pair is met once.

Users are cut into strips, some of them against all those who are still to be met, and a strip is reduced to a
number a user before the next one starts: no U x U matrix is ever built. What the users of a strip have in
common is a sparse product. On a dense log most of its work is in the few items that many users have: these
are counted by a dense product, which makes a hundred multiplications while a sparse one makes one.

Similarities are added up as whole numbers of a small unit, so that sums depend neither on the order of users
nor on threads, and users with equal rows have equal sums to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Placed = Callable[[NDArray[np.int64]], Any]
"""Makes a matrix of one number for each pair of users."""

_PAIRS_AT_ONCE = 1 << 22
"""Pairs of users that may be in memory at once, over all threads: about 50 bytes each."""
_CELLS = 1 << 16
"""Pairs of a dense strip that are compared at once: what is computed of them stays in cache."""
_GROUPS = 16
"""So often those who were met leave; the users of one group meet each other from both sides."""
_GAIN, _STORED, _CELL = 100, 4, 2
"""In multiplications of a sparse product (2.6 ns of one core): how many of a dense one take as long; what a
pair costs beside the products, in a sparse and in a dense strip. Only speed depends on them."""
_DENSE_CELLS = 1 << 26
"""Most cells of the matrices of dense products (256 MB)."""


def sums_among(rows: sparse.csr_matrix, threads: int) -> Floats:
    """Sums over all users, herself included, of their similarities with each, [U]; rows: [U, I] ones."""
    n_users = rows.shape[0]
    users, scale = Users.of(rows, _often(rows, rows)), _scale(n_users)
    totals, lock = np.zeros(n_users, np.int64), Lock()
    with ThreadPoolExecutor(threads) as pool:  # the products and numpy's loops release the GIL
        for group in _cut(n_users, -(-n_users // _GROUPS)):
            left = users[group.start :]

            def add(block: slice, group: slice = group, left: Users = left) -> None:
                mine, met = np.zeros(block.stop - block.start, np.int64), np.zeros(len(left), np.int64)
                for some, similar, placed in left.similarities(users[block]):
                    units = placed((similar * scale).astype(np.int64))
                    mine += _sums(units, 1)
                    met[some] += _sums(units, 0)
                with lock:
                    totals[block] += mine
                    totals[group.stop :] += met[group.stop - group.start :]  # they will not meet these again

            list(pool.map(add, left.blocks(users, group, threads)))
    return totals / scale


def sums_with(rows: sparse.csr_matrix, others: sparse.csr_matrix, threads: int) -> tuple[Floats, Floats]:
    """Sums over V others of the similarities of U users with them, and of their squares, [U] each.

    rows, others: [U, I], [V, I] ones.
    """
    often = _often(rows, others)
    return sums_of(Users.of(rows, often), Users.of(others, often), threads)


def sums_of(users: Users, met: Users, threads: int) -> tuple[Floats, Floats]:
    """The same, of users made ready."""
    scale, totals = _scale(len(met)), np.zeros((2, len(users)), np.int64)

    def add(block: slice) -> None:
        for _, similar, placed in met.similarities(users[block]):
            totals[0, block] += _sums(placed((similar * scale).astype(np.int64)), 1)
            totals[1, block] += _sums(placed((similar * similar * scale).astype(np.int64)), 1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(add, met.blocks(users, slice(0, len(users)), threads)))
    return totals[0] / scale, totals[1] / scale


@dataclass
class Users:
    """Users by the items they have."""

    rows: sparse.csr_matrix
    """[U, J] items that sparse products count."""
    popular: NDArray[np.float32] | None
    """[U, K] items that dense products count; None = pairs without a common item are not looked at."""
    sizes: Floats
    """[U] numbers of items, 1 for none: no items have nothing in common with any, whatever their number."""

    @classmethod
    def of(cls, rows: sparse.csr_matrix, often: NDArray[np.bool_] | None) -> Users:
        """Rows [U, I], and the items [I] for dense products."""
        sizes = np.maximum(np.diff(rows.indptr), 1.0)
        if often is None:
            return cls(rows, None, sizes)
        return cls(rows[:, ~often], rows[:, often].toarray(), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, some: slice) -> Users:
        return Users(self.rows[some], None if self.popular is None else self.popular[some], self.sizes[some])

    @cached_property
    def columns(self) -> sparse.csr_matrix:
        """[J, U]"""
        return self.rows.T.tocsr()

    def blocks(self, users: Users, among: slice, threads: int) -> list[slice]:
        """Cut some of the users into blocks that meet these in not too many pairs, all threads together."""
        meets = np.full(len(users), float(len(self)))[among]
        if self.popular is None:
            meets = np.minimum(users.rows[among] @ np.diff(self.columns.indptr).astype(np.float64), meets)
        number = np.floor(np.cumsum(meets) / max(1, _PAIRS_AT_ONCE // threads))
        starts = (among.start + np.unique(number, return_index=True)[1]).tolist()
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], among.stop], strict=True)]

    def similarities(self, users: Users) -> Iterator[tuple[slice, Floats, Placed]]:
        """Tiles of the similarities of users [b] with these: which of these, values, and their places."""
        common = users.rows @ self.columns
        if self.popular is None or users.popular is None:
            union = self.sizes[common.indices]
            union += np.repeat(users.sizes, np.diff(common.indptr))
            union -= common.data
            pattern, shape = (common.indices, common.indptr), common.shape
            similar = np.divide(common.data, union, out=union)
            yield slice(None), similar, lambda values: sparse.csr_matrix((values, *pattern), shape)
            return
        counts = common.toarray()
        counts += users.popular @ self.popular.T
        for some in _cut(len(self), max(1, _CELLS // len(users))):
            union = np.add.outer(users.sizes, self.sizes[some])
            union -= counts[:, some]
            yield some, np.divide(counts[:, some], union, out=union), lambda values: values


def _often(rows: sparse.csr_matrix, others: sparse.csr_matrix) -> NDArray[np.bool_] | None:
    """[I] the items to be counted by dense products; None where sparse ones alone take less time."""
    mine, theirs = (np.bincount(m.indices, minlength=m.shape[1]).astype(np.float64) for m in (rows, others))
    met, cells = mine * theirs, float(rows.shape[0]) * others.shape[0]
    often = met * _GAIN > cells
    most = _DENSE_CELLS // max(1, rows.shape[0] + others.shape[0])
    if often.sum() > most:
        often[np.argsort(-met, kind="stable")[most:]] = False
    saved = met[often].sum() - often.sum() * cells / _GAIN
    stored = np.minimum(rows @ theirs, others.shape[0]).sum()
    return often if saved + _STORED * stored > _CELL * cells else None


def _scale(n_others: int) -> float:
    """How many units are 1: a power of two, n of which make less than 2**62."""
    return 2.0 ** (62 - n_others.bit_length())


def _sums(matrix: Any, axis: int) -> NDArray[np.int64]:
    return np.asarray(matrix.sum(axis)).ravel()


def _cut(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, max(1, size)):
        yield slice(start, min(start + size, n))
