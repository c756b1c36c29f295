"""Choose, check and type the columns of a log; bad input is refused in one line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import polars as pl

from greysheep.data.columns import ITEM, TIME, USER, WEIGHT
from greysheep.data.sources import Source, open_source
from greysheep.errors import DataError

RATING = "rating"
TEXT_TIMES = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
)


@dataclass(frozen=True)
class Columns:
    """Names of the source's columns; None = the usual name, if it is there.

    Names that are no text (pandas numbers unnamed columns) are taken as text.
    """

    user: str = USER
    item: str = ITEM
    time: str | None = None
    weight: str | None = None
    rating: str | None = None

    def __post_init__(self) -> None:
        for part in fields(self):
            if (name := getattr(self, part.name)) is not None:
                object.__setattr__(self, part.name, str(name))


def read_columns(source: Any, names: Columns, *, need_rating: bool) -> tuple[str, pl.DataFrame]:
    """Load the log's columns under the library's own names, each checked and typed.

    Returns:
        What to call the source in messages, and a frame with user_id, item_id [, timestamp] [, weight]
        [, rating].

    Raises:
        DataError: In one line, whatever is wrong with the source.
    """
    opened = open_source(source)
    chosen = _choose(opened, names, need_rating)
    frame = opened.load(list(dict.fromkeys(chosen.values())))
    if frame.height == 0:
        raise DataError(f"{opened.label} has no rows, only column names")
    types = {USER: _ids, ITEM: _ids, TIME: _times, WEIGHT: _numbers, RATING: _numbers}
    out = {}
    for canonical, column in chosen.items():
        series = frame.get_column(column).alias(canonical)
        where = f"column '{column}' of {opened.label}"
        _refuse_nulls(series, where)
        out[canonical] = types[canonical](series, where, is_text=opened.is_text)
    weights = out.get(WEIGHT)
    if weights is not None and (bad := int((weights < 0).sum())):
        where = f"column '{chosen[WEIGHT]}' of {opened.label}"
        raise DataError(f"{where} has {bad} negative weights; weights must be 0 or more")
    return opened.label, pl.DataFrame(out)


def read_id_column(source: Any, column: str) -> pl.Series:
    """One column of ids, by the rules that hold for a log's ids.

    Raises:
        DataError: If the source has no such column or it holds anything but ids.
    """
    opened = open_source(source)
    _require(opened, column, None)
    series = opened.load([column]).get_column(column)
    where = f"column '{column}' of {opened.label}"
    if not len(series):
        raise DataError(f"{opened.label} has no rows, only column names")
    _refuse_nulls(series, where)
    return _ids(series, where, is_text=opened.is_text)


def _choose(source: Source, names: Columns, need_rating: bool) -> dict[str, str]:
    """Map the library's column names to the source's; complain about those not there."""
    if names.user == names.item:
        raise DataError(f"user_col and item_col are both '{names.user}'; they must be two columns")
    chosen = {USER: names.user, ITEM: names.item}
    for canonical, named in ((TIME, names.time), (WEIGHT, names.weight), (RATING, names.rating)):
        if canonical == RATING and not need_rating:
            if named is not None:
                _require(source, named, "rating_col")
        elif named is not None:
            chosen[canonical] = named
        elif canonical in source.columns or canonical == RATING:
            chosen[canonical] = canonical
    options = dict(zip((USER, ITEM, TIME, WEIGHT, RATING), fields(names), strict=True))
    for canonical, column in chosen.items():
        _require(source, column, f"{options[canonical].name}_col")
    return chosen


def _require(source: Source, column: str, option: str | None) -> None:
    if column not in source.columns:
        near = nearest(column, source.columns)
        more = ", ..." if len(source.columns) > 8 else ""
        shown = ", ".join(repr(c[:40]) for c in source.columns[:8]) + more
        hint = f"nearest: {', '.join(repr(c[:40]) for c in near)}" if near else f"columns: {shown}"
        if source.is_text and len(source.columns) == 1:
            hint = f"its only column is {source.columns[0][:60]!r}: .csv means commas and .tsv means tabs"
        advice = f"; name the right one with {option} (--{option.replace('_', '-')})" if option else ""
        raise DataError(f"{source.label} has no column '{column}' ({hint}){advice}")
    if source.columns.count(column) > 1 or f"{column}_duplicated_0" in source.columns:
        raise DataError(f"{source.label} has two columns named '{column}'; rename one")


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known words that look most like this one, best first.

    >>> nearest("user_id", ["userId", "movieId", "rating"])
    ['userId']
    """
    plain = {name: name.lower().replace("_", "").replace(" ", "") for name in known}
    target = word.lower().replace("_", "")
    near = difflib.get_close_matches(target, list(plain.values()), n=3, cutoff=0.55)
    near += [p for p in plain.values() if p and p not in near and (p == target.removesuffix("id"))]
    return [name for close in near for name, p in plain.items() if p == close][:3]


def _refuse_nulls(series: pl.Series, where: str) -> None:
    if missing := series.null_count():
        raise DataError(f"{where} has no value in {missing} of {len(series)} rows; drop or fill them first")


def _ids(series: pl.Series, where: str, *, is_text: bool) -> pl.Series:
    """Ids as integers or text; ids of a text file are integers only if all of them are written as such."""
    if isinstance(series.dtype, (pl.Categorical, pl.Enum)):
        series = series.cast(pl.String)  # the values stay; the order of categories is not used
    if series.dtype == pl.String:
        return _integers_if_canonical(series) if is_text else series
    if not series.dtype.is_integer():
        hint = " (pandas makes integers with gaps into floats)" if series.dtype.is_float() else ""
        raise DataError(f"{where} is of type {series.dtype}; ids must be integers or text{hint}")
    return series


def _integers_if_canonical(series: pl.Series) -> pl.Series:
    """Int64 or UInt64 when writing the numbers again gives back every text as it was, else the text.

    >>> [_integers_if_canonical(pl.Series(ids)).dtype for ids in (["12", "-3"], ["12", "03"])]
    [Int64, String]
    """
    for dtype in (pl.Int64, pl.UInt64):
        numbers = series.cast(dtype, strict=False)
        if numbers.null_count() == 0 and bool((numbers.cast(pl.String) == series).all()):
            return numbers
    return series


def _numbers(series: pl.Series, where: str, *, is_text: bool) -> pl.Series:
    """Finite Float64; text becomes numbers only in text files."""
    numbers = series
    if series.dtype == pl.String and is_text:
        numbers = series.str.strip_chars().cast(pl.Float64, strict=False)
        if bad := numbers.null_count():
            first = series.filter(numbers.is_null())[0]
            raise DataError(f"{where} has {bad} values that are not numbers, the first is {first[:40]!r}")
    elif not series.dtype.is_numeric():
        raise DataError(f"{where} is of type {series.dtype}; it must hold numbers")
    numbers = numbers.cast(pl.Float64)
    if bad := int((~numbers.is_finite()).sum()):
        raise DataError(f"{where} has {bad} values that are NaN or infinite")
    return numbers


def _times(series: pl.Series, where: str, *, is_text: bool) -> pl.Series:
    """Numbers, dates or datetimes as they are; text is understood in text files only."""
    if series.dtype == pl.String and is_text:
        series = _parse_times(series, where)
    if not (series.dtype.is_numeric() or series.dtype in (pl.Date, pl.Datetime)):
        raise DataError(f"{where} is of type {series.dtype}; times must be numbers, dates or datetimes")
    if series.dtype.is_float() and (bad := int((~series.is_finite()).sum())):
        raise DataError(f"{where} has {bad} times that are NaN or infinite")
    return series


def _parse_times(series: pl.Series, where: str) -> pl.Series:
    readings: list[Callable[[], pl.Series]] = [
        lambda: series.cast(pl.Int64, strict=False),
        lambda: series.cast(pl.Float64, strict=False),
        lambda: series.str.to_date("%Y-%m-%d", strict=False),
    ]
    readings += [partial(series.str.to_datetime, f, strict=False) for f in TEXT_TIMES]
    fewest, unread = len(series) + 1, series
    for reading in readings:
        times = reading()
        if times.null_count() == 0:
            return times
        if times.null_count() < fewest:
            fewest, unread = times.null_count(), series.filter(times.is_null())
    raise DataError(
        f"{where} has {fewest} values that are neither numbers nor ISO dates nor ISO datetimes, "
        f"the first is {unread[0][:40]!r}"
    )
