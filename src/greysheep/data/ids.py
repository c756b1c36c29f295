"""The door for ids that a caller hands over: what is like a list of them is taken, all else refused."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import ITEM, USER
from greysheep.data.sources import Source, open_source
from greysheep.data.text import UNREADABLE
from greysheep.errors import DataError, first_line

NOUN = {USER: "user", ITEM: "item"}
_LISTS = "a list, a set, an array, a Series, or a frame with such a column"
_MISSING = ("NoneType", "NAType", "NaTType")
_FOREIGN = (*UNREADABLE, TypeError, ValueError, AttributeError, OverflowError)
"""What a list-like of another library may raise when it is read."""


def ids_like(given: Any, what: str, column: str, *known: pl.Series) -> pl.Series:
    """Ids of one type with those known, as a Series in the given order; `what` names them in a message.

    given: list, tuple, set (taken in order of the ids), iterator, NumPy array, pandas Series or Index, polars
        Series, Arrow array; or a pandas, polars or Arrow frame: its column `column`, or the only one it has.
    known: ids that decide the type; with several, of different types, either serves.

    Raises:
        DataError: it is nothing of the kind, an id is missing, or the type is not that of the known ids.

    >>> ids_like((3, 1), "users", USER, pl.Series([1, 2, 3])).to_list()
    [3, 1]
    """
    ids = _one_type(unpack(given, what, column), what)
    if not len(ids):
        return known[0].clear()
    if all(is_text(ids) != is_text(one) for one in known):
        theirs = f"the {NOUN[column]} ids are {_kind(known[0])}"
        raise DataError(f"{what} holds {_kind(ids)}, but {theirs}: give them in that type")
    return ids.sort() if isinstance(given, Set) else ids


def ids_by_user(
    given: Any, what: str, known_users: pl.Series, known_items: pl.Series
) -> tuple[pl.Series, pl.Series] | None:
    """Users and items, a row a pair, of {user: items} or of a frame with both columns; None for all else.

    Raises:
        DataError: as `ids_like` does.

    >>> pairs = ids_by_user({"b": [7, 9]}, "candidates", pl.Series(["a", "b"]), pl.Series([7, 8, 9]))
    >>> [ids.to_list() for ids in pairs]
    [['b', 'b'], [7, 9]]
    """
    if isinstance(given, Mapping):
        if not given:
            raise DataError(f"{what} is an empty dict: it names no user")
        users = ids_like(list(given), f"keys of {what}", USER, known_users)
        lists = [
            ids_like(items, f"{what} of user {user!r}", ITEM, known_items) for user, items in given.items()
        ]
        rows = np.repeat(np.arange(len(users)), [len(items) for items in lists])
        common = pl.String() if is_text(known_items) else pl.Int128()
        return users.gather(rows), pl.concat([items.cast(common) for items in lists])
    frame = _frame(given, what)
    if frame is None or not {USER, ITEM} <= set(frame.columns):
        return None
    both = frame.load([USER, ITEM])
    users, items = (ids_like(both[column], f"column {column!r} of {what}", column, known)
                    for column, known in ((USER, known_users), (ITEM, known_items)))  # fmt: skip
    return users, items


def unpack(given: Any, what: str, column: str) -> pl.Series | list[Any]:
    """The values of anything like a list, of whatever types they are; see `ids_like`.

    Raises:
        DataError: it is not like a list.
    """
    frame = _frame(given, what)
    if frame is not None:
        return frame.load([_column_of(frame, what, column)]).to_series()
    if isinstance(given, pl.Series):
        return given
    if isinstance(given, np.ndarray) and given.dtype.kind in "mM":  # a list would make integers of some
        raise DataError(f"{what} holds values of type {given.dtype}; ids are integers or text")
    if type(given) is np.ndarray and given.ndim == 1 and given.dtype.kind in "iu":  # a masked array is none
        return pl.Series(np.ascontiguousarray(given, given.dtype.newbyteorder("=")))
    try:
        return _values(given)
    except _NotAList:
        kind = type(given).__name__
        raise DataError(f"{what} must come as a list of ids ({_LISTS}), not as a {kind}") from None
    except _FOREIGN as error:
        raise DataError(f"{what} cannot be read as a list of ids: {first_line(error)}") from error


class _NotAList(Exception):
    """Raised within `unpack` only."""


def _values(given: Any) -> pl.Series | list[Any]:
    if hasattr(given, "tolist"):  # NumPy, pandas, torch; a scalar for an array without dimensions
        given = given.tolist()
    elif hasattr(given, "__arrow_c_array__") or hasattr(given, "__arrow_c_stream__"):
        return pl.Series(given)
    # texts, dicts and files can be iterated over, but not for ids
    if isinstance(given, str | bytes | bytearray | memoryview | Mapping | io.IOBase):
        raise _NotAList
    if not isinstance(given, Iterable):
        raise _NotAList
    return list(given)


def _frame(given: Any, what: str) -> Source | None:
    """What has named columns, opened; None for all else."""
    is_polars = isinstance(given, pl.DataFrame | pl.LazyFrame)
    is_pandas = type(given).__module__.split(".")[0] == "pandas" and hasattr(given, "columns")
    is_arrow = not is_polars and hasattr(given, "column_names") and hasattr(given, "schema")
    if not (is_polars or is_pandas or is_arrow):
        return None
    try:
        if is_pandas and {USER, ITEM} & set(given.index.names):
            given = given.reset_index()
        return open_source(given)
    except _FOREIGN as error:
        raise DataError(f"{what} cannot be read as a frame: {first_line(error)}") from error


def _column_of(frame: Source, what: str, column: str) -> str:
    if frame.columns.count(column) == 1:
        return column
    if len(frame.columns) == 1:
        return frame.columns[0]
    listed = ", ".join(repr(name[:40]) for name in frame.columns[:8])
    raise DataError(
        f"{what}: {frame.label} has no column {column!r}, which holds the ids; it has {listed or 'none'}"
    )


def _one_type(values: pl.Series | list[Any], what: str) -> pl.Series:
    """Values as a Series of text or of integers.

    Raises:
        DataError: a value is missing or is neither, or there are both.
    """
    if isinstance(values, pl.Series):
        dtype = values.dtype
        if isinstance(dtype, pl.Categorical | pl.Enum):
            values = values.cast(pl.String)
        elif dtype == pl.Object or isinstance(dtype, pl.Decimal):
            return _one_type(values.to_list(), what)
        elif not (dtype == pl.String or dtype.is_integer() or dtype == pl.Null):
            raise _of_another_kind(what, [values[0]] if len(values) else [], str(dtype))
        _refuse_missing(what, values.null_count(), len(values))
        return values
    missing = sum(type(v).__name__ in _MISSING or (isinstance(v, float) and v != v) for v in values)
    _refuse_missing(what, missing, len(values))
    values = [_plain(value) for value in values]
    kinds = {type(value) for value in values}
    if kinds <= {int}:
        return _integers(values, what)
    if kinds == {str}:
        try:
            return pl.Series(values, dtype=pl.String)
        except UnicodeError as error:
            raise DataError(f"{what} holds text that is not Unicode: {first_line(error)}") from None
    if kinds == {int, str}:
        raise DataError(f"{what} holds ids of different types, text and integers: make them all of one")
    raise _of_another_kind(what, [value for value in values if type(value) not in (int, str)])


def _plain(value: Any) -> Any:
    """An id as int or str where it is one by nature; True is none, and 5.0 is the mark of a lost type."""
    if isinstance(value, np.integer) or (isinstance(value, int) and not isinstance(value, bool)):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return value


def _integers(values: Sequence[int], what: str) -> pl.Series:
    low, high = min(values, default=0), max(values, default=0)
    for dtype, least, most in (
        (pl.Int64, -(1 << 63), (1 << 63) - 1), (pl.UInt64, 0, (1 << 64) - 1),
        (pl.Int128, -(1 << 127), (1 << 127) - 1),
    ):  # fmt: skip
        if least <= low and high <= most:
            return pl.Series(values, dtype=dtype)
    raise DataError(f"{what} holds integers of more than 128 bits, such as {str(max(high, -low))[:20]}...")


def _refuse_missing(what: str, missing: int, n: int) -> None:
    if missing:
        raise DataError(f"{what} has no id in {missing} of {n} places: drop them first")


def _of_another_kind(what: str, values: Sequence[Any], kind: str = "") -> DataError:
    kind = kind or type(values[0]).__name__
    like = f", such as {' '.join(repr(values[0]).split())[:40]}" if values else ""
    hint = ""
    if kind.lower().startswith("float"):
        hint = " (pandas makes integers with gaps into floats: drop the gaps, then cast)"
    return DataError(f"{what} holds values of type {kind}{like}; ids are integers or text{hint}")


def _kind(ids: pl.Series) -> str:
    kind = "text" if is_text(ids) else "integers"
    return f"{kind} like {ids[0]!r}" if len(ids) else kind


def is_text(ids: pl.Series) -> bool:
    """Whether ids are text; all others are integers."""
    return ids.dtype == pl.String


def positions_in(codes: Any, n: int, what: str, least: int = 0) -> NDArray[np.int64]:
    """Codes as an array of integers from `least` to n - 1.

    Raises:
        DataError: they are anything else.
    """
    try:
        array = np.asarray(codes)
    except (TypeError, ValueError, OverflowError):
        array = np.asarray(None)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"{what} must be a list of whole numbers: positions, not ids")
    found = array.astype(np.int64)
    if array.size and (found.min() < least or found.max() >= n):
        far = found[(found < least) | (found >= n)]
        raise DataError(
            f"{len(far)} of {len(found)} {what} are not between {least} and {n - 1}, among them {far[0]}; "
            "they are positions: encode_users or encode_items makes them of ids"
        )
    return found
