"""The figures beside accuracy: held to other libraries, to plain loops, and by group."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import roc_auc_score

import greysheep as gs
from greysheep.cli import run
from greysheep.data.item_features import read_vectors
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.evaluation.beyond import POPULARITY
from greysheep.evaluation.beyond_text import beyond_table
from greysheep.evaluation.evaluate import evaluate
from greysheep.evaluation.report import Report
from greysheep.metrics import beyond

GOLDEN = json.loads((Path(__file__).parent / "golden" / "beyond.json").read_text())


def golden_split() -> gs.Split:
    """The golden rows, and for every user a test row that nobody recommends: item 23."""
    rows = pl.DataFrame(GOLDEN["rows"], schema=["user_id", "item_id"], orient="row")
    n = len(GOLDEN["lists"])
    test = pl.DataFrame({"user_id": [*range(n), 0], "item_id": [23] * n + [24]})
    log = gs.Interactions.read(pl.concat([rows, test]))
    return gs.Split(log, np.where(log.items >= 23, 3, 0).astype(np.int8), "paper", 0)


def golden_lists() -> pl.DataFrame:
    lines = [(u, i, n) for u, items in enumerate(GOLDEN["lists"]) for n, i in enumerate(items, 1)]
    return pl.DataFrame(lines, schema=["user_id", "item_id", "rank"], orient="row")


@pytest.fixture(scope="module")
def report() -> Report:
    groups = pl.DataFrame({"user_id": range(len(GOLDEN["groups"])), "group": GOLDEN["groups"]})
    vectors = (np.array(GOLDEN["vectors"]) + 1e-3).tolist()
    items = pl.DataFrame({"item_id": range(len(vectors)), "vector": vectors})
    with pytest.warns(GreysheepWarning):  # short lists, and one user without any
        return evaluate(golden_lists(), golden_split(), k=[3, 8], groups=groups, items=items, draws=200)


@pytest.mark.parametrize("k", [3, 8])
@pytest.mark.parametrize("group", ["overall", "a", "b", "c"])
def test_equal_to_other_libraries(report, k, group):
    theirs = GOLDEN["figures"][str(k)][group]
    if group == "overall":
        ours = {name: report.overall[f"{name}@{k}"]["mean"] for name in theirs}
    else:
        row = report.by_group.row(by_predicate=pl.col("group") == group, named=True)
        ours = {name: row[f"{name}@{k}"] for name in theirs}
    for name in ("coverage", "gini"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-12)
    values = dict(zip(report.per_user["user_id"], report.per_user.iter_rows(named=True), strict=True))
    for name in ("popularity", "novelty", "diversity"):
        for user, value in theirs[name].items():
            assert values[int(user)][f"{name}@{k}"] == pytest.approx(value, abs=1e-9)
        assert ours[name] == pytest.approx(np.mean(list(theirs[name].values())), abs=1e-9)
    assert values[7][f"popularity@{k}"] is None  # she has no list
    assert values[3][f"diversity@{k}"] is None  # one item has no pair


def test_intervals_and_lift(report):
    chosen = report.per_user["popularity_chosen"].to_numpy()
    shown = report.per_user["popularity@8"].cast(pl.Float64).to_numpy()
    both = ~np.isnan(shown)
    lift = report.overall["popularity_lift@8"]
    assert lift["mean"] == pytest.approx(shown[both].mean() / chosen[both].mean() - 1)
    for name, triple in report.overall.items():
        if name != "n_users" and not name.startswith(("coverage", "gini")):
            assert triple["ci_low"] <= triple["mean"] <= triple["ci_high"], name
    assert np.isnan(report.overall["gini@8"]["ci_low"])
    found = json.loads(report.to_json())
    assert found["overall"]["coverage@3"] == {
        "mean": report.overall["coverage@3"]["mean"], "ci_low": None, "ci_high": None,
    }  # fmt: skip
    assert found["by_group"][0]["novelty@3"]["mean"] == report.by_group["novelty@3"][0]
    assert Report.from_dict(found).to_dict() == report.to_dict()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_plain_loops(seed):
    rng = np.random.default_rng(seed)
    n, n_items, width = int(rng.integers(1, 6)), int(rng.integers(1, 9)), int(rng.integers(1, 6))
    ranked = np.full((n, width), -1)
    for row in ranked:
        size = int(rng.integers(0, min(width, n_items) + 1))
        row[:size] = rng.permutation(n_items)[:size]
    counts, vectors = rng.integers(0, 9, n_items), rng.normal(size=(n_items, 2))
    vectors[rng.random(n_items) < 0.2] = rng.choice([0.0, np.nan])
    exposed = beyond.exposure(ranked, n_items)
    lists = [[item for item in row if item >= 0] for row in ranked.tolist()]
    assert beyond.coverage(exposed) == len({item for row in lists for item in row}) / n_items
    differences = sum(abs(int(a) - int(b)) for a in exposed for b in exposed)
    if exposed.sum():
        assert beyond.gini(exposed) == pytest.approx(differences / (2 * n_items * exposed.sum()))
    else:
        assert np.isnan(beyond.gini(exposed))
    shown, new = beyond.popularity(ranked, counts), beyond.novelty(ranked, counts, 9)
    varied = beyond.diversity(ranked, vectors)
    for row, items in enumerate(lists):
        if not items:
            assert np.isnan([shown[row], new[row], varied[row]]).all()
            continue
        assert shown[row] == pytest.approx(np.mean(counts[items]))
        assert new[row] == pytest.approx(np.mean([-np.log2(max(counts[i], 1) / 9) for i in items]))
        known = [vectors[i] / np.linalg.norm(vectors[i]) for i in items if np.abs(vectors[i]).sum() > 0]
        pairs = [1 - a @ b for a, b in combinations(known, 2)]
        assert varied[row] == pytest.approx(np.mean(pairs)) if pairs else np.isnan(varied[row])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_auc_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (3, 8)).astype(np.float32)
    kind = rng.integers(0, 3, (3, 8))  # 0: input, 1: to be found, 2: another candidate
    scores[kind == 0] = -np.inf
    ours = beyond.auc(scores, sparse.csr_matrix((kind == 1).astype(float)))
    for row in range(3):
        mine = kind[row] > 0
        if len(set(kind[row][mine])) < 2:
            assert np.isnan(ours[row])
        else:
            assert ours[row] == pytest.approx(roc_auc_score(kind[row][mine] == 1, scores[row][mine]))


def test_auc_of_models_by_group():
    log = gs.simulate(n_users=60, n_items=40, seed=0).log
    parts = gs.split(log)
    model = gs.EASE().fit(parts)
    found = evaluate(model, k=5, beyond=True, draws=50)
    scores = np.concatenate(list(model.stage_scores(np.arange(60), "test")))
    truth = parts.rows("test").toarray() > 0
    theirs = np.array([
        roc_auc_score(truth[u][np.isfinite(scores[u])], scores[u][np.isfinite(scores[u])]) for u in range(60)
    ])  # fmt: skip
    assert found.per_user["auc"].to_numpy() == pytest.approx(theirs)
    for group, value in zip(found.groups, found.by_group["auc"], strict=True):
        assert value == pytest.approx(theirs[(found.per_user["group"] == group).to_numpy()].mean())
    plain = evaluate(model, k=5, draws=50)
    assert plain.overall.items() <= found.overall.items() and "auc" not in plain.overall
    assert plain.by_item_popularity.is_empty() and not beyond_table(plain)
    assert any(line.startswith("AUC") for line in beyond_table(found))
    with pytest.raises(ConfigError, match="beyond"):
        evaluate(model, beyond="yes")


def test_what_was_found_by_popularity():
    log = gs.simulate(n_users=60, n_items=40, seed=0).log
    parts = gs.split(log)
    model = gs.EASE().fit(parts)
    table = evaluate(model, k=[3, 5], beyond=True, draws=50).by_item_popularity
    assert table["group"].to_list() == list(POPULARITY)
    counts = np.bincount(parts.input_rows("test").indices, minlength=40)
    order = sorted(range(40), key=lambda item: (counts[item], item))
    before, fifth = 0, {}
    for item in order:
        fifth[item] = min(4, 5 * before // counts.sum())
        before += counts[item]
    lists, truth = model.rank(np.arange(60), k=5), parts.rows("test")
    rows, hit = [0] * 5, [0] * 5
    for user in range(60):
        for item in truth[user].indices:
            rows[fifth[item]] += 1
            hit[fifth[item]] += item in lists[user]
    assert table["n_test_rows"].to_list() == rows and table["n_items"].sum() == 40
    assert table["recall@5"].to_list() == pytest.approx([h / r for h, r in zip(hit, rows, strict=True)])
    assert (table["recall@3"] <= table["recall@5"]).all()
    assert (
        (table["recall@5_low"] <= table["recall@5"]) & (table["recall@5"] <= table["recall@5_high"])
    ).all()


LOG = gs.Interactions.read(pl.DataFrame({"user_id": [1] * 3, "item_id": [1, 2, 3]}))
NO_VECTORS = {
    "has no column 'genres' or 'vector'": {"item_id": [1], "title": ["x"]},
    "has no column 'item_id'": {"item": [1], "genres": ["x"]},
    "repeat an item": {"item_id": [1, 1], "genres": ["a", "b"]},
    "no item of .* is in the log": {"item_id": [7, 8], "genres": ["a", "b"]},
    "text like 'x'": {"item_id": ["x"], "genres": ["a"]},
    "must hold texts": {"item_id": [1], "genres": [3]},
    "names no genre": {"item_id": [1], "genres": ["|"]},
    "must hold lists of numbers": {"item_id": [1], "vector": ["0.1 0.2"]},
    "have lengths 1, 2": {"item_id": [1, 2], "vector": [[1.0], [1.0, 2.0]]},
    "have lengths none": {"item_id": [1], "vector": pl.Series([None], dtype=pl.List(pl.Float64))},
    "1 of 2 lists in 'vector' hold something other": {"item_id": [1, 2], "vector": [[1.0], [None]]},
}


@pytest.mark.parametrize("why", NO_VECTORS)
def test_what_are_no_vectors(why):
    with pytest.raises(DataError, match=why) as caught:
        read_vectors(pl.DataFrame(NO_VECTORS[why]), LOG)
    assert "\n" not in str(caught.value)


def test_genres_and_vectors():
    frame = pl.DataFrame({"item_id": [3, 1, 9], "genres": [" War | Drama", None, "Noir"]})
    with pytest.warns(GreysheepWarning, match="2 of 3 items have no genres"):
        found = read_vectors(frame, LOG)
    assert np.isnan(found[:2]).all() and found[2].tolist() == [1.0, 1.0]
    frame = pl.DataFrame({"item_id": [3, 1, 2], "vector": [[1, 2], [3, 4], None]})
    with pytest.warns(GreysheepWarning, match="1 of 3 items have no vector"):
        found = read_vectors(frame, LOG)
    assert found[[0, 2]].tolist() == [[3.0, 4.0], [1.0, 2.0]] and np.isnan(found[1]).all()


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    log = gs.simulate(n_users=60, n_items=40, seed=0).log
    log.frame().write_csv("log.csv")
    pl.DataFrame({"item_id": log.item_ids, "genres": ["a|b", "b"] * 20}).write_csv("items.csv")
    assert run(["fit", "log.csv", "-o", "model", "--model", "ease", "--protocol", "strict"]) == 0
    capsys.readouterr()
    assert run(["evaluate", "model", "--k", "5,10", "--items", "items.csv", "--json", "out.json"]) == 0
    said = capsys.readouterr().out
    for name in ("catalogue coverage", "Gini", "popularity lift", "novelty", "diversity", "AUC", "tail"):
        assert name in said
    found = json.loads(Path("out.json").read_text())
    assert {"coverage@5", "gini@10", "diversity@5", "auc"} <= set(found["overall"])
    assert [row["group"] for row in found["by_item_popularity"]] == list(POPULARITY)
    assert run(["evaluate", "model", "--beyond"]) == 0
    assert "diversity" not in capsys.readouterr().out


def test_titles_in_lists_and_on_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    log = gs.simulate(n_users=60, n_items=40, seed=0).log
    log.frame().write_csv("log.csv")
    titles = pl.DataFrame({"item_id": log.item_ids[1:], "title": [f"Title of {i}" for i in log.item_ids[1:]]})
    titles.write_csv("titles.csv")
    assert run(["fit", "log.csv", "-o", "model", "--model", "ease", "--protocol", "strict"]) == 0
    recommend = ["recommend", "model", "-k", "30"]
    assert run([*recommend, "-o", "plain.parquet"]) == 0
    assert run([*recommend, "--items", "titles.csv", "-o", "lists.parquet"]) == 0
    lists = pl.read_parquet("lists.parquet")
    assert lists.columns == ["user_id", "item_id", "title", "score", "rank"]
    assert lists.drop("title").equals(pl.read_parquet("plain.parquet"))
    named = lists.filter(pl.col("item_id") != log.item_ids[0])
    assert (named["title"] == "Title of " + named["item_id"]).all()
    assert lists.filter(pl.col("item_id") == log.item_ids[0])["title"].null_count() > 0
    capsys.readouterr()
    assert run([*recommend, "--user", log.user_ids[0], "--items", "titles.csv"]) == 0
    assert "Title of " in capsys.readouterr().out
    # a file of titles alone is no file of genres: nothing is said of diversity
    assert run(["evaluate", "model", "--items", "titles.csv", "--html", "page.html"]) == 0
    assert "diversity" not in capsys.readouterr().out
    page = Path("page.html").read_text()
    assert "The most niche users, one by one" in page and "Title of " in page
    for wrong, why in {
        "log.csv": "repeat an item",
        "genres.csv": "has no column 'title'",
        "gone.csv": "gone.csv",
    }.items():
        titles.rename({"title": "genres"}).write_csv("genres.csv")
        log.frame().with_columns(title=pl.lit("x")).write_csv("log.csv")
        assert run([*recommend, "--items", wrong]) == 2
        assert why in capsys.readouterr().err
    assert run([*recommend, "--items", "titles.csv", "-o", "folder/"]) == 2
    assert "a folder of parts holds ids alone" in capsys.readouterr().err
