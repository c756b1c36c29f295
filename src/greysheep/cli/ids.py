"""Ids and logs from the command line, read as the type that the model stores.

A text file does not say whether 12 is a number or a text, and a short one may hold only ids that look like
numbers while the model's log had others too. So the model decides. Parquet files carry types, which are kept.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from greysheep.columns import ITEM, RANK, SCORE, USER
from greysheep.errors import DataError, GreysheepWarning
from greysheep.interactions import Interactions
from greysheep.interactions import read_ids as read_column

if TYPE_CHECKING:
    from greysheep.cli.options import LogOptions

TEXT_FILES = (".csv", ".tsv", ".txt")


def read_ids(path: Path, column: str, dtype: pl.DataType) -> pl.Series:
    """Read a file of ids: `column` of a .parquet, .csv or .tsv file, or a .txt file with an id a line.

    Raises:
        DataError: The file cannot be used, or an id is no number while the model's are.
    """
    ids = _lines(path) if path.suffix.lower() == ".txt" else read_column(path, column)
    return as_stored(ids.unique(maintain_order=True), dtype, path)


def as_stored(ids: pl.Series, dtype: pl.DataType, source: Path | str) -> pl.Series:
    """Ids of a text source in the stored type; ids of a parquet file as they are.

    Raises:
        DataError: An id is not written as a number while the model's ids are numbers.

    Examples:
        >>> as_stored(pl.Series([7, 12]), pl.String(), "users.csv").to_list()
        ['7', '12']
    """
    if isinstance(source, Path) and source.suffix.lower() not in TEXT_FILES:
        return ids
    fits = _convert(ids, dtype)
    wrong = ids.filter(fits.is_null())
    if len(wrong):
        count = f"{len(wrong)} of {len(ids)} ids"
        raise DataError(
            f"{source}: {count} cannot be ids of this model, which are {dtype}; the first is {wrong[0]!r}"
        )
    return fits


def read_log(path: Path | None, options: "LogOptions", known: Interactions) -> Interactions | None:
    """Read a log to be used with a model; rows whose item id cannot be one of the model's leave."""
    if path is None:
        return None
    log = options.read(path)
    if path.suffix.lower() not in TEXT_FILES:
        return log
    frame = log.frame()
    users = _convert(frame[USER], known.user_ids.dtype)
    items = _convert(frame[ITEM], known.item_ids.dtype)
    if users.null_count() == 0:
        frame = frame.with_columns(users)
    lost = items.null_count()
    if lost == frame.height:
        raise DataError(
            f"{path} holds none of the model's items: its item ids are not {known.item_ids.dtype}"
        )
    if lost:
        message = f"{path}: {lost} of {frame.height} rows dropped, their item ids cannot be the model's"
        warnings.warn(message, GreysheepWarning, stacklevel=2)
    return Interactions.read(frame.with_columns(items).filter(pl.col(ITEM).is_not_null()))


def read_lists(path: Path, options: "LogOptions", known: Interactions) -> pl.DataFrame:
    """Read another library's recommendations: columns of users, items, and rank or score.

    Raises:
        DataError: A column is missing or of the wrong type.
    """
    ids = [
        as_stored(read_column(path, options.user_col), known.user_ids.dtype, path).alias(USER),
        as_stored(read_column(path, options.item_col), known.item_ids.dtype, path).alias(ITEM),
    ]
    if path.suffix.lower() in (".csv", ".tsv"):
        rest = pl.read_csv(path, separator="\t" if path.suffix.lower() == ".tsv" else ",", infer_schema=False)
    else:
        rest = pl.read_parquet(path)
    order = [name for name in (RANK, SCORE) if name in rest.columns]
    if not order:
        raise DataError(f"{path} has neither a column 'rank' nor a column 'score' to order the lists by")
    numbers = rest[order[0]].cast(pl.Float64, strict=False)
    if bad := numbers.null_count():
        raise DataError(f"column '{order[0]}' of {path} has {bad} values that are not numbers")
    return pl.DataFrame([*ids, numbers])


def _lines(path: Path) -> pl.Series:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as lines of ids: {error}") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path} holds no id")
    return pl.Series(ids, dtype=pl.String)


def _convert(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The ids in another type, null where writing the result again would not give back the same text."""
    there = ids.cast(dtype, strict=False)
    back = there.cast(pl.String) == ids.cast(pl.String)
    return there.zip_with(back.fill_null(False), pl.Series([None], dtype=dtype)).alias(ids.name)
