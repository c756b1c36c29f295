"""Open what may hold a log: files, folders of parts, frames. Bad input is refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl

from greysheep.data.formats import SEPARATORS, TextFormat, suffix_of
from greysheep.data.text import UNREADABLE, read_text
from greysheep.data.values import narrow
from greysheep.errors import DataError, first_line
from greysheep.system.forks import refuse_forked

_USUAL = TextFormat()
_UUID = "extension<arrow.uuid>"


@dataclass(frozen=True)
class Source:
    """Something with named columns: what to call it in messages and how to load some of them."""

    label: str
    columns: list[str]
    load: Callable[[list[str]], pl.DataFrame]
    text: TextFormat | None = None
    """The format of a text file, whose fields are all text; None for sources with types."""
    cause: str = ""
    """What is visibly wrong with a text file should a column be missing."""
    is_row: bool = False
    """Whether the line of a text file that names the columns looks like a row."""


def open_source(source: Any, text: TextFormat = _USUAL) -> Source:
    """Find out what the source is; of what has types, no row is read."""
    refuse_forked()
    if isinstance(source, (str, Path)):
        if not str(source):
            raise DataError("the path of the log is empty")
        try:
            return _open_path(Path(source).expanduser(), text)
        except (OSError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
            reason = getattr(error, "strerror", None) or first_line(error)
            raise DataError(f"{str(source)[:200]} cannot be read: {reason}") from error
    if isinstance(source, pl.LazyFrame):
        try:
            source = source.collect()
        except UNREADABLE as error:
            raise DataError(f"the lazy frame cannot be collected: {first_line(error)}") from error
    if isinstance(source, pl.DataFrame):
        return Source("the frame", source.columns, partial(_from_polars, source))
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        columns = [str(c) for c in source.columns]
        held = [str(name) for name in source.index.names if name is not None and str(name) not in columns]
        cause = f"its index holds {' and '.join(held)}: call reset_index() first" if held else ""
        return Source("the pandas frame", columns, partial(_from_pandas, source), cause=cause)
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        return _open_arrow(source)
    kind = type(source).__name__
    raise DataError(f"cannot read a log from a {kind}; give a path or a pandas, polars or Arrow frame")


def _open_path(path: Path, text: TextFormat = _USUAL) -> Source:
    if path.is_dir():
        return _open_directory(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not path.is_file():
        raise DataError(f"{path} is no regular file: write what it gives to a file first")
    suffix = suffix_of(path)
    if suffix != ".parquet" and suffix not in SEPARATORS and text.separator is None:
        raise DataError(
            f"{path} has the suffix '{suffix}'; a log is .parquet, {', '.join(SEPARATORS)} (also .gz, .zst, "
            ".bz2) or a folder of .parquet parts; for text by another name give --separator (separator=',')"
        )
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise DataError(f"{path} is empty (0 bytes)")
    return _open_parquet(path, head) if path.suffix.lower() == ".parquet" else _open_text(path, text)


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
            frame = pl.read_parquet(path, columns=wanted, hive_partitioning=False, glob=False)
            return frame.with_columns(_uuids(frame[name]) for name in _uuid_columns(path, frame))
        except UNREADABLE as error:
            raise DataError(f"{path} is a damaged parquet file: {first_line(error)}") from error

    return Source(str(path), columns, load)


def _uuid_columns(path: Path, frame: pl.DataFrame) -> list[str]:
    """Columns that hold UUIDs, which polars takes for bytes."""
    binary = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    if not binary:
        return []
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    return [name for name in binary if str(schema.field(name).type) == _UUID]


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


def _open_text(path: Path, text: TextFormat) -> Source:
    read = read_text(path, text)
    return Source(str(path), read.frame.columns, read.frame.select, text, read.cause, read.is_row)


def _open_arrow(source: Any) -> Source:
    """Columns are converted when they are loaded: one that polars doesn't know must not matter elsewhere."""
    import pyarrow as pa

    try:
        is_batch = isinstance(source, pa.RecordBatch)
        table = pa.Table.from_batches([source]) if is_batch else pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        kind = type(source).__name__
        raise DataError(
            f"cannot read a log from a {kind}: it has no named columns ({first_line(error)}); give a path "
            "or a pandas, polars or Arrow frame"
        ) from error
    return Source("the Arrow table", table.column_names, partial(_from_arrow, table))


def _from_arrow(table: Any, wanted: list[str]) -> pl.DataFrame:
    import pyarrow as pa

    columns = []
    for name in wanted:
        column = table.column(name)
        try:
            if pa.types.is_decimal256(column.type):
                column = column.cast(pa.decimal128(38, column.type.scale))
            series = pl.Series(name, pl.from_arrow(column))
        except (*UNREADABLE, pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"column '{name}' of the Arrow table cannot be read: {first_line(error)}"
            ) from error
        columns.append(_uuids(series) if str(column.type) == _UUID else series)
    return pl.DataFrame(columns)


def _from_polars(source: pl.DataFrame, wanted: list[str]) -> pl.DataFrame:
    frame = source.select(wanted)
    objects = [name for name in wanted if frame.schema[name] == pl.Object]
    texts = {name: _texts(frame[name].to_list()) for name in objects}
    return frame.with_columns(pl.Series(name, values) for name, values in texts.items() if values is not None)


def _texts(values: list[Any]) -> list[str | None] | None:
    """UUIDs as text; None if anything else is among the values."""
    if not all(value is None or isinstance(value, UUID) for value in values):
        return None
    return [None if value is None else str(value) for value in values]


def _uuids(binary: pl.Series) -> pl.Series:
    """UUIDs of 16 bytes as the text that is usual for them.

    >>> _uuids(pl.Series([bytes(range(16))])).to_list()
    ['00010203-0405-0607-0809-0a0b0c0d0e0f']
    """
    text = binary.bin.encode("hex").str
    dash = pl.Series(["-"])
    pieces = [text.slice(start, length) for start, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    joined = pieces[0]
    for piece in pieces[1:]:
        joined = joined + dash + piece
    return joined.alias(binary.name)


def _from_pandas(source: Any, wanted: list[str]) -> pl.DataFrame:
    """Convert column by column: an odd column elsewhere in the frame must not matter."""
    by_name = {str(c): c for c in source.columns}
    return pl.DataFrame([_series_of_pandas(source[by_name[name]], name) for name in wanted])


def _series_of_pandas(column: Any, name: str) -> pl.Series:
    try:
        series = pl.Series(name, pl.from_pandas(column))
    except OverflowError:  # python integers beyond 64 bits in an object column
        series = narrow(pl.Series(name, column.tolist(), dtype=pl.Int128, strict=False))
        if beyond := series.null_count() - int(column.isna().sum()):
            raise DataError(
                f"column '{name}' of the pandas frame has {beyond} integers beyond 128 bits; make them text"
            ) from None
    except (*UNREADABLE, TypeError, ValueError) as error:
        raise DataError(f"column '{name}' of the pandas frame mixes types: {first_line(error)}") from error
    if series.dtype in (pl.Binary, pl.Object) and (texts := _texts(column.tolist())) is not None:
        return pl.Series(name, texts)
    return series
