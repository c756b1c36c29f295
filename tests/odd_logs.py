"""Sixty and more odd logs: what real files hold now and then, small enough to fit every model on each."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

Pairs = Iterable[tuple[int, int]]


@dataclass(frozen=True)
class Odd:
    """A log: how to make it, how to read it, and whether reading must refuse it."""

    make: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    refused: bool = False


LOGS: dict[str, Odd] = {}


def odd(name: str, make: Callable[[], Any], *, refused: bool = False, **options: Any) -> None:
    assert name not in LOGS
    LOGS[name] = Odd(make, options, refused)


def frame(pairs: Pairs, **columns: Any) -> pl.DataFrame:
    """Pairs of numbers as ids `u3`, `i7`."""
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    ids = {"user_id": [f"u{u}" for u in users], "item_id": [f"i{i}" for i in items]}
    return pl.DataFrame({**ids, **columns}, schema_overrides={} if users else {"user_id": pl.String})


def ordinary(n_users: int = 20, n_items: int = 14, each: int = 6, seed: int = 0) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [(u, int(i)) for u in range(n_users) for i in rng.choice(n_items, each, replace=False)]


PAIRS = ordinary()
N = len(PAIRS)
RNG = np.random.default_rng(1)

# Shapes
odd("ordinary", lambda: frame(PAIRS))
odd("one row", lambda: frame([(0, 0)]))
odd("two rows of one user", lambda: frame([(0, 0), (0, 1)]))
odd("two rows of one item", lambda: frame([(0, 0), (1, 0)]))
odd("one user", lambda: frame([(0, i) for i in range(9)]))
odd("one item", lambda: frame([(u, 0) for u in range(9)]))
odd("two users", lambda: frame([(u, i) for u in range(2) for i in range(u, 6 + u)]))
odd("two strangers", lambda: frame([(u, 10 * u + i) for u in range(2) for i in range(6)]))
odd("three users", lambda: frame(ordinary(3)))
odd("everybody the same row", lambda: frame([(u, i) for u in range(12) for i in range(5)]))
odd("everybody has everything but one", lambda: frame([(u, i) for u in range(9) for i in range(9) if u != i]))
odd("somebody has everything", lambda: frame(PAIRS + [(99, i) for i in range(14)]))
odd("one row a user", lambda: frame([(u, u % 5) for u in range(20)]))
odd("one row an item", lambda: frame([(i % 4, i) for i in range(24)]))
odd("everybody an own item", lambda: frame([(u, u) for u in range(12)]))
odd("two rows a user", lambda: frame(ordinary(each=2)))
odd("three rows a user", lambda: frame(ordinary(each=3)))
odd("wide", lambda: frame(ordinary(6, 200, 20)))
odd("tall", lambda: frame(ordinary(200, 5, 3)))
odd("an item everybody has", lambda: frame(PAIRS + [(u, 99) for u in range(20)]))
odd("islands", lambda: frame([(u, 10 * (u % 4) + i) for u in range(20) for i in range(u % 5, u % 5 + 4)]))
odd("a chain", lambda: frame([(u, i) for u in range(20) for i in (u, u + 1)]))
odd("a star", lambda: frame([(0, i) for i in range(12)] + [(u, 0) for u in range(1, 12)]))
odd("one busy user", lambda: frame([(0, i) for i in range(40)] + [(u, u % 3) for u in range(1, 12)]))
odd("popularity falls", lambda: frame([(u, i) for u in range(24) for i in range(12) if u % (i + 1) == 0]))
odd("twins of items", lambda: frame([(u, i + d) for u, i in ordinary(12, 6, 3) for d in (0, 100)]))
odd("a loner", lambda: frame([*PAIRS, (99, 99)]))
odd("seven users", lambda: frame(ordinary(7)))

# Weights
odd("weights huge", lambda: frame(PAIRS, weight=[1e38] * N))
odd("weights tiny", lambda: frame(PAIRS, weight=[1e-8] * N))
odd("weights below float32", lambda: frame(PAIRS, weight=[1e-40] * N))
odd("weights from tiny to huge", lambda: frame(PAIRS, weight=10.0 ** RNG.uniform(-8, 38, N)))
odd("one weight huge", lambda: frame(PAIRS, weight=[1e38] + [1.0] * (N - 1)))
odd("weights 0", lambda: frame(PAIRS, weight=[0.0] * N))
odd("some weights 0", lambda: frame(PAIRS, weight=[float(i % 3) for i in range(N)]))
odd("weights whole", lambda: frame(PAIRS, weight=[i % 7 + 1 for i in range(N)]))
odd("weights of 2 to the power", lambda: frame(PAIRS, weight=[2.0 ** (i % 60) for i in range(N)]))
odd("a weight below 0", lambda: frame(PAIRS, weight=[-1.0] + [1.0] * (N - 1)))  # nobody named it: left out
odd("a weight of NaN", lambda: frame(PAIRS, weight=[np.nan] + [1.0] * (N - 1)))
odd("a weight below 0, named", lambda: frame(PAIRS, weight=[-1.0] + [1.0] * (N - 1)), refused=True,
    weight_col="weight")  # fmt: skip
odd("weights that sum beyond float32", lambda: frame(PAIRS * 9, weight=[1e38] * 9 * N), refused=True)

# Ids
LOW, HIGH = -(2**63), 2**63 - 1


def with_ids(users: Callable[[int], Any], items: Callable[[int], Any], **types: Any) -> pl.DataFrame:
    columns = {"user_id": [users(u) for u, _ in PAIRS], "item_id": [items(i) for _, i in PAIRS]}
    return pl.DataFrame(columns, schema=types or None)


odd("ids of int64's ends", lambda: with_ids(lambda u: LOW + u, lambda i: HIGH - i))
odd("ids of uint64's end", lambda: with_ids(
    lambda u: 2**64 - 1 - u, lambda i: i, user_id=pl.UInt64, item_id=pl.UInt8))  # fmt: skip
odd("ids below 0", lambda: with_ids(lambda u: -u, lambda i: -i, user_id=pl.Int8, item_id=pl.Int16))
odd("ids alike for users and items", lambda: with_ids(str, str))
odd("ids with leading zeros", lambda: with_ids(lambda u: f"{u:06d}", lambda i: f"0{i}"))
odd("ids beyond ASCII", lambda: with_ids(lambda u: f"ú{u}ß", lambda i: f"片{i}🎬"))
odd(
    "ids of thousands of letters",
    lambda: with_ids(lambda u: "x" * 5000 + str(u), lambda i: "é" * 3000 + str(i)),
)
odd(
    "ids with quotes and line ends",
    lambda: with_ids(lambda u: f'"{u}\n', lambda i: f"a,{i}\t'"),
    missing_ids="keep",
)
odd(
    "ids that differ by case and blanks",
    lambda: with_ids(lambda u: "aA"[u % 2] + str(u // 2), lambda i: "x" + " " * (i % 3 + 1) + str(i // 3)),
)
odd(
    "ids of UUID text",
    lambda: with_ids(lambda u: str(uuid.UUID(int=u)), lambda i: str(uuid.UUID(int=i << 64))),
)
odd("ids of categories", lambda: frame(PAIRS).cast(pl.Categorical))
odd("ids of dates", lambda: with_ids(lambda u: dt.date(2020, 1, u + 1), str), refused=True)
odd("ids of bools", lambda: with_ids(lambda u: u % 2 == 0, str), refused=True)
odd("ids of fractions", lambda: with_ids(lambda u: u + 0.5, str), refused=True)
odd("an id that is missing", lambda: with_ids(lambda u: f"u{u}" if u else None, str), refused=True)
odd(
    "ids of letters that combine",
    lambda: with_ids(lambda u: "e\u0301" * (u + 1), lambda i: "\u200b" + str(i)),
)

# Times
SECOND = 1_700_000_000
odd("times equal", lambda: frame(PAIRS, timestamp=[SECOND] * N))
odd("times in order", lambda: frame(PAIRS, timestamp=list(range(SECOND, SECOND + N))))
odd("times far apart", lambda: frame(PAIRS, timestamp=[LOW, HIGH] * (N // 2)))
odd("times of fractions", lambda: frame(PAIRS, timestamp=[-1e300, 1e300, 0.5] * (N // 3)))
odd("times of dates", lambda: frame(PAIRS, timestamp=[dt.date(1, 1, 1), dt.date(9999, 12, 31)] * (N // 2)))
odd("times of moments", lambda: frame(
    PAIRS, timestamp=[dt.datetime(1970, 1, 1), dt.datetime(2262, 4, 11)] * (N // 2)))  # fmt: skip
odd("times and one row a user", lambda: frame([(u, u % 5) for u in range(20)], timestamp=[5] * 20))

# Rows
odd("duplicates", lambda: frame(PAIRS * 3))
odd("duplicates with weights and times", lambda: frame(
    PAIRS * 2, weight=[0.1] * N + [0.2] * N, timestamp=[1] * N + [2] * N))  # fmt: skip
odd("shuffled", lambda: frame(PAIRS).sample(fraction=1, shuffle=True, seed=3))
odd("no rows", lambda: frame([]), refused=True)
odd("empty after the filter", lambda: frame(PAIRS), refused=True, min_item_users=50)
odd("little after the filter", lambda: frame([*PAIRS, *((99, 100 + i) for i in range(30))]), min_user_items=7)
odd("ratings", lambda: frame(PAIRS, rating=[float(i % 5 + 1) for i in range(N)]), min_rating=4)
