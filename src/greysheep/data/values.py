"""Columns of a log by what they mean: ids, numbers, times; and ids that say that there is none."""

from __future__ import annotations

import polars as pl

from greysheep.data.formats import TextFormat
from greysheep.errors import DataError

MISSING_WORDS = ("na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na", "nat", "undefined", "\\n")
"""What programs write in the place of a missing value, in small letters; blanks alone are missing, too."""
_LARGEST = 3.4028234e38  # of float32, in which weights are kept
_ZONE = r"\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})$"
_DATETIMES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%a %b %d %H:%M:%S %Y")


def ids(series: pl.Series, where: str, text: TextFormat | None) -> pl.Series:
    """Ids as integers or text; ids of a text file are integers only if all of them are written as such.

    Whole decimals, which data bases use for large integers, are integers.
    """
    if isinstance(series.dtype, (pl.Categorical, pl.Enum)):
        series = series.cast(pl.String)  # the values stay; the order of categories is not used
    if series.dtype == pl.String:
        return _integers_if_canonical(series) if text is not None else series
    if series.dtype.is_decimal():
        whole = series.cast(pl.Int128, strict=False)
        if (whole.cast(series.dtype, strict=False) == series).all():
            return narrow(whole)
    if not series.dtype.is_integer():
        hint = ""
        if series.dtype.is_float():
            hint = " (pandas makes integers with gaps into floats: turn the column into 'Int64' first)"
        elif series.dtype == pl.Binary:
            hint = " (write bytes, such as those of UUIDs, as text)"
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


def missing_words(unique: pl.Series) -> pl.Series:
    """Those of the ids that say that there is none.

    >>> missing_words(pl.Series(["NA", "Nan", "Nana", "", " ", "7"])).to_list()
    ['NA', 'Nan', '', ' ']
    """
    bare = unique.str.strip_chars()
    return unique.filter((bare == "") | bare.str.to_lowercase().is_in(MISSING_WORDS))


def weights(series: pl.Series, where: str, text: TextFormat | None) -> pl.Series:
    """Numbers from 0 up that float32 can hold."""
    values = numbers(series, where, text)
    if bad := int((values < 0).sum()):
        raise DataError(f"{where} has {bad} negative weights; weights must be 0 or more")
    if bad := int((values > _LARGEST).sum()):
        raise DataError(f"{where} has {bad} weights that are too large, beyond 3.4e38")
    return values


def numbers(series: pl.Series, where: str, text: TextFormat | None) -> pl.Series:
    """Finite Float64; text becomes numbers only in text files."""
    _refuse_nulls(series, where)
    found = series
    if series.dtype == pl.String and text is not None:
        bare = series.str.strip_chars()
        if text.decimal_comma:
            bare = bare.str.replace(",", ".", literal=True)
        found = bare.cast(pl.Float64, strict=False)
        if bad := found.null_count():
            first = series.filter(found.is_null())[0]
            comma = bare.filter(found.is_null()).str.contains(r"^[+-]?\d+,\d+$").all()
            hint = ": add --decimal-comma (decimal_comma=True)" if comma else ""
            raise DataError(
                f"{where} has {bad} values that are not numbers, the first is {first[:40]!r}{hint}"
            )
    elif not series.dtype.is_numeric():
        raise DataError(f"{where} is of type {series.dtype}; it must hold numbers")
    found = found.cast(pl.Float64)
    if bad := int((~found.is_finite()).sum()):
        raise DataError(f"{where} has {bad} values that are NaN or infinite")
    return found


def times(series: pl.Series, where: str, text: TextFormat | None) -> pl.Series:
    """Numbers, dates or datetimes as they are; text is understood in text files only."""
    _refuse_nulls(series, where)
    if series.dtype == pl.String and text is not None:
        series = _parse_times(series.str.strip_chars(), where)
    if series.dtype.is_decimal():
        series = series.cast(pl.Float64)
    if not (series.dtype.is_numeric() or series.dtype in (pl.Date, pl.Datetime)):
        raise DataError(f"{where} is of type {series.dtype}; times must be numbers, dates or datetimes")
    if series.dtype.is_float() and (bad := int((~series.is_finite()).sum())):
        raise DataError(f"{where} has {bad} times that are NaN or infinite")
    return series


def _parse_times(series: pl.Series, where: str) -> pl.Series:
    """Integers, else floats, else dates, else datetimes: all with a zone (in UTC then) or all without."""
    plain_numbers = [series.cast(dtype, strict=False) for dtype in (pl.Int64, pl.Float64)]
    for read in (*plain_numbers, series.str.to_date("%Y-%m-%d", strict=False)):
        if read.null_count() == 0:
            return read
    # The zone of 'Tue Apr 03 18:00:09 +0000 2012' stands before the year.
    plain = series.str.replace(r"^(\w{3} \w{3} .*) ([+-]\d{4}) (\d{4})$", "${1} ${3} ${2}")
    zone = plain.str.extract(f"({_ZONE})").str.strip_chars()
    zoned = zone.is_not_null() & plain.str.contains(r"\d:\d")  # the end of 2020-01-31 is no zone
    local = plain.str.replace(_ZONE, "").zip_with(zoned, plain).str.replace(r"^([\d-]+)T", "${1} ")
    read = _local_times(local)
    best = min((*plain_numbers, read), key=pl.Series.null_count)
    if bad := min(best.null_count(), read.null_count()):
        first = series.filter(best.is_null())[0]
        raise DataError(
            f"{where} has {bad} values that are neither numbers nor ISO dates nor ISO datetimes, "
            f"the first is {first[:40]!r}"
        )
    if not zoned.any():
        return read
    if bad := len(zoned) - int(zoned.sum()):
        raise DataError(
            f"{where} has {bad} times without a zone among {int(zoned.sum())} with one, such as UTC"
        )
    return (read - _offsets(zone)).dt.replace_time_zone("UTC")


def _local_times(local: pl.Series) -> pl.Series:
    column = pl.col("time")
    readings = [column.str.to_datetime(form, strict=False, time_unit="us") for form in _DATETIMES]
    return pl.DataFrame({"time": local}).select(pl.coalesce(readings)).to_series()


def _offsets(zone: pl.Series) -> pl.Series:
    """How far each zone is ahead of UTC."""
    parts = pl.col("zone").str.extract_groups(r"^([+-])(\d{2}):?(\d{2})?$").struct
    minutes = parts[1].cast(pl.Int64) * 60 + parts[2].cast(pl.Int64).fill_null(0)
    sign = pl.when(parts[0] == "-").then(-1).otherwise(1)
    offset = pl.duration(minutes=(sign * minutes).fill_null(0))
    return pl.DataFrame({"zone": zone}).select(offset.alias("zone")).to_series()


def _refuse_nulls(series: pl.Series, where: str) -> None:
    if missing := series.null_count():
        raise DataError(f"{where} has no value in {missing} of {len(series)} rows")
