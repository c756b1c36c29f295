"""Blocks of rows in parallel, one block per thread: small operations scale better than by themselves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def cut(n_rows: int, size: int, threads: int) -> list[slice]:
    """Blocks of at most `size` rows, equally long but for one row, at least one per thread if rows suffice.

    >>> cut(10, 4, 2)
    [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None), slice(7, 10, None)]
    """
    if n_rows == 0:
        return []
    blocks = -(-n_rows // size)
    blocks = min(n_rows, -(-blocks // threads) * threads)  # the threads end together
    ends = [n_rows * (i + 1) // blocks for i in range(blocks)]
    return [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def in_parallel(work: Callable[[slice], None], blocks: list[slice]) -> None:
    """Do `work` on every block, on as many threads as torch has; torch's own loops stay within a thread."""
    own = torch.get_num_threads()
    threads = min(own, len(blocks))
    if threads <= 1:
        for block in blocks:
            work(block)
    else:
        list(_pool(threads).map(work, blocks))
        torch.set_num_threads(own)  # what a worker sets for itself is also what later threads begin with


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # in torch each thread has its own number of threads
    return ThreadPoolExecutor(threads, "greysheep", initializer=torch.set_num_threads, initargs=(1,))
