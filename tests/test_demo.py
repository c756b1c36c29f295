"""The demo: four models, a table, a page, and what it says where something is missing."""

import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from greysheep.cli import demo
from greysheep.data import datasets
from greysheep.data.datasets import Dataset, simulate
from greysheep.errors import ConfigError, DataError, GreysheepError, MissingExtraError
from greysheep.evaluation.report import text_table
from greysheep.report.pages import headline

MODELS = ["popular", "ease-weighted", "multvae", "tall"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "eval" in request.keywords:
        return

    def unreachable(name: str) -> Dataset:
        if name in ("simulated", "ml-1m"):
            return simulate(n_users=60, n_items=40, rows_per_user=12)
        raise DataError(f"{name}: no answer from anywhere")

    monkeypatch.setattr(datasets, "load", unreachable)


def test_demo_trains_four_models_and_writes_the_page(tmp_path: Path):
    lines: list[str] = []
    target = tmp_path / "out" / "report.html"
    reports = demo.run_demo(target, dataset="simulated", epochs=3, echo=lines.append)
    assert [report.label for report in reports] == MODELS
    assert {(report.protocol, report.seed, report.k) for report in reports} == {("strict", 0, 20)}
    assert [report.epochs for report in reports] == [0, 0, 3, 3]
    assert reports[3].config["n_experts"] == 10
    steps = [line for line in lines if line.startswith("[")]
    assert [line[:4] for line in steps] == [f"[{n}/8" for n in range(1, 9)]
    assert steps[-1].endswith(f"writing {target}")
    assert any(re.fullmatch(r"train \d+, gate \d+, validation \d+, test \d+ rows", line) for line in lines)
    printed = "\n".join(lines)
    assert "kept  720 rows, 60 users" in printed
    assert text_table(reports) in printed and headline(reports) in printed
    page = target.read_text(encoding="utf-8")
    for part in (
        "Against multvae",
        "Do niche users peak later?",
        "one by one",
        "Item 1 of community",
        "no filter",
    ):
        assert part in page, part
    assert list(target.parent.iterdir()) == [target]


def test_same_seed_same_numbers(tmp_path: Path):
    def once(seed: int) -> list[float]:
        made = demo.run_demo(tmp_path, dataset="simulated", epochs=1, seed=seed, echo=lambda line: None)
        return [report.overall["ndcg@20"]["mean"] for report in made]

    assert once(1) == once(1) != once(2)
    assert (tmp_path / "report.html").exists()


def test_data_out_of_reach_are_replaced_by_the_simulator(tmp_path: Path):
    lines: list[str] = []
    demo.run_demo(tmp_path, dataset="ml-100k", epochs=1, echo=lines.append)
    assert "ml-100k is not reachable: ml-100k: no answer from anywhere" in lines
    assert "Going on with simulated users, a tenth of them a minority in taste." in lines
    assert "greysheep demo: simulated," in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_mistakes_are_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []

    def refuse(error: type[GreysheepError], match: str, output: Path, **more: str) -> None:
        with pytest.raises(error, match=match):
            demo.run_demo(output, echo=lines.append, **more)

    (tmp_path / "file").touch()
    refuse(ConfigError, "ends in '.pdf': name an .html file", tmp_path / "a.pdf")
    refuse(ConfigError, "cannot be written", tmp_path / "file" / "a.html")
    assert lines == []
    refuse(DataError, "no answer", tmp_path, dataset="ml-100")
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    lines.clear()
    refuse(MissingExtraError, r"pip install greysheep\[report\]", tmp_path)
    assert lines == []


@pytest.mark.eval
def test_demo_on_real_data_takes_less_than_90_seconds(tmp_path: Path):
    lines: list[str] = []
    begun = time.perf_counter()
    reports = demo.run_demo(tmp_path, echo=lines.append)
    if any("not reachable" in line for line in lines):
        pytest.skip("MovieLens 100K cannot be fetched from here")
    assert time.perf_counter() - begun < 90
    means = {report.label: report.overall["ndcg@20"]["mean"] for report in reports}
    assert means["popular"] < 0.25 and all(means[name] > 0.39 for name in MODELS[1:])
