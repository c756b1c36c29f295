"""An interaction log: unique user-item pairs as integer codes, and their ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from greysheep.data.cleaning import Summary, core, core_hint, merge_pairs
from greysheep.data.columns import ITEM, RATING, TIME, USER, WEIGHT
from greysheep.data.formats import known_format
from greysheep.data.ids import positions_in, unpack
from greysheep.data.reading import Columns, MissingIds, Rows, read_columns
from greysheep.errors import ConfigError, DataError
from greysheep.system.checks import number, shown, whole_number
from greysheep.system.forks import refuse_forked

# Ids looked up in one go: a join holds a copy of them and several of their codes.
_JOINED_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Interactions:
    """A cleaned log with one row per (user, item) pair, rows sorted by user, then item.

    "Code" is the position of a user or item in `user_ids` or `item_ids`; "id" is what the source calls it.
    U users, I items, n rows.

    >>> log = Interactions.read(pl.DataFrame({"user_id": ["b", "a", "b"], "item_id": [7, 7, 9]}))
    >>> log.n_users, log.n_items, len(log)
    (2, 2, 3)
    >>> log.matrix().toarray().tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """

    user_ids: pl.Series
    """[U] unique ids, ascending, in the type of the source."""
    item_ids: pl.Series
    """[I] unique ids, ascending, in the type of the source."""
    users: NDArray[np.int32]
    """[n] user code of each row."""
    items: NDArray[np.int32]
    """[n] item code of each row."""
    weights: NDArray[np.float32] | None = None
    """[n] weights, 0 or more, or None."""
    times: pl.Series | None = None
    """[n] numbers, dates or datetimes, or None."""
    summary: Summary = field(default_factory=Summary)
    """Rows, users and items read, removed and kept."""

    @classmethod
    def read(
        cls,
        source: Any,
        *,
        user_col: str = USER,
        item_col: str = ITEM,
        time_col: str | None = None,
        weight_col: str | None = None,
        rating_col: str | None = None,
        min_rating: float | None = None,
        min_user_items: int = 0,
        min_item_users: int = 0,
        missing_ids: MissingIds = "refuse",
        format: str | None = None,
        **text: Any,
    ) -> Interactions:
        """Read a log: drop rows below `min_rating`, merge equal pairs, then filter to the k-core.

        Merged pairs keep the latest time and summed weights. Ids keep their type; categories and UUIDs become
        text, whole decimals integers; of a text file they are integers if all are canonical ('12', not '012'
        or '+12'), else text.

        Args:
            source: Path (.parquet, .csv, .tsv, text by other names, also packed as .gz, .zst or .bz2, or a
                folder of .parquet parts) or pandas, polars or Arrow frame.
            user_col, item_col: Columns of user ids and of item ids.
            time_col: Column of times; None takes "timestamp" if it is there and can be used; "none": none.
            weight_col: Column of weights; None takes "weight" if it is there and can be used; "none": none.
            rating_col: Column of ratings; None takes "rating". Read only with `min_rating`.
            min_rating: Lowest rating that counts as a positive row.
            min_user_items: Fewest items a user must have (applied with the next until nothing changes).
            min_item_users: Fewest users an item must have.
            missing_ids: Rows whose id is missing or is a text such as '', 'NA', 'nan' or 'NULL', quoted or
                not: "refuse" the log, "drop" and count them, or "keep" such texts as ids.
            format: Layout of a known data set's files: "movielens", "amazon-2014" (user, item, rating, time),
                "amazon-2018" (item, user, rating, time), "amazon-2023" or "book-crossing".
            text: Fields of `TextFormat` for a text file: separator, header, columns, encoding, skip_lines,
                quotes, strip, decimal_comma.

        Raises:
            DataError: If the source cannot be used, in one line that says why.
        """
        _check_options(min_rating, min_user_items, min_item_users)
        named = {"user_col": user_col, "item_col": item_col, "rating_col": rating_col}
        usual = {option: _column(option, name) for option, name in named.items()}
        time_col, weight_col = _column("time_col", time_col), _column("weight_col", weight_col)
        (user_col, item_col, rating_col), layout = known_format(format, source, usual, text)
        names = Columns(user_col, item_col, time_col, weight_col, rating_col)
        # Handed on without a name of its own, so that its memory is free as soon as the ids are codes.
        return cls._cleaned(
            read_columns(source, names, layout, need_rating=min_rating is not None, missing_ids=missing_ids),
            min_rating, min_user_items, min_item_users,
        )  # fmt: skip

    @classmethod
    def _cleaned(
        cls, read: Rows, min_rating: float | None, min_user_items: int, min_item_users: int
    ) -> Interactions:
        """Rate, encode, merge and filter rows; count what each step takes away."""
        label, frame, weight_col = read.label, read.frame, read.names.get(WEIGHT)
        rows_in, sizes_in = frame.height, None
        if min_rating is not None:
            sizes_in = frame[USER].n_unique(), frame[ITEM].n_unique()
            frame = _rated_from(frame, min_rating, label)
        rated = frame.height
        user_ids, users = _encode(frame[USER])
        item_ids, items = _encode(frame[ITEM])
        users_in, items_in = sizes_in or (len(user_ids), len(item_ids))
        weighed, timed = (frame[name] if name in frame.columns else None for name in (WEIGHT, TIME))
        dropped = read.dropped
        del frame, read  # its text takes three times the memory of all that follows
        users, items, weights, times = merge_pairs(users, items, len(item_ids), weighed, timed)
        merged = len(users)
        keep = core(users, items, min_user_items, min_item_users)
        if not keep.any():
            raise DataError(f"{core_hint(users, items, min_user_items, min_item_users)} (source: {label})")
        if not keep.all():
            users, items = users[keep], items[keep]
            weights = None if weights is None else weights[keep]
            times = None if times is None else times.filter(pl.Series(keep))
            user_ids, users = _drop_unused(user_ids, users)
            item_ids, items = _drop_unused(item_ids, items)
        summary = Summary(
            source=label, rows_in=rows_in + dropped, users_in=users_in, items_in=items_in,
            min_rating=min_rating, min_user_items=min_user_items, min_item_users=min_item_users,
            without_id=dropped, weight_col=weight_col, below_min_rating=rows_in - rated,
            duplicates_merged=rated - merged, outside_core=merged - len(users), rows=len(users),
            users=len(user_ids), items=len(item_ids),
        )  # fmt: skip
        return cls(user_ids, item_ids, users, items, weights, times, summary)

    @classmethod
    def of(cls, source: Any) -> Interactions:
        """The log itself, or what `read` makes of a path or frame: all that takes a log takes these.

        Raises:
            DataError: it is none of them, or cannot be used.
        """
        return source if isinstance(source, cls) else cls.read(source)

    @property
    def n_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """I, the number of items."""
        return len(self.item_ids)

    def __len__(self) -> int:
        """The number of rows, n."""
        return len(self.users)

    def __repr__(self) -> str:
        """Sizes and types in one line."""
        columns = {"weights": self.weights, "times": self.times}
        extra = "".join(f", {name}" for name, values in columns.items() if values is not None)
        return f"Interactions({len(self):,} rows, {self.n_users:,} users, {self.n_items:,} items{extra})"

    def matrix(self, mask: NDArray[np.bool_] | None = None, *, weighted: bool = False) -> sp.csr_matrix:
        """The rows where `mask` ([n], default all) as a [U, I] float32 CSR matrix with sorted indices.

        Stored values are 1, or the weights if `weighted` and the log has them.
        """
        rows = slice(None) if mask is None else self._mask(mask)
        users, items = self.users[rows], self.items[rows]
        counts = np.bincount(users, minlength=self.n_users)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        data = np.ones(len(items), dtype=np.float32)
        if weighted and self.weights is not None:
            data = self.weights[rows].copy()
        out = sp.csr_matrix((data, items.copy(), indptr), shape=(self.n_users, self.n_items))
        out.has_sorted_indices = True
        return out

    def _mask(self, given: Any) -> NDArray[np.bool_]:
        try:
            mask = np.asarray(given, dtype=bool)
        except (TypeError, ValueError):
            mask = np.zeros(0, dtype=bool)
        if mask.shape != self.users.shape:
            raise DataError(f"a mask must be a list of {len(self)} truth values, one a row of the log")
        return mask

    def take(self, rows: NDArray[np.int64]) -> Interactions:
        """A log of some rows ([m] positions, ascending), and of the users and items that they name."""
        user_ids, users = _drop_unused(self.user_ids, self.users[rows])
        item_ids, items = _drop_unused(self.item_ids, self.items[rows])
        weights = None if self.weights is None else self.weights[rows]
        times = None if self.times is None else self.times.gather(rows)
        return Interactions(user_ids, item_ids, users, items, weights, times, self.summary)

    def encode_users(self, ids: Any) -> NDArray[np.int64]:
        """Codes of user ids (anything like a list); -1 for unknown ones, ids of another type included."""
        return lookup(self.user_ids, ids, USER)

    def encode_items(self, ids: Any) -> NDArray[np.int64]:
        """Codes of item ids (anything like a list); -1 for unknown ones, ids of another type included."""
        return lookup(self.item_ids, ids, ITEM)

    def decode_users(self, codes: Any) -> pl.Series:
        """Ids of user codes, null for -1."""
        return _gather(self.user_ids, codes)

    def decode_items(self, codes: Any) -> pl.Series:
        """Ids of item codes, null for -1."""
        return _gather(self.item_ids, codes)

    def frame(self) -> pl.DataFrame:
        """The rows with their ids: user_id, item_id [, weight] [, timestamp]."""
        columns = [self.decode_users(self.users).alias(USER), self.decode_items(self.items).alias(ITEM)]
        if self.weights is not None:
            columns.append(pl.Series(WEIGHT, self.weights))
        if self.times is not None:
            columns.append(self.times.alias(TIME))
        return pl.DataFrame(columns)

    def fingerprint(self) -> str:
        """SHA-256 of ids, rows, weights and times; the same whatever the row order or file format was."""
        refuse_forked()
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            text = ids.cast(pl.String)
            digest.update(f"{'text' if ids.dtype == pl.String else 'integer'} {len(ids)}\n".encode())
            digest.update(text.str.len_bytes().to_numpy().astype("<u8").tobytes())
            digest.update(text.str.join("").item().encode())
        for codes in (self.users, self.items):
            digest.update(codes.astype("<i4").tobytes())
        if self.weights is not None:
            digest.update(b"weights" + self.weights.astype("<f4").tobytes())
        if self.times is not None:
            digest.update(b"times" + _time_bytes(self.times))
        return digest.hexdigest()


def _time_bytes(times: pl.Series) -> bytes:
    """Times as bytes that don't depend on how wide the source stored them."""
    if times.dtype.is_numeric():
        fits_int64 = times.dtype.is_integer() and times.dtype not in (pl.UInt64, pl.Int128)
        wide = pl.Int64 if fits_int64 else pl.Float64
        return str(wide).encode() + times.cast(wide).to_numpy().tobytes()
    return str(times.dtype).encode() + times.to_physical().cast(pl.Int64).to_numpy().tobytes()


def _column(option: str, name: Any) -> Any:
    """The name of a column as text; pandas has numbers for columns without names, and tuples for levels."""
    if name is None and option not in ("user_col", "item_col"):
        return None
    if isinstance(name, bool) or not isinstance(name, str | int | tuple):
        raise DataError(f"{option}={shown(name)} is not the name of a column")
    return str(name)


def _check_options(min_rating: Any, min_user_items: Any, min_item_users: Any) -> None:
    try:
        if min_rating is not None:
            number("min_rating", min_rating)
        whole_number("min_user_items", min_user_items, least=0)
        whole_number("min_item_users", min_item_users, least=0)
    except ConfigError as error:
        raise DataError(str(error)) from None


def _rated_from(frame: pl.DataFrame, min_rating: float, label: str) -> pl.DataFrame:
    rated = frame.filter(pl.col(RATING) >= min_rating)
    if rated.height == 0:
        highest = float(frame[RATING].max())  # type: ignore[arg-type]
        raise DataError(
            f"min_rating={min_rating:g} leaves none of the {frame.height} rows of {label}; "
            f"the highest rating is {highest:g}, so min_rating={highest:g} would leave some"
        )
    return rated


def _encode(column: pl.Series) -> tuple[pl.Series, NDArray[np.int32]]:
    """Unique ids ascending, and the code of each value."""
    ids = column.unique().sort()
    # Integers: a binary search is faster than the hash join that text needs.
    codes = _join_codes(ids, column) if column.dtype == pl.String else ids.search_sorted(column).to_numpy()
    return ids, codes.astype(np.int32)


def _join_codes(ids: pl.Series, values: pl.Series) -> NDArray[np.int64]:
    """Position in `ids` of each value, -1 where it is not there; both of one type."""
    table = pl.DataFrame({"id": ids, "code": np.arange(len(ids), dtype=np.int64)})
    codes = np.empty(len(values), dtype=np.int64)
    for start in range(0, len(values), _JOINED_AT_ONCE):
        part = pl.DataFrame({"id": values.slice(start, _JOINED_AT_ONCE)})
        joined = part.join(table, on="id", how="left", maintain_order="left")
        codes[start : start + len(part)] = joined["code"].fill_null(-1)
    return codes


def _drop_unused(ids: pl.Series, codes: NDArray[np.int32]) -> tuple[pl.Series, NDArray[np.int32]]:
    used = np.zeros(len(ids), dtype=bool)
    used[codes] = True
    return ids.filter(pl.Series(used)), (np.cumsum(used, dtype=np.int32) - 1)[codes].astype(np.int32)


def lookup(known: pl.Series, ids: Any, column: str) -> NDArray[np.int64]:
    """Position of each id among the known ones, -1 where it is not there or of another type."""
    refuse_forked()
    values = _in_type(known.dtype, unpack(ids, "ids", column))
    return np.full(len(values), -1, dtype=np.int64) if values.dtype == pl.Null else _join_codes(known, values)


def _in_type(dtype: pl.DataType, ids: pl.Series | list[Any]) -> pl.Series:
    """The ids in the type of the known ones; what does not fit that type becomes null."""
    is_text = dtype == pl.String
    if isinstance(ids, pl.Series):
        series = ids.cast(pl.String) if isinstance(ids.dtype, (pl.Categorical, pl.Enum)) else ids
        if series.dtype == pl.String if is_text else series.dtype.is_integer():
            return series.cast(dtype, strict=False)
        return pl.Series([None] * len(series), dtype=pl.Null)
    kinds, convert = ((str,), str) if is_text else ((int, np.integer), int)
    fits = [convert(v) if isinstance(v, kinds) and not isinstance(v, bool) else None for v in ids]
    try:
        return pl.Series(fits, dtype=dtype, strict=False)
    except UnicodeError:
        raise DataError("ids hold text that is not Unicode") from None


def _gather(ids: pl.Series, codes: Any) -> pl.Series:
    refuse_forked()
    positions = positions_in(codes, len(ids), "codes", least=-1)
    index = pl.Series(positions)
    if len(positions) and positions.min() < 0:
        index = pl.select(pl.when(index >= 0).then(index)).to_series()
    return ids.gather(index)
