"""benchmarks/reproduction.py, questions.py and index.py on a small world: every text is a model, runs make
pages."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import greysheep as gs
from greysheep.errors import ProcessEndedError
from greysheep.models import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import index
import questions
import reproduction
import reproduction_page
import reproduction_tables
import stage

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
    for module in (reproduction, reproduction_page, reproduction_tables):
        monkeypatch.setattr(module, "TUNED", tuned)
    for module in (reproduction, reproduction_page, questions):
        monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    for module in (reproduction_tables, questions):
        monkeypatch.setattr(module, "DATA", tmp_path)
    monkeypatch.setattr(reproduction, "REFERENCE", "popular")
    monkeypatch.setattr(reproduction_page, "PAGE", tmp_path / "reproduction.md")
    monkeypatch.setattr(reproduction_page, "PICTURE", tmp_path / "by_group.svg")
    monkeypatch.setattr(questions, "PAGE", tmp_path / "questions.md")
    monkeypatch.setattr(questions, "PICTURES", tmp_path)
    return tmp_path


def test_every_text_is_a_model_and_only_tunable_ones_were_searched() -> None:
    tuned = yaml.safe_load(reproduction_tables.TUNED.read_text())
    assert tuned["searches"].keys() <= set(reproduction_tables.TUNABLE)
    for name, table in reproduction_tables.TABLES.items():
        texts = reproduction_tables.models(table)
        for text in texts.values():
            parse(text, seed=0)
        if name == "ml-1m-paper":
            judged = {name for alias, *_, others in reproduction_page.RATIOS for name in (alias, *others)}
            to_tune = {
                f"{name}, tuned" for name in reproduction_tables.TUNABLE if not tuned["settings"].get(name)
            }
            assert judged <= texts.keys() | to_tune
    for question in questions.QUESTIONS.values():
        texts = questions.texts(question)
        assert len(set(texts.values())) == len(texts)  # every variant differs from every other
        for text in texts.values():
            parse(text, seed=0)


def test_a_sample_has_the_users_it_says_and_is_the_same_each_time(small: Path) -> None:
    table = reproduction_tables.Table("ml-1m", "strict", n_users=30)
    first, again = table.interactions(), table.interactions()
    assert first.n_users == 30
    assert first.fingerprint() == again.fingerprint()
    assert reproduction_tables.Table("ml-1m", "strict").interactions().n_users == 80


@pytest.mark.usefixtures("runs_here")
def test_tables_run_once_and_make_a_page(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = reproduction_tables.Table("ml-1m", "paper", (0, 1))
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
    monkeypatch.setattr(index, "PAGE", tmp_path / "compiled-index.md")
    monkeypatch.setattr(index, "SETTINGS", {**FAST, "start_epoch": 1})
    monkeypatch.setattr(stage.jobs, "run", lambda command, job, log, threads: stage.work(job))
    log, folder = tmp_path / "log.parquet", str(tmp_path / "tall")
    gs.datasets.simulate(n_users=60, n_items=40, seed=0).log.frame().write_parquet(log)
    stage.result(tmp_path / "train.json", index.train, log=str(log), folder=folder, experts=3)
    found = stage.result(tmp_path / "measure.json", index.measure, folder=folder)
    text = index.page(3, found).read_text()
    assert "| test NDCG@20, low | 0." in text
    assert "| scores of 60 users, s |" in text


def test_a_stage_runs_once_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "stage.json"
    code = tmp_path / "some_stages.py"
    code.write_text(
        "import os\ndef own(word):\n    print('said')\n    return {'process': os.getpid(), 'word': word}\n"
    )
    sys.path.insert(0, str(tmp_path))
    import some_stages  # type: ignore[import-not-found]

    found = stage.result(file, some_stages.own, threads=1, word="a")
    assert found["process"] != os.getpid() and (found["word"], found["threads"]) == ("a", 1)
    assert file.with_suffix(".log").read_text() == "said\n"
    assert stage.result(file, some_stages.own, word="b") == found, "a finished stage was run again"
    assert stage.result(file, some_stages.own, again=True, word="b")["word"] == "b"
    with pytest.raises(ProcessEndedError, match="TypeError"):
        stage.result(tmp_path / "wrong.json", some_stages.own, words="c")
    assert not (tmp_path / "wrong.json").exists()
