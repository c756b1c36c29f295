"""How a text file is laid out: separator, header, names, encoding; and the layouts of known data sets."""

from __future__ import annotations

import codecs
import difflib
import numbers
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from greysheep.data.columns import ITEM, RATING, TIME, USER
from greysheep.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".dat": "::", ".data": "\t"}
PACKED = (".gz", ".zst", ".bz2")
BY_PLACE = (USER, ITEM, RATING, TIME)
"""Names of the first columns of a file without header, unless others are given."""


@dataclass(frozen=True)
class TextFormat:
    """The layout of a text file; what doesn't hold for it is refused, never guessed."""

    separator: str | None = None
    """What stands between two fields, of any length; None = what the suffix says."""
    header: bool = True
    """Whether the first line names the columns."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a file without header, in order; '' for one that is not wanted."""
    encoding: str = "utf-8"
    skip_lines: int = 0
    """Lines before the header that are no rows."""
    quotes: bool = True
    """Whether a field may be enclosed in double quotes; else they are letters like any other."""
    strip: bool = False
    """Whether blanks around names and ids are taken away."""
    decimal_comma: bool = False
    """Whether 1,5 is one and a half."""

    def __post_init__(self) -> None:
        for name in ("header", "quotes", "strip", "decimal_comma"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(f"{name}={getattr(self, name)!r} is neither True nor False")
        skip: Any = self.skip_lines
        if not isinstance(skip, numbers.Integral) or skip < 0:
            raise DataError(f"skip_lines={skip!r} is not a whole number from 0 up")
        if self.separator is not None:
            object.__setattr__(self, "separator", _separator(self.separator))
        if self.columns is not None:
            object.__setattr__(self, "columns", _names(self.columns))
            object.__setattr__(self, "header", False)  # names are given where there are none
        object.__setattr__(self, "encoding", _encoding(self.encoding))


def _separator(given: Any) -> str:
    text = given.replace("\\t", "\t") if isinstance(given, str) else ""
    if not text or set(text) & set('"\r\n\0'):
        raise DataError(
            f"separator={given!r} separates nothing: give the text between two fields, such as ';'"
        )
    return text


def _names(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, str) for name in given):
        raise DataError(f"columns={given!r} is not a list of names, such as 'user_id,item_id,rating'")
    names = tuple(name.strip() for name in given)
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"columns names {twice[0]!r} twice")
    if not any(names):
        raise DataError("columns names no column")
    return names


def _encoding(given: Any) -> str:
    try:
        name = codecs.lookup(given).name
        "".encode(name)  # fails for codecs that are not of text
    except (LookupError, TypeError, ValueError):
        raise DataError(
            f"encoding={given!r} is not known; known are utf-8, latin-1, cp1252, gbk ..."
        ) from None
    return "utf-8" if name == "utf-8-sig" else name


_BY_PLACE: dict[str, Any] = {"columns": BY_PLACE}
FORMATS: dict[str, dict[str, dict[str, Any]]] = {
    # name: suffix of the file ("" = any other): what to read it with
    "movielens": {
        ".dat": {"separator": "::", **_BY_PLACE},
        ".data": {"separator": "\t", **_BY_PLACE},
        "": {"user_col": "userId", "item_col": "movieId"},
    },
    "amazon-2014": {"": {"separator": ",", **_BY_PLACE}},
    "amazon-2018": {"": {"separator": ",", "columns": (ITEM, USER, RATING, TIME)}},
    "amazon-2023": {"": {"separator": ",", "item_col": "parent_asin"}},
    "book-crossing": {
        "": {
            "separator": ";",
            "encoding": "latin-1",
            "strip": True,
            "user_col": "User-ID",
            "item_col": "ISBN",
            "rating_col": "Book-Rating",
        }
    },
}


def known_format(
    name: str | None, source: Any, columns: dict[str, Any], text: dict[str, Any]
) -> tuple[list[Any], TextFormat]:
    """Names of columns and the layout of a file; what is not given comes from the format of that name.

    >>> known_format("movielens", "ml-100k/u.data", {"user_col": "user_id"}, {})[1].columns
    ('user_id', 'item_id', 'rating', 'timestamp')
    """
    usual = {part.name: part.default for part in fields(TextFormat)}
    if strange := [key for key in text if key not in usual]:
        near = difflib.get_close_matches(strange[0], usual, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise DataError(
            f"there is no option {strange[0]!r} of text files{hint}; there are {', '.join(usual)}"
        )
    usual |= {"user_col": USER, "item_col": ITEM, "rating_col": None}
    given = {key: value for key, value in (columns | text).items() if value != usual[key]}
    merged = _named_format(name, source) | given
    names = [merged.pop(key, columns[key]) for key in columns]
    return names, TextFormat(**merged)


def _named_format(name: str | None, source: Any) -> dict[str, Any]:
    if name is None:
        return {}
    if not isinstance(name, str) or name not in FORMATS:
        raise DataError(f"there is no format {name!r}; there are {', '.join(FORMATS)}")
    if not isinstance(source, (str, Path)):
        raise DataError(f"format={name!r} is for files, not for a {type(source).__name__}")
    by_suffix = FORMATS[name]
    return by_suffix.get(suffix_of(Path(source)), by_suffix[""])


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, in small letters; '.csv' for log.csv.gz.

    >>> suffix_of(Path("log.CSV.gz"))
    '.csv'
    """
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix
