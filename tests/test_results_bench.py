"""benchmarks/reproduction.py, questions.py and index.py on a small world: every text is a model, runs make
pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import greysheep as gs
from greysheep.models import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import index
import questions
import reproduction
import reproduction_page

FAST = {"epochs": 2, "latent": 4}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the data, the runs and the pages."""
    log = gs.datasets.simulate(n_users=80, n_items=40, seed=0).log
    (tmp_path / "ml-1m").mkdir()
    log.frame().write_parquet(tmp_path / "ml-1m" / "interactions.parquet")
    tuned = tmp_path / "tuned.yaml"
    search = {"trials": 3, "minutes": 0.1, "defaults": 0.1, "best": 0.2}
    chosen = {"ease": {"regularization": 20.0}, "tall": {**FAST, "n_experts": 2}}
    more = [{"model": "tall[n_experts=3]", "mean": 0.125, "low": 0.0625}]
    tuned.write_text(yaml.safe_dump({"searches": {"ease": search}, "settings": chosen, "by-hand": more}))
    for module in (reproduction, reproduction_page, questions):
        monkeypatch.setattr(module, "TUNED", tuned)
        monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    for module in (reproduction, questions):
        monkeypatch.setattr(module, "DATA", tmp_path)
    for module in (reproduction, reproduction_page):
        monkeypatch.setattr(module, "REFERENCE", "popular")
    monkeypatch.setattr(reproduction_page, "PAGE", tmp_path / "reproduction.md")
    monkeypatch.setattr(reproduction_page, "PICTURE", tmp_path / "by_group.svg")
    monkeypatch.setattr(questions, "PAGE", tmp_path / "questions.md")
    monkeypatch.setattr(questions, "PICTURES", tmp_path)
    return tmp_path


def test_every_text_is_a_model_and_nothing_is_tuned_on_test_rows() -> None:
    tuned = yaml.safe_load(reproduction.TUNED.read_text())
    assert tuned["searches"].keys() <= set(reproduction.TUNABLE)
    for name, table in reproduction.TABLES.items():
        texts = reproduction.models(table)
        for text in texts.values():
            parse(text, seed=0)
        if name == "ml-1m-paper":
            judged = {name for alias, *_, others in reproduction_page.RATIOS for name in (alias, *others)}
            assert judged <= texts.keys()
    for question in questions.QUESTIONS.values():
        texts = questions.texts(question)
        assert len(set(texts.values())) == len(texts)  # every variant differs from every other
        for text in texts.values():
            parse(text, seed=0)


def test_a_sample_has_the_users_it_says_and_is_the_same_each_time(small: Path) -> None:
    table = reproduction.Table("ml-1m", "strict", n_users=30)
    first, again = table.interactions(), table.interactions()
    assert first.n_users == 30
    assert first.fingerprint() == again.fingerprint()
    assert reproduction.Table("ml-1m", "strict").interactions().n_users == 80


@pytest.mark.usefixtures("runs_here")
def test_tables_run_once_and_make_a_page(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = reproduction.Table("ml-1m", "paper", (0, 1))
    monkeypatch.setattr(reproduction, "TABLES", {"ml-1m-paper": table})
    monkeypatch.setattr(reproduction_page, "TABLES", {"ml-1m-paper": table})
    reproduction.run(["ml-1m-paper"], ["ease", "ease, tuned"], None, 1, 10)
    files = {file: file.stat().st_mtime_ns for file in (small / "runs").rglob("*.json")}
    reproduction.run(["ml-1m-paper"], ["ease"], None, 1, 10)
    assert {file: file.stat().st_mtime_ns for file in files if "runs/ml-1m-paper/runs" in str(file)} == {
        file: time for file, time in files.items() if "runs/ml-1m-paper/runs" in str(file)
    }
    text = reproduction_page.write().read_text()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}
    assert rows["ease, tuned"] != rows["ease"]
    assert "regularization=20.0" in text
    assert "popular" in (small / "by_group.svg").read_text()
    assert "| .1250 | .0625 |" in rows["`tall[n_experts=3]`"]
    assert "not run" in rows["tall, K = 40: low at least 1.06 x MultVAE"]


def test_thinning_keeps_everybody_and_the_share(small: Path) -> None:
    whole, some = questions.thinned(1), questions.thinned(4)
    assert whole.n_users == some.n_users == 40
    count = whole.frame().group_by("user_id").len()
    kept = some.frame().group_by("user_id").len(name="kept").join(count, on="user_id")
    assert kept.select((pl.col("kept") == pl.max_horizontal(pl.col("len") // 4, 4)).all()).item()


@pytest.mark.usefixtures("runs_here")
def test_a_question_makes_a_figure_and_a_table(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, dict[str, Any]] = {"1": {"n_experts": 1}, "2": {"n_experts": 2}}
    monkeypatch.setattr(questions, "QUESTIONS", {"experts": questions.Question("Experts K", changes)})
    monkeypatch.setattr(questions, "HELD", {})
    questions.measured("experts", 1, 1, 10, False)
    text = questions.page().read_text()
    assert "## Experts K" in text
    assert "| 1 | 1/1 | ." in text
    assert "| 2 | 1/1 | ." in text
    assert (small / "question_experts.svg").stat().st_size > 1000


def test_an_index_is_measured_beside_its_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BUILD", tmp_path)
    monkeypatch.setattr(index, "SETTINGS", {**FAST, "start_epoch": 1})
    index.train(gs.datasets.simulate(n_users=60, n_items=40, seed=0).log, 3)
    text = index.measure(3)
    assert "| test NDCG@20, low | 0." in text
    assert "| scores of 60 users, s |" in text
