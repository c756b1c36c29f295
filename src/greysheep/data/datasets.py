"""Named data sets and the simulator."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data import movielens
from greysheep.data.columns import ITEM, TIME, USER
from greysheep.data.interactions import Interactions
from greysheep.data.reading import nearest
from greysheep.data.text import UNREADABLE
from greysheep.errors import ConfigError, DataError, first_line
from greysheep.system.checks import a_path, number, seed_number, shown, whole_number
from greysheep.system.files import write_together

__all__ = ["ABOUT", "Dataset", "get", "load", "names", "simulate"]

# "there" = in the folder $GREYSHEEP_DATA
ABOUT = {
    "ml-100k": "MovieLens 100K: 100,000 ratings with time and titles, 943 users, 1,682 films; fetched",
    "ml-1m": "MovieLens 1M: 1,000,209 ratings with titles, 6,040 users, 3,706 films; there or fetched",
    "yelp": "Yelp: 654,054 pairs, 33,078 users, 25,720 businesses; there",
    "amazon-cds": "Amazon CDs & Vinyl: 472,265 pairs in order, 17,052 users, 35,118 items; there",
    "amazon-digital-music": "Amazon Digital Music: 169,781 ratings with time; there",
    "simulated": "communities of taste, one of them a small minority; needs nothing",
}
TIME_COLUMNS = {"amazon-cds": "position"}
LOG_FILES = ("interactions.parquet", "interactions.csv")
TITLE_FILE = "items.parquet"

# Users times items above which `simulate` draws in rounds: a random number for every pair takes a minute
# from here on, and 2 GB.
_ALL_PAIRS = 1 << 29


MOST_ROWS = 1 << 28
"""The most rows, and the most items, that `simulate` draws."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named log, with the titles of its items where they are known."""

    name: str
    log: Interactions
    titles: pl.DataFrame | None = None
    """item_id (typed as in the log), title; None if the set has no titles."""


def names() -> list[str]:
    """Names that `load` and `get` know.

    >>> names()[0]
    'ml-100k'
    """
    return list(ABOUT)


def load(name: str, folder: str | Path | None = None, **options: Any) -> Dataset:
    """Load a data set: from `folder`/name if it is there, else MovieLens sets from the cache or the network.

    Every row counts as positive unless `min_rating` says otherwise.

    Args:
        name: One of `names()`.
        folder: Where the sets lie, each in a folder of its name; default $GREYSHEEP_DATA, or ../shared/data.
        options: Passed to `Interactions.read`, such as `min_rating` or `min_user_items`; for the set
            'simulated', to `simulate`.

    Raises:
        DataError: If there is no such set, or it is not reachable; the line says what was tried.
    """
    _known(name)
    _check_options(simulate if name == "simulated" else Interactions.read, options)
    if name == "simulated":
        return simulate(**options)
    file = _local_log(name, folder)
    if file is None:
        rows, titles = _fetch(name, folder)
        return Dataset(name, _read(name, rows, **options), titles)
    if name in TIME_COLUMNS:
        options.setdefault("time_col", TIME_COLUMNS[name])
    log = Interactions.read(file, **options)
    return Dataset(name, log, _local_titles(file.parent / TITLE_FILE, log.item_ids.dtype))


def get(name: str, output: str | Path) -> list[Path]:
    """Write a data set as files in the folder `output`/name, where `load(name, output)` finds it.

    Returns:
        The paths of interactions.parquet (user_id, item_id [, rating] [, timestamp]) or what the set has in
        its place, and of items.parquet (item_id, title) if there are titles.

    Raises:
        DataError: If there is no such set, it is not reachable, or the folder cannot be written.
    """
    _known(name)
    target = a_path("output", output) / name
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target} cannot be made: {error.strerror or first_line(error)}") from error
    try:
        return _put(name, target)
    except UNREADABLE as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{target} cannot be written: {why}") from error


def _put(name: str, target: Path) -> list[Path]:
    if name == "simulated":
        simulated = simulate()
        return _write(target, simulated.log.frame(), simulated.titles)
    file = _local_log(name, None)
    if file is None:
        return _write(target, *_fetch(name, None))
    files = [f for f in (file, file.parent / TITLE_FILE) if f.is_file()]
    return write_together({target / f.name: partial(shutil.copyfile, f) for f in files})


def _check_options(function: Callable[..., Any], options: dict[str, Any]) -> None:
    known = [name for name in inspect.signature(function).parameters if name != "source"]
    for name in options:
        if name not in known:
            raise ConfigError(f"there is no option {name!r}; there are {', '.join(known)}")


def _known(name: Any) -> None:
    if not isinstance(name, str) or name not in ABOUT:
        near = nearest(name, ABOUT) if isinstance(name, str) else []
        hint = f"nearest: {', '.join(near)}; " if near else ""
        raise DataError(f"there is no data set {shown(name)} ({hint}all: {', '.join(ABOUT)})")


def _data_folder(folder: str | Path | None) -> Path:
    if folder is None:
        folder = os.environ.get("GREYSHEEP_DATA") or "../shared/data"
    return a_path("folder", folder)


def _local_log(name: str, folder: str | Path | None) -> Path | None:
    places = [_data_folder(folder) / name / file for file in LOG_FILES]
    return next((place for place in places if place.is_file()), None)


def _read(name: str, rows: pl.DataFrame, **options: Any) -> Interactions:
    """A log whose summary names the set, not just "the frame"."""
    log = Interactions.read(rows, **options)
    return replace(log, summary=replace(log.summary, source=name))


def _fetch(name: str, folder: str | Path | None) -> movielens.Tables:
    if name in movielens.ROWS:
        return movielens.fetch(name)
    raise DataError(
        f"{name} is not in {_data_folder(folder) / name} (no {' or '.join(LOG_FILES)}) and has no public "
        f"address; set GREYSHEEP_DATA to the folder that holds it, or use 'ml-100k' or 'simulated'"
    )


def _local_titles(file: Path, dtype: pl.DataType) -> pl.DataFrame | None:
    if not file.is_file():
        return None
    try:
        titles = pl.read_parquet(file, columns=[ITEM, "title"], glob=False)
        return titles.with_columns(pl.col(ITEM).cast(dtype))
    except UNREADABLE as error:
        raise DataError(f"{file} cannot be read as titles: {first_line(error)}") from error


def _write(target: Path, rows: pl.DataFrame, titles: pl.DataFrame | None) -> list[Path]:
    frames = {target / LOG_FILES[0]: rows, target / TITLE_FILE: titles}
    return write_together({path: frame.write_parquet for path, frame in frames.items() if frame is not None})


def simulate(
    n_users: int = 600,
    n_items: int = 300,
    *,
    n_communities: int = 4,
    minority: float = 0.1,
    rows_per_user: int = 20,
    noise: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Communities of taste, the first of them a small minority: users whose taste few others share.

    Users and items are dealt to communities: the share `minority` of the users to community 0, the others
    evenly to the rest, items evenly to all. The r-th item of a community (from 1) has popularity 1 / (r + 1).
    A user draws `rows_per_user` different items, each with probability 1 - `noise` by popularity from her own
    community and otherwise evenly from all items. All users are equally active, so activity explains nothing.
    `timestamp` counts a user's rows from 0 in the random order in which she met them.

    Above 537 million pairs of user and item it draws otherwise, in seconds in place of minutes: the worlds
    follow the same law, but the seed's world is another than the slow way would make.

    Ids carry the community: user "u0-007", item "i0-012". Items nobody drew are not in the log.

    >>> simulate(n_users=40, n_items=20, rows_per_user=5).log
    Interactions(200 rows, 40 users, 20 items, times)

    Raises:
        ConfigError: If a number is out of range.
    """
    n_users, n_items = whole_number("n_users", n_users), whole_number("n_items", n_items, most=MOST_ROWS)
    rows_per_user = whole_number("rows_per_user", rows_per_user, most=MOST_ROWS // n_users)
    n_communities, seed = whole_number("n_communities", n_communities), seed_number(seed)
    minority, noise = number("minority", minority), number("noise", noise)
    sizes = _community_sizes(n_users, n_communities, minority)
    _check_simulation(sizes, n_items, rows_per_user, noise)
    rng = np.random.default_rng(seed)
    homes = np.repeat(np.arange(n_communities), sizes)
    kinds = np.sort(np.arange(n_items) % n_communities)
    places = np.concatenate([np.arange(n) for n in np.bincount(kinds)])
    popularity = np.where(kinds == np.arange(n_communities)[:, None], 1.0 / (places + 2), 0.0)  # [C, I]
    popularity = (1 - noise) * popularity / popularity.sum(axis=1, keepdims=True) + noise / n_items
    large = n_users * n_items > _ALL_PAIRS and 4 * rows_per_user <= n_items // n_communities
    drawn = (_draw_in_rounds if large else _draw_at_once)(rng, popularity, homes, rows_per_user)
    user_names = [f"u{c}-{i:0{len(str(n_users - 1))}d}" for i, c in enumerate(homes)]
    item_names = [f"i{c}-{i:0{len(str(n_items - 1))}d}" for i, c in enumerate(kinds)]
    order = rng.permuted(np.tile(np.arange(rows_per_user), (n_users, 1)), axis=1)
    frame = pl.DataFrame(
        {
            USER: pl.Series(user_names).gather(np.repeat(np.arange(n_users), rows_per_user)),
            ITEM: pl.Series(item_names).gather(drawn.ravel()),
            TIME: order.ravel(),
        }
    )
    titles = [f"Item {r + 1} of community {c}" for c, r in zip(kinds, places, strict=True)]
    return Dataset("simulated", _read("simulated", frame), pl.DataFrame({ITEM: item_names, "title": titles}))


def _draw_at_once(
    rng: np.random.Generator, popularity: NDArray[np.float64], homes: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """Different items of every user, [U, size], by a random number for each user and item.

    popularity: [C, I] chances in each community. homes: [U] ascending communities.
    """
    drawn = np.empty((len(homes), size), dtype=np.int64)
    with np.errstate(divide="ignore"):
        log_popularity = np.log(popularity)
    for start in range(0, len(homes), 4096):  # bounds the memory: [4096, I] at a time
        block = log_popularity[homes[start : start + 4096]]
        # Adding Gumbel noise and taking the largest draws without replacement (Gumbel-top-k).
        keys = block + rng.gumbel(size=block.shape)
        drawn[start : start + 4096] = np.argpartition(-keys, size - 1)[:, :size]
    return drawn


def _draw_in_rounds(
    rng: np.random.Generator, popularity: NDArray[np.float64], homes: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """The same by drawing with replacement and drawing again, as often as needed, in place of repeats.

    A user's items are then the first `size` different ones of an endless row of draws: the law of
    `_draw_at_once`. The work grows with the rows drawn, not with U x I.
    """
    drawn = np.empty((len(homes), size), dtype=np.int64)
    cumulated = np.cumsum(popularity, axis=1)
    cumulated /= cumulated[:, -1:]
    for community, chances in enumerate(cumulated):
        first, last = np.searchsorted(homes, [community, community + 1])
        for start in range(first, last, 1 << 16):
            users = np.arange(start, min(start + (1 << 16), last))
            open_places = np.ones((len(users), size), dtype=bool)
            while len(users):
                rows = drawn[users]
                fresh = rng.random(int(open_places.sum()))
                rows[open_places] = np.searchsorted(chances, fresh, side="right")
                drawn[users] = rows
                repeats = _repeats(rows)
                again = repeats.any(axis=1)
                users, open_places = users[again], repeats[again]
    return drawn


def _repeats(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark entries that occur further left in the same row, too."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    repeats = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeats, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeats


def _community_sizes(n_users: int, n_communities: int, minority: float) -> list[int]:
    if n_communities < 2 or n_users < n_communities:
        raise ConfigError(f"n_communities={n_communities} must lie between 2 and n_users={n_users}")
    if not 0 < minority < 1:
        raise ConfigError(f"minority={minority} must lie between 0 and 1")
    rest = n_communities - 1
    small = min(max(1, round(minority * n_users)), n_users - rest)
    return [small, *(len(part) for part in np.array_split(np.arange(n_users - small), rest))]


def _check_simulation(sizes: list[int], n_items: int, rows_per_user: int, noise: float) -> None:
    if n_items < len(sizes):
        raise ConfigError(f"n_items={n_items} is less than an item for each of the {len(sizes)} communities")
    if not 0 <= noise <= 1:
        raise ConfigError(f"noise={noise} must lie between 0 and 1")
    most = n_items if noise else n_items // len(sizes)
    if not 1 <= rows_per_user <= most:
        limits = f"between 1 and {most}, the items she can draw"
        raise ConfigError(f"rows_per_user={rows_per_user} must lie {limits}")


def __dir__() -> list[str]:
    """The public names: what completion offers."""
    return sorted(__all__)
