"""Logs as people have them: read as they are, or refused in a line with the visible cause and an option."""

import bz2
import csv
import datetime as dt
import gzip
import io
import os
import sys
import uuid
import warnings
from decimal import Decimal

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greysheep.cli import main, run
from greysheep.data import lines
from greysheep.data.clues import cause
from greysheep.data.formats import TextFormat
from greysheep.data.interactions import Interactions
from greysheep.data.sources import open_source
from greysheep.data.splitting import Split, split
from greysheep.errors import DataError, GreysheepWarning

Capture = pytest.CaptureFixture[str]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(source, **options):
    return Interactions.read(source, **options).frame().rows()


def refused(source, *words, **options):
    """The message of the one-line refusal, which holds all the words."""
    with pytest.raises(DataError) as caught:
        Interactions.read(source, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in words:
        assert word in message, message
    return message


# --- quotes


STRAY = (
    "user_id\titem_id\tartist\tweight\nu1\ta1\tABBA\t5\n"
    'u2\ta3\t"Heroes\t1\nu3\ta4\tABBA\t2\nu3\ta5\tEP 12"\t4\n'
)


def test_a_stray_quote_swallows_no_row(tmp_path):
    path = write(tmp_path, "log.tsv", STRAY)
    refused(path, "line 3", "'\"Heroes'", "line 5", "--no-quotes (quotes=False)")
    expected = [("u1", "a1", 5), ("u2", "a3", 1), ("u3", "a4", 2), ("u3", "a5", 4)]
    assert rows(path, quotes=False) == expected
    assert (
        rows(write(tmp_path, "log.tsv", STRAY.replace('"Heroes', "Heroes"))) == expected
    )  # inches are letters


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('user_id,item_id\nu1,"Weird Al" Y\nu2,ABBA\n', ["line 2", "Weird Al"]),
        ('user_id,item_id\nu2,ABBA\nu1,"Weird\n', ["line 3", "Weird"]),
        ('user_id,item_id,w\nu2,"x,1\nu3,y,2\nu4,z",3\n', ["line 2", "line 4"]),
        ('title\n\nuser_id,item_id\nu1,"a"b\n', ["line 4"]),
    ],
)
def test_a_quote_that_goes_wrong_is_named_with_its_line(tmp_path, content, words):
    skip = {"skip_lines": 1} if content.startswith("title") else {}
    refused(write(tmp_path, "log.csv", content), *words, "--no-quotes", **skip)


def test_texts_of_several_lines_are_no_rows(tmp_path):
    content = 'user_id,item_id,review\n1,2,"nice\nphone, really"\n3,4,"x ""y"""\n'
    assert rows(write(tmp_path, "a.csv", content)) == [(1, 2), (3, 4)]
    odd = content + '5,6,12" wide\n'  # polars does not know quotes within fields
    assert rows(write(tmp_path, "b.csv", odd)) == [(1, 2), (3, 4), (5, 6)]


def test_blanks_before_quotes_are_stripped_with_those_around_names(tmp_path):
    path = write(tmp_path, "a.csv", 'user_id, item_id\n1, "a"\n2, "b,c"\n')
    assert rows(path, strip=True) == [(1, "a"), (2, "b,c")]
    odd = 'user_id, item_id, note\n1, "a,b", x"y\n2, "c", ""\n'  # polars does not know quotes within fields
    assert rows(write(tmp_path, "b.csv", odd), strip=True) == [(1, "a,b"), (2, "c")]


def test_an_empty_field_is_no_value_whatever_the_quotes(tmp_path):
    content = "user_id,item_id,weight,note\n1,2,,a\n4,5,6,b\n"
    for name, text in (("a.csv", content), ("b.csv", content.replace("2,,a", '"2",,a "wide" one'))):
        refused(write(tmp_path, name, text), "'weight'", "no value in 1 of 2 rows", weight_col="weight")


def test_a_lone_carriage_return_is_not_dropped(tmp_path):
    refused(write(tmp_path, "a.csv", "user_id,item_id\n1,a\rb\n2,c\n"), "line 2")


def test_a_mark_of_the_byte_order_is_no_part_of_a_name(tmp_path):
    for encoding in ("utf-16-le", "utf-16-be", "utf-8", "gb18030"):
        path = write(tmp_path, "a.csv", "\ufeffuser_id,item_id\n1,2\n".encode(encoding))
        assert rows(path, encoding=encoding) == [(1, 2)]


def test_blank_lines_of_a_file_with_odd_quotes_are_no_rows(tmp_path):
    path = write(tmp_path, "a.csv", 'user_id,item_id,note\n1,"2",a "wide" one\n\n3,4,"b"\n  \n')
    assert rows(path) == [(1, 2), (3, 4)]


def test_a_long_separator_gives_way_to_a_letter_that_the_file_lacks(tmp_path):
    path = write(tmp_path, "a.dat", "u\x1f\x1e::i\x1d\nv::j\n")
    assert rows(path, columns="user_id,item_id") == [("u\x1f\x1e", "i\x1d"), ("v", "j")]


def test_a_column_named_twice_is_refused_whatever_the_quotes(tmp_path):
    content = "x,user_id,item_id,user_id,x\n9,1,2,3,a\n9,4,5,6,b\n"
    odd = content.replace("3,a", '"3",a "wide" one')
    for name, text in (("a.csv", content), ("b.csv", odd)):
        path = write(tmp_path, name, text)
        refused(path, "two columns named 'user_id'")
        assert rows(path, user_col="user_id_duplicated_0") == [(3, 2), (6, 5)]


def test_quotes_are_checked_in_pieces(tmp_path, monkeypatch):
    frame = pl.DataFrame({"user_id": [f"u{i},{i}" for i in range(50)], "item_id": ["a"] * 50})
    frame.write_csv(tmp_path / "log.csv", quote_style="always")
    monkeypatch.setattr(lines, "_AT_ONCE", 10)
    assert Interactions.read(tmp_path / "log.csv").frame().sort("user_id").equals(frame.sort("user_id"))
    refused(write(tmp_path, "bad.csv", (tmp_path / "log.csv").read_text() + '"u,b\n'), "line 52")


def test_a_second_separator_within_fields_is_no_cause():
    assert cause(["a,b;c", "d,e;f"], ",", TextFormat(), 0) == ("", False)
    assert cause([], ",", TextFormat(), 0) == ("", False)


def test_quotes_of_a_long_last_line_are_checked_from_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "_AT_ONCE", 10)
    refused(write(tmp_path, "log.csv", 'user_id,item_id\na,b\n"u"x,' + "b" * 99), "line 3")


# --- lines and columns


@pytest.mark.parametrize(
    "content",
    [
        ",user_id,item_id\n0,1,10\n1,1,11\n\n2,2,10\n",
        ",user_id,item_id\n0,1,10\n1,1,11\n2,2,10\n\n\n",
        '"",user_id,item_id\n"0",1,10\n"1",1,11\n   \n"2",2,10\n',
        "\n\nuser_id,item_id\n1,10\n\n1,11\n2,10",
        "user_id,item_id\r1,10\r1,11\r2,10\r",
        "user_id,item_id\r\n1,10\r\n\r\n1,11\r\n2,10\r\n",
    ],
)
def test_blank_lines_line_ends_and_an_index_column_do_not_matter(tmp_path, content):
    log = Interactions.read(write(tmp_path, "log.csv", content))
    assert log.frame().rows() == [(1, 10), (1, 11), (2, 10)]
    assert log.summary.rows_in == 3


def test_the_folder_of_a_parquet_file_says_nothing_of_its_columns(tmp_path):
    place = tmp_path / "item_id=5"  # as where tables are written in parts
    place.mkdir()
    pl.DataFrame({"user_id": [1], "item_id": [7]}).write_parquet(place / "log.parquet")
    assert rows(place / "log.parquet") == [(1, 7)]


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_a_name_with_brackets_or_stars_is_that_of_one_file(tmp_path, ending):
    for number, name in enumerate(("log[1]", "log1", "log*", "log**")):
        frame = pl.DataFrame({"user_id": [number], "item_id": [number]})
        if ending == ".parquet":
            frame.write_parquet(tmp_path / (name + ending))
        else:
            content = frame.write_csv().encode()
            write(tmp_path, name + ending, gzip.compress(content) if ending.endswith(".gz") else content)
    for number, name in enumerate(("log[1]", "log1", "log*", "log**")):
        assert rows(tmp_path / (name + ending)) == [(number, number)]


@pytest.mark.parametrize(
    ("option", "values", "word"),
    [
        ("separator", ("", '"', "\n", "a\r", "\0", 5), "separates nothing"),
        ("encoding", ("hex", "rot13", "utf-9", 5, ""), "is not known"),
        ("columns", (",,", (), "user_id,user_id", 5, ["user_id", 5]), "columns"),
        ("skip_lines", (-1, 1.0, "1"), "skip_lines"),
        ("header", (0, "no"), "neither True nor False"),
        ("format", ("movie", 5), "there is no format"),
    ],
)
def test_options_that_say_nothing_are_refused(tmp_path, option, values, word):
    path = write(tmp_path, "log.csv", "user_id,item_id\n1,2\n")
    for value in values:
        refused(path, word, **{option: value})


def test_what_is_given_counts_more_than_the_format(tmp_path):
    path = write(tmp_path, "ratings.csv", "1;2;5;9\n3;4;1;9\n")
    assert rows(path, format="amazon-2014", separator=";") == [(1, 2, 9), (3, 4, 9)]
    path = write(tmp_path, "movies.csv", "who,movieId\n1,2\n")
    assert rows(path, format="movielens", user_col="who") == [(1, 2)]


def test_several_columns_may_be_unwanted(tmp_path):
    path = write(tmp_path, "log.csv", "x,1,y,10\nx,2,y,11\n")
    assert rows(path, columns=",user_id,,item_id") == [(1, 10), (2, 11)]
    refused(path, "'user_id' twice", columns="user_id,user_id,,item_id")


ML = "1::1193::5::978300760\n1::661::3::978302109\n2::661::4::978302109\n"
AMAZON = "A39HT,0205616461,5.0,1369699200\nA3JM6,0558925278,3.0,1355443200\n"
BOOKS = '"User-ID";"ISBN";"Book-Rating"\r\n"7";"034545104X";"0"\r\n"8";" Zoë";"5"\r\n'.encode("latin-1")
NAMES = "user_id,item_id,rating,timestamp"


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("ratings.dat", ML, {"format": "movielens"}, [(1, 661), (1, 1193), (2, 661)]),
        ("ratings.dat", ML, {"columns": NAMES}, [(1, 661), (1, 1193), (2, 661)]),
        ("ratings.dat", ML, {"header": False}, [(1, 661), (1, 1193), (2, 661)]),
        ("ratings.txt", ML, {"separator": "::", "header": False}, [(1, 661), (1, 1193), (2, 661)]),
        ("u.data", ML.replace("::", "\t"), {"format": "movielens"}, [(1, 661), (1, 1193), (2, 661)]),
        ("ratings.csv", "userId,movieId,rating\n1,2,3\n", {"format": "movielens"}, [(1, 2)]),
        ("a.csv", AMAZON, {"format": "amazon-2014"}, [("A39HT", "0205616461"), ("A3JM6", "0558925278")]),
        ("a.csv", AMAZON, {"format": "amazon-2018"}, [("0205616461", "A39HT"), ("0558925278", "A3JM6")]),
        ("a.csv", AMAZON, {"header": False}, [("A39HT", "0205616461"), ("A3JM6", "0558925278")]),
        ("a.csv", AMAZON, {"columns": "user_id,item_id"}, [("A39HT", "0205616461"), ("A3JM6", "0558925278")]),
        ("a.csv", "user_id,parent_asin\n1,B0\n", {"format": "amazon-2023"}, [(1, "B0")]),
        ("b.csv", BOOKS, {"format": "book-crossing"}, [(7, "034545104X"), (8, "Zoë")]),
        ("b.csv", BOOKS, {"format": "book-crossing", "min_rating": 1}, [(8, "Zoë")]),
        ("c.csv", "# exported\n# twice\nuser_id,item_id\n1,2\n", {"skip_lines": 2}, [(1, 2)]),
        ("c.csv", "user_id, item_id\n1 , 2\n3, 4\n", {"strip": True}, [(1, 2), (3, 4)]),
        ("c.csv", "user_id§item_id\n1§2\n", {"separator": "§"}, [(1, 2)]),
        ("c.csv", '"user_id"::"item_id"\n"a::b"::2\n', {"separator": "::"}, [("a::b", 2)]),
        ("c.tsv", "user_id\titem_id\n1\t2\n", {"separator": "\\t"}, [(1, 2)]),
        ("c.csv", "user_id,item_id\né,2\n".encode("utf-16"), {"encoding": "utf-16"}, [("é", 2)]),
    ],
)
def test_real_files_are_read_with_one_option(tmp_path, name, content, options, expected):
    log = Interactions.read(write(tmp_path, name, content), **options)
    assert log.frame().select("user_id", "item_id").rows() == expected
    for pack, suffix in ((gzip.compress, "gz"), (bz2.compress, "bz2"), (zstd, "zst")):
        raw = content if isinstance(content, bytes) else content.encode()
        packed = Interactions.read(write(tmp_path, f"{name}.{suffix}", pack(raw)), **options)
        assert packed.fingerprint() == log.fingerprint()


def zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


def test_times_and_ratings_of_a_file_without_header(tmp_path):
    log = Interactions.read(write(tmp_path, "r.dat", ML), format="movielens", min_rating=4)
    assert log.frame().rows() == [(1, 1193, 978300760), (2, 661, 978302109)]


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("a.csv", AMAZON, {}, ["looks like a row", "--no-header", "--columns"]),
        ("a.csv", AMAZON, {"user_col": "A39HT", "item_col": "0205616461"}, ["but ids", "--no-header"]),
        ("a.csv", ML, {}, ["--separator '::'", "looks like a row", "--no-header"]),
        ("a.csv", "user_id;item_id;weight\n1;10;1,5\n1;11;2,0\n", {}, ["--separator ';'"]),
        ("a.csv", "user_id;item_id\n1;10\n", {}, ["--separator ';'"]),
        ("a.csv", "user_id\titem_id\n1\t10\n", {}, ["--separator '\\t'"]),
        ("a.tsv", "user_id,item_id\n1,10\n", {}, ["--separator ','"]),
        ("a.csv", "# made 2024\nuser_id,item_id\n1,10\n1,11\n", {}, ["line 1", "comment", "--skip-lines 1"]),
        ("a.csv", "Report\n\nx\nuser_id,item_id\n1,10\n1,11\n", {}, ["title", "--skip-lines 2"]),
        ("a.csv", "user_id, item_id\n1, 2\n", {}, ["' item_id'", "--strip"]),
        ("a.csv", "userId,movieId\n1,2\n", {"header": False}, ["line 1", "userId", "looks like a header"]),
        ("a.csv", "1,2\n3,4\n", {"columns": "user_id,item_id,rating"}, ["names 3 columns", "has 2"]),
        ("a.csv", "1,2\n3,4,5\n", {"header": False}, ["line 2 has 3 fields, the first row has 2"]),
        ("a.csv", "user_id;w\n1;2\n", {"separator": ";", "item_col": "w", "encoding": "no"}, ["'no'"]),
        ("a.csv", "é\n".encode("latin-1"), {}, ["UTF-8", "--encoding"]),
        ("a.csv", "\udce9".encode("utf-8", "surrogateescape"), {"encoding": "ascii"}, ["ascii"]),
        ("a.dat", "a:::b\n", {"columns": "user_id,item_id"}, ["line 1", "':::'"]),
        ("a.dat", "x\ny\na::b\na:::b\n", {"columns": "user_id,item_id", "skip_lines": 2}, ["line 4"]),
        ("a.txt", ML, {}, ["'.txt'", "--separator"]),
        ("a.csv.gz", gzip.compress(AMAZON.encode() * 99, mtime=0)[:-9], {}, ["damaged or unfinished"]),
        ("a.csv.gz", AMAZON, {}, ["not compressed"]),
        ("a.csv", zstd(AMAZON.encode()), {}, ["unpack", ".zst"]),
        ("a.csv", AMAZON, {"seperator": ";"}, ["'seperator'", "nearest: separator"]),
        ("a.csv", AMAZON, {"separator": ""}, ["separates nothing"]),
        ("a.csv", AMAZON, {"header": 0}, ["header=0"]),
        ("a.csv", AMAZON, {"skip_lines": 9}, ["fewer lines"]),
        ("a.csv", AMAZON, {"columns": "a,a"}, ["twice"]),
        ("a.csv", AMAZON, {"format": "netflix"}, ["'netflix'", "movielens"]),
        ("a.csv", AMAZON, {"missing_ids": "ignore"}, ["'ignore'"]),
        ("a.csv", "user_id,item_id,w\n1,2,\"1,5\"\n", {"weight_col": "w"}, ["--decimal-comma"]),
    ],
)  # fmt: skip
def test_the_visible_cause_and_its_option_are_named(tmp_path, name, content, options, words):
    path = write(tmp_path, name, content)
    before = path.read_bytes()
    refused(path, *words, **options)
    assert path.read_bytes() == before


def test_a_decimal_comma(tmp_path):
    path = write(tmp_path, "a.csv", "user_id;item_id;weight\n1;10;1,5\n1;11;2,0\n")
    assert rows(path, separator=";", decimal_comma=True) == [(1, 10, 1.5), (1, 11, 2.0)]


# --- ids that say that there is none


MISSING = {
    "quoted": '"user_id","item_id"\n"","10"\n"","11"\n"","12"\n"17","10"\n"17","12"\n"13","11"\n',
    "bare": "user_id,item_id\n,10\n,11\n,12\n17,10\n17,12\n13,11\n",
    "words": "user_id,item_id\nNA,10\nnan,11\nNULL,12\n17,10\n17,12\n13,11\n",
    "quoted words": 'user_id,item_id\n"NA",10\n" None ",11\n"n/a",12\n17,10\n17,12\n13,11\n',
    "other words": "user_id,item_id\n\\N,10\nundefined,11\n<NA>,12\n17,10\n17,12\n13,11\n",
}


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("kind", ["csv", "frame", "parquet"])
def test_missing_ids_are_refused_or_dropped_and_counted(tmp_path, name, kind):
    source = write(tmp_path, "log.csv", MISSING[name])
    if kind != "csv":
        frame = pl.read_csv(source, infer_schema=False)
        source = frame if kind == "frame" else tmp_path / "log.parquet"
        frame.write_parquet(tmp_path / "log.parquet")
    refused(source, "'user_id'", "no value in 3 of 6 rows", "--missing-ids drop (missing_ids='drop')")
    log = Interactions.read(source, missing_ids="drop")
    expected = [(13, 11), (17, 10), (17, 12)]
    assert log.frame().rows() == (expected if kind == "csv" else [(str(u), str(i)) for u, i in expected])
    assert (log.summary.rows_in, log.summary.without_id, log.summary.rows) == (6, 3, 3)
    assert "-3 rows without a user or an item id" in str(log.summary)


def test_missing_ids_can_be_kept_as_they_are(tmp_path):
    path = write(tmp_path, "log.csv", 'user_id,item_id,timestamp\nNA,x,1\n"",x,2\n NA,x,3\n')
    log = Interactions.read(path, missing_ids="keep")
    assert log.user_ids.to_list() == ["", " NA", "NA"]
    split(log, "all").write(tmp_path / "parts")
    assert Split.read(tmp_path / "parts").log.fingerprint() == log.fingerprint()
    refused(write(tmp_path, "n.csv", "user_id,item_id\n,x\na,x\n"), "no value in 1", missing_ids="keep")
    refused(write(tmp_path, "b.csv", "user_id,item_id\n x,1\nNA,2\n"), "--strip", missing_ids="drop")
    refused(
        write(tmp_path, "n.csv", "user_id,item_id\n,x\n"), "leaves none of the 1 rows", missing_ids="drop"
    )


def test_gaps_of_typed_columns_can_be_dropped(tmp_path):
    frame = pd.DataFrame({"user_id": pd.array([1, None, 3], "Int64"), "item_id": ["a", "b", None]})
    assert rows(frame, missing_ids="drop") == [(1, "a")]
    categories = pd.DataFrame({"user_id": pd.Categorical(["NA", "b", None]), "item_id": [1, 2, 3]})
    assert rows(categories, missing_ids="drop") == [("b", 2)]
    floats = pd.DataFrame({"user_id": [1, None], "item_id": [1, 2]})
    refused(floats, "column 'user_id' of the pandas frame", "Int64", missing_ids="drop")


def test_blanks_around_ids(tmp_path):
    path = write(tmp_path, "log.csv", "user_id,item_id\n 1,a\n1,b\n2\u00a0,c\n")
    refused(path, "blanks around the ids of 2 of 3 rows", "--strip (strip=True)", "keep")
    assert rows(path, strip=True) == [(1, "a"), (1, "b"), (2, "c")]
    assert rows(pl.DataFrame({"user_id": [" a"], "item_id": ["b "]}), strip=True) == [("a", "b")]


# --- columns nobody asked for


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("weight", ["137lbs", "", "132lbs"]),
        ("weight", ["-1", "2", "3"]),
        ("weight", ["nan", "2", "3"]),
        ("weight", ["1e39", "2", "3"]),
        ("timestamp", ["1", "", "3"]),
        ("timestamp", ["noon", "2", "3"]),
        ("timestamp", ["2020-01-01 10:00:00Z", "2020-01-01 10:00:00", "2020-01-01 10:00:00"]),
    ],
)
def test_a_column_that_cannot_be_used_blocks_only_if_named(tmp_path, column, values):
    content = f"user_id,item_id,{column}\n" + "".join(f"1,{n},{v}\n" for n, v in enumerate(values))
    path, option = write(tmp_path, "log.csv", content), "time_col" if column == "timestamp" else "weight_col"
    with pytest.warns(GreysheepWarning, match=f"'{column}'.*left out: {option}='none'"):
        log = Interactions.read(path)
    assert log.frame().columns == ["user_id", "item_id"]
    refused(path, f"'{column}'", **{option: column})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Interactions.read(path, **{option: "none"}).fingerprint() == log.fingerprint()


def test_the_summary_says_what_weight_is_used_as():
    frame = pl.DataFrame({"user_id": [1], "item_id": [2], "weight": [250]})
    text = str(Interactions.read(frame).summary)
    assert "column 'weight' is the weight of a row" in text and "--weight-col none" in text
    off = Interactions.read(frame, weight_col="none")
    assert off.weights is None and "weight" not in str(off.summary)


UTC = dt.UTC


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["2019-10-01 00:00:00 UTC", "2019-10-01 01:00:00 GMT"], [(0, UTC), (60, UTC)]),
        ([" 2019-10-01 00:00:00", "2019-10-01T00:01 "], [(0, None), (1, None)]),
        (["2019-10-01T02:00:00+02:00", "2019-10-01T00:00:00Z"], [(0, UTC), (0, UTC)]),
        (["2019-10-01 00:00:00.0-0530", "2019-10-01 00:00:00 +01"], [(330, UTC), (-60, UTC)]),
        (["Tue Oct 01 02:00:00 +0200 2019", "Tue Oct 01 00:05:00 +0000 2019"], [(0, UTC), (5, UTC)]),
        (["2019-10-01", "2019-10-01 10:00:00"], [(0, None), (600, None)]),
    ],
)
def test_times_with_zones_and_blanks(tmp_path, written, expected):
    content = "user_id,item_id,timestamp\n" + "".join(f"{n},1,{time}\n" for n, time in enumerate(written))
    times = Interactions.read(write(tmp_path, "t.csv", content), time_col="timestamp").times
    start = dt.datetime(2019, 10, 1)
    assert times is not None
    assert times.to_list() == [start.replace(tzinfo=zone) + dt.timedelta(minutes=m) for m, zone in expected]


def test_times_of_which_some_have_a_zone(tmp_path):
    content = "user_id,item_id,t\n1,1,2019-10-01T00:00:00Z\n1,2,2019-10-01T00:00:00\n"
    refused(write(tmp_path, "t.csv", content), "1 times without a zone among 1", time_col="t")


# --- types


IDS = [uuid.UUID(int=2**100 + n) for n in range(2)]
UUID_TABLE = pa.table({"user_id": pa.array([one.bytes for one in IDS], pa.uuid()), "item_id": [1, 2]})


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "parquet"])
def test_uuids_become_their_usual_text(tmp_path, kind):
    pq.write_table(UUID_TABLE, tmp_path / "log.parquet")
    data = {"user_id": IDS, "item_id": [1, 2]}
    source = {
        "pandas": lambda: pd.DataFrame(data),
        "polars": lambda: pl.DataFrame(data),
        "arrow": lambda: UUID_TABLE,
        "parquet": lambda: tmp_path / "log.parquet",
    }[kind]()
    assert rows(source) == [(str(IDS[0]), 1), (str(IDS[1]), 2)]


def test_large_integers_and_decimals():
    items = [1, 2]
    decimals = pd.DataFrame({"user_id": [Decimal(1), Decimal(2**90)], "item_id": items})
    assert rows(decimals) == [(1, 1), (2**90, 2)]
    small = pa.table({"user_id": pa.array([Decimal(2), Decimal(1)], pa.decimal256(50, 0)), "item_id": items})
    log = Interactions.read(small)
    assert log.user_ids.dtype == pl.Int64 and log.frame().rows() == [(1, 2), (2, 1)]
    other = small.append_column("x", pa.array([1, 2])).rename_columns(["odd", "item_id", "user_id"])
    assert rows(other) == [(1, 1), (2, 2)]
    refused(pd.DataFrame({"user_id": [Decimal("1.5"), Decimal(2)], "item_id": items}), "Decimal")
    refused(pd.DataFrame({"user_id": [1, 2**140], "item_id": items}), "1 integers beyond 128 bits")
    wide = pl.DataFrame({"user_id": pl.Series([2**127, 1], dtype=pl.UInt128), "item_id": items})
    assert rows(wide) == [(1, 2), (2**127, 1)]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    refused(tmp_path / "log.csv", "no regular file")


def test_frames_that_are_none():
    frame = pd.DataFrame({"user_id": [1], "item_id": [2], "weight": [1.0]})
    refused(frame.set_index(["user_id", "item_id"]), "index holds user_id and item_id", "reset_index()")
    refused(frame["user_id"], "Series", "no named columns")
    refused(pl.Series([1]), "Series", "no named columns")
    refused(pl.LazyFrame({"a": [1]}).select("b"), "lazy frame")
    refused(pl.scan_csv("none.csv"), "lazy frame")
    refused(frame, "is for files", format="movielens")


# --- the command


def test_every_option_reaches_the_command(tmp_path, monkeypatch, capfd: Capture):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "r.dat", ML.replace("2::661", "NA::661"))
    line = "mainstream r.dat -o out.csv --separator :: --no-header --missing-ids drop"
    assert run(line.split()) == 0
    assert "-1 rows without a user" in capfd.readouterr().out
    write(tmp_path, "b.csv", BOOKS)
    assert run(["split", "b.csv", "-o", "parts", "--format", "book-crossing", "--protocol", "all"]) == 0
    odd = 'x\nu;i;w\n1 ;10;1,5\n1;"11;2,0\n'
    write(tmp_path, "c.txt", odd)
    line = (
        "split c.txt -o parts2 --protocol all --separator ; --skip-lines 1 --strip --decimal-comma "
        "--no-quotes --encoding latin-1 --user-col u --item-col i --weight-col w"
    )
    assert run(line.split()) == 0
    assert "column 'w' is the weight" in capfd.readouterr().out
    assert Split.read(tmp_path / "parts2").log.weights.tolist() == [2.0, 1.5]


def test_lists_and_histories_may_have_no_header(tmp_path, monkeypatch, capfd: Capture):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "log.csv", "".join(f"{u},{i}\n" for u in range(8) for i in range(u, u + 5)))
    assert run(["fit", "log.csv", "-o", "model", "--model", "popular", "--no-header"]) == 0
    write(tmp_path, "new.csv.gz", gzip.compress(b"99,3\n99,4\n"))
    assert (
        run(["recommend", "model", "--history", "new.csv.gz", "--no-header", "-k", "2", "-o", "recs.parquet"])
        == 0
    )
    assert pl.read_parquet("recs.parquet")["user_id"].unique().to_list() == [99]
    assert run(["split", "log.csv", "-o", "parts", "--no-header"]) == 0
    test = pl.read_parquet("parts/test.parquet")
    write(tmp_path, "recs.csv", "".join(f"{u},{i},1\n" for u, i in test[["user_id", "item_id"]].rows()))
    line = "evaluate --recs recs.csv --split parts --columns user_id,item_id,rank -k 1 --json -"
    assert run(line.split()) == 0
    assert '"n_users": 8' in capfd.readouterr().out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk"])
def test_letters_that_a_console_lacks_are_replaced(tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "log.csv", "user_id,item_id\nユーザ1,映画1\nユーザ1,ßπ\nユーザ2,映画1\nユーザ2,映画3\n")
    bad = "\udcff"  # what Python makes of a file name that is no UTF-8
    commands = {"fit log.csv -o モデル --model popular": 0, "recommend モデル -k 2": 0, "data list": 0}
    commands |= {"mainstream log.csv -o 結果.csv": 0, f"mainstream ない{bad}.csv -o x.csv": 2}
    for command, code in commands.items():
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "argv", ["greysheep", *command.split()])
        with pytest.raises(SystemExit) as end:
            main()
        for stream in (out, err):
            stream.flush()
        assert end.value.code == code, err.buffer.getvalue()
        if command.startswith("recommend"):
            assert b"1.0000" in out.buffer.getvalue() and (b"?" in out.buffer.getvalue() or encoding == "gbk")


# --- a log in any dialect


LETTERS = st.text(st.sampled_from(list("ab7 \"',;\t|:\n\r#éπ-")), max_size=4)
PAIRS = st.lists(st.tuples(LETTERS, LETTERS, LETTERS), min_size=1, max_size=6)
DIALECT = st.fixed_dictionaries(
    {
        "separator": st.sampled_from([",", ";", "\t", "|"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "end": st.sampled_from(["\n", "\r\n"]),
        "header": st.booleans(),
        "bom": st.booleans(),
        "encoding": st.sampled_from(["utf-8", "utf-16", "gbk"]),
        "pack": st.sampled_from([bytes, gzip.compress, zstd]),
        "title": st.booleans(),
        "index": st.booleans(),
    }
)
USUAL = {
    "separator": ",", "quoting": csv.QUOTE_MINIMAL, "end": "\n", "header": True, "bom": False,
    "encoding": "utf-8", "pack": bytes, "title": False, "index": False,
}  # fmt: skip


def written(triples, dialect):
    """A file as another program would write it, and the options to read it with."""
    names = ["user_id", "item_id", "note"]
    table = [names, *triples] if dialect["header"] else list(triples)
    if dialect["index"]:
        table = [[str(n) if n or not dialect["header"] else "", *row] for n, row in enumerate(table)]
        names = ["", *names]
    buffer = io.StringIO()
    csv.writer(
        buffer, delimiter=dialect["separator"], quoting=dialect["quoting"], lineterminator=dialect["end"]
    ).writerows(table)
    text = ("A title" + dialect["end"] if dialect["title"] else "") + buffer.getvalue()
    bom = "\ufeff" if dialect["bom"] and dialect["encoding"] == "utf-8" else ""
    options = {"separator": dialect["separator"], "encoding": dialect["encoding"]}
    options |= {} if dialect["header"] else {"columns": names}
    options |= {"skip_lines": 1} if dialect["title"] else {}
    return (bom + text).encode(dialect["encoding"], "replace"), options


@settings(max_examples=120, deadline=None)
@given(PAIRS, DIALECT)
@example([("a", "b", '"x'), ("b", 'y"', "")], USUAL)
@example([('a"', "b", "c"), ("b", '"y"', "c\nd")], USUAL)
@example([("a", "b", "c\n7,8,9")], USUAL)
def test_any_dialect_is_read_back_or_refused(tmp_path_factory, triples, dialect):
    folder = tmp_path_factory.getbasetemp()
    content, options = written(triples, dialect)
    suffix = {bytes: "", gzip.compress: ".gz", zstd: ".zst"}[dialect["pack"]]
    path = write(folder, f"fuzz.csv{suffix}", dialect["pack"](content))
    try:
        log = Interactions.read(path, missing_ids="keep", **options)
    except DataError as error:
        assert "\n" not in str(error)
        legible = all(u and i and not {"\r", "\n"} & set(u + i + n) for u, i, n in triples)
        assert not legible, (error, content)  # plain texts on one line each are never refused
        return
    code = dialect["encoding"]
    expected = {tuple(id.encode(code, "replace").decode(code) for id in one[:2]) for one in triples}
    assert {(str(u), str(i)) for u, i in log.frame().select("user_id", "item_id").rows()} == expected
    assert log.summary.rows_in == len(triples)


FIELD = st.text(st.sampled_from(list('ab"')), max_size=4)
CARELESS = st.lists(st.lists(FIELD, min_size=3, max_size=3), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(CARELESS)
def test_quotes_of_careless_programs_swallow_nothing(tmp_path_factory, triples):
    """Fields put side by side without a thought for quotes: every line is a row, or the file is refused."""
    table = [["user_id", "item_id", "note"], *triples]
    path = write(
        tmp_path_factory.getbasetemp(), "careless.tsv", "".join("\t".join(row) + "\n" for row in table)
    )
    try:
        source = open_source(path)
    except DataError as error:
        assert "quote" in str(error)
        return
    assert source.load(["user_id"]).height == len(triples)
