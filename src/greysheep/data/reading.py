"""Choose the columns of a log and type them; bad input is refused in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import polars as pl

from greysheep.data import values
from greysheep.data.columns import ITEM, RATING, TIME, USER, WEIGHT
from greysheep.data.formats import TextFormat
from greysheep.data.sources import Source, open_source
from greysheep.errors import DataError, warn

NONE = "none"
"""In the place of a column's name: the log has no such column, whatever its columns are called."""
MissingIds = Literal["refuse", "drop", "keep"]
_TYPES = {TIME: values.times, WEIGHT: values.weights, RATING: values.numbers}
_USUAL = TextFormat()


@dataclass(frozen=True)
class Columns:
    """Names of the source's columns; None = the usual name, if it is there; "none" = there is none.

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


@dataclass(frozen=True)
class Rows:
    """The rows of a log under the library's own names."""

    label: str
    """What to call the source in messages."""
    frame: pl.DataFrame
    """user_id, item_id [, timestamp] [, weight] [, rating], each checked and typed."""
    dropped: int
    """Rows left out because they have no id."""
    names: dict[str, str]
    """The source's name of each column of the frame."""


def read_columns(
    source: Any, names: Columns, text: TextFormat, *, need_rating: bool, missing_ids: MissingIds
) -> Rows:
    """Load the log's columns under the library's own names.

    A column that was found by its usual name and cannot be used is left out with a warning; one that was
    named is an error.

    Raises:
        DataError: In one line, whatever is wrong with the source.
    """
    if not isinstance(missing_ids, str) or missing_ids not in get_args(MissingIds):
        raise DataError(f"missing_ids={missing_ids!r} is not one of {', '.join(get_args(MissingIds))}")
    opened = open_source(source, text)
    named, found = _choose(opened, names, need_rating)
    frame = opened.load([named[USER], named[ITEM]])
    if frame.height == 0:
        raise DataError(f"{opened.label} has no rows, only column names{_because(opened)}")
    columns: dict[str, pl.Series] = {}
    wheres = {name: f"column '{column}' of {opened.label}" for name, column in (named | found).items()}
    keep = pl.Series([True]).new_from_index(0, frame.height)
    for canonical in (USER, ITEM):
        series = _stripped(frame.get_column(named[canonical]), text)
        columns[canonical], there = _ids(series, wheres[canonical], opened.text, missing_ids)
        keep = keep if there is None else keep & there
    dropped = frame.height - int(keep.sum())
    if dropped:
        if dropped == frame.height:
            raise DataError(f"missing_ids='drop' leaves none of the {frame.height} rows of {opened.label}")
        columns = {k: values.ids(v.filter(keep), wheres[k], opened.text) for k, v in columns.items()}
    columns |= _others(opened, named, found, wheres, keep if dropped else None)
    frame = pl.DataFrame([series.alias(name) for name, series in columns.items()])
    return Rows(opened.label, frame, dropped, {name: (named | found)[name] for name in columns})


def _others(
    opened: Source,
    named: dict[str, str],
    found: dict[str, str],
    wheres: dict[str, str],
    keep: pl.Series | None,
) -> dict[str, pl.Series]:
    """Times, weights and ratings of the rows that are kept."""
    columns = {}
    for canonical in [name for name in _TYPES if name in named | found]:
        column = (named | found)[canonical]
        try:
            series = opened.load([column]).get_column(column)
            series = series if keep is None else series.filter(keep)
            columns[canonical] = _TYPES[canonical](series, wheres[canonical], opened.text)
        except DataError as error:
            if canonical in named:
                raise
            option = "time_col" if canonical == TIME else "weight_col"
            off = f"{option}='{NONE}' ({_flag(option)} {NONE})"
            warn(f"{error}; nobody named this column, so it is left out: {off} does so without a warning", 4)
    return columns


def read_id_column(source: Any, column: str, text: TextFormat = _USUAL) -> pl.Series:
    """One column of ids, by the rules that hold for a log's ids; texts such as NA are ids like any other.

    Raises:
        DataError: If the source has no such column or it holds anything but ids.
    """
    opened = open_source(source, text)
    _require(opened, column, None)
    series = _stripped(opened.load([column]).get_column(column), text)
    where = f"column '{column}' of {opened.label}"
    if not len(series):
        raise DataError(f"{opened.label} has no rows, only column names")
    if missing := series.null_count():
        raise DataError(f"{where} has no value in {missing} of {len(series)} rows; drop or fill them first")
    return values.ids(series, where, opened.text)


def _choose(source: Source, names: Columns, need_rating: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Map the library's names to those of the source's columns: what must be there, and what was found."""
    if names.user == names.item:
        raise DataError(f"user_col and item_col are both '{names.user}'; they must be two columns")
    named, found = {USER: names.user, ITEM: names.item}, {}
    for canonical, name in ((TIME, names.time), (WEIGHT, names.weight)):
        if name is None and canonical in source.columns:
            found[canonical] = canonical
        elif name is not None and name != NONE:
            named[canonical] = name
    if need_rating:
        named[RATING] = names.rating or RATING
    elif names.rating not in (None, NONE):
        _require(source, str(names.rating), "rating_col")
    options = dict(zip((USER, ITEM, TIME, WEIGHT, RATING), fields(names), strict=True))
    for canonical, column in (named | found).items():
        _require(source, column, f"{options[canonical].name}_col")
    if source.is_row and all(any(map(str.isdigit, name)) for name in (names.user, names.item)):
        raise DataError(
            f"'{names.user}' and '{names.item}' are no names but ids in {source.label}{_because(source)}"
        )
    return named, found


def _require(source: Source, column: str, option: str | None) -> None:
    if column not in source.columns:
        near = nearest(column, source.columns)
        more = ", ..." if len(source.columns) > 8 else ""
        shown = ", ".join(repr(c[:40]) for c in source.columns[:8]) + more
        hint = f"nearest: {', '.join(repr(c[:40]) for c in near)}" if near else f"columns: {shown}"
        if source.cause:
            raise DataError(f"{source.label} has no column '{column}'{_because(source)}")
        advice = f"; name the right one with {option} ({_flag(option)})" if option else ""
        if column in [name.strip() for name in source.columns]:
            advice = "; --strip (strip=True) takes the blanks around names and ids away"
        raise DataError(f"{source.label} has no column '{column}' ({hint}){advice}")
    if source.columns.count(column) > 1 or f"{column}_duplicated_0" in source.columns:
        raise DataError(f"{source.label} has two columns named '{column}'; rename one")


def _because(source: Source) -> str:
    return f": {source.cause}" if source.cause else ""


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


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


def _stripped(series: pl.Series, text: TextFormat) -> pl.Series:
    if isinstance(series.dtype, (pl.Categorical, pl.Enum)):
        series = series.cast(pl.String)  # the values stay; the order of categories is not used
    return series.str.strip_chars() if text.strip and series.dtype == pl.String else series


def _ids(
    series: pl.Series, where: str, text: TextFormat | None, missing_ids: MissingIds
) -> tuple[pl.Series, pl.Series | None]:
    """Ids, typed if none is missing, and a mask of the rows that have one; None if all have."""
    typed = series if series.null_count() else values.ids(series, where, text)
    words = typed.clear()
    if typed.dtype == pl.String and missing_ids != "keep":
        unique = typed.unique()
        words = values.missing_words(unique)
        _refuse_blanks(typed, unique.filter(~unique.is_in(words.implode())), where)
    missing = typed.is_null() | typed.is_in(words.implode()) if len(words) else typed.is_null()
    count = int(missing.sum())
    if not count:
        return typed, None
    if missing_ids != "drop":
        shown = ", ".join(repr(word) for word in words.sort().head(5))
        keep = ", --missing-ids keep (missing_ids='keep') takes these texts as ids" if shown else ""
        raise DataError(
            f"{where} has no value in {count} of {len(series)} rows{f' ({shown})' if shown else ''}: "
            f"--missing-ids drop (missing_ids='drop') leaves out and counts them{keep}"
        )
    return typed, ~missing


def _refuse_blanks(typed: pl.Series, unique: pl.Series, where: str) -> None:
    bare = unique.str.strip_chars()
    around = unique.filter(bare != unique)
    if len(around):
        count = int(typed.is_in(around.implode()).sum())
        raise DataError(
            f"{where} has blanks around the ids of {count} of {len(typed)} rows, such as {around.min()!r}: "
            "--strip (strip=True) takes them away, --missing-ids keep (missing_ids='keep') leaves them"
        )
