"""Reading a log: ids unchanged, pairs merged, the core cut, bad input refused in one clear line."""

import datetime as dt
import gzip
import io
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greysheep.data import interactions
from greysheep.data.interactions import Interactions
from greysheep.data.reading import read_id_column
from greysheep.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
DATA = (ROOT / os.environ.get("GREYSHEEP_DATA", "../shared/data")).resolve()
SMALL = pl.DataFrame({"user_id": ["b", "a", "b"], "item_id": [7, 7, 9]})


def rows(log):
    """The log as a set of (user, item), by ids."""
    return set(zip(log.frame()["user_id"].to_list(), log.frame()["item_id"].to_list(), strict=True))


def text(tmp_path, content, name="log.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(source, **options):
    """The message of the one-line DataError that reading must raise."""
    with pytest.raises(DataError) as caught:
        Interactions.read(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def named(header):
    """Name the columns of weights and times that a header has: what is named and bad is refused."""
    return {
        f"{short}_col": name
        for short, name in (("weight", "weight"), ("time", "timestamp"))
        if name in header
    }


# --- every kind of source says the same


@pytest.mark.parametrize(
    "kind", ["polars", "lazy", "pandas", "arrow", "batch", "parquet", "csv", "tsv", "parts"]
)
def test_every_source_gives_the_same_log(tmp_path, kind):
    parts = tmp_path / "parts"
    parts.mkdir()
    SMALL[:2].write_parquet(parts / "part-0.parquet")
    (parts / "year=2020").mkdir()
    SMALL[2:].write_parquet(parts / "year=2020" / "part-1.parquet")
    (parts / "_SUCCESS").touch()
    SMALL.write_parquet(tmp_path / "log.parquet")
    SMALL.write_csv(tmp_path / "log.csv")
    SMALL.write_csv(tmp_path / "log.tsv", separator="\t")
    source = {
        "polars": SMALL,
        "lazy": SMALL.lazy(),
        "pandas": SMALL.to_pandas(),
        "arrow": SMALL.to_arrow(),
        "batch": SMALL.to_arrow().to_batches()[0],
        "parquet": tmp_path / "log.parquet",
        "csv": str(tmp_path / "log.csv"),
        "tsv": tmp_path / "log.tsv",
        "parts": parts,
    }[kind]
    log = Interactions.read(source)
    assert log.user_ids.to_list() == ["a", "b"]
    assert log.item_ids.to_list() == [7, 9]
    assert log.users.tolist() == [0, 1, 1]
    assert log.items.tolist() == [0, 0, 1]
    assert log.users.dtype == log.items.dtype == np.int32
    assert (log.n_users, log.n_items, len(log)) == (2, 2, 3)
    assert log.weights is None
    assert log.times is None
    assert log.fingerprint() == Interactions.read(SMALL).fingerprint()


# --- ids come back unchanged


@pytest.mark.parametrize(
    "series",
    [
        pl.Series([2, 1], dtype=pl.Int8),
        pl.Series([2**31 - 1, -5], dtype=pl.Int32),
        pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
        pl.Series([2**100, -(2**100)], dtype=pl.Int128),
        pl.Series(["0001", "1"]),
        pl.Series(["Zoë, “x”\ny", "é"]),
    ],
    ids=lambda s: f"{s.dtype}",
)
@pytest.mark.parametrize("through_file", [False, True])
def test_ids_of_a_frame_keep_value_and_type(tmp_path, series, through_file):
    source = pl.DataFrame({"user_id": series, "item_id": series})
    if through_file:
        source.write_parquet(tmp_path / "x.parquet")
        source = tmp_path / "x.parquet"
    log = Interactions.read(source)
    assert log.user_ids.dtype == log.item_ids.dtype == series.dtype
    assert log.user_ids.to_list() == sorted(series.to_list())
    assert rows(log) == {(v, v) for v in series.to_list()}
    assert log.decode_users(log.encode_users(series)).to_list() == series.to_list()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["12", "-3", "0"], [12, -3, 0]),
        (["9223372036854775808", "18446744073709551615"], [2**63, 2**64 - 1]),
        (["0012", "12"], ["0012", "12"]),
        (["+1", "2"], ["+1", "2"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["1e3", "2"], ["1e3", "2"]),
        (["-0", "2"], ["-0", "2"]),
        (["1_0", "2"], ["1_0", "2"]),
        (["18446744073709551616", "1"], ["18446744073709551616", "1"]),
        (["-1", "9223372036854775808"], ["-1", "9223372036854775808"]),
        (["B00005OMGE", "0041"], ["B00005OMGE", "0041"]),
        (["true", "false"], ["true", "false"]),
        (["2020-01-01", "1"], ["2020-01-01", "1"]),
    ],
)
def test_ids_of_a_text_file_are_integers_only_if_all_are_canonical(tmp_path, written, expected):
    content = "user_id,item_id\n" + "".join(f"{w},x\n" for w in written)
    log = Interactions.read(text(tmp_path, content))
    assert log.user_ids.to_list() == sorted(expected)
    assert log.item_ids.to_list() == ["x"]


def test_a_late_text_id_keeps_all_ids_text(tmp_path):
    content = "user_id,item_id\n" + "".join(f"{i},1\n" for i in range(5000)) + "007,1\n"
    assert Interactions.read(text(tmp_path, content)).user_ids.dtype == pl.String


def test_quoted_ids_bom_crlf_and_blank_lines(tmp_path):
    content = b'\xef\xbb\xbfuser_id,item_id\r\n"a,x",1\r\n\r\n"say ""hi""",2\r\n"",3\r\n\r\n'
    log = Interactions.read(text(tmp_path, content), missing_ids="keep")
    assert rows(log) == {("a,x", 1), ('say "hi"', 2), ("", 3)}


def test_categories_become_text():
    frame = pd.DataFrame({"user_id": pd.Categorical(["z", "a"]), "item_id": [1, 2]})
    assert Interactions.read(frame).user_ids.to_list() == ["a", "z"]
    table = pa.table({"user_id": pa.array(["z", "a"]).dictionary_encode(), "item_id": [1, 2]})
    assert Interactions.read(table).user_ids.to_list() == ["a", "z"]


def test_pandas_integers_beyond_64_bits():
    log = Interactions.read(pd.DataFrame({"user_id": [2**70, -1], "item_id": [2**63 + 1, 2**64 - 1]}))
    assert log.user_ids.to_list() == [-1, 2**70]
    assert log.item_ids.to_list() == [2**63 + 1, 2**64 - 1]


def test_an_odd_column_elsewhere_does_not_matter():
    frame = SMALL.to_pandas()
    frame["other"] = [object(), 1, "x"]
    assert len(Interactions.read(frame)) == 3


def test_parts_with_different_integer_types(tmp_path):
    pl.DataFrame({"user_id": pl.Series([1], dtype=pl.Int32), "item_id": [1]}).write_parquet(
        tmp_path / "a.parquet"
    )
    pl.DataFrame({"user_id": pl.Series([2**64 - 1], dtype=pl.UInt64), "item_id": [2]}).write_parquet(
        tmp_path / "b.parquet"
    )
    pl.DataFrame({"user_id": [], "item_id": []}).write_parquet(tmp_path / "c.parquet")
    log = Interactions.read(tmp_path)
    assert rows(log) == {(1, 1), (2**64 - 1, 2)}
    assert log.user_ids.dtype == pl.UInt64


def test_encode_knows_types():
    log = Interactions.read(pl.DataFrame({"user_id": [1, 7, 300], "item_id": ["7", "x", "x"]}))
    mixed = [300, "7", 7, None, 8, 7.0, True, 2**80, np.int8(7)]
    assert log.encode_users(mixed).tolist() == [2, -1, 1, -1, -1, -1, -1, -1, 1]
    assert log.encode_items([7, "7", np.str_("x"), None]).tolist() == [-1, 0, 1, -1]
    assert log.encode_users(np.array([7, 2], dtype=np.uint8)).tolist() == [1, -1]
    assert log.encode_users(np.array(["7"])).tolist() == [-1]
    assert log.encode_items(np.array(["x", "7"])).tolist() == [1, 0]
    assert log.encode_items(pd.Series(["x", None, 7])).tolist() == [1, -1, -1]
    assert log.encode_users(pl.Series([2**63], dtype=pl.UInt64)).tolist() == [-1]
    assert log.encode_items(pl.Series(["x"], dtype=pl.Categorical)).tolist() == [1]
    assert log.encode_users(pl.Series([7.0])).tolist() == [-1]
    assert log.encode_users([]).tolist() == []
    assert log.encode_items(pa.array(["x"])).tolist() == [1]
    assert log.encode_users(7 * np.ones(1, dtype=np.int64)).dtype == np.int64
    for single in ("7", 7, b"7"):
        with pytest.raises(DataError, match="as a list"):
            log.encode_users(single)


def test_decode_gives_null_for_unknown():
    log = Interactions.read(SMALL)
    assert log.decode_users([1, -1]).to_list() == ["b", None]
    assert log.decode_items(np.array([], dtype=np.int64)).to_list() == []
    assert log.decode_items([1]).dtype == pl.Int64
    for code in (-2, 2):
        with pytest.raises(DataError, match="between -1 and 1"):
            log.decode_users([code])


# --- cleaning: ratings, merging, core


def naive(events, min_rating, a, b):
    """Oracle with plain loops: (user, item, time, weight, rating) -> {(user, item): (time, weight)}."""
    kept = {}
    for user, item, when, weight, rating in events:
        if rating >= min_rating:
            old_time, old_weight = kept.get((user, item), (when, 0.0))
            kept[user, item] = (max(when, old_time), old_weight + weight)
    while True:
        poor = [
            (u, i)
            for u, i in kept
            if sum(1 for x, _ in kept if x == u) < a or sum(1 for _, y in kept if y == i) < b
        ]
        if not poor:
            return kept
        for pair in poor:
            del kept[pair]


EVENTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(-3, 9), st.integers(0, 3), st.integers(1, 5)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(EVENTS, st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.randoms())
def test_cleaning_is_what_a_loop_would_do(events, min_rating, a, b, random):
    schema = ["user_id", "item_id", "timestamp", "weight", "rating"]
    options = {"min_rating": min_rating, "min_user_items": a, "min_item_users": b}
    expected = naive(events, min_rating, a, b)
    frame = pl.DataFrame(events, schema=schema, orient="row")
    if not expected:
        assert "would leave" in refused(frame, **options)
        return
    log = Interactions.read(frame, **options)
    got = {(u, i): (t, w) for u, i, w, t in log.frame().iter_rows()}
    assert got == expected
    assert list(got) == sorted(got)
    assert log.user_ids.to_list() == sorted({u for u, _ in expected})
    s = log.summary
    assert s.rows_in - s.below_min_rating - s.duplicates_merged - s.outside_core == s.rows == len(log)
    assert s.below_min_rating == sum(e[4] < min_rating for e in events)
    assert (s.users_in, s.items_in) == (len({e[0] for e in events}), len({e[1] for e in events}))
    random.shuffle(events)
    again = Interactions.read(pl.DataFrame(events, schema=schema, orient="row"), **options)
    assert again.fingerprint() == log.fingerprint()


def test_summary_reads_well():
    frame = pl.DataFrame({"user_id": [1, 1, 1, 2, 2], "item_id": [1, 1, 2, 1, 3], "rating": [5, 4, 5, 5, 1]})
    log = Interactions.read(frame, min_rating=2, min_item_users=2)
    assert str(log.summary).splitlines() == [
        "in    5 rows, 2 users, 3 items  the frame",
        "      -1 rows rated below 2",
        "      -1 rows merged (same pair; latest time, weights summed)",
        "      -1 rows outside the core (0 items a user, 2 users an item)",
        "kept  2 rows, 2 users, 1 items",
    ]


def test_float_sums_do_not_depend_on_row_order():
    """Three times 2^-30 is lost after 2^24 + 1, but not before; float32 rounds the two sums apart."""
    weights = [2.0**24 + 1, 2.0**-30, 2.0**-30, 2.0**-30]
    frame = pl.DataFrame({"user_id": [1] * 4, "item_id": [1] * 4, "weight": weights})
    assert Interactions.read(frame).fingerprint() == Interactions.read(frame.reverse()).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": pl.col("user_id") + "x"},
        {"item_id": pl.col("item_id").cast(pl.String)},
        {"item_id": pl.Series([7, 9, 9])},
        {"weight": pl.lit(2.0)},
        {"timestamp": pl.lit(5)},
    ],
)
def test_fingerprint_sees_every_column(change):
    frame = SMALL.with_columns(weight=pl.lit(1.0), timestamp=pl.lit(1))
    assert (
        Interactions.read(frame.with_columns(**change)).fingerprint()
        != Interactions.read(frame).fingerprint()
    )


@pytest.mark.parametrize(
    ("times", "dtype"),
    [
        ([3, 1, 2], pl.Int16),
        ([3.5, 1.0, 2.0], pl.Float32),
        ([dt.date(2020, 1, d) for d in (3, 1, 2)], pl.Date),
        ([dt.datetime(2020, 1, d) for d in (3, 1, 2)], pl.Datetime("ms", "UTC")),
    ],
)
def test_times_keep_their_type_and_the_latest_wins(times, dtype):
    frame = pl.DataFrame(
        {"user_id": [1, 1, 1], "item_id": [1, 1, 2], "timestamp": pl.Series(times, dtype=dtype)}
    )
    log = Interactions.read(frame)
    assert log.times.dtype == dtype
    assert log.times.to_list() == [frame["timestamp"][0], frame["timestamp"][2]]


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        (["1370217600", "5"], pl.Int64),
        (["1.5", "2"], pl.Float64),
        (["2020-01-31", "2019-01-01"], pl.Date),
        (["2020-01-31 10:00:00", "2020-01-31 10:00:00.25"], pl.Datetime("us")),
        (["2020-01-31T10:00:00Z", "2020-01-31T12:00:00+01:00"], pl.Datetime("us", "UTC")),
        (["2020-01-31 10:00", "2020-01-31 11:00"], pl.Datetime("us")),
    ],
)
def test_times_of_text_files(tmp_path, written, dtype):
    log = Interactions.read(
        text(tmp_path, f"user_id,item_id,timestamp\n1,1,{written[0]}\n1,2,{written[1]}\n")
    )
    assert log.times.dtype == dtype


def test_column_options():
    frame = pl.DataFrame(
        {"u": [1], "i": [2], "t": [3], "w": [0.5], "r": [4], "weight": [9.0], "timestamp": [9]}
    )
    log = Interactions.read(
        frame, user_col="u", item_col="i", time_col="t", weight_col="w", rating_col="r", min_rating=4
    )
    assert log.frame().rows() == [(1, 2, 0.5, 3)]
    assert Interactions.read(frame, user_col="u", item_col="i").frame().rows() == [(1, 2, 9.0, 9)]


def test_matrix():
    frame = SMALL.with_columns(weight=pl.Series([0.5, 2.0, 3.0]))
    log = Interactions.read(frame)
    assert log.matrix().dtype == np.float32
    assert log.matrix().toarray().tolist() == [[1, 0], [1, 1]]
    assert log.matrix(weighted=True).toarray().tolist() == [[2, 0], [0.5, 3]]
    masked = log.matrix(np.array([False, True, True]), weighted=True)
    assert masked.toarray().tolist() == [[0, 0], [0.5, 3]]
    for matrix in (masked, log.matrix(weighted=True)):
        matrix.data[:] = 9
        matrix.indices[:] = 0
    assert log.weights.tolist() == [2.0, 0.5, 3.0]
    assert log.items.tolist() == [0, 0, 1]
    assert Interactions.read(SMALL).matrix(weighted=True).toarray().tolist() == [[1, 0], [1, 1]]


# --- bad input


def test_missing_columns_name_the_nearest(tmp_path):
    frame = pl.DataFrame({"userId": [1], "movieId": [2], "rating": [3]})
    message = refused(frame)
    assert "'user_id'" in message
    assert "'userId'" in message
    assert "user_col" in message
    assert "'movieId'" in refused(frame, user_col="userId")
    assert "'timestmp'" in refused(
        frame.rename({"rating": "timestmp"}), user_col="userId", item_col="movieId", time_col="timestamp"
    )
    assert "rating_col" in refused(SMALL, min_rating=3)
    assert "rating_col" in refused(SMALL, rating_col="stars")
    assert "weight_col" in refused(SMALL, weight_col="w")
    assert "two columns" in refused(SMALL, user_col="item_id")
    assert ".tsv means tabs" in refused(text(tmp_path, "user_id\titem_id\n1\t2\n"))
    assert "two columns named 'user_id'" in refused(text(tmp_path, "user_id,item_id,user_id\n1,2,3\n"))


def parquet_bytes(frame=SMALL):
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"\n\n", "empty"),
        ("a.parquet", b"", "empty"),
        ("a.csv", b"user_id,item_id\n", "no rows"),
        ("a.tsv", b"user_id\titem_id", "no rows"),
        ("a.parquet", parquet_bytes(SMALL[:0]), "no rows"),
        ("a.csv", parquet_bytes(), "name it .parquet"),
        ("a.parquet", b"user_id,item_id\n1,2\n", "name it .csv"),
        ("a.parquet", parquet_bytes()[:-20], "damaged"),
        ("a.parquet", parquet_bytes()[:4], "damaged"),
        ("a.csv", gzip.compress(b"user_id,item_id\n1,2\n", mtime=0), "unpack"),
        ("a.csv", "user_id,item_id\nJosé,1\n".encode("latin-1"), "UTF-8"),
        ("a.csv", "user_id,item_id\n1,2\n".encode("utf-16"), "UTF-8"),
        ("a.csv", b"\x00\x01\x02", "UTF-8"),
        ("a.csv", b"user_id,item_id\n1,2\n1,2,3\n", "line 3 has 3 fields, the header has 2"),
        ("a.csv", b"user_id,item_id,timestamp\n1,2,3\n4,5\n", "line 3 has 2 fields, the header has 3"),
        ("a.csv", b"user_id,item_id\n1,2\n3\n", "line 3 has 1 fields"),
        ("a.csv", b'user_id,item_id\n"1,2\n3,4\n', "line 2: the quote that opens the field '\"1'"),
        ("a.tsv", b'user_id\titem_id\n1\t"2\n', "line 2: the quote that opens the field '\"2'"),
        ("a.csv", b"user_id,item_id\n1,\n,3\n4,5\n,6\n", "'user_id' of {path} has no value in 2 of 4 rows"),
        ("a.csv", b"user_id,item_id\n,\n1,2\n", "no value in 1 of 2 rows"),
        ("a.csv", b"user_id,item_id,weight\n1,2,heavy\n", "'heavy'"),
        ("a.csv", b"user_id,item_id,weight\n1,2,-1\n1,3,-2\n", "2 negative weights"),
        ("a.csv", b"user_id,item_id,weight\n1,2,nan\n", "NaN or infinite"),
        ("a.csv", b"user_id,item_id,weight\n1,2,inf\n", "NaN or infinite"),
        ("a.csv", b"user_id,item_id,timestamp\n1,2,1\n1,3,noon\n", "1 values that are neither"),
        ("a.csv", b"user_id,item_id,timestamp\n1,2,1\n1,3,\n", "no value in 1 of 2 rows"),
        ("a.csv", b"user_id,item_id,timestamp\n1,2,nan\n", "NaN or infinite"),
        ("a.txt", b"user_id,item_id\n1,2\n", "'.txt'"),
        ("a", b"user_id,item_id\n1,2\n", "suffix ''"),
    ],
)
def test_bad_files(tmp_path, name, content, says):
    path = text(tmp_path, content, name)
    message = refused(path, **named(content[:40].decode("latin-1")))
    assert says.format(path=path) in message
    assert str(path) in message


def test_bad_places(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.csv")
    assert "does not exist" in refused("none.parquet")
    assert "path of the log is empty" in refused("")
    assert "File name too long" in refused("a" * 5000 + ".csv")
    assert "without .parquet files" in refused(tmp_path)
    text(tmp_path, "user_id,item_id\n1,2\n", "x.csv")
    assert "without .parquet files" in refused(tmp_path)
    text(tmp_path, "not parquet", "y.parquet")
    assert "y.parquet" in refused(tmp_path)
    for source in (None, 5, [1, 2], {"user_id": [1]}):
        assert type(source).__name__ in refused(source)


def test_other_folders_inside_a_folder_are_left_alone(tmp_path):
    SMALL.write_parquet(tmp_path / "a.parquet")
    for other in ("other", ".hidden", "_delta_log"):
        (tmp_path / other).mkdir()
        SMALL.with_columns(user_id=pl.lit("z")).write_parquet(tmp_path / other / "b.parquet")
    assert Interactions.read(tmp_path).user_ids.to_list() == ["a", "b"]


@pytest.mark.parametrize("name", ["a[1].parquet", "a*.csv"])
def test_names_that_look_like_patterns(tmp_path, name):
    path = tmp_path / name
    SMALL.write_parquet(path) if name.endswith("parquet") else SMALL.write_csv(path)
    assert len(Interactions.read(path)) == 3


def test_columns_that_pandas_numbers():
    log = Interactions.read(pd.DataFrame({0: [1], 1: [2]}), user_col=0, item_col="1")
    assert rows(log) == {(1, 2)}


def test_bad_parts(tmp_path):
    SMALL.write_parquet(tmp_path / "a.parquet")
    SMALL.drop("item_id").write_parquet(tmp_path / "b.parquet")
    assert "b.parquet has no column 'item_id'" in refused(tmp_path)
    SMALL.with_columns(pl.lit("7").alias("item_id")).write_parquet(tmp_path / "b.parquet")
    assert "'item_id' is of different types" in refused(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("user_id", [1.0, 2.0], "Float64"),
        ("user_id", [[1], [2]], "List"),
        ("user_id", [True, False], "Boolean"),
        ("user_id", [{"a": 1}, {"a": 2}], "Struct"),
        ("user_id", [dt.date(2020, 1, 1)] * 2, "Date"),
        ("user_id", [b"a", b"b"], "Binary"),
        ("user_id", [object(), object()], "Object"),
        ("user_id", [None, "a"], "no value in 1 of 2 rows"),
        ("item_id", [None, None], "no value in 2 of 2 rows"),
        ("weight", ["1", "2"], "String"),
        ("weight", [1.0, float("nan")], "1 values that are NaN or infinite"),
        ("weight", [1.0, float("-inf")], "1 values that are NaN or infinite"),
        ("weight", [1, -1], "1 negative weights"),
        ("weight", [None, 1], "no value in 1 of 2 rows"),
        ("weight", [True, False], "Boolean"),
        ("weight", [1e39, 1.0], "too large"),
        ("timestamp", ["2020", "2021"], "times must be numbers, dates or datetimes"),
        ("timestamp", [dt.time(1), dt.time(2)], "Time"),
        ("timestamp", [1.0, float("nan")], "NaN"),
        ("rating", ["good", "bad"], "String"),
        ("rating", [None, 5], "no value in 1 of 2 rows"),
    ],
)
def test_bad_columns(column, values, says):
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2]}).with_columns(pl.Series(column, values))
    options = {"min_rating": 1} if column == "rating" else named(column)
    message = refused(frame, **options)
    assert says in message
    assert f"'{column}'" in message


def test_bad_pandas():
    assert "mixes types" in refused(pd.DataFrame({"user_id": [1, "b"], "item_id": [1, 2]}))
    gaps = pd.DataFrame({"user_id": [1, None], "item_id": [1, 2]})
    assert "no value in 1 of 2 rows" in refused(gaps)
    assert "integers with gaps" in refused(gaps.dropna())
    twice = pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "user_id"])
    assert "two columns" in refused(twice)


def test_a_rating_column_nobody_asked_for_is_not_read():
    frame = SMALL.with_columns(rating=pl.lit("good"))
    assert len(Interactions.read(frame)) == 3


def test_filters_that_leave_nothing_say_what_would():
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "rating": [1.0, 3.5, 2.0]})
    assert "min_rating=3.5 would leave" in refused(frame, min_rating=4)
    assert len(Interactions.read(frame, min_rating=3.5)) == 1
    assert "min_user_items=2 would leave 2 rows" in refused(frame, min_user_items=9)
    assert "min_item_users=2 would leave 2 rows" in refused(frame, min_item_users=3)
    message = refused(frame, min_user_items=2, min_item_users=2)
    assert "min_user_items=1 would leave 2 rows" in message
    assert "min_item_users=1 would leave 2 rows" in message
    assert "1 for both would leave 3 rows" in refused(frame, min_user_items=5, min_item_users=5)
    for options in ({"min_rating": float("nan")}, {"min_user_items": -1}, {"min_item_users": 2.5}):
        refused(frame, **options)


def test_read_id_column(tmp_path):
    assert read_id_column(text(tmp_path, "user_id\n007\n8\n"), "user_id").to_list() == ["007", "8"]
    assert read_id_column(text(tmp_path, "user_id\n7\n8\n"), "user_id").to_list() == [7, 8]
    with pytest.raises(DataError, match="no column 'item_id'"):
        read_id_column(text(tmp_path, "user_id\n7\n"), "item_id")
    with pytest.raises(DataError, match="no rows"):
        read_id_column(text(tmp_path, "user_id\n"), "user_id")


# --- real logs


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set GREYSHEEP_DATA")
    return path


def test_ml_1m_is_read_in_a_second():
    path = real("ml-1m/interactions.parquet")
    Interactions.read(SMALL)
    seconds = []
    for _ in range(3):
        start = time.process_time()  # of all threads: a busy machine must not fail the test
        log = Interactions.read(path)
        seconds.append(time.process_time() - start)
    assert (len(log), log.n_users, log.n_items) == (1_000_209, 6_040, 3_706)
    assert min(seconds) < 1.0


def test_digital_music_with_its_filter():
    path = real("amazon-digital-music/interactions.csv")
    log = Interactions.read(path, min_rating=4, min_user_items=5, min_item_users=5)
    assert (len(log), log.n_users, log.n_items) == (104_431, 10_623, 8_582)
    assert log.summary.rows_in == 169_781


def test_cds_keeps_asins_and_takes_position_as_time():
    log = Interactions.read(real("amazon-cds/interactions.parquet"), time_col="position")
    assert (len(log), log.n_users, log.n_items) == (472_265, 17_052, 35_118)
    assert log.item_ids.dtype == pl.String
    assert any(asin.startswith("0") for asin in log.item_ids.to_list()[:50])
    assert log.times.dtype == pl.Int32


def test_looking_ids_up_in_pieces_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({name: rng.integers(0, 30, 200).astype(str) for name in ("user_id", "item_id")})
    whole = Interactions.read(frame)
    monkeypatch.setattr(interactions, "_JOINED_AT_ONCE", 7)
    pieces = Interactions.read(frame)
    assert pieces.fingerprint() == whole.fingerprint()
    asked = ["5", "none", *[str(i) for i in range(12)]]
    found = [whole.user_ids.to_list().index(one) if one in whole.user_ids else -1 for one in asked]
    assert pieces.encode_users(asked).tolist() == found


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_rows_that_come_in_order_are_the_same_as_shuffled(timed, weighed):
    """They take a way of their own past the sorting; text or numbers, with whatever columns."""
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, 20, (150, 2)), axis=0)
    frame = pl.DataFrame({"user_id": pairs[:, 0], "item_id": pairs[:, 1]})
    if timed:
        frame = frame.with_columns(timestamp=pl.Series(rng.integers(0, 99, len(pairs))))
    if weighed:
        frame = frame.with_columns(weight=pl.Series(rng.random(len(pairs))))
    ordered, shuffled = Interactions.read(frame), Interactions.read(frame.sample(fraction=1, shuffle=True))
    assert ordered.fingerprint() == shuffled.fingerprint()
    assert ordered.frame().equals(shuffled.frame())
    assert ordered.summary == shuffled.summary
    again = Interactions.read(pl.concat([frame, frame[-1:]]))  # not in order by one repeat
    assert (len(again), again.summary.duplicates_merged) == (len(frame), 1)


INTEGERS = {kind: (kind.min(), kind.max()) for kind in interactions._IN_INT64}


@given(st.data())
def test_integers_are_looked_up_by_a_table_as_by_a_join(data):
    kind = data.draw(st.sampled_from(sorted(INTEGERS, key=str)))
    lowest, highest = (pl.select(bound).item() for bound in INTEGERS[kind])
    near = data.draw(st.sampled_from([lowest, highest, 0, 5]))
    some = st.integers(max(lowest, near - 9), min(highest, near + 9)) | st.sampled_from([lowest, 0, highest])
    ids = pl.Series(data.draw(st.lists(some, min_size=1, max_size=8, unique=True)), dtype=kind)
    values = pl.Series(data.draw(st.lists(some, max_size=8)), dtype=kind)
    found = interactions._table_codes(ids, values)
    if found is None:
        assert int(ids.max()) - int(ids.min()) >= 2 * (len(ids) + len(values))
    else:
        np.testing.assert_array_equal(found, interactions._join_codes(ids, values))


def test_tables_are_for_whole_numbers_that_lie_close():
    assert interactions._table_codes(pl.Series(["1"]), pl.Series(["1"])) is None
    assert interactions._table_codes(pl.Series([1]), pl.Series([1, None])) is None
    assert interactions._table_codes(pl.Series([], dtype=pl.Int64), pl.Series([1])) is None
    assert interactions._table_codes(pl.Series([1, 5]), pl.Series([1])) is not None
    assert interactions._table_codes(pl.Series([0, 6]), pl.Series([1])) is None
