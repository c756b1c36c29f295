"""benchmarks/peers.py: our side of every verb on a small log, and what is said of the others."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from greysheep.metrics.ranking import per_user

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARTS = BENCHMARKS / "peers_parts"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in this copy")
SETTINGS = {
    "k": 20, "threads": 1, "log": "",
    "ease": {"regularization": 20.0},
    "ials": {"factors": 4, "alpha": 4.0, "regularization": 10.0, "iterations": 2},
    "multvae": {"latent": 4, "batch_size": 64, "dropout": 0.5, "learning_rate": 1e-3, "epochs": 2},
}  # fmt: skip


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's modules by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(PARTS))
    return importlib.import_module


@pytest.fixture
def case(bench: Any, tmp_path: Path) -> Any:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return bench("phase").Case(tmp_path, scratch, SETTINGS, ["script", "case"])


def verbs(bench: Any) -> Any:
    return bench("peers_parts.rounds").VERBS


def functions(name: str) -> set[str]:
    tree = ast.parse((PARTS / f"by_{name}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_side_has_what_the_table_names(bench: Any):
    known = bench("peers_parts.environments").PEERS
    assert {path.stem.removeprefix("by_") for path in PARTS.glob("by_*.py")} == {"greysheep", *known}
    for verb in verbs(bench):
        for name in ("greysheep", *verb.peers):
            assert verb.case in functions(name), (verb.case, name)
    for name, peer in known.items():
        assert any(name in verb.peers for verb in verbs(bench)) and peer.needs[0].startswith(f"{name}==")


def test_our_side_does_every_verb(bench: Any, case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from greysheep.cli import app

    ours = bench("by_greysheep")

    def in_this_process(self: Any, *command: str) -> None:
        if command[1] == "-m":
            done = CliRunner().invoke(app, list(command[3:]))
            assert done.exit_code == 0, done.output
        else:
            getattr(ours, command[2])(self)

    monkeypatch.setattr(type(case), "run", in_this_process)
    ours.prepare(case)
    figures = {}
    for number, verb in enumerate(verbs(bench)):
        case.scratch = tmp_path / str(number)
        case.scratch.mkdir()
        case.seconds = 0.0
        figures[verb.case] = getattr(ours, verb.case)(case).get("ndcg@20")
        assert (case.seconds > 0) == verb.case.endswith(("fit", "lists", "epoch", "validation")), verb.case
    ways = ("ease_command", "ease_lists_command", "ease_fit", "ease_lists")
    for same in (ways, ("evaluate", "evaluate_users")):
        assert np.ptp([figures[name] for name in same]) < 1e-9, "the same lists by every way"
    assert abs(figures["ials_lists"] - figures["ials_command"]) < 1e-6


def test_the_figure_is_ndcg(case: Any, tmp_path: Path):
    rows = {"train_user": [0], "train_item": [0], "test_user": [1, 1, 1, 2], "test_item": [3, 4, 5, 6]}
    np.savez(tmp_path / "rows.npz", **{name: np.array(ids) for name, ids in rows.items()})
    case.settings = {"k": 3}
    found = case.ndcg_of_frame([1, 1, 1, 1, 2, 2, 9], [3, 8, 5, 4, 7, 6, 3])
    hits = np.array([[True, False, True], [False, True, False]])
    assert found == {
        "ndcg@3": pytest.approx(per_user(hits, np.array([3, 1]), 3, ["ndcg"])["ndcg@3"].mean()),
        "users": 2,
    }


def test_a_program_is_measured_from_start_to_end(case: Any, capfd: pytest.CaptureFixture[str]):
    held = 60_000_000
    case.run(sys.executable, "-c", f"import time; held = b'1' * {held}; time.sleep(0.2)")
    assert case.seconds > 0.2 and case.peak > held
    with pytest.raises(SystemExit):
        case.run(sys.executable, "-c", "raise SystemExit('no room left')")
    assert "no room left" in capfd.readouterr().err


def test_an_environment_is_made_once_or_said_to_be_missing(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    environments, answers, asked = bench("peers_parts.environments"), [], []

    def create(folder: Path, **options: Any) -> None:
        assert options["clear"], "the remains of an installation that failed would stay"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text("")

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command)
        code = answers.pop(0)
        return subprocess.CompletedProcess(
            command, code, "", "WARNING: a\nERROR: no wheel\nhint\n" if code else ""
        )

    monkeypatch.setattr(environments.venv, "create", create)
    monkeypatch.setattr(environments.subprocess, "run", run)
    answers[:] = [1]
    with pytest.raises(environments.NotInstalledError, match=r"^pip: ERROR: no wheel$"):
        environments.python_of("ranx", tmp_path, install=True)
    with pytest.raises(environments.NotInstalledError, match="not installed here"):
        environments.python_of("ranx", tmp_path, install=False)
    (tmp_path / "ranx" / "bin" / "python").unlink()
    (tmp_path / "ranx" / "bin").rmdir()
    answers[:] = [0]
    made = [environments.python_of("ranx", tmp_path, install=install) for install in (True, True, False)]
    assert len(asked) == 2 and set(made) == {str(tmp_path / "ranx" / "bin" / "python")}
    assert "--only-binary" in asked[0] and "constraints.txt" in asked[0]


def test_a_library_sees_no_other_code_and_its_threads(bench: Any, monkeypatch: pytest.MonkeyPatch):
    environments = bench("peers_parts.environments")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    for name in ("lenskit", "implicit", "greysheep"):
        own = environments.variables(name, 2)
        assert own["OMP_NUM_THREADS"] == "2" and "OPENBLAS_CORETYPE" not in own
        assert own["OPENBLAS_NUM_THREADS"] == ("1" if name == "implicit" else "2")
        assert (own.get("PYTHONPATH") or "").endswith("src") == (name == "greysheep")


def record(**seconds: list[float]) -> dict[str, Any]:
    sides = {
        name: [
            {"seconds": one, "peak": 5e8 if name == "ranx" else 9e8, "figure": {"ndcg@20": 0.25}}
            for one in all_of
        ]
        for name, all_of in seconds.items()
    }
    how = {"machine": "a machine", "rounds": 3, "log": "/data/ml-1m/interactions.parquet"}
    how["settings"] = {**importlib.import_module("peers").SETTINGS, "threads": 2}
    size = {"users": 6040, "items": 3706, "rows": 700_045}
    return {"how": how, "log": size, "day": "2026-01-01", "load": 0.5, "sides": sides, "missing": {}}


def test_the_section_says_who_is_faster_and_who_is_missing(bench: Any):
    table = bench("peers_parts.table")
    row = record(greysheep=[1.0, 2.0, 10.0], ranx=[3.0, 4.0, 10.0], rectools=[0.5, 1.0, 9.0])
    row["missing"] = {"lenskit": "not installed here"}
    verb = next(verb for verb in verbs(bench) if verb.case == "evaluate")
    text = table.section([(verb, row)])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| 0.50 | 0.50 to 0.90 | 900 | ndcg@20 0.2500 |" in lines[3] and "RecTools" in lines[3]
    assert "| ranx 0.3.21 | 4 | 2.00 | 1.00 to 3.00 | 500 |" in lines[4]
    assert "Faster than greysheep: evaluate a file of lists, means (RecTools 0.19.0, 0.50)." in text
    assert "whichever is more: evaluate a file of lists, means (ranx 0.3.21)." in text
    assert "Not measured: LensKit 2025.8.1: not installed here" in text
    assert "ml-1m, 700,045 train rows of 6,040 users and 3,706 items" in text
    assert "Nothing was measured." in table.section([])


def test_a_section_is_written_again_in_its_place(bench: Any, tmp_path: Path):
    stage, page = bench("stage"), tmp_path / "performance.md"
    page.write_text("# Performance\n\nBefore.\n")
    for text in ("first", "## second\n\ntext\n"):
        stage.put_section(page, "peers", text)
    page.write_text(page.read_text() + "\nAfter.\n")
    stage.put_section(page, "peers", "third")
    assert stage.section(page, "peers") == "third"
    before, after = page.read_text().split("third")
    assert before.startswith("# Performance\n\nBefore.\n\n<!--") and after.endswith("-->\n\nAfter.\n")
    importlib.import_module("speed_parts.page").write([], tmp_path)
    assert stage.section(page, "peers") == "third" and "Before" not in page.read_text()


def test_the_command_measures_keeps_and_writes(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    peers = bench("peers")
    command = ["--small", "--no-install", "--peers", "lenskit", "--rows", "start,ease_fit", "--rounds", "1"]
    command += ["--threads", "1", "--kept", str(tmp_path), "--envs", str(tmp_path / "none")]
    command += ["--docs", str(tmp_path), "--page"]
    asked: list[str] = []

    def once(name: str, python: str, case: str, work: Path, setup: Any) -> dict[str, Any]:
        asked.append(f"{name} {case}")
        size = {"users": 300, "items": 200, "rows": 9000}
        return {"seconds": 0.5, "peak": 1e8, "figure": size if case == "prepare" else {}}

    with monkeypatch.context() as patch:
        patch.setattr("peers_parts.rounds.once", once)
        peers.main(command)
        assert asked == ["greysheep prepare", *["greysheep ease_fit"] * 2, *["greysheep start"] * 2]
        peers.main(command)
        assert len(asked) == 5, "kept rows were measured again"
    kept = json.loads((tmp_path / "rows.json").read_text())
    assert kept["start"]["missing"] == {"lenskit": "not installed here"}
    page = (tmp_path / "performance.md").read_text()
    assert "a simulated one, 9,000 train rows" in page and "LensKit 2025.8.1: not installed here" in page
    peers.main([*command, "--rows", "start", "--again"])  # fresh processes, now
    again = json.loads((tmp_path / "rows.json").read_text())["start"]["sides"]["greysheep"]
    assert len(again) == 1 and again[0]["seconds"] > 0.05 and again[0]["peak"] > 1e7


@pytest.mark.parametrize(
    "words", [["--rows", "speed"], ["--peers", "surprise"], ["--rounds", "0"], ["--data", "nowhere"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_wrong_words_end_in_one_line(words: list[str]):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "peers.py"), *words], capture_output=True, text=True
    )
    assert done.returncode == 2 and "error" in done.stderr.splitlines()[-1]
