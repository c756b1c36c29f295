"""evaluate: means by group against plain loops, other libraries' frames, new test logs, JSON, comparisons."""

from __future__ import annotations

import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greysheep.data.columns import ITEM, USER
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import Split, split
from greysheep.errors import ConfigError, DataError, GreysheepWarning, NotFittedError
from greysheep.evaluation.evaluate import evaluate
from greysheep.evaluation.report import Report
from greysheep.mainstream.groups import ACTIVITY, GROUPS, Mainstream, activity_groups
from greysheep.metrics.ranking import METRICS, hits, per_user, tie_order, top_n
from greysheep.report.pages import chart_by_group, write_html

pytestmark = pytest.mark.filterwarnings("error::greysheep.errors.GreysheepWarning")


def log_of(n_users=40, n_items=30, seed=0, text=True):
    """Users u00, u01, ... with 6 to 15 rows; later users like later items."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        likes = np.exp(-np.abs(np.arange(n_items) - user / n_users * n_items) / 6)
        chosen = rng.choice(n_items, rng.integers(6, 16), replace=False, p=likes / likes.sum())
        rows += [(f"u{user:02}" if text else user, f"i{item:02}" if text else int(item)) for item in chosen]
    return Interactions.read(pl.DataFrame(rows, schema=[USER, ITEM], orient="row"))


class Popularity:
    """A model with just what `evaluate` reads."""

    name = "fake"

    def __init__(self, parts, noise=0.0):
        self.split, self.label, self.config = parts, "fake[noise]", {"noise": noise}
        self.gate_entropy, self.train_seconds, self.epochs, self.best_epoch = None, 1.5, 7, 3
        self.history = [{"epoch": 1}]
        self.noise = noise
        self.asked = None

    def rank(self, users, *, k, stage="test"):
        self.asked = stage
        seen = self.split.input_rows(stage)
        scores = np.asarray(seen.sum(axis=0)).ravel() + np.zeros((len(users), 1))
        scores = scores + self.noise * np.random.default_rng(0).random(scores.shape)
        scores[seen[users].toarray() > 0] = -np.inf
        return top_n(scores, k)


@pytest.fixture(scope="module")
def parts():
    return split(log_of(), "strict", seed=1)


@pytest.fixture(scope="module")
def report(parts):
    return evaluate(Popularity(parts), k=5, draws=200)


def lists_of(model, k=5):
    """The model's own lists as a frame, as another library would hand them over."""
    log = model.split.log
    ranked = model.rank(np.arange(log.n_users), k=k)
    users, places = np.nonzero(ranked >= 0)
    return pl.DataFrame(
        {
            USER: log.decode_users(users),
            ITEM: log.decode_items(ranked[users, places]),
            "rank": places + 1,
            "score": -places.astype(float),
        }
    )


def test_means_by_group_are_plain_means(parts, report):
    truth = parts.rows("test")
    ranked = Popularity(parts).rank(np.arange(parts.log.n_users), k=5)
    values = per_user(hits(ranked, truth), np.diff(truth.indptr), 5)
    groups = Mainstream.fit(parts.rows("train"), parts.log.user_ids).groups
    n_train = np.diff(parts.rows("train").indptr)
    activity = activity_groups(n_train, parts.log.user_ids)
    assert report.by_group["group"].to_list() == list(GROUPS)
    assert report.by_activity["group"].to_list() == list(ACTIVITY)
    for frame, member in ((report.by_group, groups), (report.by_activity, activity)):
        for code, row in enumerate(frame.to_dicts()):
            mine = (member == code) & ~np.isnan(values["ndcg@5"])
            assert row["n_users"] == mine.sum()
            assert row["mean_train_rows"] == pytest.approx(n_train[mine].mean())
            for name in METRICS:
                assert row[f"{name}@5"] == pytest.approx(values[f"{name}@5"][mine].mean())
                assert row[f"{name}@5_low"] <= row[f"{name}@5"] <= row[f"{name}@5_high"]
    known = ~np.isnan(values["ndcg@5"])
    assert report.overall["n_users"] == known.sum()
    assert report.overall["map@5"]["mean"] == pytest.approx(values["map@5"][known].mean())
    assert (
        report.overall["map@5"]["ci_low"]
        < report.overall["map@5"]["mean"]
        < report.overall["map@5"]["ci_high"]
    )
    means = dict(zip(GROUPS, report.by_group["ndcg@5"], strict=True))
    assert report.gap() == pytest.approx(max(means.values()) - min(means.values()))
    assert report.ratio() == pytest.approx(min(means.values()) / max(means.values()))
    assert means[report.worst_group] == min(means.values())
    assert report.gap("recall@5") != report.gap()


def test_per_user_rows(parts, report):
    frame = report.per_user
    assert frame[USER].to_list() == parts.log.user_ids.to_list()
    assert frame["n_test"].to_list() == np.diff(parts.rows("test").indptr).tolist()
    assert frame["n_train"].to_list() == np.diff(parts.rows("train").indptr).tolist()
    assert frame["ndcg@5"].mean() == pytest.approx(report.overall["ndcg@5"]["mean"])
    low = frame.filter(pl.col("group") == "low")["mainstream"]
    assert low.max() <= frame.filter(pl.col("group") == "med-low")["mainstream"].min()


def test_what_the_model_says_of_itself_is_carried_over(report):
    assert (report.model, report.label, report.config) == ("fake", "fake[noise]", {"noise": 0.0})
    assert (report.train_seconds, report.epochs, report.best_epoch) == (1.5, 7, 3)
    assert report.history == [{"epoch": 1}]
    assert report.peak_memory_bytes > 10_000_000  # of this process: the model does not say
    assert (report.protocol, report.seed, report.k) == ("strict", 1, 5)


def test_several_list_lengths_in_one_call(parts, tmp_path):
    model = Popularity(parts)
    found = evaluate(model, k=[5, 3, 1], draws=10)
    assert (found.k, found.lengths, found.metric) == (5, [1, 3, 5], "ndcg@5")
    assert json.loads(found.to_json())["k"] == [1, 3, 5]
    assert json.loads(evaluate(model, k=5, draws=10).to_json())["k"] == [5]
    back = Report.from_dict(json.loads(found.to_json()))
    assert (back.k, back.lengths) == (5, [1, 3, 5]) and back.gap("recall@1") == found.gap("recall@1")
    lists = model.rank(np.arange(parts.log.n_users), k=5, stage="test")
    frame = pl.DataFrame(
        {
            USER: parts.log.user_ids.gather(np.repeat(np.arange(len(lists)), 5)),
            "item_id": parts.log.item_ids.gather(lists.ravel()),
            "rank": np.tile(np.arange(1, 6), len(lists)),
        }
    )
    theirs = evaluate(frame, parts, k=(1, 3, 5), draws=10)
    for k in (1, 3, 5):
        alone = evaluate(model, k=k, draws=10)
        for name in METRICS:
            for one in (found, theirs):
                assert one.overall[f"{name}@{k}"] == pytest.approx(alone.overall[f"{name}@{k}"], rel=1e-12)
                assert (one.per_user[f"{name}@{k}"] == alone.per_user[f"{name}@{k}"]).drop_nulls().all()
        assert found.gap(f"ndcg@{k}") == pytest.approx(alone.gap())
    for wrong in ([], [5, 0], [5, 2.0], "5,10", {}, None):
        with pytest.raises(ConfigError, match="k="):
            evaluate(model, k=wrong)


def test_overall_interval_resamples_within_groups():
    """Groups that differ a lot but have no spread inside leave no uncertainty; 43 users: unequal groups."""
    parts = split(log_of(n_users=43), "strict", seed=1)
    model = Popularity(parts)
    groups = parts.mainstream.groups
    truth = parts.rows("test")

    def rank(users, *, k, stage):
        perfect = top_n(truth[users].toarray().astype(float), k)
        perfect[groups[users] < 2] = -1
        return perfect

    model.rank = rank
    found = evaluate(model, k=5, draws=100).overall["ndcg@5"]
    assert 0.3 < found["mean"] < 0.8
    assert found["ci_low"] == pytest.approx(found["mean"]) == pytest.approx(found["ci_high"])


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow", "lazy", "score", "shuffled", "categorical"])
def test_a_frame_of_the_same_lists_gives_the_same_report(parts, report, form):
    frame = lists_of(Popularity(parts))
    lists = {
        "polars": lambda: frame,
        "pandas": lambda: pd.DataFrame(frame.to_dict(as_series=False)),
        "arrow": lambda: pa.table(frame.to_dict(as_series=False)),
        "lazy": frame.lazy,
        "score": lambda: frame.drop("rank"),
        "shuffled": lambda: frame.sample(fraction=1.0, shuffle=True, seed=1),
        "categorical": lambda: frame.with_columns(pl.col(USER, ITEM).cast(pl.Categorical)),
    }[form]()
    found = evaluate(lists, parts, k=5, draws=200)
    assert found.model == found.label == "recommendations"
    assert found.config == {} and found.peak_memory_bytes == 0
    assert found.overall == report.overall
    assert found.per_user.equals(report.per_user)
    assert found.by_group.equals(report.by_group)


def test_integer_ids():
    parts = split(log_of(text=False), "paper")
    model = Popularity(parts)
    assert evaluate(lists_of(model), parts, k=5).overall == evaluate(model, k=5).overall
    with pytest.raises(DataError, match="no user of the lists is in the log: theirs are String like '0'"):
        evaluate(lists_of(model).with_columns(pl.col(USER).cast(pl.String)), parts)


def test_rank_wins_over_score_and_ties_go_to_the_smaller_item(parts):
    user = parts.log.user_ids[0]
    test_items = sorted(parts.log.decode_items(parts.rows("test")[0].indices).to_list())
    others = [item for item in parts.log.item_ids.to_list() if item not in test_items][:1]
    frame = pl.DataFrame(
        {USER: [user] * 2, ITEM: [others[0], test_items[0]], "rank": [2, 1], "score": [9.0, 1.0]}
    )
    with pytest.warns(GreysheepWarning):
        assert evaluate(frame, parts, k=2).per_user["mrr@2"][0] == 1.0
    with pytest.warns(GreysheepWarning):
        assert evaluate(frame.drop("rank"), parts, k=2).per_user["mrr@2"][0] == 0.5
    tied = frame.drop("rank").with_columns(score=0.0)
    expected = 1.0 if test_items[0] < others[0] else 0.5
    with pytest.warns(GreysheepWarning):
        assert evaluate(tied, parts, k=2).per_user["mrr@2"][0] == expected


def test_oddities_of_a_frame_are_counted(parts, report):
    frame = lists_of(Popularity(parts))
    measured = report.per_user.filter(pl.col("n_test") > 0)[USER].to_list()

    with pytest.warns(
        GreysheepWarning, match=f"1 of {len(measured)} users with test rows have no list"
    ) as caught:
        found = evaluate(frame.filter(pl.col(USER) != measured[3]), parts, k=5)
    assert len(caught) == 1
    assert found.per_user.filter(pl.col(USER) == measured[3])["ndcg@5"].item() == 0.0
    assert found.overall["n_users"] == report.overall["n_users"]

    stranger = pl.DataFrame(
        {USER: ["nobody", "nobody"], ITEM: ["i01", "i02"], "rank": [1, 2], "score": [2.0, 1.0]}
    )
    with pytest.warns(GreysheepWarning, match="the lists of 1 users who are not in the log are ignored"):
        found = evaluate(pl.concat([frame, stranger], how="vertical_relaxed"), parts, k=5, draws=200)
    assert found.overall == report.overall

    best = pl.col("rank") == 1
    renamed = frame.with_columns(pl.when(best).then(pl.lit("new")).otherwise(ITEM).alias(ITEM))
    with pytest.warns(GreysheepWarning, match=f"{len(measured)} places of the lists hold items that are not"):
        found = evaluate(renamed, parts, k=5)
    assert found.overall["hit_rate@5"]["mean"] <= report.overall["hit_rate@5"]["mean"]
    assert evaluate_quietly(renamed, parts, k=1).overall["ndcg@1"]["mean"] == 0.0

    third = pl.col("rank") == 3
    two_new = renamed.with_columns(pl.when(third).then(pl.lit("newer")).otherwise(ITEM).alias(ITEM))
    with pytest.warns(GreysheepWarning, match=f"{2 * len(measured)} places of the lists hold") as caught:
        evaluate(two_new, parts, k=5)
    assert len(caught) == 1  # two unknown items are not one item twice

    twice = pl.concat([frame, frame.filter(best).with_columns(rank=pl.lit(9, pl.Int64))])
    with pytest.warns(GreysheepWarning, match=r"\d+ rows repeat an item of the same list"):
        assert evaluate(twice, parts, k=5, draws=200).overall == report.overall

    with pytest.warns(GreysheepWarning, match="no list is longer than 5, but 20 places are measured"):
        evaluate(frame, parts)


def evaluate_quietly(*args, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GreysheepWarning)
        return evaluate(*args, **keywords)


def test_training_items_in_lists_are_misses_and_counted(parts):
    seen = parts.input_rows("test")
    users, items = seen.nonzero()
    frame = pl.DataFrame({USER: parts.log.decode_users(users), ITEM: parts.log.decode_items(items)})
    frame = frame.with_columns(rank=pl.int_range(pl.len()).over(USER) + 1)
    measured = np.diff(parts.rows("test").indptr) > 0
    expected = int(np.minimum(np.diff(seen.indptr), 3)[measured].sum())
    message = f"{expected} of {expected} places of the lists hold items the user already had as input"
    with pytest.warns(GreysheepWarning, match=message) as caught:
        found = evaluate(frame, parts, k=3)
    assert len(caught) == 1
    assert found.overall["hit_rate@3"]["mean"] == 0.0


def test_validation_items_may_be_recommended_under_paper_only():
    log = log_of()
    for protocol, counted in (("paper", False), ("strict", True)):
        parts = split(log, protocol)
        held = parts.rows("validation")
        users, items = held.nonzero()
        frame = pl.DataFrame({USER: log.decode_users(users), ITEM: log.decode_items(items)}).with_columns(
            rank=1
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluate(frame, parts, k=2)
        assert any("already had as input" in str(w.message) for w in caught) == counted


def test_frames_that_cannot_be_used(parts):
    frame = lists_of(Popularity(parts))
    wrong = [
        (frame.drop(ITEM), "no column 'item_id'; its columns are 'user_id', 'rank', 'score'"),
        (frame.drop("rank", "score"), "no column 'rank' or 'score'"),
        (frame.drop(USER, ITEM), "no column 'user_id' and 'item_id'"),
        (frame.clear(), "no rows"),
        (frame.with_columns(rank=pl.lit("1")), "column 'rank' of the lists is of type String"),
        (frame.with_columns(rank=pl.lit(math.nan)), f"no number in {frame.height} of {frame.height} rows"),
        (frame.with_columns(rank=pl.lit(None, pl.Int64)), "no number in"),
        (frame.with_columns(pl.lit("x").alias(USER)), "no user of the lists is in the log"),
        (frame.with_columns(pl.lit("x").alias(ITEM)), "no item of the lists is in the log"),
        (frame.with_columns(pl.lit(None, pl.String).alias(ITEM)), "has no value in"),
        ("recs.parquet", "must come as a frame"),
        (["u00"], "cannot read"),
    ]
    for lists, message in wrong:
        with pytest.raises(DataError, match=message) as caught:
            evaluate(lists, parts, k=5)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="needs the split"):
        evaluate(frame)


def test_models_and_splits_that_cannot_be_used(parts):
    unfitted = SimpleNamespace(rank=lambda users, k, stage: None)
    with pytest.raises(NotFittedError, match="fit"):
        evaluate(unfitted)
    model = Popularity(split(log_of(), "all"))
    with pytest.raises(DataError, match=r"protocol 'all' left no test rows: .*protocol='strict'"):
        evaluate(model)
    with pytest.raises(DataError, match="another split"):
        evaluate(Popularity(parts), split(log_of(), "strict", seed=2))
    model = Popularity(parts)
    model.has_history = False
    with pytest.raises(DataError, match="saved without its rows"):
        evaluate(model)
    same = split(log_of(), "strict", seed=1)
    assert evaluate(Popularity(parts), same, k=5, draws=10).seed == 1
    for keywords in ({"k": 0}, {"k": True}, {"k": 2.0}, {"draws": 0}):
        with pytest.raises(ConfigError):
            evaluate(Popularity(parts), **keywords)


def test_a_new_test_log_under_protocol_all():
    whole = log_of(n_users=30)
    common = whole.frame().filter(pl.len().over(ITEM) > 4).sample(fraction=1.0, shuffle=True, seed=3)
    future = common.group_by(USER, maintain_order=True).head(2)
    past = whole.frame().join(future, on=[USER, ITEM], how="anti")
    assert set(future[ITEM]) <= set(past[ITEM])
    log = Interactions.read(past)
    parts = split(log, "all")
    model = Popularity(parts)
    found = evaluate(model, test=Interactions.read(future), k=5)
    assert model.asked == "serving"
    assert found.overall["n_users"] == 30
    assert found.per_user["n_test"].to_list() == [2] * 30
    assert found.per_user["n_train"].to_list() == np.diff(log.matrix().indptr).tolist()
    np.testing.assert_array_equal(
        found.per_user["mainstream"], Mainstream.fit(log.matrix(), log.user_ids).scores
    )

    odd = pl.DataFrame(
        {USER: ["nobody", "u00", "u01"], ITEM: ["i00", "what", past.filter(pl.col(USER) == "u01")[ITEM][0]]}
    )
    mixed = Interactions.read(pl.concat([future.select(USER, ITEM), odd]))
    message = (
        f"3 of {len(mixed)} rows of the test log are left out: 1 of unknown users, "
        "1 of unknown items, 1 already stored"
    )
    with pytest.warns(GreysheepWarning, match=message) as caught:
        again = evaluate(model, test=mixed, k=5)
    assert len(caught) == 1
    assert again.overall == found.overall
    with pytest.raises(DataError, match="no row of the test log can be measured"):
        evaluate(model, test=Interactions.read(odd))

    lists = pl.DataFrame({USER: future[USER], ITEM: future[ITEM]}).with_columns(rank=1)
    perfect = evaluate(lists, parts, test=future.select(USER, ITEM), k=2)
    assert perfect.overall["recall@2"]["mean"] == 1.0


def test_users_without_test_rows_are_null_and_leave_the_means():
    frame = log_of().frame()
    single = pl.DataFrame({USER: ["only"], ITEM: ["i00"]})
    parts = split(Interactions.read(pl.concat([frame, single])), "paper")
    found = evaluate(Popularity(parts), k=5, draws=10)
    row = found.per_user.filter(pl.col(USER) == "only")
    assert row["n_test"].item() == 0 and row["ndcg@5"].item() is None
    assert found.overall["n_users"] == 40
    assert found.versus(found)["n_users"].to_list() == [40, *found.by_group["n_users"].to_list()]


@pytest.mark.parametrize("n_users", [1, 2, 4])
def test_few_users_leave_groups_empty(n_users):
    parts = split(log_of(n_users=n_users), "paper")
    found = evaluate(Popularity(parts), k=5, draws=10)
    assert found.by_group["n_users"].to_list() == [1] * n_users + [0] * (5 - n_users)
    assert found.by_group["ndcg@5"].to_list()[n_users:] == [None] * (5 - n_users)
    assert found.by_group.schema["ndcg@5"] == pl.Float64
    text = found.to_json()
    assert json.loads(text)["by_group"][4]["ndcg@5"] == {"mean": None, "ci_low": None, "ci_high": None}
    table = found.versus(found)
    assert table["n_users"].to_list() == [n_users] + [1] * n_users + [0] * (5 - n_users)
    assert table["verdict"].to_list()[-1] == ("undecided" if n_users < 5 else "no harm")
    assert table["p_value"].to_list()[-1] is None


def test_no_hits_at_all_is_no_crash(parts):
    model = Popularity(parts)
    model.rank = lambda users, k, stage: np.full((len(users), k), -1)
    found = evaluate(model, k=5, draws=10)
    assert found.gap() == 0.0 and math.isnan(found.ratio())
    assert json.loads(found.to_json())["ratio"] is None
    assert set(found.versus(found)["verdict"]) == {"undecided"}


def test_json_has_the_contract_and_comes_back(report, tmp_path):
    path = tmp_path / "report.json"
    assert path.parent.exists() and report.to_json(path) == path.read_text()
    found = json.loads(path.read_text())
    order = ["model", "config", "protocol", "seed", "k", "overall", "by_group", "gap", "ratio", "worst_group",
             "gate_entropy", "train_seconds", "peak_memory_bytes", "epochs", "best_epoch"]  # fmt: skip
    assert [key for key in found if key in order] == order
    assert set(found["overall"]["ndcg@5"]) == {"mean", "ci_low", "ci_high"}
    assert [row["group"] for row in found["by_group"]] == list(GROUPS)
    assert found["by_group"][0]["ndcg@5"]["mean"] == report.by_group["ndcg@5"][0]  # unrounded
    assert found["gate_entropy"] is None
    back = Report.from_dict(found)
    assert back.to_dict() == report.to_dict()
    assert back.by_group.equals(report.by_group) and back.by_activity.equals(report.by_activity)
    assert (back.gap(), back.worst_group) == (report.gap(), report.worst_group)
    with pytest.raises(DataError, match="no values per user"):
        back.versus(report)
    with pytest.raises(DataError, match="no report of greysheep"):
        Report.from_dict({"model": "x"})


def test_paths_below_the_home_folder(report, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    report.to_json("~/report.json")
    write_html(report, "~/report.html")
    chart_by_group([report], "~/report.svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "report.svg"]


def test_numpy_numbers_in_a_config_become_plain(parts):
    model = Popularity(parts)
    model.config = {"lambda": np.float32(0.5), "sizes": (np.int64(3), math.inf)}
    assert evaluate(model, k=5, draws=10).to_dict()["config"] == {"lambda": 0.5, "sizes": [3, None]}


def test_versus_is_paired_and_by_group(parts, report):
    other = evaluate(Popularity(parts, noise=5.0), k=5, draws=10)
    table = other.versus(report)
    assert table["group"].to_list() == ["overall", *GROUPS]
    joined = other.per_user.join(report.per_user, on=USER, suffix="_ref").filter(pl.col("n_test") > 0)
    for row in table.to_dicts():
        mine = joined if row["group"] == "overall" else joined.filter(pl.col("group") == row["group"])
        assert row["n_users"] == mine.height
        assert row["mean"] == pytest.approx(mine["ndcg@5"].mean())
        assert row["reference"] == pytest.approx(mine["ndcg@5_ref"].mean())
        assert row["difference"] == pytest.approx(row["mean"] - row["reference"])
        assert row["ratio"] == pytest.approx(row["difference"] / row["reference"])
        assert row["ratio_low"] <= row["ratio"]
        assert row["p_holm"] >= row["p_value"]
    assert (table["p_holm"] >= table["p_value"].min() * 6 - 1e-12).any()
    same = report.versus(report)
    assert set(same["verdict"]) == {"no harm"} and set(same["p_value"]) == {1.0}
    assert set(same["difference"]) == {0.0}
    with pytest.raises(ConfigError, match="has no metric 'ndcg@20'"):
        report.versus(report, "ndcg@20")
    with pytest.raises(ConfigError, match="has no metric"):
        report.gap("ndcg@20")
    another = evaluate(Popularity(split(log_of(), "strict", seed=2)), k=5, draws=10)
    with pytest.raises(DataError, match="not measured on the same test rows"):
        another.versus(report)


def test_the_same_seed_gives_the_same_intervals(parts, report):
    again = evaluate(Popularity(parts), k=5, draws=200)
    assert again.by_group.equals(report.by_group)
    moved = evaluate(Popularity(parts), k=5, draws=200, seed=1)
    assert not moved.by_group.equals(report.by_group)
    assert moved.by_group["ndcg@5"].equals(report.by_group["ndcg@5"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_lists_in_a_frame_are_read_in_any_order(seed, k):
    parts = split(log_of(n_users=12, seed=seed % 5), "paper", seed=seed)
    rng = np.random.default_rng(seed)
    log = parts.log
    scores = rng.integers(0, 4, (log.n_users, log.n_items)).astype(float)  # ties
    scores[rng.random(scores.shape) < 0.5] = -np.inf
    users, items = np.nonzero(scores > -np.inf)
    frame = pl.DataFrame(
        {USER: log.decode_users(users), ITEM: log.decode_items(items), "score": scores[users, items]}
    )
    found = evaluate_quietly(frame.sample(fraction=1.0, shuffle=True, seed=seed), parts, k=k, draws=5)
    truth = parts.rows("test")
    place = tie_order(np.bincount(parts.input_rows("test").indices, minlength=log.n_items))
    expected = per_user(hits(top_n(scores, k, place), truth), np.diff(truth.indptr), k)
    for name, column in expected.items():
        np.testing.assert_allclose(found.per_user[name].fill_null(np.nan).to_numpy(), column, err_msg=name)


def test_groups_that_a_model_brings_are_used():
    parts = split(log_of(), "paper")
    model = Popularity(parts)
    turned = Mainstream.from_scores(-parts.mainstream.scores, parts.log.user_ids)
    model.mainstream = turned
    assert evaluate(model, k=5, draws=5).per_user["group"].to_list() == [GROUPS[g] for g in turned.groups]


def test_split_read_from_files_serves_as_well(parts, report, tmp_path):
    parts.write(tmp_path)
    found = evaluate(lists_of(Popularity(parts)), Split.read(tmp_path), k=5, draws=200)
    assert found.overall == report.overall
