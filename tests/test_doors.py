"""What a caller hands over comes in through one door a kind: it is understood, or refused in one line."""

from __future__ import annotations

import datetime as dt
import tracemalloc
import uuid
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import greysheep as gs
from greysheep.cli import run
from greysheep.comparison.request import CompareRequest
from greysheep.comparison.verdicts import verdict
from greysheep.data.columns import ITEM, USER
from greysheep.data.ids import ids_by_user, ids_like
from greysheep.errors import ConfigError, DataError, GreysheepError, GreysheepWarning, UnknownUserError
from greysheep.evaluation.report import compared
from greysheep.mainstream.groups import GROUPS
from greysheep.models.config import RunOptions

ROWS = pl.DataFrame(
    [(u, i, u + i) for u in range(8) for i in range(u, u + 6)], schema=[USER, ITEM, "timestamp"], orient="row"
)
INTEGERS, TEXTS = pl.Series([1, 5, 6]), pl.Series(["1", "5", "6"])


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    """A log of integers, its split, a model of each, an index, and the same with text."""
    log = gs.Interactions.read(ROWS)
    text = gs.Interactions.read(ROWS.with_columns(pl.col(USER, ITEM).cast(pl.String)))
    split = gs.split(log)
    mixture = gs.TALL(n_experts=2, latent=4, epochs=1, progress=False).fit(split)
    return {
        "log": log,
        "split": split,
        "model": gs.Popular().fit(split),
        "text": gs.EASE().fit(text),
        "mixture": mixture,
        "index": gs.compile_index(mixture, rank=4),
    }


# Ids

LISTS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "iterator": iter,
    "keys": lambda x: dict.fromkeys(x).keys(),
    "array": np.array,
    "objects": lambda x: np.array(x, dtype=object),
    "Series": pl.Series,
    "pandas": pd.Series,
    "Index": pd.Index,
    "pandas category": lambda x: pd.Series(x, dtype="category"),
    "Arrow": pa.array,
    "chunks": lambda x: pa.chunked_array([x]),
    "frame": lambda x: pl.DataFrame({"any": x}),
    "column": lambda x: pl.DataFrame({ITEM: x, "title": "t"}),
    "lazy": lambda x: pl.LazyFrame({ITEM: x}),
    "pandas frame": lambda x: pd.DataFrame({ITEM: x}),
    "table": lambda x: pa.table({ITEM: x}),
    "batch": lambda x: pa.record_batch({ITEM: x}),
    "index of a frame": lambda x: pd.DataFrame({ITEM: x, "n": 1}).set_index(ITEM),
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("known", [INTEGERS, TEXTS], ids=["integers", "text"])
def test_every_list_of_ids_is_taken(kind: str, known: pl.Series) -> None:
    ids = known.to_list()[1:]
    assert ids_like(LISTS[kind](ids), "items", ITEM, known).to_list() == ids


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("known", [INTEGERS, TEXTS], ids=["integers", "text"])
def test_ids_of_another_type_are_refused(kind: str, known: pl.Series) -> None:
    other = (TEXTS if known is INTEGERS else INTEGERS).to_list()
    with pytest.raises(
        DataError, match=r"^exclude_items holds .* but the item ids are .*: give them in that"
    ):
        ids_like(LISTS[kind](other), "exclude_items", ITEM, known)


REFUSED = {
    "text": "5",
    "bytes": b"5",
    "number": 5,
    "nothing": None,
    "dict": {5: 6},
    "path": Path("ids.csv"),
    "floats": [5.0],
    "float array": np.array([5.0]),
    "float Series": pl.Series([5.0]),
    "NaN": [5, float("nan")],
    "gap": pd.Series([5, None], dtype="Int64"),
    "null": pl.Series([5, None]),
    "NA": ["a", pd.NA],
    "bools": [True],
    "mixed": [5, "5"],
    "nested": [[5]],
    "table of numbers": np.array([[5]]),
    "no dimension": np.array(5),
    "masked": np.ma.array([5, 6], mask=[0, 1]),
    "dates": [dt.date(2020, 1, 1)],
    "times": np.array(["2020"], "M8[ns]"),
    "bytes array": np.array([b"5"]),
    "two levels": pd.MultiIndex.from_tuples([(5, 6)]),
    "structs": pl.Series([{"a": 5}]),
    "no such column": pl.DataFrame({"a": [5], "b": [6]}),
    "no column": pl.DataFrame(),
    "file": open(__file__),  # noqa: SIM115
    "half a letter": ["\ud800"],
    "huge": [1 << 200],
    "expression": pl.col("a"),
    "class": int,
    "fraction": [Decimal("5.5")],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_list_of_ids_is_refused_in_one_line(name: str) -> None:
    for known in (INTEGERS, TEXTS):
        with pytest.raises(DataError, match=r"^users\b") as refusal:
            ids_like(REFUSED[name], "users", USER, known)
        assert "\n" not in str(refusal.value)


def test_ids_beside_the_plain_ones() -> None:
    one = uuid.UUID(int=5)
    assert ids_like([one], "users", USER, TEXTS).to_list() == [str(one)]
    assert ids_like([Decimal(5), np.int8(6)], "users", USER, INTEGERS).to_list() == [5, 6]
    assert ids_like(np.array([5], ">i8"), "users", USER, INTEGERS).to_list() == [5]
    assert ids_like(torch.tensor([5, 6]), "users", USER, INTEGERS).to_list() == [5, 6]
    assert ids_like([2**70], "users", USER, INTEGERS).to_list() == [2**70]
    assert ids_like([], "users", USER, TEXTS).dtype == pl.String
    assert ids_like({"b", "a", "c"}, "users", USER, TEXTS).to_list() == ["a", "b", "c"]
    assert ids_like(["new"], "users", USER, INTEGERS, TEXTS).to_list() == ["new"]  # a history of others


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(-(2**70), 2**70), st.lists(st.text(max_size=3), max_size=4), min_size=1))
def test_pairs_of_a_dict_and_of_a_frame_are_the_same(own: dict[int, list[str]]) -> None:
    pairs = [(user, item) for user, items in own.items() for item in items]
    users, items = ids_by_user(own, "candidates", INTEGERS, TEXTS) or ([], [])
    assert list(zip(users, items, strict=True)) == pairs
    if pairs:
        frame = pl.DataFrame(pairs, schema={USER: pl.Int128, ITEM: pl.String}, orient="row")
        users, items = ids_by_user(frame, "candidates", INTEGERS, TEXTS) or ([], [])
        assert list(zip(users, items, strict=True)) == pairs


@pytest.mark.parametrize("who", ["model", "index"])
def test_an_exclusion_works_or_is_refused(who: str, world: dict[str, Any]) -> None:
    model = world[who]
    first = model.recommend([1], k=2)["item_id"].to_list()
    for kind in LISTS:
        assert not set(first) & set(model.recommend([1], k=2, exclude_items=LISTS[kind](first))["item_id"])
    for name, wrong in REFUSED.items():
        with pytest.raises(DataError, match="exclude_items"):
            model.recommend([1], exclude_items=["5"] if name == "nothing" else wrong)
    with pytest.warns(
        GreysheepWarning, match="1 of 2 exclude_items are unknown items and were left out"
    ) as told:
        model.recommend([1], k=2, exclude_items=[first[0], 999])
    assert len(told) == 1 and told[0].filename == __file__


@pytest.mark.parametrize("who", ["model", "index"])
def test_a_wrong_type_is_not_called_unknown(who: str, world: dict[str, Any]) -> None:
    model = world[who]
    with pytest.raises(DataError, match="users holds text like '1', but the user ids are integers like 0"):
        model.recommend(["1"])
    with pytest.raises(DataError, match="items holds text like '3'"):
        model.similar_items(["3"])
    with pytest.raises(UnknownUserError, match="among them 99"):
        model.recommend([99])
    history = pl.DataFrame({USER: [1, 1], ITEM: ["3", "4"]})
    for call in (lambda: model.recommend(history=history), lambda: model.groups_of(history)):
        with pytest.raises(DataError, match="history holds text like '3', but the item ids are integers"):
            call()
    with pytest.raises(DataError, match="the test log holds text like '1'"):
        gs.evaluate(model, test=pl.DataFrame({USER: ["1"], ITEM: [9]}))
    strange = pl.DataFrame({USER: [1, 1], ITEM: [3, 999]})
    with pytest.warns(GreysheepWarning, match="1 of 2 items in history are unknown"):
        model.groups_of(strange)
    with pytest.raises(DataError, match=r"1 of 2 users are not between 0 and 7, among them 99"):
        model.rank([0, 99])


# Files of the command


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ROWS.write_parquet("log.parquet")
    gs.Popular().fit(ROWS).save("m")
    return tmp_path


def lists_of(line: str) -> dict[int, list[int]]:
    assert run(["recommend", "m", *line.split(), "-o", "recs.parquet"]) == 0
    recs = pl.read_parquet("recs.parquet")
    return {
        user: recs.filter(user_id=user)[ITEM].to_list() for user in recs[USER].unique(maintain_order=True)
    }


def test_exclusions_of_files(desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = lists_of("--user 1 -k 1")[1]
    for name, content in {
        "a.csv": f"item_id\n{first[0]}\n",
        "a.txt": f"{first[0]}\n",
        "a.tsv": f"item_id\tt\n{first[0]}\tx\n",
    }.items():
        Path(name).write_text(content)
        assert lists_of(f"--user 1 -k 1 --exclude-items {name}")[1] != first
    bad = {
        "b.csv": "item_id\n18.0\n",
        "c.csv": f"item_id\n{first[0]}\nx7\n",
        "d.csv": f"item_id,user_id\n{first[0]},1\n",
    }
    for name, content in bad.items():
        Path(name).write_text(content)
        assert run(["recommend", "m", "--user", "1", "--exclude-items", name]) == 2
    told = capfd.readouterr().err
    assert "b.csv: 1 of 1 ids cannot be one of this model, which are Int64; the first is '18.0'" in told
    assert "c.csv: 1 of 2 ids cannot be" in told and "d.csv has a column 'user_id', too" in told
    pl.DataFrame({ITEM: [str(first[0])]}).write_parquet("text.parquet")
    assert run(["recommend", "m", "--user", "1", "--exclude-items", "text.parquet"]) == 2
    assert "exclude_items holds text" in capfd.readouterr().err


def test_candidates_of_each_user_from_a_file(desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("c.csv").write_text("user_id,item_id\n1,9\n1,10\n3,0\n")
    assert {user: set(items) for user, items in lists_of("--candidates c.csv").items()} == {
        1: {9, 10},
        3: {0},
    }
    assert lists_of("--candidates c.csv --user 3") == {3: [0]}
    pl.read_csv("c.csv").write_parquet("c.parquet")
    assert lists_of("--candidates c.parquet --user 3") == {3: [0]}
    capfd.readouterr()
    assert lists_of("--candidates c.csv --user 3 --user 2") == {3: [0]}
    assert "1 of 2 users have no candidates" in capfd.readouterr().err
    Path("t.csv").write_text("user_id,item_id\nx,9\n1,10\n")
    assert lists_of("--candidates t.csv --on-unknown skip") == {"1": [10]}  # ids beside which 'x' can stand


# Numbers


def test_numbers_are_checked_at_one_door(world: dict[str, Any]) -> None:
    model, split, log = world["model"], world["split"], world["log"]
    recs = model.recommend(k=3)
    measured = (lambda k: gs.evaluate(model, k=k), lambda k: gs.evaluate(recs, split, k=k))
    for call in (
        *measured,
        lambda k: model.rank([0], k=k),
        lambda k: model.recommend(k=k),
        lambda k: model.recommend([], k=k),
        lambda k: model.similar_items([1], k=k),
    ):
        call(np.int64(3))
        several = (
            [3, 0] if call in measured else [3]
        )  # lists are measured at several lengths, but made at one
        for k in (0, -1, True, 2.5, "3", None, np.bool_(True), 10**400, several):
            with pytest.raises(ConfigError, match=r"^k=.* is not a whole number of at least 1"):
                call(k)
    for call in (
        lambda seed: gs.evaluate(model, seed=seed),
        lambda seed: gs.split(log, seed=seed),
        lambda seed: gs.simulate(30, seed=seed),
        lambda seed: gs.TALL(seed=seed),
        lambda seed: RunOptions(seed=seed) and gs.EASE(seed=seed),
        lambda seed: gs.compile_index(world["mixture"], rank=2, seed=seed),
        lambda seed: gs.mainstream_scores(log.matrix(), seed=seed),
    ):
        call(np.uint64(2**64 - 1))
        for seed in (-1, 2**64, 10**400, True, 1.5, "x"):
            with pytest.raises((ConfigError, ValueError), match="seed"):
                call(seed)
    for keywords in (
        {"epochs": True},
        {"threads": 1_000_000},
        {"threads": 0},
        {"n_experts": True},
        {"dropout": True},
    ):
        with pytest.raises(ConfigError, match=f"tall: {next(iter(keywords))}=.* is not possible"):
            gs.TALL(**keywords)
    assert gs.TALL(epochs=np.int64(3), gate_gradient=np.bool_(True)).config.epochs == 3
    with pytest.raises(ConfigError, match=r"seeds=True: give how many"):
        gs.compare(log, ["popular"], seeds=True, out="never")


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_the_largest_seeds_train(seed: int, world: dict[str, Any]) -> None:
    for model in (gs.MultVAE(epochs=1, latent=2, seed=seed, progress=False), gs.IALS(factors=2, seed=seed)):
        report = gs.evaluate(model.fit(gs.split(world["log"], seed=seed)), k=2)
        assert report.seed == seed and gs.Report.from_dict(report.to_dict()).seed == seed


def test_memory_grows_with_the_items_not_with_k(world: dict[str, Any]) -> None:
    model, split = world["model"], world["split"]
    recs = model.recommend(k=3)
    plain, large = (gs.evaluate(recs, split, k=k).overall for k in (17, 1000))
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GreysheepWarning)
            found = [gs.evaluate(one, split, k=10**9).overall for one in (model, recs)]
        model.recommend(k=10**9)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert found[1][f"recall@{10**9}"] == plain["recall@17"] == large["recall@1000"]
    assert found[1][f"ndcg@{10**9}"] == plain["ndcg@17"]


def test_lists_are_judged_in_pieces(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = world["model"]
    whole = gs.evaluate(model, k=5)
    monkeypatch.setattr("greysheep.evaluation.evaluate.LISTED_CELLS", 10)
    assert gs.evaluate(model, k=5).per_user.equals(whole.per_user)


def test_a_hit_behind_unknown_items_counts(world: dict[str, Any]) -> None:
    """A list may be longer than the catalogue: its unknown items are misses."""
    split = world["split"]
    test = split.log.frame().filter(pl.Series(split.part == 3))[[USER, ITEM]]
    strange = pl.DataFrame(
        [(u, 1000 + i) for u in range(8) for i in range(30)], schema=[USER, ITEM], orient="row"
    )
    recs = pl.concat([strange.with_columns(rank=1), test.with_columns(rank=9999)])
    with pytest.warns(GreysheepWarning, match="not in the log"):
        assert gs.evaluate(recs, split, k=100).overall["recall@100"]["mean"] == 1


# Logs and splits


def test_all_that_takes_a_log_takes_what_read_takes(tmp_path: Path, world: dict[str, Any]) -> None:
    ROWS.write_csv(tmp_path / "log.csv")
    expected = world["split"].fingerprint()
    for source in (ROWS, ROWS.to_pandas(), ROWS.to_arrow(), str(tmp_path / "log.csv"), tmp_path / "log.csv"):
        assert gs.split(source).fingerprint() == expected
        assert gs.Popular().fit(source).recommend([1]).equals(gs.Popular().fit(world["log"]).recommend([1]))
    with pytest.raises(DataError, match="split takes a log, not a split"):
        gs.split(world["split"])
    recs = world["model"].recommend(k=3)
    for given_split in (world["log"], ROWS, "parts"):
        for one in (recs, world["model"]):
            with pytest.raises(DataError, match="evaluate takes a split, not a"):
                gs.evaluate(one, given_split)


def test_completion_offers_public_names_only() -> None:
    assert dir(gs.datasets) == ["ABOUT", "Dataset", "get", "load", "names", "simulate"]


# Anything odd, everywhere

ODD = [
    None,
    True,
    -1,
    3.5,
    float("nan"),
    10**400,
    "x",
    "",
    "a\0b",
    "\ud800",
    b"x",
    [None],
    ["1"],
    [1.0],
    {},
    {1: None},
    object(),
    int,
    np.array(5),
    np.array([1, 2]),
    np.array(["2020"], "M8[ns]"),
    np.zeros(2, dtype=[("a", "i4")]),
    pl.Series([None]),
    pl.Series(["a"]),
    pl.Series([[1]]),
    pl.DataFrame({USER: [1], ITEM: [2]}),
    pd.Series([1, None]),
    pd.DataFrame({USER: [1], ITEM: [2]}),
    pa.array([{"a": 1}]),
    pa.table({}),
    torch.tensor(1),
    "n" * 300,
    "~nobody-here/x",
]


def walks(world: dict[str, Any], folder: Path) -> dict[str, Callable[[Any], object]]:
    """Public calls, each with one argument left open."""
    log, split, model, text, index = (world[name] for name in ("log", "split", "model", "text", "index"))
    report, rows = gs.evaluate(model, k=3), log.matrix()
    lists = model.recommend(k=3)
    known = gs.Mainstream.fit(rows, log.user_ids)
    calls: dict[str, Callable[[Any], object]] = {
        "split": gs.split,
        "split protocol": lambda x: gs.split(log, x),
        "fit": lambda x: gs.Popular().fit(x),
        "refit": lambda x: gs.Popular().fit(log, refit=x),
        "checkpoints": lambda x: gs.MultVAE(epochs=1, latent=1, progress=False).fit(log, checkpoints=[x]),
        "resume": lambda x: gs.Popular().fit(log, resume=x),
        "evaluate": gs.evaluate,
        "recs": lambda x: gs.evaluate(x, split),
        "evaluate split": lambda x: gs.evaluate(model, x),
        "test": lambda x: gs.evaluate(model, test=x),
        "draws": lambda x: gs.evaluate(model, draws=x),
        "groups": lambda x: gs.evaluate(model, k=3, groups=x),
        "groups of a split": lambda x: gs.split(log, groups=x),
        "groups of a search": lambda x: gs.tune("popular", log, groups=x),
        "beyond": lambda x: gs.evaluate(model, k=3, beyond=x),
        "items of evaluate": lambda x: gs.evaluate(model, k=3, items=x),
        "audit": lambda x: gs.audit(x, lists, split=split, k=3),
        "audit recs": lambda x: gs.audit(log, x, split=split, k=3),
        "audit named recs": lambda x: gs.audit(log, {"a": x}, split=split, k=3),
        "load": gs.load,
        "create": gs.models.create,
        "parse": gs.models.parse,
        "save": lambda x: None if isinstance(x, str) and x in ("x", "n") else model.save(x),
        "rank": index.rank,
        "stage": lambda x: model.rank([0], stage=x),
        "read": gs.Interactions.read,
        "format": lambda x: gs.Interactions.read(ROWS, format=x),
        "missing_ids": lambda x: gs.Interactions.read(ROWS, missing_ids=x),
        "stage of vectors": lambda x: index.vectors([0], x),
        "groups_of": model.groups_of,
        "vectors": index.vectors,
        "rows": split.rows,
        "Split.read": gs.Split.read,
        "matrix": log.matrix,
        "decode": log.decode_items,
        "encode": log.encode_items,
        "simulate": lambda x: gs.simulate(30, minority=x),
        "items": lambda x: gs.simulate(30, n_items=x),
        "set": gs.datasets.load,
        "set folder": lambda x: gs.datasets.load("yelp", x),
        "option": lambda x: gs.datasets.load("simulated", nope=x),
        "mainstream": gs.mainstream_scores,
        "against": lambda x: gs.mainstream_scores(rows, x),
        "sample": lambda x: gs.mainstream_scores(rows, sample=x),
        "Mainstream": lambda x: gs.Mainstream.fit(x, log.user_ids),
        "user_ids": lambda x: gs.Mainstream.fit(rows, x),
        "assign": known.assign,
        "gap": report.gap,
        "versus": report.versus,
        "margin": lambda x: report.versus(report, margin=x),
        "from_dict": gs.Report.from_dict,
        "Comparison": gs.Comparison.read,
        "page": lambda x: gs.write_html(x, folder / "p.html"),
        "examples": lambda x: gs.write_html(report, folder / "p.html", examples=[x]),
        "title": lambda x: gs.write_html(report, folder / "p.html", title=[x]),
        "compile": gs.compile_index,
        "rank of an index": lambda x: gs.compile_index(world["mixture"], rank=x if x is not None else 0),
        "tolerance": lambda x: gs.compile_index(world["mixture"], rank=2, tolerance=x),
        "preset": lambda x: gs.TALL(preset=x),
        "label": lambda x: gs.TALL(label=x),
        "variant": lambda x: gs.TALL(variant=x),
        "models": lambda x: gs.compare(log, x, out=folder / "c", max_minutes=0, progress=False),
        "max_minutes": lambda x: CompareRequest(models=["popular"], max_minutes=x),
        "tune": lambda x: gs.tune("ease", x, trials=1, progress=False),
        "fixed": lambda x: gs.tune("popular", log, fixed=x),
        "storage": lambda x: gs.tune("popular", log, storage=x),
    }
    for who, one in (("integers", model), ("text", text), ("index", index)):
        for name in ("users", "k", "exclude_seen", "candidates", "exclude_items", "history", "on_unknown"):
            calls[f"{who} {name}"] = lambda x, one=one, name=name: one.recommend(**{name: x})
        calls[f"{who} similar"] = one.similar_items
    for name in (
        "user_col",
        "item_col",
        "time_col",
        "weight_col",
        "rating_col",
        "min_rating",
        "min_user_items",
    ):
        calls[f"read {name}"] = lambda x, name=name: gs.Interactions.read(ROWS, **{name: x})
    for name in ("k", "test", "split", "groups", "items", "reference", "margin"):
        calls[f"audit {name}"] = lambda x, name=name: gs.audit(
            log, lists, **{"split": split, "k": 3, name: x}
        )
    for name in ("seeds", "k", "out", "reference", "margin", "jobs", "protocol", "groups"):
        more = {"out": folder / "d", "max_minutes": 0, "progress": False}
        calls[f"compare {name}"] = lambda x, name=name, more=more: gs.compare(
            log, ["popular"], **{**more, name: x}
        )
    return calls


def test_whatever_is_handed_over_only_our_own_errors_come_back(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREYSHEEP_DATA", str(tmp_path))
    foreign = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", GreysheepWarning)
        for name, call in walks(world, tmp_path).items():
            for value in ODD:
                try:
                    call(value)
                except GreysheepError as error:
                    assert "\n" not in str(error), name
                except BaseException as error:  # what polars calls a panic is no Exception
                    foreign.append(f"{name}({str(value)[:40]!r}): {type(error).__name__}: {str(error)[:80]}")
    assert not foreign, "\n".join(foreign)


# Few users


def test_with_few_users_no_sentence_claims_what_can_be_resolved() -> None:
    random = np.random.default_rng(0)
    for n, words in (
        (1, "1 user is too few to tell"),
        (7, "7 users are too few to tell"),
        (8, "this log can resolve"),
    ):
        mine, theirs = random.random(n), random.random(n)
        tested = compared(mine, theirs, 0.02, 200) | {"p_holm": 1.0}
        assert np.isnan(tested["resolvable_margin"]) == (n < 8)
        rows = [{"group": group, "n_users": n, **tested} for group in ("overall", *GROUPS)]
        rows = [row | {"verdict": "undecided"} for row in rows]
        sentence = verdict(rows, 0.02)
        assert words in sentence and ("can resolve" in sentence) == (n >= 8), sentence
        assert f"{GROUPS[1]} ({'can resolve' if n >= 8 else n}" in sentence
