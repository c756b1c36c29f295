"""`audit`: lists made elsewhere, judged without training; its figures are those of `evaluate --recs`."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from greysheep.cli import run
from greysheep.comparison.audit import audit
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.evaluation.evaluate import evaluate
from greysheep.mainstream.groups import GROUPS
from greysheep.report.pages import html

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import implicit_lists

N, K = 60, 10


def lists_of(model: gs.models.Model, stage: str = "test") -> pl.DataFrame:
    log = model.log
    ranked = model.rank(np.arange(log.n_users), k=K, stage=stage)
    users = np.repeat(np.arange(log.n_users), K)
    frame = {"user_id": log.decode_users(users), "item_id": log.decode_items(ranked.ravel())}
    return pl.DataFrame(frame | {"rank": np.tile(np.arange(1, K + 1), log.n_users)})


@pytest.fixture(scope="module")
def parts() -> gs.Split:
    return gs.split(gs.simulate(n_users=N, n_items=40, seed=0).log, "strict")


@pytest.fixture(scope="module")
def files(parts) -> dict[str, pl.DataFrame]:
    return {"old": lists_of(gs.Popular().fit(parts)), "new": lists_of(gs.EASE().fit(parts))}


@pytest.fixture(scope="module")
def found(parts, files) -> gs.Comparison:
    return audit(parts.log, files, split=parts, k=[5, K])


def test_figures_are_those_of_evaluate(parts, files, found):
    assert found.labels == ["old", "new"] and found.reference == "old" and found.of_lists
    for run_, frame in zip(found.runs, files.values(), strict=True):
        alone = evaluate(frame, parts, k=[5, K], beyond=True)
        assert run_.to_dict() | {"label": ""} == alone.to_dict() | {"label": ""}
    table = found.runs[1].versus(found.runs[0])
    for row in found.tests.iter_rows(named=True):
        mine = table.row(by_predicate=pl.col("group") == row["group"], named=True)
        assert row["p_value"] == mine["p_value"] and row["difference"] == pytest.approx(mine["difference"])
    assert found.verdicts.keys() == {"new"}


def test_a_later_log(parts, files):
    """The train rows were seen, the test rows came later: the groups are those of all that was seen."""
    frame = parts.log.frame()
    seen = frame.filter(pl.Series(parts.part != 3))
    later = frame.filter(pl.Series(parts.part == 3))
    both = audit(seen, files["new"], test=later, k=K)
    assert both.labels == ["recommendations"] and both.protocol == "all"
    whole = gs.Split(gs.Interactions.read(seen), np.zeros(seen.height, np.int8), "all", 0)
    alone = evaluate(files["new"], whole, test=later, k=K, beyond=True)
    assert both.runs[0].to_dict() == alone.to_dict()
    by_split = audit(parts.log, files["new"], split=parts, k=K)
    name = f"ndcg@{K}"
    assert both.runs[0].overall[name]["mean"] == pytest.approx(by_split.runs[0].overall[name]["mean"])
    assert str(both).startswith(f"NDCG@{K} of lists on later rows: means by mainstream group")


def test_log_is_that_of_the_split(parts, files):
    frame = parts.log.frame()
    train = frame.filter(pl.Series(parts.part == 0))
    assert audit(train, files["old"], split=parts, k=K).runs[0].overall["n_users"] == N
    other = gs.simulate(n_users=N, n_items=40, seed=1).log
    with pytest.raises(DataError, match=r"the log is not the one that was split: \d+ of its \d+ rows"):
        audit(other, files["old"], split=parts)
    with pytest.raises(DataError, match=r"0 of its \d+ rows are not in the split, and \d+ of the split's"):
        audit(train[5:], files["old"], split=parts)


def test_own_groups_of_unequal_size(parts, files):
    names = ["big"] * 35 + ["mid"] * 20 + ["five"] * 5
    groups = pl.DataFrame({"user_id": parts.log.user_ids, "group": names})
    found = audit(parts.log, files, split=parts, k=K, groups=groups)
    assert set(found.tests["group"]) == {"overall", "big", "mid", "five"}
    five = found.runs[0].by_group.row(by_predicate=pl.col("group") == "five", named=True)
    assert five["n_users"] == 5 and five[f"ndcg@{K}_low"] <= five[f"ndcg@{K}"] <= five[f"ndcg@{K}_high"]
    note = "five: 5 users with test rows, which shows single cases"
    assert note in str(found) and note in html(found)
    assert found.tests.filter(pl.col("group") == "five")["verdict"].to_list() == ["undecided"]
    assert {"coverage@10", "gini@10", "novelty@10"} <= set(found.runs[0].by_group.columns)


def test_what_cannot_be_audited(parts, files):
    log = parts.log
    for wrong, why in (
        ({}, "needs what people chose afterwards: .* else there is nothing"),
        ({"test": log, "split": parts}, "not both"),
        ({"split": parts, "reference": "new"}, "reference 'new' is none of the lists: recommendations"),
        ({"split": parts, "margin": 1.5}, "margin"),
        ({"split": parts, "k": 0}, "k=0"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            audit(log, files["old"], **wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="names no lists"):
        audit(log, {}, split=parts)
    with pytest.raises(DataError, match="is no split"):
        audit(log, files["old"], split="folder")


def test_warnings_say_which_file(parts, files):
    short = files["old"].filter(pl.col("rank") <= 5)
    with pytest.warns(GreysheepWarning) as caught:
        audit(parts.log, {"whole": files["old"], "short": short}, split=parts, k=K)
    said = [str(one.message) for one in caught]
    assert [text for text in said if "no list is longer" in text] == [
        "short: no list is longer than 5, but 10 places are measured; the rest are misses"
    ]


def test_the_page(found, files, parts):
    page = html(found)
    assert "<title>greysheep audit" in page and "Beside accuracy" in page and "By activity" in page
    for absent in ("One seed says", "in a process of its own", "What quality costs", "Settings of each model",
                   "averaged over the seeds", "trained models", "nan"):  # fmt: skip
        assert absent not in page, absent
    low = found.runs[1].by_group.row(0, named=True)
    assert f"{low['ndcg@10_low']:.3f}\N{EN DASH}{low['ndcg@10_high']:.3f}" in page  # evaluate's own interval
    alone = html(audit(parts.log, files["old"], split=parts, k=K))
    assert "With recommendations," in alone and "Against" not in alone


@pytest.fixture
def desk(tmp_path, monkeypatch, parts, files, capsys):
    monkeypatch.chdir(tmp_path)
    parts.log.frame().write_csv("log.csv")
    assert run(["split", "log.csv", "-o", "split"]) == 0
    for name, frame in files.items():
        frame.write_csv(f"{name}.csv")
    pl.DataFrame({"item_id": parts.log.item_ids, "genres": ["a|b", "b"] * 20}).write_csv("items.csv")
    capsys.readouterr()
    return tmp_path


def call(line: str) -> int:
    return run(line.split())


def test_from_the_command_line(desk, capsys):
    line = "audit log.csv --split split --recs old.csv --recs new.csv --k 5,10 --items items.csv"
    assert call(f"{line} --json out.json --html out.html") == 0
    said = capsys.readouterr().out
    assert "of lists on test rows of protocol strict" in said and "new, beside accuracy:" in said
    found = json.loads(Path("out.json").read_text())
    assert [one["label"] for one in found["runs"]] == ["old", "new"] and len(found["tests"]) == len(
        GROUPS
    ) + 1
    assert "greysheep audit log.csv --recs old.csv --recs new.csv" in found["facts"]["Command"]
    for name, one in zip(("old", "new"), found["runs"], strict=True):
        assert (
            call(f"evaluate --recs {name}.csv --split split --k 5,10 --items items.csv --json {name}.json")
            == 0
        )
        alone = json.loads(Path(f"{name}.json").read_text())
        assert one | {"label": ""} == alone | {"label": ""}
    assert Path("out.html").read_text().startswith("<!doctype html>")
    capsys.readouterr()
    assert call(f"{line} --json -") == 0
    assert json.loads(capsys.readouterr().out)["verdicts"] == found["verdicts"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--recs old.csv", "without either there is nothing that a list could have hit"),
        ("--recs old.csv --split split --test log.csv", "give one of them"),
        ("--recs old.csv --recs old.csv --split split", "names old.csv twice"),
        ("--recs gone.csv --split split", "gone.csv"),
        ("--recs old.csv --split nowhere", "is no split"),
        ("--recs old.csv --test log.csv", "already stored"),
        ("--recs old.csv --split split --json log.csv", "log.csv"),
        ("--recs old.csv --split split --json a.html --html a.html", "would replace the other"),
        ("--recs old.csv --split split -k 0", "--k 0"),
        ("--recs items.csv --split split", "user_id"),
        ("--split split", "--recs"),
    ],
)
def test_mistakes_are_one_line(desk, capsys, line, why):
    before = {path: path.read_bytes() for path in Path().glob("*.csv")}
    assert call(f"audit log.csv {line}") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and why in said[0]
    assert before == {path: path.read_bytes() for path in Path().glob("*.csv")}


def test_files_of_one_name_are_told_apart(desk, capsys):
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(f"{name}/lists.csv").write_text(Path("old.csv").read_text())
    assert call("audit log.csv --split split --recs a/lists.csv --recs b/lists.csv -k 5") == 0
    said = capsys.readouterr().out
    assert "a/lists.csv" in said and "b/lists.csv: no difference in low" in said


PAGE = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")


def test_the_page_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    """Its commands and Python in order; those on MovieLens on the simulated log, too."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    steps = re.findall(r"^```python\n(.*?)^```|^    ((?:greysheep|python) [^\n]+)$", PAGE, flags=re.M | re.S)
    commands = [line for _, line in steps if line]
    assert len(commands) == 13 and sum(bool(code) for code, _ in steps) == 2
    for code, line in steps:
        words = shlex.split(line.replace("$GREYSHEEP_DATA/ml-1m/interactions", "data/simulated/interactions"))
        words = [word.replace("$GREYSHEEP_DATA/ml-1m/items.parquet", "items.csv") for word in words]
        if code:
            exec(code, names)
        elif words[0] == "greysheep":
            assert run(words[1:]) == 0, line
        else:
            implicit_lists.main(words[2:])
    said = capsys.readouterr().out
    assert "new, beside accuracy:" in said and "als: 12,000 places for 600 users" in said
    assert {"u0", "u3"} <= set(names["found"].groups)
    assert json.loads(Path("numbers.json").read_text())["runs"][0]["k"] == [5, 10, 20]
    assert Path("audit.html").stat().st_size > 20_000
