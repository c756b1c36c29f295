"""What is visibly wrong with a text file that doesn't fit its format, and the option for it."""

from __future__ import annotations

import re

from greysheep.data.formats import TextFormat

_TRIED = ("::", ";", "\t", "|", ",")
_MARK = re.compile(r"\s*(#|%|//|--|;|sep=)")
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks"}
_IDS = ("user", "userid", "uid", "item", "itemid", "iid", "movieid", "productid", "asin", "isbn", "bookid")
KNOWN_NAMES = frozenset((*_IDS, "rating", "ratings", "timestamp", "time", "weight"))
"""Names of columns, without signs and in small letters, that are hardly ids."""


def plain(separator: str) -> str:
    """A separator in words.

    >>> plain(";"), plain("::")
    ('semicolons', "'::'")
    """
    return _NAMES.get(separator, repr(separator))


def cause(lines: list[str], separator: str, text: TextFormat, skipped: int) -> tuple[str, bool]:
    """Judge the first lines of a file.

    Args:
        lines: the first lines that are not blank, the one with the names among them.
        separator: what the file is read with.
        text: the format it is read with.
        skipped: lines before them.

    Returns:
        What to say if a column is missing or a row has another length, empty if nothing can be seen; and
        whether a first line that should name the columns looks like a row.

    >>> cause(["1::1193::5", "1::661::3"], ",", TextFormat(), 0)[0]
    "its first line has '::' and no commas: add --separator '::' (separator='::'); ..."
    """
    found = []
    other = _other_separator(lines, separator)
    top = _title_lines(lines, separator) if other is None else 0
    body = lines[top:]
    if top:
        skip = text.skip_lines + top
        found.append(
            f"line {skipped + 1} ({lines[0][:30]!r}) is a comment or a title, not a header: add "
            f"--skip-lines {skip} (skip_lines={skip})"
        )
        other = _other_separator(body, separator)
    if other is not None:
        suffixes = ".csv means commas and .tsv means tabs; " if {separator, other} <= {",", "\t"} else ""
        shown = "\\t" if other == "\t" else other
        found.append(
            f"its first line has {plain(other)} and no {plain(separator)}: {suffixes}add "
            f"--separator '{shown}' (separator={other!r})"
        )
    is_row = text.header and bool(body) and _is_row(body[0].split(other or separator))
    if is_row:
        found.append(
            f"its first line ({body[0][:40]!r}) looks like a row, not like names: add --no-header "
            "(header=False) if users come first and items second, else name the columns with --columns "
            "(columns='item_id,user_id,...')"
        )
    return "; ".join(found), is_row


def _title_lines(lines: list[str], separator: str) -> int:
    """How many lines at the top are a comment or one field, where those below are several fields each."""
    for one in (separator, *_TRIED):
        widths = [line.count(one) for line in lines]
        top = next((n for n, width in enumerate(widths) if width == widths[-1]), 0)
        agree = len(widths) - top > 1 and all(width == widths[-1] > 0 for width in widths[top:])
        if top and agree and all(_MARK.match(line) or not line.count(one) for line in lines[:top]):
            return top
    return 0


def _other_separator(lines: list[str], separator: str) -> str | None:
    if not lines or separator in lines[0]:
        return None
    for other in _TRIED:
        if all(line.count(other) == lines[0].count(other) > 0 for line in lines):
            return other
    return None


def _is_row(fields: list[str]) -> bool:
    """Whether some field of a header is a number; numbers in order are names that pandas gave."""
    fields = [field.strip().strip('"') for field in fields]
    if fields in ([str(n) for n in range(len(fields))], [str(n) for n in range(1, len(fields) + 1)]):
        return False
    numbers = [field for field in fields if re.fullmatch(r"[+-]?\d+([.,]\d+)?", field)]
    names = [field for field in fields if re.sub(r"\W|_", "", field).lower() in KNOWN_NAMES]
    return bool(numbers) and not names
