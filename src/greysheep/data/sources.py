"""Open what may hold a log: files, folders of parts, frames. Bad input is refused in one line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from greysheep.errors import DataError
from greysheep.system.forks import refuse_forked

SEPARATORS = {".csv": ",", ".tsv": "\t"}
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@dataclass(frozen=True)
class Source:
    """Something with named columns: what to call it in messages and how to load some of them."""

    label: str
    columns: list[str]
    load: Callable[[list[str]], pl.DataFrame]
    is_text: bool = False


def open_source(source: Any) -> Source:
    """Find out what the source is without reading its rows."""
    refuse_forked()
    if isinstance(source, (str, Path)):
        if not str(source):
            raise DataError("the path of the log is empty")
        try:
            return _open_path(Path(source).expanduser())
        except OSError as error:
            reason = error.strerror or first_line(error)
            raise DataError(f"{str(source)[:200]} cannot be read: {reason}") from error
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        return Source("the frame", source.columns, source.select)
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        return Source("the pandas frame", [str(c) for c in source.columns], partial(_from_pandas, source))
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        try:
            frame = pl.DataFrame(source)
        except (*UNREADABLE, TypeError, ValueError) as error:
            raise DataError(f"the Arrow data cannot be read: {first_line(error)}") from error
        return Source("the Arrow table", frame.columns, frame.select)
    kind = type(source).__name__
    raise DataError(f"cannot read a log from a {kind}; give a path or a pandas, polars or Arrow frame")


def _open_path(path: Path) -> Source:
    if path.is_dir():
        return _open_directory(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if suffix != ".parquet" and suffix not in SEPARATORS:
        raise DataError(
            f"{path} has the suffix '{suffix}'; a log is .parquet, .csv, .tsv or a folder of .parquet parts"
        )
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise DataError(f"{path} is empty (0 bytes)")
    return _open_parquet(path, head) if suffix == ".parquet" else _open_text(path, head, SEPARATORS[suffix])


def _open_parquet(path: Path, head: bytes) -> Source:
    if not head.startswith(b"PAR1"):
        raise DataError(
            f"{path} is named .parquet but is no parquet file; if it is text, name it .csv or .tsv"
        )
    try:
        columns = pl.scan_parquet(path, hive_partitioning=False, glob=False).collect_schema().names()
    except UNREADABLE as error:
        raise DataError(f"{path} is a damaged or unfinished parquet file: {first_line(error)}") from error

    def load(wanted: list[str]) -> pl.DataFrame:
        try:
            return pl.read_parquet(path, columns=wanted, hive_partitioning=False, glob=False)
        except UNREADABLE as error:
            raise DataError(f"{path} is a damaged parquet file: {first_line(error)}") from error

    return Source(str(path), columns, load)


def _open_directory(path: Path) -> Source:
    files = _parts(path)
    if not files:
        raise DataError(f"{path} is a folder without .parquet files")
    parts = [_open_path(p) for p in files]

    def load(wanted: list[str]) -> pl.DataFrame:
        for part in parts:
            missing = [c for c in wanted if c not in part.columns]
            if missing:
                raise DataError(f"{part.label} has no column '{missing[0]}' that other parts of {path} have")
        frames = [frame for part in parts if (frame := part.load(wanted)).height]
        return _stack(frames, wanted, str(path)) if frames else pl.DataFrame({c: [] for c in wanted})

    every = list(dict.fromkeys(c for part in parts for c in part.columns))
    return Source(str(path), every, load)


def _parts(folder: Path) -> list[Path]:
    """Parquet files of the folder and of its partitions (folders named key=value), of no other folder."""
    files: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir() and "=" in entry.name:
            files += _parts(entry)
        elif entry.suffix.lower() == ".parquet" and entry.is_file():
            files.append(entry)
    return files


def _stack(frames: Sequence[pl.DataFrame], wanted: Sequence[str], label: str) -> pl.DataFrame:
    """Put parts under each other without ever turning numbers into text or large integers into floats."""
    columns = []
    for name in wanted:
        pieces = [frame.get_column(name) for frame in frames]
        types = {p.dtype for p in pieces if p.dtype != pl.Null}
        if len(types) > 1 and all(t.is_integer() for t in types):
            columns.append(narrow(pl.concat([p.cast(pl.Int128) for p in pieces])))
            continue
        if len(types) > 1 and any(t.is_numeric() for t in types) != all(t.is_numeric() for t in types):
            kinds = " and ".join(sorted(str(t) for t in types))
            raise DataError(f"column '{name}' is of different types in the parts of {label}: {kinds}")
        try:
            columns.append(pl.concat([p.to_frame() for p in pieces], how="vertical_relaxed").get_column(name))
        except UNREADABLE as error:
            raise DataError(f"column '{name}' of the parts of {label} does not fit together") from error
    return pl.DataFrame(columns)


def narrow(series: pl.Series) -> pl.Series:
    """Integers as Int64 if they fit, else UInt64, else as they are.

    >>> narrow(pl.Series([1, 2**63], dtype=pl.Int128)).dtype
    UInt64
    """
    for dtype in (pl.Int64, pl.UInt64):
        smaller = series.cast(dtype, strict=False)
        if smaller.null_count() == series.null_count():
            return smaller
    return series


def _open_text(path: Path, head: bytes, separator: str) -> Source:
    if head.startswith(b"PAR1"):
        raise DataError(f"{path} is a parquet file with the suffix '{path.suffix}'; name it .parquet")
    if head.startswith(b"\x1f\x8b") or head.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is compressed; unpack it first")
    if b"\x00" in head:
        raise DataError(f"{path} is not UTF-8 text (a binary file, or text in UTF-16)")
    # Everything is read as text: a guess at types would turn '0012' into 12. All columns are read, not only
    # the wanted ones, since polars notices rows with too many fields only then.
    try:
        frame = pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path} is empty") from error
    except UNREADABLE as error:
        _scan_widths(path, separator)
        fields = {",": "commas", "\t": "tabs"}[separator]
        raise DataError(f"{path} cannot be read as text with {fields}: {first_line(error)}") from error
    if frame.height and frame.get_column(frame.columns[-1]).null_count():
        # polars fills short rows with nulls; only a row whose last field is null can be one.
        blank = _scan_widths(path, separator)
        if blank:
            frame = frame.with_row_index("").filter(~pl.col("").is_in(blank)).drop("")
    return Source(str(path), frame.columns, frame.select, is_text=True)


def _scan_widths(path: Path, separator: str) -> list[int]:
    """Indices of blank rows (header not counted); a row of another length than the header is an error."""
    blank: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=separator)
            header = next((row for row in rows if row), [])
            for index, row in enumerate(rows):
                if not row:
                    blank.append(index)
                elif len(row) != len(header):
                    raise DataError(
                        f"{path} line {rows.line_num} has {len(row)} fields, the header has {len(header)}"
                    )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (csv.Error, OSError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    return blank


def _from_pandas(source: Any, wanted: list[str]) -> pl.DataFrame:
    """Convert column by column: an odd column elsewhere in the frame must not matter."""
    by_name = {str(c): c for c in source.columns}
    columns = []
    for name in wanted:
        column = source[by_name[name]]
        try:
            series = pl.Series(name, pl.from_pandas(column))
        except OverflowError:  # python integers beyond 64 bits in an object column
            series = narrow(pl.Series(name, column.tolist(), dtype=pl.Int128, strict=False))
        except (*UNREADABLE, TypeError, ValueError) as error:
            raise DataError(
                f"column '{name}' of the pandas frame mixes types: {first_line(error)}"
            ) from error
        columns.append(series)
    return pl.DataFrame(columns)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to a length that fits into another message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
