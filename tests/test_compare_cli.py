"""`greysheep compare` as a person runs it: what it leaves, how it goes on, how it fails."""

from __future__ import annotations

import _thread
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from greysheep.cli import compare as command
from greysheep.cli import run
from greysheep.comparison import progress, run_folder, splits, worker
from greysheep.comparison.run_folder import Run
from greysheep.data.columns import USER
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.mainstream.scores import density_scores
from greysheep.report import pages
from greysheep.system import jobs, machine

Capture = pytest.CaptureFixture[str]

MODELS = ["popular", "ease", "ease[regularization=7]"]

STUB = '''
"""In place of a real run: copies what a run would have written; `ease[regularization=N]` misbehaves."""
import json, os, shutil, sys, time
job = json.loads(sys.stdin.readline())
with open("calls.txt", "a") as calls:
    print(job["label"], job["seed"], os.getpid(), os.environ["OMP_NUM_THREADS"], job["threads"], file=calls)
assert os.path.isfile(os.path.join(job["split"], "groups.parquet"))
how = job["text"].partition("=")[2].rstrip("]")
if how == "2":
    print("error: this setting does not work", file=sys.stderr); sys.exit(2)
if how == "3":
    raise ZeroDivisionError("a bug")
if how == "4":
    os.kill(os.getpid(), 9)
if how == "5":
    sys.exit(0)
if how == "6" and not os.path.exists("go"):
    print(job["label"] + ": epoch 1 with ndcg@20 0.1", file=sys.stderr, flush=True)
    time.sleep(60)
if how == "8":
    time.sleep(0.4)
os.makedirs(os.path.join(job["out"], "runs"), exist_ok=True)
for suffix in (".parquet", ".json"):
    name = "%s-s%d%s" % (job["text"].partition("[")[0], job["seed"], suffix)
    text = open(os.path.join("store", "runs", name), "rb").read()
    if suffix == ".json":
        found = json.loads(text)
        found["label"] = job["label"]
        for part in ("config", "asked"):
            found[part].update({"regularization": float(how)} if how else {})
        text = json.dumps(found).encode()
    with open(job["stem"] + suffix, "wb") as file:
        file.write(text)
'''


def simulated():
    return gs.simulate(n_users=90, n_items=50, rows_per_user=14, seed=2).log


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """log.parquet, stub.py, and in store/ the runs of two models on three seeds."""
    folder = tmp_path_factory.mktemp("shop")
    log = simulated()
    log.frame().drop("timestamp").write_parquet(folder / "log.parquet")
    (folder / "stub.py").write_text(STUB)
    for seed in range(3):
        split = gs.split(log, seed=seed)
        for model in (gs.Popular(), gs.EASE()):
            report = gs.evaluate(model.fit(split), split)
            Run(model.name, seed, folder / "store").write(report, [], report.config)
    return folder


@pytest.fixture
def desk(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shop as the working folder, with quick stubs in place of runs."""
    shutil.copytree(shop, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setattr("greysheep.comparison.compare.COMMAND", [sys.executable, "-S", "stub.py"])
    monkeypatch.setattr(pages, "html", lambda found, **more: "<html>")
    start = jobs.json.dumps

    class Told:
        """Tells the stub where the files go, which a real run works out by itself."""

        @staticmethod
        def dumps(job):
            stem = Run(job["label"], job["seed"], Path(job["out"])).file("")
            return start(job | {"stem": str(stem)})

    monkeypatch.setattr(jobs, "json", Told)
    return tmp_path / "desk"


def calls() -> list[list[str]]:
    return (
        [line.split() for line in Path("calls.txt").read_text().splitlines()]
        if Path("calls.txt").exists()
        else []
    )


def compare(models: str, *more: str) -> int:
    return run(["compare", "log.parquet", "--models", models, "-o", "out", *more])


def results() -> dict:
    return json.loads(Path("out/results.json").read_text())


def test_it_goes_on_where_it_stopped(desk: Path, capfd: Capture):
    assert compare("popular,ease", "--seeds", "2") == 0
    found = capfd.readouterr()
    assert [call[:2] for call in calls()] == [
        ["popular", "0"],
        ["ease", "0"],
        ["popular", "1"],
        ["ease", "1"],
    ]
    lines = found.err.splitlines()
    assert lines[0].endswith("seed 0: splitting, scoring users") and "popular, seed 0: started" in lines[1]
    assert lines[-1].startswith("[4/4, ") and lines[-1].endswith("making the tables")
    assert "ease: " in found.out and "worst group" in found.out and "results.json" in found.out
    assert {path.name for path in Path("out").iterdir()} >= {
        "compare.json",
        "results.csv",
        "results.md",
        "report.html",
        "runs",
    }
    assert not Path("out/splits").exists() and not list(Path("out").rglob("*.log"))
    before = {path: path.read_bytes() for path in Path("out/runs").iterdir()}
    assert compare("popular,ease[regularization=7],ease", "--seeds", "3", "--reference", "ease") == 0
    assert sorted(call[:2] for call in calls()[4:]) == sorted(
        [["popular", "2"], ["ease", "2"], *(["ease[regularization=7]", str(seed)] for seed in range(3))]
    )
    assert all(path.read_bytes() == content for path, content in before.items())
    assert [(one["label"], one["seed"]) for one in results()["runs"]] == [
        (label, seed) for label in ("popular", "ease[regularization=7]", "ease") for seed in range(3)
    ]
    assert {one["reference"] for one in results()["tests"]} == {"ease"}
    assert results()["facts"]["Command"] == (
        "greysheep compare log.parquet --models 'popular,ease[regularization=7],ease' --protocol strict "
        "--seeds 3 -k 20 --reference ease --margin 0.02 -o out"
    )
    stored = json.loads(Path("out/runs/ease-s0.json").read_text())
    stored["asked"]["regularization"] = 1.0  # as if by a version with another default
    Path("out/runs/ease-s0.json").write_text(json.dumps(stored))
    assert compare("popular,ease", "--seeds", "1") == 0
    assert [call[:2] for call in calls()[9:]] == [["ease", "0"]]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C reaches the test: a background job of a shell starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_finished_runs(desk: Path, capfd: Capture):
    def press() -> None:
        while not any(call[0] == "ease[regularization=6]" for call in calls()):
            time.sleep(0.01)
        time.sleep(0.1)
        _thread.interrupt_main()

    threading.Thread(target=press, daemon=True).start()
    assert compare("popular,ease[regularization=6],ease", "--seeds", "1") == 130
    err = capfd.readouterr().err.splitlines()
    assert err[-1] == "interrupted" and "the same command goes on" in err[-2]
    pid = int(calls()[-1][2])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert sorted(path.name for path in Path("out/runs").iterdir()) == [
        "popular-s0.json",
        "popular-s0.parquet",
    ]
    assert not Path("out/splits").exists() and not Path("out/results.json").exists()
    Path("go").touch()
    assert compare("popular,ease[regularization=6],ease", "--seeds", "1") == 0
    assert [call[0] for call in calls()].count("popular") == 1
    assert len(results()["runs"]) == 3 and not results()["missing"]


STARTER = """
import sys
from greysheep.comparison import compare
from greysheep.system import jobs
from greysheep.comparison.run_folder import Run
from pathlib import Path
compare.COMMAND = [sys.executable, "-S", "stub.py"]
dumps = jobs.json.dumps
class Told:
    @staticmethod
    def dumps(job):
        return dumps(job | {"stem": str(Run(job["label"], job["seed"], Path(job["out"])).file(""))})
jobs.json = Told
from greysheep.cli import main
main()
"""


def killed(number: int, models: str) -> int:
    """Exit code of a comparison that gets a signal while the run that waits is under way."""
    known = len(calls())
    words = ["compare", "log.parquet", "--models", models, "--seeds", "1", "-o", "out"]
    starter = subprocess.Popen([sys.executable, "-c", STARTER, *words], stderr=subprocess.DEVNULL)
    while not any(call[0] == "ease[regularization=6]" for call in calls()[known:]):
        assert starter.poll() is None
        time.sleep(0.01)
    starter.send_signal(number)
    code = starter.wait(30)
    with suppress(ProcessLookupError):
        os.kill(int(calls()[-1][2]), signal.SIGKILL)  # a real run ends with its starter, a stub does not
    return code


def test_killed_it_goes_on_to_the_results_of_one_that_was_not(desk: Path):
    models = "popular,ease[regularization=6],ease"
    assert killed(signal.SIGTERM, models) == 143
    assert not Path("out/splits").exists() and not list(Path("out/runs").glob("*.log"))
    assert killed(signal.SIGKILL, models) == -9
    assert Path("out/splits").exists()  # nobody could clear up
    kept = {path: path.read_bytes() for path in Path("out/runs").glob("popular*")}
    Path("go").touch()
    assert compare(models, "--seeds", "1") == 0
    after = results()
    assert len(kept) == 2 and all(path.read_bytes() == content for path, content in kept.items())
    assert [call[0] for call in calls()].count("popular") == 1
    names = sorted(path.name for path in Path("out").rglob("*"))
    shutil.rmtree("out")
    assert compare(models, "--seeds", "1") == 0
    assert results() == after and sorted(path.name for path in Path("out").rglob("*")) == names


def test_one_that_fails_fails_alone(desk: Path, capfd: Capture):
    names = [f"ease[regularization={n}]" for n in (2, 3, 4, 5)]
    assert compare(",".join(["popular", *names, "ease"]), "--seeds", "1") == 3
    told = {one["label"]: one["message"] for one in results()["failures"]}
    assert told[names[0]] == "this setting does not work"
    assert told[names[1]].startswith("ZeroDivisionError: a bug (more in out/runs/ease_regularization=3")
    assert told[names[2]] == "ended by SIGKILL: perhaps it needs more memory"
    assert told[names[3]].startswith("it said nothing")
    assert len(told) == 4 and [one["label"] for one in results()["runs"]] == ["popular", "ease"]
    out = capfd.readouterr().out
    assert f"{names[0]}  this setting does not work" in out
    assert f"failed: {names[0]}, seed 0: this setting does not work" in out
    # a failed run is tried again, a finished one is not
    assert compare(",".join(["popular", names[0]]), "--seeds", "1") == 3
    assert [call[0] for call in calls()[6:]] == [names[0]]


def test_when_all_fail_it_is_the_users_turn(desk: Path, capfd: Capture):
    assert compare("ease[regularization=2],ease[regularization=3]", "--seeds", "1") == 2
    err = capfd.readouterr().err.splitlines()
    assert err[-1].startswith("error: 2 runs failed") and "this setting does not work" in err[-1]
    assert len(results()["failures"]) == 2


def test_no_run_is_started_when_the_time_is_over(desk: Path, capfd: Capture):
    assert compare("popular,ease", "--seeds", "2", "--max-minutes", "0") == 0
    assert calls() == []
    assert "missing: popular, seed 0, 1; ease, seed 0, 1" in capfd.readouterr().out
    assert compare("popular,ease", "--seeds", "1") == 0
    assert compare("popular,ease[regularization=8],ease", "--seeds", "2", "--max-minutes", "0.005") == 0
    # 0.3 s: what is under way then is finished, the rest is missing and named
    found = results()
    assert len(found["runs"]) + len(found["missing"]) == 6 and found["missing"]
    assert {call[0] for call in calls()[2:]} <= {"popular", "ease[regularization=8]", "ease"}
    assert not found["failures"]


def test_several_at_once_share_the_cores(desk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "usable_cores", lambda: 6)
    models = ",".join(f"ease[regularization={n}]" for n in ("8", "8.0", "8e0"))
    begun = time.monotonic()
    assert compare(models.replace("8.0", "9").replace("8e0", "10"), "--seeds", "1", "--jobs", "3") == 0
    assert {(call[3], call[4]) for call in calls()} == {("2", "2")}
    assert time.monotonic() - begun < 60
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert [machine.threads_each(1), machine.threads_each(12)] == [1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert [machine.threads_each(1), machine.threads_each(3)] == [4, 2]


MISTAKES = {
    "unknown model": ("popular,eese", [], "ease"),
    "wrong setting": ("popular,tall[n_experts=0]", [], "n_experts"),
    "unknown setting": ("popular,tall[n_expert=1]", [], "n_experts"),
    "name of another": ("popular,ease=popular", [], "another model"),
    "twice": ("ease,popular,ease", [], "twice"),
    "no model": (",", [], "at least one model"),
    "seed of its own": ("tall[seed=3]", [], "--seeds"),
    "no file": ("@none.yaml", [], "none.yaml"),
    "reference": ("ease,popular", ["--reference", "tall"], "tall"),
    "protocol without test": ("ease", ["--protocol", "all"], "test rows"),
    "no times": ("ease", ["--protocol", "temporal"], "time_col"),
    "seeds": ("ease", ["--seeds", "many"], "--seeds"),
    "no seeds": ("ease", ["--seeds", "0"], "seeds"),
    "margin": ("ease", ["--margin", "-1"], "margin"),
    "minutes": ("ease", ["--max-minutes", "-1"], "max_minutes"),
    "jobs": ("ease", ["--jobs", "0"], "--jobs"),
    "length": ("ease", ["-k", "0"], "--k"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_run(name: str, desk: Path, capfd: Capture):
    models, more, word = MISTAKES[name]
    assert compare(models, *more) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and word in lines[0]
    assert not Path("out").exists() and calls() == []


def test_a_folder_of_another_comparison_is_refused(
    desk: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
):
    assert compare("popular", "--seeds", "1") == 0
    simulated().frame().head(1100).write_parquet("other.parquet")

    def refused(word: str, log: str = "log.parquet", *more: str) -> None:
        capfd.readouterr()
        assert run(["compare", log, "--models", "popular", "--seeds", "1", "-o", "out", *more]) == 2
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and word in lines[0] and "out" in lines[0]

    refused("another log", "other.parquet")
    refused("protocol strict, not paper", "log.parquet", "--protocol", "paper")
    refused("k 20, not 5", "log.parquet", "-k", "5")
    monkeypatch.setattr(run_folder, "own_version", lambda: "9.9")
    refused("9.9")
    monkeypatch.undo()
    os.chdir(desk)
    Path("out/compare.json").unlink()
    refused("no compare.json")
    Path("mine").write_text("")
    assert run(["compare", "log.parquet", "--models", "popular", "-o", "mine"]) == 2
    assert "mine is a file" in capfd.readouterr().err


def test_two_at_once_in_one_folder(desk: Path, capfd: Capture):
    from greysheep.comparison.run_folder import locked

    assert compare("popular", "--seeds", "1") == 0
    with locked(Path("out")):
        assert compare("popular", "--seeds", "2") == 2
    assert "at work in out" in capfd.readouterr().err
    assert compare("popular", "--seeds", "2", "--no-progress") == 0
    assert capfd.readouterr().err == ""


def test_a_model_may_have_a_name(desk: Path, capfd: Capture):
    assert compare("popular,linear=ease[regularization=7]", "--seeds", "1") == 0
    found = results()
    assert [one["label"] for one in found["runs"]] == ["popular", "linear"]
    assert found["runs"][1]["config"]["regularization"] == 7
    assert found["facts"]["Names"] == "linear = ease[regularization=7]"
    assert "--models 'popular,linear=ease[regularization=7]'" in found["facts"]["Command"]
    assert "\nlinear: " in capfd.readouterr().out
    log = gs.Interactions.read("log.parquet")
    again = gs.compare(log, {"all": "popular", "linear": "ease"}, seeds=1, out="out", progress=False)
    assert [call[:2] for call in calls()] == [
        ["popular", "0"],
        ["linear", "0"],
        ["all", "0"],
        ["linear", "0"],
    ]
    assert again.labels == ["all", "linear"] and again.reference == "all"


def test_from_python(desk: Path):
    found = gs.compare(simulated(), MODELS[:2], seeds=[2, 0], out="out", progress=False)
    assert [(one.label, one.seed) for one in found.runs] == [
        ("popular", 2),
        ("popular", 0),
        ("ease", 2),
        ("ease", 0),
    ]
    assert found.verdicts.keys() == {"ease"} and "greysheep.compare(log" in found.facts["Command"]
    assert gs.Comparison.read("out").to_dict() == found.to_dict()
    with pytest.raises(ConfigError, match="twice"):
        gs.compare(simulated(), "ease,ease", out="out2")
    tiny = gs.Interactions.read(pl.DataFrame({"user_id": [1, 2], "item_id": [1, 1]}))
    with pytest.raises(DataError, match="no test rows"):
        gs.compare(tiny, ["popular"], out="out2")
    assert not Path("out2").exists()


# What a run does


def test_a_run_measures_as_evaluate_does(tmp_path: Path):
    """In this process: the same numbers as by hand, groups by every score, warnings kept."""
    frame = simulated().frame().with_columns(weight=pl.lit(2.0))
    log = gs.Interactions.read(frame)
    folder = splits.Splits(log, "strict", tmp_path).of(1)
    label = "multvae[epochs=2,latent=4]"
    worker.measure(
        {
            "label": "small",
            "text": label,
            "seed": 1,
            "out": str(tmp_path),
            "split": str(folder),
            "k": [3, 7],
            "threads": 1,
        }
    )
    made = Run("small", 1, tmp_path)
    found = made.read()
    split = gs.split(log, seed=1)
    with pytest.warns(GreysheepWarning, match="binary"):
        model = gs.MultVAE(epochs=2, latent=4, seed=1, threads=1).fit(split)
    by_hand = gs.evaluate(model, split, k=[3, 7])
    assert found is not None and len(found.history) == 2
    assert (found.overall, found.label, found.seed, found.k) == (by_hand.overall, "small", 1, 7)
    assert found.by_group.equals(by_hand.by_group)
    assert found.per_user.drop("density", "distribution").equals(by_hand.per_user)
    rows = split.rows("train")
    wanted = np.asarray(GROUPS)[Mainstream.from_scores(density_scores(rows), log.user_ids).groups]
    assert found.per_user["density"].to_list() == wanted.tolist()
    assert found.per_user["distribution"].n_unique() == 5
    assert len(made.warnings()) == 1 and "binary" in made.warnings()[0]


def test_density_may_be_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)
    found = splits.scores_of(gs.split(simulated()))
    assert found.columns == [USER, "mainstream", "sampled", "bound", "distribution"]


def test_splits_are_made_once_and_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = simulated()
    made = splits.Splits(log, "paper", tmp_path)
    folder = made.of(3)
    assert gs.Split.read(folder).fingerprint() == gs.split(log, "paper", 3).fingerprint()
    monkeypatch.setattr(splits, "scores_of", None)  # known from now on
    made.drop(3)
    assert not folder.exists() and made.of(3) == folder
    splits.Splits(log, "paper", tmp_path)  # the next comparison clears up after one that was killed
    assert not folder.exists()


def test_nothing_is_left_running_when_the_starter_is_gone():
    code = (
        "import sys, time, greysheep.comparison.worker as r; "
        "r.measure = lambda job: time.sleep(60); r.main(sys.stdin)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write("{}\n")
    process.stdin.close()
    assert process.wait(30) == 3


def test_a_real_run(tmp_path: Path):
    """A fresh process, whose peak memory is its own and not that of this one."""
    heavy = bytearray(b"1") * 900_000_000
    del heavy
    log = simulated()
    found = gs.compare(log, ["ease"], seeds=1, out=tmp_path / "out", progress=False)
    assert not found.failures and not found.missing
    split = gs.split(log)
    by_hand = gs.evaluate(gs.EASE().fit(split), split)
    assert found.runs[0].overall == by_hand.overall
    assert found.runs[0].per_user["ndcg@20"].equals(by_hand.per_user["ndcg@20"])
    assert 5e7 < found.runs[0].peak_memory_bytes < 8e8
    assert found.facts["Log"] == "simulated: 1,260 rows, 90 users, 50 items"


def test_the_command_and_the_function_have_the_same_defaults():
    ours, theirs = (inspect.signature(one).parameters for one in (gs.compare, command.compare))
    shared = [name for name in ours if name in theirs and ours[name].default is not inspect.Parameter.empty]
    assert {"protocol", "seeds", "k", "margin", "jobs"} <= set(shared)
    for name in shared:
        assert str(ours[name].default) == str(theirs[name].default), name


# Progress


def test_a_table_on_a_terminal_is_drawn_on_stderr(capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.Progress(["ease"], [0], "ndcg@20", show=True) as shown:
        shown.started(("ease", 0))
        assert shown.live is not None and shown.live.console.stderr
    assert capsys.readouterr().out == ""


def test_lines_tell_of_long_runs_now_and_then(capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    shown = progress.Progress(["tall[gate=uniform]"], [0, 1], "ndcg@20", show=True)
    key = ("tall[gate=uniform]", 0)
    with shown:
        shown.started(key)
        shown.progress(key, "epoch 1")
        monkeypatch.setattr(progress, "EVERY", 0.0)
        shown.progress(key, "epoch 1")
        shown.progress(key, "epoch 2")
        shown.failed(key, "no memory")
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        f"tall[gate=uniform], seed 0: {text}" for text in ("started", "epoch 2", "failed: no memory")
    ]


def test_the_picture_on_a_terminal(shop: Path):
    from rich.console import Console

    shown = progress.Progress(["ease", "tall[gate=uniform]"], [0, 1], "ndcg@20", show=False)
    done = Run("ease", 0, shop / "store").read()
    assert done is not None
    shown.done(done)
    shown.started(("tall[gate=uniform]", 0))
    shown.progress(("tall[gate=uniform]", 0), "epoch 3 of [9]")
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(shown.picture())
    text = console.export_text()
    assert f"✓ {done.overall['ndcg@20']['mean']:.4f}" in text and "…" in text
    assert "tall[gate=uniform], seed 0: epoch 3 of [9]" in text
    assert "2 waiting, 1 running, 1 done, 0 failed" in text
