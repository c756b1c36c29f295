"""Groups of users that somebody brings along: a file or frame with a user and her group in each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from greysheep.data.columns import GROUP, USER
from greysheep.data.ids import ids_like
from greysheep.data.interactions import Interactions
from greysheep.data.reading import read_id_column
from greysheep.data.sources import open_source
from greysheep.errors import DataError, warn
from greysheep.mainstream.groups import OVERALL, UserGroups

MOST_GROUPS = 50
"""More are no groups to be reported one by one, but another column."""


def read_groups(source: Any, log: Interactions) -> UserGroups:
    """The users of a log in the groups of a file or frame with user_id and group.

    Groups are texts, whole numbers or truth values; they come in order of their names, those of an
    enumeration in its order. A missing or empty group is none. Users of the log without a group, and users of
    the source that the log does not know, are counted in a warning.

    Raises:
        DataError: a column is missing, a user has two groups, no user is known, or these are no groups.

    >>> log = Interactions.read(pl.DataFrame({"user_id": ["a", "b"], "item_id": [1, 2]}))
    >>> read_groups(pl.DataFrame({"user_id": ["b", "a"], "group": ["old", "new"]}), log)
    UserGroups(names=('new', 'old'), codes=array([0, 1]), grouping='own')
    """
    if isinstance(source, UserGroups):
        if len(source.codes) != log.n_users:
            raise DataError(f"the groups are those of {len(source.codes)} users, the log has {log.n_users}")
        return source
    opened = open_source(source)
    missing = [name for name in (USER, GROUP) if name not in opened.columns]
    if missing:
        there = ", ".join(repr(name[:40]) for name in opened.columns[:8])
        lacking = " and ".join(map(repr, missing))
        raise DataError(f"{opened.label} of groups has no column {lacking}; its columns are {there}")
    frame = opened.load([USER, GROUP])
    users = ids_like(read_id_column(frame, USER), "the frame of groups", USER, log.user_ids)
    texts, names = _texts(frame[GROUP])
    table = pl.DataFrame({"code": log.encode_users(users), GROUP: texts, USER: users}).unique()
    named = table.drop_nulls(GROUP)
    _refuse_two(named)
    if len(names) > MOST_GROUPS:
        raise DataError(f"the column 'group' holds {len(names):,} groups; at most {MOST_GROUPS} are reported")
    for taken in {OVERALL, "mean"} & set(names):
        raise DataError(f"a group cannot be called {taken!r}, which is everybody: give it another name")
    known = named.filter(pl.col("code") >= 0)
    if known.is_empty():
        theirs = f"its {users.n_unique()} users are {users.dtype} like {users[0]!r}"
        raise DataError(f"no user of the log has a group in {opened.label}: {theirs}, "
                        f"the log's are {log.user_ids.dtype} like {log.user_ids[0]!r}")  # fmt: skip
    codes = np.full(log.n_users, -1)
    codes[known["code"].to_numpy()] = known[GROUP].replace_strict(names, range(len(names))).to_numpy()
    strangers, all_named = table.filter(pl.col("code") < 0)[USER].n_unique(), users.n_unique()
    if strangers:
        warn(f"{strangers} of the {all_named} users in the groups are not in the log", 3)
    if without := int((codes < 0).sum()):
        warn(f"{without} of {log.n_users} users of the log have no group: they count in the mean of all", 3)
    return UserGroups(tuple(names), codes, "own")


def _texts(column: pl.Series) -> tuple[pl.Series, list[str]]:
    """Groups as texts, null where there is none, and the names in order."""
    dtype = column.dtype
    order: list[str] = []
    if isinstance(dtype, pl.Enum | pl.Categorical):
        order = list(dtype.categories) if isinstance(dtype, pl.Enum) else []
        column = column.cast(pl.String)
    elif dtype.is_float() and (column.drop_nulls().drop_nans() % 1 == 0).all():
        column = column.fill_nan(None).cast(pl.Int64)  # pandas makes floats of whole numbers with gaps
    elif not (dtype == pl.String or dtype.is_integer() or dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"the column 'group' holds values of type {dtype}; groups are texts or whole numbers")
    names = column.drop_nulls().unique().sort().cast(pl.String).to_list()
    texts = column.cast(pl.String)
    blank = texts.str.strip_chars() == ""
    texts = pl.select(pl.when(~blank).then(texts)).to_series()
    names = [name for name in (order or names) if name.strip() and name in set(names)]
    return texts, names


def _refuse_two(named: pl.DataFrame) -> None:
    twice = named.filter(pl.col(USER).is_duplicated()).sort(USER, GROUP)
    if twice.height:
        first = twice.filter(pl.col(USER) == twice[USER][0])[GROUP].to_list()
        raise DataError(
            f"{twice[USER].n_unique()} users have more than one group, among them {twice[USER][0]!r} "
            f"({', '.join(first)}): a user has one"
        )
