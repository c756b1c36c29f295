"""Ids as a request brings them, in the type of the log."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from greysheep.data.ids import NOUN, ids_like, is_text
from greysheep.errors import DataError

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,38}")
"""What an integer id looks like in a path, and in no other way."""


def from_path(text: str, column: str, known: pl.Series) -> int | str:
    """The id that a part of a path says, in the type of the known ids.

    >>> from_path("12", "user_id", pl.Series([7])), from_path("12", "user_id", pl.Series(["07"]))
    (12, '12')

    Raises:
        DataError: the log's ids are integers, and this is none as they are written.
    """
    if is_text(known):
        return text
    if INTEGER.fullmatch(text) is None:
        shown = ascii(text[:40])
        raise DataError(
            f"{NOUN[column]} id {shown} is no integer, as the ids of this model are: write it in digits, "
            "without leading zeros"
        )
    return int(text)


def given(ids: Sequence[int | str], what: str, column: str, known: pl.Series) -> pl.Series:
    """Ids of a body, which says itself what is text and what an integer.

    Raises:
        DataError: they are of another type than the log's.
    """
    return ids_like(list(ids), what, column, known)
