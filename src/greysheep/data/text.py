"""Read a text file of rows: every field as text, one row a line, nothing swallowed or guessed."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from greysheep.data import lines
from greysheep.data.clues import KNOWN_NAMES, cause, plain
from greysheep.data.formats import BY_PLACE, PACKED, SEPARATORS, TextFormat, suffix_of
from greysheep.errors import DataError, first_line

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Text:
    """A text file that was read."""

    frame: pl.DataFrame
    """Every field as text, null where the file has nothing at all; blank lines are no rows."""
    cause: str
    """What is visibly wrong should a column be missing, and the option for it; empty if nothing is."""
    is_row: bool
    """Whether the line that names the columns looks like a row."""


def read_text(path: Path, text: TextFormat) -> Text:
    """Read a file, packed or not.

    Raises:
        DataError: It is empty, binary, of another encoding, or not of this format in some line.
    """
    separator = text.separator or SEPARATORS[suffix_of(path)]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        held = _bytes(path, mapped, text)
        data = mapped if held is None else held
        start, skipped = _start(path, data, text.skip_lines)
        if not data[start : start + 1]:
            raise DataError(
                f"{path} is empty" + (f" after {text.skip_lines} lines" if text.skip_lines else "")
            )
        try:
            data[start : max(data.find(b"\n", start), start)].decode()  # polars lets odd names pass
        except UnicodeDecodeError as error:
            raise lines.not_utf8(path, error) from error
        first = lines.first(data, start)
        why, is_row = cause(first, separator, text, skipped)
        if start:
            data = held = data[start:]
        one = separator
        if len(separator.encode()) > 1:
            data, one = lines.one_byte(path, data, separator, skipped)
            held = data
        table = lines.Table(path, data, one, separator, text, skipped, why)
        frame = _parse(table, path if held is None else held)
    return Text(frame, why, is_row)


def _bytes(path: Path, mapped: mmap.mmap, text: TextFormat) -> bytes | None:
    """The text in UTF-8 with ordinary line ends, or None: the file is just that."""
    head = mapped[:4096]
    if head.startswith(b"PAR1"):
        raise DataError(f"{path} is a parquet file with the suffix '{path.suffix}'; name it .parquet")
    packed = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if packed is None and path.suffix.lower() in PACKED:
        raise DataError(f"{path} is not compressed; name it without {path.suffix}")
    if head.startswith(b"PK\x03\x04") or (packed and path.suffix.lower() not in PACKED):
        hint = "" if packed is None else f", or add {'.gz' if packed == 'gzip' else '.zst'} to its name"
        raise DataError(f"{path} is compressed; unpack it first{hint}")
    data = None
    if packed is not None:
        import pyarrow as pa  # only here: its import takes a while

        try:
            data = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(mapped[:])), packed).read()
        except OSError as error:
            raise DataError(f"{path} is damaged or unfinished: {first_line(error)}") from error
        head = data[:4096]
    if text.encoding != "utf-8":
        data = _in_utf8(path, data if data is not None else mapped[:], text.encoding)
        head = data[:4096]
    if b"\x00" in head:
        raise DataError(
            f"{path} is not UTF-8 text (a binary file, or text in UTF-16): name the encoding of text with "
            "--encoding (encoding='utf-16')"
        )
    if b"\r" in head and b"\n" not in head and (mapped if data is None else data).find(b"\n") < 0:
        data = (mapped[:] if data is None else data).replace(b"\r", b"\n")
    return data


def _in_utf8(path: Path, data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        raise DataError(f"{path} is not text in {encoding}: {first_line(error)}") from error


def _start(path: Path, data: bytes | mmap.mmap, skip: int) -> tuple[int, int]:
    """Where the header or the first row begins, and the number of lines before it."""
    start = len(_BOM) if data[:3] == _BOM else 0
    for _ in range(skip):
        start = data.find(b"\n", start) + 1
        if start == 0:
            raise DataError(f"{path} has fewer lines than skip_lines={skip}")
    skipped = skip
    while data[start : start + 1] == b"\n" or data[start : start + 2] == b"\r\n":
        skipped += 1
        start = data.find(b"\n", start) + 1
    return start, skipped


def _parse(table: lines.Table, source: Path | bytes) -> pl.DataFrame:
    path, text = table.path, table.format
    quoting = lines.quoting(table)
    if table.data.find(b"\r") >= 0 and re.search(rb"\r(?!\n)", table.data):
        lines.scan(table)  # polars would drop a lone carriage return outside quotes
    if quoting == "odd":  # polars wants quotes around whole fields or nowhere
        frame = lines.by_hand(table)
    else:
        try:
            frame = pl.read_csv(
                source,
                separator=table.separator,
                has_header=text.header,
                quote_char='"' if quoting == "usual" else None,
                infer_schema=False,
                glob=False,
            )
        except pl.exceptions.NoDataError as error:
            raise DataError(f"{path} is empty") from error
        except UNREADABLE as error:
            lines.scan(table)
            what = plain(table.shown)
            raise DataError(f"{path} cannot be read as text with {what}: {first_line(error)}") from error
        if frame.height and frame.get_column(frame.columns[-1]).null_count():
            # polars fills short rows with nulls; only a row whose last field is null can be one.
            blank = lines.scan(table).blank
            if blank:
                is_row = np.ones(frame.height, dtype=bool)
                is_row[blank] = False
                frame = frame.filter(pl.Series(is_row))
    if table.shown != table.separator and quoting != "none":
        frame = frame.with_columns(pl.all().str.replace_all(table.separator, table.shown, literal=True))
    return _named(frame, table)


def _named(frame: pl.DataFrame, table: lines.Table) -> pl.DataFrame:
    text, names = table.format, frame.columns
    if text.header:
        return frame.rename({name: name.strip() for name in names}) if text.strip else frame
    given = list(text.columns or BY_PLACE[: len(names)])
    if len(given) > len(names):
        raise DataError(f"columns names {len(given)} columns, but {table.path} has {len(names)}{table.why}")
    first = [] if not frame.height else [re.sub(r"\W|_", "", value or "").lower() for value in frame.row(0)]
    if len([name for name in first if name in KNOWN_NAMES]) > 1:
        shown = ", ".join(str(value)[:20] for value in frame.row(0)[:4])
        raise DataError(
            f"line {table.skipped + 1} of {table.path} ({shown}) looks like a header: leave out "
            "--no-header and --columns (header=False, columns), or skip it with --skip-lines (skip_lines)"
        )
    given += [""] * (len(names) - len(given))
    return frame.rename(
        {old: new or f"column_{n}" for n, (old, new) in enumerate(zip(names, given, strict=True), 1)}
    )
