"""Groups of one's own: read, measured, compared and trained by, small ones with what they can show."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from greysheep.cli import run
from greysheep.comparison.text import text
from greysheep.data.own_groups import read_groups
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.evaluation.evaluate import evaluate
from greysheep.evaluation.report import Report
from greysheep.evaluation.small_groups import notes_on_small_groups
from greysheep.models.training.objective import Objective
from greysheep.report.pages import html

N = 60


@pytest.fixture(scope="module")
def log() -> gs.Interactions:
    frame = gs.simulate(n_users=N, n_items=40, seed=0).log.frame()
    return gs.Interactions.read(frame.with_columns(user_id=pl.col("user_id").rank("dense") - 1))


@pytest.fixture(scope="module")
def own(log) -> pl.DataFrame:
    """Three groups of 35, 15 and 5 users; 5 users have none."""
    names = ["big"] * 35 + ["mid"] * 15 + ["five"] * 5 + [None] * 5
    return pl.DataFrame({"user_id": log.user_ids, "group": names})


@pytest.fixture(scope="module")
def parts(log, own) -> gs.Split:
    with pytest.warns(GreysheepWarning, match="5 of 60 users of the log have no group"):
        return gs.split(log, "strict", groups=own)


@pytest.fixture(scope="module")
def report(parts) -> Report:
    return evaluate(gs.EASE().fit(parts), k=5, draws=200)


def test_means_are_those_of_the_groups(parts, own, report):
    plain = evaluate(gs.EASE().fit(gs.split(parts.log, "strict")), k=5, draws=200)
    assert report.grouping == "own" and report.groups == ["big", "five", "mid"]
    joined = report.per_user.drop("group").join(own, on="user_id").filter(pl.col("n_test") > 0)
    for row in report.by_group.iter_rows(named=True):
        mine = joined.filter(pl.col("group") == row["group"])
        assert row["n_users"] == mine.height
        assert row["ndcg@5"] == pytest.approx(mine["ndcg@5"].mean())
        assert row["ndcg@5_low"] <= row["ndcg@5"] <= row["ndcg@5_high"]
        assert row["mean_train_rows"] == pytest.approx(mine["n_train"].mean())
    # whoever is in no group counts in the mean of all, and the other groupings are as they were
    assert report.overall["n_users"] == plain.overall["n_users"] == N
    assert report.overall["ndcg@5"]["mean"] == plain.overall["ndcg@5"]["mean"]
    assert report.by_mainstream.equals(plain.by_group) and report.by_activity.equals(plain.by_activity)
    assert report.per_user["mainstream_group"].equals(plain.per_user["group"], check_names=False)
    again = evaluate(gs.EASE().fit(gs.split(parts.log, "strict")), k=5, draws=200, groups=parts.groups)
    assert again.by_group.equals(report.by_group)
    assert report.worst_group in report.groups and report.gap() > 0


def test_users_without_a_group_are_in_the_interval_of_all(log):
    few = pl.DataFrame({"user_id": log.user_ids[:6], "group": ["a", "b"] * 3})
    with pytest.warns(GreysheepWarning, match="54 of 60"):
        found = evaluate(gs.EASE().fit(gs.split(log)), k=5, groups=few, beyond=True, draws=200)
    for name in ("ndcg@5", "popularity@5", "popularity_lift@5", "auc"):
        triple = found.overall[name]
        assert triple["ci_low"] < triple["mean"] < triple["ci_high"]
        mean, values = triple["mean"], found.per_user.get_column(name, default=None)
        if values is not None:  # about as wide as that of a plain mean of 60 users
            error = float(values.std()) / 60**0.5
            assert abs(triple["ci_low"] - (mean - 1.96 * error)) < error


def test_json_and_versus(report, parts):
    back = Report.from_dict(json.loads(report.to_json()))
    assert (back.grouping, back.groups) == ("own", report.groups)
    assert back.by_mainstream.equals(report.by_mainstream) and back.to_dict() == report.to_dict()
    table = evaluate(gs.Popular().fit(parts), k=5, draws=200).versus(report)
    assert table["group"].to_list() == ["overall", "big", "five", "mid"]
    small = table.row(by_predicate=pl.col("group") == "five", named=True)
    assert small["verdict"] == "undecided" and small["p_value"] >= 2 / 2**5


def test_a_group_of_five_says_what_it_can_show(report):
    (note,) = report.notes
    assert note.startswith("five: 5 users with test rows, which shows single cases")
    assert "p = 0.0625," in note and "from 8 users up" in note
    assert note in str(report)
    rows = {"group": ["none", "one"], "n_users": [0, 1], "ndcg@5": [None, 0.5]}
    rows |= {"ndcg@5_low": [None, 0.5], "ndcg@5_high": [None, 0.5]}
    nobody, one = notes_on_small_groups(pl.DataFrame(rows), "ndcg@5")
    assert nobody == "none: no user with test rows, so nothing is known of this group."
    assert "1 user with" in one and "p = 1," in one


def test_the_page(report):
    page = html(report)
    assert "big" in page and "5 users with test rows, which shows single cases" in page
    assert "niche" not in page.split("The table by mainstream group")[0].split("<body>")[1]


BAD = {
    "has no column 'group'": {"user_id": [0, 1]},
    "users have more than one group, among them 1 \\(a, b\\)": {
        "user_id": [0, 1, 1],
        "group": ["a", "a", "b"],
    },
    "cannot be called 'overall'": {"user_id": [0, 1], "group": ["overall", "b"]},
    "cannot be called 'mean', which is everybody": {"user_id": [0, 1], "group": ["mean", "b"]},
    "no user of the log has a group": {"user_id": [1000, 1001], "group": ["a", "b"]},
    "holds values of type Float64": {"user_id": [0, 1], "group": [0.5, 1.5]},
    "holds 60 groups; at most 50": {"user_id": range(60), "group": range(60)},
    "text like 'x'": {"user_id": ["x", "y"], "group": ["a", "b"]},
    "no user of the log has a group in .*": {"user_id": [0, 1], "group": [None, " "]},
}


@pytest.mark.parametrize("why", BAD)
def test_what_is_no_grouping(log, why):
    with pytest.raises(DataError, match=why) as caught:
        read_groups(pl.DataFrame(BAD[why]), log)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*users")
def test_kinds_of_groups(log, own):
    def names(groups, users=(0, 1, 2)):
        return read_groups(pl.DataFrame({"user_id": users, "group": groups}), log).names

    assert names([10, 9, 9]) == ("9", "10")
    assert names([True, False, True]) == ("false", "true")
    assert names([2.0, math.nan, 1.0]) == ("1", "2")
    assert names(pl.Series(["b", "a", "b"], dtype=pl.Enum(["b", "c", "a"]))) == ("b", "a")
    assert names(pl.Series(["b", "a", ""], dtype=pl.Categorical)) == ("a", "b")
    assert names(["a", "a", "b"], users=(0, 0, 1)) == ("a", "b")
    assert read_groups(own.to_pandas(), log).names == ("big", "five", "mid")
    whole = read_groups(own, log)
    assert read_groups(whole, log) is whole
    assert whole.named().equals(own["group"], check_names=False, null_equal=True)


def test_what_is_left_out_is_counted(log):
    frame = pl.DataFrame({"user_id": [0, 1, 1000, 1001], "group": ["a", "b", "a", None]})
    with pytest.warns(GreysheepWarning) as caught:
        read_groups(frame, log)
    said = [str(one.message) for one in caught]
    assert said[0].startswith("2 of the 4 users in the groups are not in the log")
    assert said[1].startswith("58 of 60 users of the log have no group")


def test_objectives_of_own_groups(parts, log):
    worst, one = Objective.parse("ndcg@5:worst"), Objective.parse("ndcg@5:group=five")
    members = parts.user_groups
    values = {"ndcg@5": np.where(members.codes == 1, 0.25, 0.75)}
    assert worst.value(values, members) == one.value(values, members) == 0.25
    with pytest.raises(ConfigError, match="about the group 'nobody', but the groups are big, five, mid"):
        gs.MultVAE(epochs=1, latent=4, progress=False, objective="ndcg@5:group=nobody").fit(parts)
    with pytest.raises(ConfigError, match="about the group 'low'"):
        gs.MultVAE(epochs=1, latent=4, progress=False, objective="ndcg@5:low").fit(parts)
    model = gs.MultVAE(epochs=3, latent=4, progress=False, objective="ndcg@5:group=five").fit(parts)
    line = model.history[model.best_epoch - 1]
    assert set(line["by_group"]) == {"big", "five", "mid"}
    assert line["objective"] == pytest.approx(line["by_group"]["five"]["ndcg@5"])
    alone = pl.DataFrame({"user_id": log.user_ids[:1], "group": ["one"]})
    train_only = gs.Split(log, np.where(log.users == 0, 0, gs.split(log).part), "strict", 0)
    with pytest.warns(GreysheepWarning, match="59 of 60"):
        lone = gs.Split(log, train_only.part, "strict", 0, read_groups(alone, log))
    for objective, whom in (("ndcg@5:worst", "a group"), ("ndcg@5:group=one", "that group")):
        with pytest.raises(ConfigError, match=f"no user of {whom} has validation rows"):
            gs.MultVAE(epochs=1, latent=4, progress=False, objective=objective).fit(lone)


@pytest.mark.filterwarnings("ignore:.*users of the log")
def test_tuning_by_own_groups(log, own, tmp_path):
    call = {"trials": 3, "progress": False, "storage": tmp_path / "study.journal"}
    found = gs.tune("ease", log, objective="worst", groups=own, **call)
    columns = ["group big", "group five", "group mid"]
    assert list(found.groups) == columns and set(columns) <= set(found.trials.columns)
    best = found.trials.row(by_predicate=pl.col("number") == found.best_trial, named=True)
    assert found.best_value == pytest.approx(min(best[name] for name in columns))
    assert "group " in str(found) and "Validation NDCG" in html(found)
    for other in (None, own.with_columns(group=pl.lit("one"))):
        with pytest.raises(ConfigError, match="other groups of users"):
            gs.tune("ease", log, objective="worst", groups=other, **call)


@pytest.mark.filterwarnings("ignore:.*users of the log")
def test_comparing_by_own_groups(log, own, tmp_path, runs_here):
    out = tmp_path / "out"
    found = gs.compare(log, ["popular", "ease"], seeds=2, k=5, groups=own, out=out, progress=False)
    assert found.grouping == "own" and found.groups == ["big", "five", "mid"]
    assert set(found.tests["group"]) == {"overall", "big", "five", "mid"}
    assert set(found.summary["grouping"]) >= {"own", "mainstream", "activity"}
    means = found.summary.filter(pl.col("grouping") == "own", pl.col("label") == "popular")
    large = means.filter(pl.col("group").is_in(["big", "mid"])).sort("mean")
    assert found.focus == large["group"][0]  # the group of five does not decide
    assert found.focus in found.verdicts["ease"] and "five" in found.verdicts["ease"]
    shown = text(found)
    assert "group of one's own" in shown and "five: 5 users with test rows" in shown
    assert "By mainstream" in (out / "results.md").read_text()
    again = gs.Comparison.read(out)
    assert again.tests.equals(found.tests) and again.verdicts == found.verdicts
    page = html(found)
    assert f"the group {found.focus}" in page and "single cases" in page
    with pytest.raises(ConfigError, match="made for other groups of users"):
        gs.compare(log, ["popular"], seeds=2, k=5, out=out, progress=False)


def call(line):
    return run(line.split())


def test_from_the_command_line(log, own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    log.frame().write_csv("log.csv")
    own.write_csv("groups.csv")
    pl.concat([own, pl.DataFrame({"user_id": [901], "group": ["big"]}, own.schema)]).write_csv("more.csv")
    assert call("fit log.csv -o model --model ease --protocol strict --groups groups.csv") == 0
    assert "5 of 60 users of the log have no group" in capsys.readouterr().err
    assert call("evaluate model -k 5 --groups more.csv --json out.json --html out.html") == 0
    said = capsys.readouterr()
    assert "1 of the 61 users in the groups are not in the log" in said.err
    assert "five: 5 users with test rows" in said.out
    found = json.loads(Path("out.json").read_text())
    assert [row["group"] for row in found["by_group"]] == ["big", "five", "mid"]
    assert set(found["by_group"][1]["ndcg@5"]) == {"mean", "ci_low", "ci_high"}
    own.rename({"group": "segment"}).write_csv("wrong.csv")
    assert call("evaluate model --groups wrong.csv") == 2
    assert "no column 'group', which names each user's group" in capsys.readouterr().err
    assert call("evaluate model --groups gone.csv") == 2
