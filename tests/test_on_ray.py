"""Runs of `compare` and trials of `tune` on Ray: what they give here, and again when a worker is lost."""

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import greysheep as gs
from contract import world
from greysheep.errors import ConfigError, MissingExtraError
from greysheep.system import jobs
from greysheep.tuning import on_ray
from greysheep.tuning.study import Record
from greysheep.tuning.worker import Files, Reporter, measure

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


def plain(comparison: gs.Comparison) -> list[dict[str, Any]]:
    """What was measured, without seconds and bytes."""
    costs = ("train_seconds", "peak_memory_bytes")
    return [
        {key: value for key, value in one.to_dict().items() if key not in costs} for one in comparison.runs
    ]


def settled(tuning: gs.Tuning) -> Any:
    return tuning.trials.drop("seconds")


def test_without_ray_they_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for call in (
        lambda: gs.compare(world(), ["popular"], out=tmp_path / "out", engine="ray"),
        lambda: gs.tune("ease", world(), trials=1, storage=tmp_path / "study.journal", engine="ray"),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install greysheep\[ray\]"):
            call()
    assert not list(tmp_path.iterdir()) or not (tmp_path / "out" / "runs").exists()


def test_unknown_engines_and_many_trials_here_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="engine='dask'"):
        gs.compare(world(), ["popular"], out=tmp_path / "out", engine="dask")
    with pytest.raises(ConfigError, match="engine='dask'"):
        gs.tune("ease", world(), trials=1, engine="dask")
    with pytest.raises(ConfigError, match="jobs=2 trials at a time are for the engine ray"):
        gs.tune("ease", world(), trials=1, jobs=2)


class Here:
    """Stands for a task on Ray: the trial is made at once, in this process."""

    def __init__(self, job: dict[str, Any]):
        measure(job)

    def ended(self) -> bool:
        return True

    ended_well = ended

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("at_once", [1, 3])
def test_trials_of_a_task_are_those_of_a_search(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("greysheep.system.cluster.connect", lambda: None)
    monkeypatch.setattr(jobs, "share_of", lambda *given: 1)
    monkeypatch.setattr(jobs, "start", lambda command, job, log, threads, engine: Here(job))
    log, model = world(), "lmoe[n_experts=2,latent=4]"
    asked: dict[str, Any] = {"trials": 4, "epochs": 3, "progress": False}
    here = gs.tune(model, log, **asked)
    there = gs.tune(model, log, engine="ray", jobs=at_once, storage=tmp_path / "s.journal", **asked)
    assert there.trials.height == 4 and there.best_value > 0
    if at_once == 1:
        assert settled(there).equals(settled(here)) and there.best_value == here.best_value
    assert [file.name for file in tmp_path.iterdir() if "trials" in file.name] == []


def test_trials_of_a_task_know_groups_of_ones_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("greysheep.system.cluster.connect", lambda: None)
    monkeypatch.setattr(jobs, "share_of", lambda *given: 1)
    monkeypatch.setattr(jobs, "start", lambda command, job, log, threads, engine: Here(job))
    groups = world().frame().select("user_id").unique().with_columns(group=pl.col("user_id").str.slice(2))
    own: dict[str, Any] = {"groups": groups, "objective": "worst", "trials": 2, "progress": False}
    here, there = (gs.tune("ease", world(), engine=engine, **own) for engine in ("local", "ray"))
    assert settled(there).equals(settled(here))


def test_a_trial_is_told_to_end(tmp_path: Path):
    files = Files(tmp_path, 3)
    reporter = Reporter(files)

    class Trial:
        told: list[tuple[int, float]] = []  # noqa: RUF012

        def report(self, value: float, step: int) -> None:
            self.told.append((step, value))

        def should_prune(self) -> bool:
            return len(self.told) > 17

    one = on_ray.UnderWay(Trial(), {}, files, Here, 0.0)  # type: ignore[arg-type]
    for epoch in range(1, 20):
        reporter.report(epoch / 100, epoch)
        one.tell()
        assert reporter.should_prune() == (epoch > 17)
    with files.epochs.open("a") as file:
        file.write("[20, 0.")
    one.tell()
    assert Trial.told == [(epoch, epoch / 100) for epoch in range(1, 20)]


def test_a_trial_that_left_nothing_has_failed(tmp_path: Path):
    class Lost(Here):
        def __init__(self) -> None:
            pass

        def failure(self) -> str:
            return "the machine is gone"

    one = on_ray.UnderWay(None, {"a": 1}, Files(tmp_path, 0), Lost(), 0.0)  # type: ignore[arg-type]
    assert one.record() == Record("failed", {"a": 1}, message="the machine is gone")


@needs_ray
@pytest.mark.eval
def test_runs_on_ray_are_those_made_here(tmp_path: Path):
    asked: dict[str, Any] = {"seeds": 1, "k": 5, "progress": False}
    models = ["popular", "ease", "lmoe[n_experts=2,latent=4,epochs=2]"]
    here = gs.compare(world(), models, out=tmp_path / "here", **asked)
    there = gs.compare(world(), models, out=tmp_path / "there", engine="ray", jobs=2, **asked)
    assert plain(here) == plain(there) and not there.failures


@needs_ray
@pytest.mark.eval
def test_trials_on_ray_are_those_made_here(tmp_path: Path):
    asked: dict[str, Any] = {"trials": 3, "epochs": 2, "progress": False}
    here = gs.tune("lmoe[n_experts=2,latent=4]", world(), **asked)
    there = gs.tune(
        "lmoe[n_experts=2,latent=4]", world(), engine="ray", storage=tmp_path / "s.journal", **asked
    )
    assert settled(here).equals(settled(there))


@needs_ray
@pytest.mark.eval
def test_a_job_whose_worker_is_killed_is_done_again(tmp_path: Path):
    (tmp_path / "job.py").write_text(
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from greysheep.system import jobs\n"
        "def work(job):\n"
        "    flag = Path(job['flag'])\n"
        "    if not flag.exists():\n"
        "        flag.touch()\n"
        "        os.kill(os.getppid(), signal.SIGKILL)\n"
        "        time.sleep(60)\n"
        "    Path(job['out']).write_text('done')\n"
        "jobs.serve(work, sys.stdin)\n"
    )
    job = {"flag": str(tmp_path / "flag"), "out": str(tmp_path / "out")}
    task = jobs.start([sys.executable, str(tmp_path / "job.py")], job, tmp_path / "log", 1, "ray")
    while not task.ended():
        time.sleep(0.1)
    assert task.ended_well(), task.failure()
    assert (tmp_path / "out").read_text() == "done" and (tmp_path / "flag").exists()
