"""The protocols: which part of a split each row of a log goes to."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greysheep.data.interactions import Interactions
from greysheep.errors import ConfigError, DataError
from greysheep.system.checks import number, shown, whole_number

TRAIN, GATE, VALIDATION, TEST = 0, 1, 2, 3
OUTSIDE = -1
"""Rows that a protocol leaves out: the split's log does not have them."""
Parts = NDArray[np.int8]


@dataclass(frozen=True)
class Protocol:
    """A protocol by its name, and the value of the one setting that it may have."""

    name: str
    value: Any = None

    @classmethod
    def parse(cls, text: Any) -> Protocol:
        """Read `strict`, `leave-last[n=3]` or `global-time[test=0.1]`; without brackets the usual value.

        >>> Protocol.parse("leave-last[n=3]"), str(Protocol.parse("leave-last[n=1]"))
        (Protocol(name='leave-last', value=3), 'leave-last')

        Raises:
            ConfigError: there is no such protocol, or its setting cannot be.
        """
        match = (
            re.fullmatch(r"([a-z-]+)(?:\[\s*([a-z]+)\s*=\s*([^\]\s]+)\s*\])?", text)
            if isinstance(text, str)
            else None
        )
        if match is None or match[1] not in PROTOCOLS:
            raise ConfigError(f"there is no protocol {shown(text)}; choose one of {', '.join(PROTOCOLS)}")
        name, key, value = match.groups()
        usual = SETTINGS.get(name)
        if key is None:
            return cls(name, None if usual is None else usual[1])
        if usual is None or key != usual[0]:
            has = f"has one setting, {usual[0]}" if usual is not None else "has no settings"
            raise ConfigError(f"protocol {shown(text)}: {name} {has}")
        plain: Any = value
        with suppress(ValueError):  # a text is refused below
            plain = int(value) if key == "n" else float(value)
        if key == "n":
            return cls(name, whole_number(f"{name}: n", plain))
        return cls(name, number(f"{name}: test", plain, least=1e-6, below=1))

    def __str__(self) -> str:
        """The text that `parse` reads, the same for the same protocol."""
        key, usual = SETTINGS.get(self.name, ("", None))
        return self.name if self.value == usual else f"{self.name}[{key}={self.value:g}]"

    def deal(self, log: Interactions, seed: int) -> Parts:
        """[n] the part of each row.

        Raises:
            DataError: the protocol goes by time, and the log has none.
        """
        if self.name in TIMED and log.times is None:
            raise DataError(
                f"the protocol {self.name!r} needs times: name their column with time_col (--time-col)"
            )
        settings = () if self.value is None else (self.value,)
        return PROTOCOLS[self.name](log, seed, *settings).astype(np.int8)


def _paper(log: Interactions, seed: int) -> Parts:
    n = len(log)
    order = np.random.default_rng(seed).permutation(n)
    n_validation, n_test = round(0.1 * n), round(0.2 * n)
    part = np.full(n, TRAIN, dtype=np.int8)
    part[order[:n_validation]] = VALIDATION
    part[order[n_validation : n_validation + n_test]] = TEST
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    sizes = np.bincount(log.users, minlength=log.n_users)

    def move(target: int, source: int, when: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> None:
        """Give each user for whom `when(counts [U, 4])` her first row of `source` in shuffled order."""
        counts = np.bincount(log.users.astype(np.int64) * 4 + part, minlength=log.n_users * 4).reshape(-1, 4)
        mine = np.flatnonzero((part == source) & when(counts)[log.users])
        mine = mine[np.lexsort((place[mine], log.users[mine]))]
        _, first = np.unique(log.users[mine], return_index=True)
        part[mine[first]] = target

    # Every user gets a train row: without one she has no input.
    move(TRAIN, TEST, lambda c: (c[:, TRAIN] == 0) & (c[:, TEST] >= c[:, VALIDATION]))
    move(TRAIN, VALIDATION, lambda c: c[:, TRAIN] == 0)
    move(VALIDATION, TRAIN, lambda c: (c[:, VALIDATION] == 0) & (c[:, TRAIN] > 1))
    move(TEST, TRAIN, lambda c: (c[:, TEST] == 0) & (c[:, TRAIN] > 1))
    # Her train row is the last one, but the other held-out part has rows to spare.
    move(VALIDATION, TEST, lambda c: (c[:, VALIDATION] == 0) & (c[:, TEST] > 1) & (sizes > 2))
    move(TEST, VALIDATION, lambda c: (c[:, TEST] == 0) & (c[:, VALIDATION] > 1) & (sizes > 2))
    return part


def _strict(log: Interactions, seed: int) -> Parts:
    part = _paper(log, seed)
    held = np.flatnonzero(part == VALIDATION)
    rng = np.random.default_rng([seed, 1])
    users = log.users[held]
    turn = rank_within(users, rng.permutation(len(held))) + rng.integers(0, 2, log.n_users)[users]
    part[held[turn % 2 == 0]] = GATE
    return part


def _all(log: Interactions, seed: int) -> Parts:
    rng = np.random.default_rng(seed)
    n = np.bincount(log.users, minlength=log.n_users)
    quota = np.maximum(1, np.rint(0.05 * n)).astype(np.int64)
    held = np.minimum(2 * quota, n // 2)  # at least half of her rows stay in train
    coin = rng.integers(0, 2, log.n_users)
    rank = rank_within(log.users, rng.permutation(len(log)))
    part = np.where((rank + coin[log.users]) % 2 == 0, GATE, VALIDATION)
    return np.where(rank < held[log.users], part, TRAIN).astype(np.int8)


def _temporal(log: Interactions, seed: int) -> Parts:
    n = np.bincount(log.users, minlength=log.n_users)
    n_test = np.maximum(1, np.rint(0.2 * n)).astype(np.int64)
    n_held = _held(n)
    part = _by_time(log, seed, n_test, n_held, n_held)
    return np.where(n[log.users] < 4, TRAIN, part).astype(np.int8)


def _leave_last(log: Interactions, seed: int, rows: int) -> Parts:
    n = np.bincount(log.users, minlength=log.n_users)
    n_test = np.where(n > rows, rows, 0)
    spare = np.where(n_test > 0, n - n_test - 1, 0)  # one row is left to train
    n_validation = np.minimum(_held(n), spare)
    return _by_time(log, seed, n_test, n_validation, np.minimum(_held(n), spare - n_validation))


def _held(n: NDArray[np.int64]) -> NDArray[np.int64]:
    """[U] how many of n rows go to gate, and as many to validation."""
    held: NDArray[np.int64] = np.maximum(1, np.rint(0.05 * n)).astype(np.int64)
    return held


def _by_time(
    log: Interactions,
    seed: int,
    n_test: NDArray[np.int64],
    n_validation: NDArray[np.int64],
    n_gate: NDArray[np.int64],
) -> Parts:
    """Each user's latest rows to test, those before to validation, those before to gate: [U] how many."""
    rank = _in_time(log, seed)
    left = np.bincount(log.users, minlength=log.n_users)[log.users] - 1 - rank  # 0: the user's latest row
    ends = np.cumsum([n_test, n_validation, n_gate], axis=0)[:, log.users]
    return np.select(list(left < ends), [TEST, VALIDATION, GATE], TRAIN).astype(np.int8)


def _in_time(log: Interactions, seed: int) -> NDArray[np.int64]:
    """[n] place of each row among its user's in order of time; equal times in seeded order."""
    shuffled = np.random.default_rng(seed).permutation(len(log))
    return rank_within(log.users, _instants(log), shuffled)


def _instants(log: Interactions) -> NDArray[np.int64]:
    """[n] place of each row's time among the different times of the log."""
    assert log.times is not None  # `deal` has seen to it
    places: NDArray[np.int64] = log.times.rank("dense").to_numpy().astype(np.int64) - 1
    return places


def _global_time(log: Interactions, seed: int, share: float) -> Parts:
    instant = _instants(log)
    later = np.cumsum(np.bincount(instant)[::-1])[::-1] / len(log)  # share of rows from each instant on
    # one cut a part, between two instants, where the share of later rows comes closest to what is asked for
    cuts = [
        1 + int(np.argmin(np.abs(later[1:] - wanted))) if len(later) > 1 else 1
        for wanted in (share, share + 0.05, share + 0.1)
    ]
    part = np.select([instant >= cut for cut in cuts], [TEST, VALIDATION, GATE], TRAIN).astype(np.int8)
    first = _in_time(log, seed) == 0
    part[first & (part != TEST)] = TRAIN  # whoever has a row before the cut has a train row
    known = np.zeros(log.n_users, dtype=bool)
    known[log.users[part == TRAIN]] = True
    return np.where(known[log.users], part, OUTSIDE).astype(np.int8)


def rank_within(groups: NDArray[np.integer], *keys: NDArray[np.integer]) -> NDArray[np.int64]:
    """[n] place of each row among the rows of its group, ordered by the keys, the first key first.

    No two rows of a group have the same keys; a single key is 0 or more.
    """
    if len(keys) == 1:  # with its group in one number it is sorted three times as fast
        order = np.argsort(groups.astype(np.int64) * (int(keys[0].max(initial=0)) + 1) + keys[0])
    else:
        order = np.lexsort((*reversed(keys), groups))
    rank = np.empty(len(groups), dtype=np.int64)
    counts = np.bincount(groups) if len(groups) else np.zeros(0, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    rank[order] = np.arange(len(groups)) - np.repeat(starts, counts)
    return rank


PROTOCOLS: dict[str, Callable[..., Parts]] = {
    "all": _all,
    "paper": _paper,
    "strict": _strict,
    "temporal": _temporal,
    "leave-last": _leave_last,
    "global-time": _global_time,
}
SETTINGS: dict[str, tuple[str, Any]] = {"leave-last": ("n", 1), "global-time": ("test", 0.2)}
"""Protocol -> its one setting, and the usual value."""
TIMED = ("temporal", "leave-last", "global-time")
"""Protocols that need times."""
TESTED = tuple(name for name in PROTOCOLS if name != "all")
"""Protocols with test rows; `all` has none."""


def has_test_rows(protocol: str) -> bool:
    """Whether a protocol keeps test rows back."""
    return Protocol.parse(protocol).name in TESTED
