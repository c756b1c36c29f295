"""Lines of a text file, checked: a quote must not swallow rows, every row has as many fields as the first."""

from __future__ import annotations

import csv
import io
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from greysheep.data.formats import TextFormat
from greysheep.errors import DataError, first_line

Data = bytes | mmap.mmap
Quoting = Literal["none", "usual", "odd"]
_AT_ONCE = 1 << 25  # bytes whose lines are held as text at a time
_UNUSED = "\x1f\x1e\x1d\x1c\x02\x03\x04\x05"  # letters that a file hardly has


@dataclass(frozen=True)
class Table:
    """The bytes of a text file from its header on, and how to read them."""

    path: Path
    data: Data
    separator: str
    """One byte."""
    shown: str
    """The separator as it stands in the file."""
    format: TextFormat
    skipped: int
    """Lines before these bytes."""
    cause: str

    @property
    def why(self) -> str:
        """The visible cause, as the end of a message."""
        return f": {self.cause}" if self.cause else ""

    def starts(self) -> str:
        """A pattern of what stands before a field that begins with a quote, blanks included."""
        return rf"(?:^|[\n{re.escape(self.separator)}])" + ("[ \t]*" if self.format.strip else "")


def first(data: Data, start: int, most: int = 6) -> list[str]:
    """The first lines that are not blank, without their ends."""
    head = data[start : start + 65536].decode("utf-8", errors="replace")
    return [line for line in head.splitlines() if line.strip()][:most]


def one_byte(path: Path, data: Data, separator: str, skipped: int) -> tuple[bytes, str]:
    """Put one letter that the file doesn't have in the place of a longer separator."""
    whole, long = data[:], separator.encode()
    if len(set(separator)) == 1:  # a:::b could be 'a' and ':b' or 'a:' and 'b'
        run = re.compile(b"(?:%s){%d,}" % (re.escape(separator[0].encode()), len(separator) + 1))
        odd = next((m for m in run.finditer(whole) if len(m[0]) % len(long)), None)
        if odd is not None:
            line = whole.count(b"\n", 0, odd.start()) + skipped + 1
            raise DataError(
                f"{path} line {line} has {odd[0].decode()!r}: it is not clear where {separator!r} is"
            )
    free = next((letter for letter in _UNUSED if letter.encode() not in whole), None)
    if free is None:
        raise DataError(f"{path} is not text: it has every one of eight control characters")
    return whole.replace(long, free.encode()), free


def quoting(table: Table) -> Quoting:
    """Whether fields are enclosed in quotes: nowhere, as a rule demands, or in ways that polars doesn't know.

    Raises:
        DataError: A quote opens a field and is not closed at its end, or only lines later.
    """
    if not table.format.quotes or table.data.find(b'"') < 0:
        return "none"
    opening = re.compile(table.starts().encode() + b'"')
    if opening.search(table.data) is None:
        return "none"  # quotes within fields, such as those of inches, are letters
    letters = f'[^"{re.escape(table.separator)}]*'
    one = f'(?:"[^"]*(?:""[^"]*)*"|{letters})'
    row = rf"{one}(?:{re.escape(table.separator)}{one})*\r?"
    try:
        if all(piece.str.contains(f"^{row}$").all() for piece in _pieces(table.data)):
            return "usual"
    except UnicodeDecodeError as error:
        raise not_utf8(table.path, error) from error
    return "usual" if scan(table, re.compile(row)).is_usual else "odd"


def _pieces(data: Data) -> Iterator[pl.Series]:
    """All lines, some at a time."""
    start, end = 0, len(data)
    while start < end:
        cut = data.rfind(b"\n", start, start + _AT_ONCE) if start + _AT_ONCE < end else end
        cut = data.find(b"\n", start + _AT_ONCE) if cut < start else cut
        cut = end if cut < 0 else cut
        yield pl.Series([data[start:cut].decode()]).str.split("\n").explode()
        start = cut + 1


@dataclass
class Scan:
    """What a walk through all rows found."""

    blank: list[int] = field(default_factory=list)
    """Indices of rows that are blank lines; the header doesn't count."""
    is_usual: bool = True
    """Whether every row is of the usual pattern."""


def scan(table: Table, usual: re.Pattern[str] | None = None) -> Scan:
    """Look at every row: an error for one of another length than the first, or with quotes that go wrong."""
    found = Scan()
    width, index = 0, -1 if table.format.header else 0
    for row, held, number in _rows(table):
        if usual is not None:
            found.is_usual &= usual.fullmatch("".join(held).rstrip("\r\n")) is not None
        width = width or len(row)
        if _is_blank(held):
            found.blank.append(index)
        elif len(row) != width:
            if table.format.quotes and '"' in held[0] and held[0].count(table.separator) == width - 1:
                raise _open_quote(table, number - len(held) + 1, held[0], "makes several fields one")
            what = "the header" if table.format.header else "the first row"
            raise DataError(
                f"{table.path} line {number} has {len(row)} fields, {what} has {width}{table.why}"
            )
        if len(held) > 1 and _swallowed(held, table.separator, width):
            raise _open_quote(table, number - len(held) + 1, held[0], f"is closed on line {number} only")
        index += 1
    return found


def by_hand(table: Table) -> pl.DataFrame:
    """The fields of a file with odd quotes, row by row: slow, and wants much memory."""
    rows = ([value or None for value in row] for row, held, _ in _rows(table) if not _is_blank(held))
    columns = list(zip(*rows, strict=True))
    names = [f"column_{n}" for n in range(1, len(columns) + 1)]
    if table.format.header:
        heads = [column[0] or "" for column in columns]
        columns = [column[1:] for column in columns]
        earlier = [heads[:i].count(n) for i, n in enumerate(heads)]  # a second one is named as polars does
        names = [f"{n}_duplicated_{k - 1}" if k else n for n, k in zip(heads, earlier, strict=True)]
    return pl.DataFrame(
        {name: pl.Series(column, dtype=pl.String) for name, column in zip(names, columns, strict=True)}
    )


def _rows(table: Table) -> Iterator[tuple[list[str], list[str], int]]:
    """Each row with the lines it stands on and the number of the last of them."""
    held: list[str] = []

    def lines_held() -> Iterator[str]:
        for line in io.TextIOWrapper(io.BytesIO(table.data[:]), encoding="utf-8-sig", newline="\n"):
            held.append(line)
            yield line

    mode: Literal[0, 3] = csv.QUOTE_MINIMAL if table.format.quotes else csv.QUOTE_NONE
    reader = csv.reader(
        lines_held(),
        delimiter=table.separator,
        quoting=mode,
        strict=True,
        skipinitialspace=table.format.strip,
    )
    before = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise not_utf8(table.path, error) from error
        except csv.Error as error:
            if table.format.quotes and '"' in "".join(held):
                raise _open_quote(
                    table, before + table.skipped + 1, held[0], "is not closed at its end"
                ) from error
            raise DataError(f"{table.path} line {before + table.skipped + 1}: {first_line(error)}") from error
        before = reader.line_num
        yield row, held, before + table.skipped
        held.clear()


def _is_blank(held: list[str]) -> bool:
    return len(held) == 1 and not held[0].strip(" \r\n")


def _swallowed(held: list[str], separator: str, width: int) -> bool:
    """Whether lines within a quoted field are rows themselves.

    A text of several lines has a first and a last line that are parts of a row. Where both are whole rows if
    quotes are taken as letters, two stray quotes have met.
    """
    return all(line.count(separator) == width - 1 for line in (held[0], held[-1]))


def _open_quote(table: Table, number: int, line: str, what: str) -> DataError:
    fields = line.rstrip("\r\n").split(table.separator)
    bad = next((f for f in fields if re.match(r'\s*"(?:[^"]|"")*("[^"]|$)', f)), fields[0])
    return DataError(
        f"{table.path} line {number}: the quote that opens the field {bad[:40]!r} {what}: correct it, or add "
        "--no-quotes (quotes=False) if quotes are letters in this file"
    )


def not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """What to say about bytes that are no UTF-8."""
    return DataError(
        f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8 or name its encoding, such "
        "as --encoding latin-1 (encoding='latin-1')"
    )
