"""Ids and logs from the command line, read as the type that the model stores.

A text file does not say whether 12 is a number or a text, and a short one may hold only ids that look like
numbers while the model's log had others too. So the model decides; an id that cannot be of its type is
an unknown id, not a reason to refuse the others. Parquet files carry types, which are kept except for users
to recommend to.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from greysheep.data.columns import GROUP, ITEM, RANK, SCORE, USER
from greysheep.data.interactions import Interactions
from greysheep.data.item_features import GENRES, VECTOR
from greysheep.data.reading import read_id_column
from greysheep.data.sources import open_source
from greysheep.errors import DataError

if TYPE_CHECKING:
    from greysheep.cli.options import LogOptions
    from greysheep.models import Model

TITLE = "title"
NO_ID = pl.Series([2**126], dtype=pl.Int128)
"""Integers from here up are in no log."""


def read_ids(path: Path, column: str, dtype: pl.DataType) -> pl.Series:
    """Read a file of ids as `as_stored`: `column` of a table, or a .txt file with one id per line.

    Raises:
        DataError: The file cannot be used.
    """
    return as_stored(_ids_in(path, column).unique(maintain_order=True), dtype, path)


def read_candidates(path: Path, options: "LogOptions", known: Interactions) -> pl.Series | pl.DataFrame:
    """Read candidates: items for everybody, or, where the file has a column of users too, pairs.

    Raises:
        DataError: The file cannot be used.
    """
    if path.suffix.lower() == ".txt" or options.user_col not in open_source(path).columns:
        return read_ids(path, options.item_col, known.item_ids.dtype)
    items = as_stored(read_id_column(path, options.item_col), known.item_ids.dtype, path)
    return pl.DataFrame({USER: read_id_column(path, options.user_col), ITEM: items})


def read_exclusions(path: Path, options: "LogOptions", known: Interactions) -> pl.Series:
    """Read items never to recommend; an id that cannot be of the stored type must not be passed over.

    Raises:
        DataError: The file cannot be used, an id is of another type, or there is a column of users, too.
    """
    if path.suffix.lower() != ".txt" and options.user_col in open_source(path).columns:
        raise DataError(
            f"{path} has a column {options.user_col!r}, too, but what is excluded is excluded for everybody: "
            f"keep the column {options.item_col!r} alone"
        )
    ids = _ids_in(path, options.item_col).unique(maintain_order=True)
    if not _has_types(path):
        fits = _convert(ids, known.item_ids.dtype)
        if bad := fits.null_count():
            raise DataError(
                f"{path}: {bad} of {len(ids)} ids cannot be one of this model, which are {fits.dtype}; "
                f"the first is {ids.filter(fits.is_null())[0]!r}: correct or remove them"
            )
        return fits
    return ids


def as_stored(ids: pl.Series, dtype: pl.DataType, path: Path) -> pl.Series:
    """Ids of a text file in the stored type; ids of a parquet file as they are.

    One that cannot be of that type becomes an integer that no log has, so that it counts as an unknown id.

    Raises:
        DataError: None of them can be.

    Examples:
        >>> as_stored(pl.Series([7, 12]), pl.String(), Path("users.csv")).to_list()
        ['7', '12']
    """
    if _has_types(path):
        return ids
    fits = _convert(ids, dtype)
    if fits.null_count() == 0:
        return fits
    if fits.null_count() == len(ids):
        raise DataError(
            f"{path}: none of the {len(ids)} ids can be one of this model, which are {dtype}; "
            f"the first is {ids[0]!r}"
        )
    unknown = ids.rank("dense").cast(pl.Int128) + NO_ID
    return fits.cast(pl.Int128).zip_with(fits.is_not_null(), unknown)


def _has_types(path: Path) -> bool:
    """Whether a file says of what type its ids are, as parquet does."""
    return path.suffix.lower() == ".parquet" or path.is_dir()


def read_log(path: Path | None, options: "LogOptions", known: Interactions) -> Interactions | None:
    """Read a log to be measured on, its ids `as_stored`."""
    if path is None:
        return None
    log = options.read(path)
    users = as_stored(log.user_ids, known.user_ids.dtype, path)
    return replace(log, user_ids=users, item_ids=as_stored(log.item_ids, known.item_ids.dtype, path))


def read_additions(path: Path, options: "LogOptions", known: Interactions) -> Interactions:
    """Read rows to be stored; an id that cannot be of the stored type must not be passed over.

    Raises:
        DataError: The log cannot be used, or an id is of another type.
    """
    log = options.read(path)
    if _has_types(path):
        return log
    users, items = (
        _storable(*pair, path)
        for pair in ((log.user_ids, known.user_ids.dtype), (log.item_ids, known.item_ids.dtype))
    )
    return replace(log, user_ids=users, item_ids=items)


def _storable(ids: pl.Series, dtype: pl.DataType, path: Path) -> pl.Series:
    fits = _convert(ids, dtype if dtype == pl.String else pl.Int128())  # a wider integer finds its place
    if bad := fits.null_count():
        raise DataError(
            f"{path}: {bad} of {len(ids)} ids cannot be stored in this model, whose ids are {dtype}; "
            f"the first is {ids.filter(fits.is_null())[0]!r}: correct or remove them"
        )
    return fits


def read_people(
    model: "Model",
    named: list[str] | None,
    users: Path | None,
    history: Path | None,
    options: "LogOptions",
    candidates: pl.Series | pl.DataFrame | None,
) -> tuple[pl.Series | None, Interactions | None, pl.Series | pl.DataFrame | None]:
    """Read who is to get lists and the log of their rows; None for what is not given.

    Candidates come along, for the users they may name: nobody else gets lists if they are named only there.

    People's ids are of the stored type if all of them can be. Else all are text, the model's too, so that
    'new1' can stand beside 12.
    """
    wanted = pl.Series(USER, named, dtype=pl.String) if named else None
    if users is not None:
        wanted = _ids_in(users, options.user_col)
    log = None
    if history is not None:
        log = options.read(history)
        log = replace(log, item_ids=as_stored(log.item_ids, model.log.item_ids.dtype, history))
    dtype = model.log.user_ids.dtype
    pairs = candidates if isinstance(candidates, pl.DataFrame) else None
    if pairs is not None and wanted is None and log is None:
        wanted = pairs[USER].unique(maintain_order=True)
    given = (wanted, None if log is None else log.user_ids, None if pairs is None else pairs[USER])
    people = [ids for ids in given if ids is not None]
    if any(_convert(ids, dtype).null_count() for ids in people):
        dtype = pl.String()
        as_text = replace(model.log, user_ids=model.log.user_ids.cast(dtype))
        model.fitted.split = replace(model.split, log=as_text)
    if log is not None:
        log = replace(log, user_ids=log.user_ids.cast(dtype))
    if pairs is not None:
        candidates = pairs.with_columns(pl.col(USER).cast(dtype))
    return None if wanted is None else wanted.cast(dtype), log, candidates


def read_lists(path: Path, options: "LogOptions", known: Interactions) -> pl.DataFrame:
    """Read another library's recommendations: columns of users, items, and rank or score.

    Raises:
        DataError: A column is missing or of the wrong type.
    """
    text = options.text()
    ids = [
        as_stored(read_id_column(path, options.user_col, text), known.user_ids.dtype, path).alias(USER),
        as_stored(read_id_column(path, options.item_col, text), known.item_ids.dtype, path).alias(ITEM),
    ]
    source = open_source(path, text)
    order = [name for name in (RANK, SCORE) if name in source.columns]
    if not order:
        raise DataError(f"{path} has neither a column 'rank' nor a column 'score' to order the lists by")
    numbers = source.load(order[:1])[order[0]].cast(pl.Float64, strict=False)
    if bad := numbers.null_count():
        raise DataError(f"column '{order[0]}' of {path} has {bad} values that are not numbers")
    return pl.DataFrame([*ids, numbers])


def read_own_groups(path: Path | None, options: "LogOptions", known: Interactions) -> pl.DataFrame | None:
    """Read groups of one's own: a column of users and a column `group`.

    Raises:
        DataError: A column is missing or of the wrong type.
    """
    if path is None:
        return None
    text = options.text()
    source = open_source(path, text)
    if GROUP not in source.columns:
        there = ", ".join(repr(name[:40]) for name in source.columns[:8])
        raise DataError(f"{path} has no column {GROUP!r}, which names each user's group; it has {there}")
    users = as_stored(read_id_column(path, options.user_col, text), known.user_ids.dtype, path)
    return pl.DataFrame([users.alias(USER), source.load([GROUP])[GROUP]])


def read_items(path: Path | None, options: "LogOptions", known: Interactions) -> pl.DataFrame | None:
    """Read what is known of items: the whole file, its ids `as_stored`.

    Raises:
        DataError: The file cannot be used.
    """
    if path is None:
        return None
    text = options.text()
    source = open_source(path, text)
    ids = as_stored(read_id_column(path, options.item_col, text), known.item_ids.dtype, path)
    rest = [name for name in source.columns if name != options.item_col]
    return pl.DataFrame([ids.alias(ITEM), *source.load(rest).get_columns()])


def has_features(items: pl.DataFrame | None) -> bool:
    """Whether a file of items is to say how alike they are; one of titles alone is not."""
    return items is not None and (TITLE not in items.columns or bool({GENRES, VECTOR} & set(items.columns)))


def titles_of(items: pl.DataFrame) -> pl.DataFrame | None:
    """item_id and title of a file of items; None where it has no titles.

    Raises:
        DataError: An item stands there twice.
    """
    if TITLE not in items.columns:
        return None
    if twice := items.height - items[ITEM].n_unique():
        first = items[ITEM].filter(items[ITEM].is_duplicated())[0]
        raise DataError(f"{twice} rows of the file of items repeat an item, among them {first!r}: keep one")
    return items.select(ITEM, pl.col(TITLE).cast(pl.String, strict=False))


def read_titles(path: Path | None, options: "LogOptions", known: Interactions) -> pl.DataFrame | None:
    """Read the titles of items: item_id and title.

    Raises:
        DataError: The file cannot be used, or has no titles.
    """
    items = read_items(path, options, known)
    titles = None if items is None else titles_of(items)
    if items is not None and titles is None:
        there = ", ".join(repr(name[:40]) for name in items.columns[:8])
        raise DataError(f"{path} has no column {TITLE!r}; its columns are {there}")
    return titles


def titled(lists: pl.DataFrame, titles: pl.DataFrame) -> pl.DataFrame:
    """Lists with the title of each item behind its id; null where it has none."""
    known = titles.with_columns(pl.col(ITEM).cast(lists[ITEM].dtype, strict=False)).drop_nulls(ITEM)
    frame = lists.join(known, on=ITEM, how="left", maintain_order="left")
    rest = [name for name in lists.columns if name not in (USER, ITEM)]
    return frame.select(USER, ITEM, TITLE, *rest)


def _ids_in(path: Path, column: str) -> pl.Series:
    return _lines(path) if path.suffix.lower() == ".txt" else read_id_column(path, column)


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
    converted = ids.cast(dtype, strict=False)
    same = converted.cast(pl.String) == ids.cast(pl.String)
    return converted.zip_with(same.fill_null(False), pl.Series([None], dtype=dtype)).alias(ids.name)
