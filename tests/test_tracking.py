"""What MLflow is told of a model, and its page made again."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import greysheep as gs
from contract import world
from greysheep.cli import run
from greysheep.errors import ConfigError, MissingExtraError
from greysheep.report import tracking

SMALL: dict[str, Any] = {"n_experts": 2, "latent": 4, "epochs": 2, "progress": False}


class Refusal(Exception):
    pass


class Client:
    """Stands for MLflow's: importing the real one takes seconds."""

    made: list["Client"] = []  # noqa: RUF012

    def __init__(self, address: str):
        if address.startswith("http"):
            raise Refusal("no server there\nand more")
        self.address, self.params, self.metrics = address, dict[str, str](), dict[str, list[Any]]()
        self.files, self.ended, self.name = dict[str, set[str]](), False, ""
        Client.made.append(self)

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7") if name == "known" else None

    def create_experiment(self, name: str) -> str:
        return "8"

    def create_run(self, number: str, run_name: str) -> Any:
        self.name = run_name
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run of {number}"))

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000
        self.params |= dict(params)
        for name, value, _, step in metrics:
            self.metrics.setdefault(name, []).append((step, value))

    def log_artifacts(self, run: str, folder: str, place: str) -> None:
        self.files[place] = {file.name for file in Path(folder).iterdir()}

    def log_artifact(self, run: str, file: str) -> None:
        self.files[Path(file).name] = {Path(file).read_text()[:15]}

    def set_terminated(self, run: str) -> None:
        self.ended = True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Client]:
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient = Client  # type: ignore[attr-defined]
    module.exceptions = SimpleNamespace(MlflowException=Refusal)  # type: ignore[attr-defined]
    entities.Param, entities.Metric = lambda *one: one, lambda *one: one  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Client.made.clear()
    return Client


def test_a_run_has_parameters_epochs_by_group_report_and_model(client: type[Client], tmp_path: Path):
    model = gs.TALL(**SMALL).fit(gs.split(world()))
    report = gs.evaluate(model)
    assert gs.track(model, report) == "run of 8"
    (run_of,) = client.made
    assert run_of.address == (tmp_path / "mlruns").as_uri() and run_of.ended and run_of.name == "tall"
    assert run_of.params["n_experts"] == "2" and run_of.params["log"] == model.log.fingerprint()
    for name, epochs in (
        ("loss", [row["loss"] for row in model.history]),
        ("ndcg_at_20", [row["ndcg@20"] for row in model.history]),
        ("low/ndcg_at_20", [row["by_group"]["low"]["ndcg@20"] for row in model.history]),
    ):
        assert run_of.metrics[name] == [(step + 1, value) for step, value in enumerate(epochs)]
    low = report.by_group.row(0, named=True)
    assert run_of.metrics["test/low/ndcg_at_20"][0][1] == low["ndcg@20"]
    assert run_of.metrics["test/ndcg_at_20_low"][0][1] == report.overall["ndcg@20"]["ci_low"]
    assert run_of.metrics["test/gap"][0][1] == report.gap()
    assert {"model.safetensors", "manifest.json"} <= run_of.files["model"]
    assert run_of.files["report.html"] == {"<!doctype html>"} and "report.json" in run_of.files
    slashes = set(run_of.metrics)
    assert not {name for name in slashes for other in slashes if other.startswith(f"{name}/")}


def test_where_runs_go(client: type[Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = gs.Popular().fit(world())
    saved = model.save(tmp_path / "model")
    gs.track(model, store="here", experiment="known", folder=saved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    gs.track(model, folder=saved)
    assert [one.address for one in client.made] == [(tmp_path / "here").as_uri(), "sqlite:///runs.db"]
    with pytest.raises(ConfigError, match=r"MLflow cannot write the run: no server there$"):
        gs.track(model, store="http://nowhere")


def test_the_commands(client: type[Client], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    world().frame().write_parquet("log.parquet")
    assert (
        run(["fit", "log.parquet", "-o", "model", "--model", "ease", "--protocol", "strict", "--track"]) == 0
    )
    assert "MLflow: run run of 8" in capsys.readouterr().out and "test/ndcg_at_20" in client.made[0].metrics
    assert run(["report", "model", "--html", "page.html", "--track"]) == 0
    assert "MLflow: run" in capsys.readouterr().out
    assert Path("page.html").read_text().startswith("<!doctype html>")
    assert run(["fit", "log.parquet", "-o", "serving", "--model", "popular", "--track"]) == 0
    assert "test/ndcg_at_20" not in client.made[-1].metrics
    assert run(["report", "serving"]) == 2
    assert "--test" in capsys.readouterr().err and not Path("report.html").exists()
    assert run(["report", "model", "--html", "page.txt"]) == 2


def test_without_mlflow_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    world().frame().write_parquet("log.parquet")
    assert run(["fit", "log.parquet", "-o", "model", "--model", "popular", "--track"]) == 2
    assert not Path("model").exists()
    with pytest.raises(MissingExtraError, match=r"pip install greysheep\[track\]"):
        gs.track(gs.Popular().fit(world()))


@pytest.mark.eval
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_the_real_mlflow_reads_it_back(tmp_path: Path):
    code = f"""
import greysheep as gs
from contract import world
from greysheep.report.tracking import track
model = gs.TALL(n_experts=2, latent=4, epochs=2, progress=False).fit(gs.split(world()))
run = track(model, gs.evaluate(model), store={str(tmp_path / "store")!r})
from mlflow import MlflowClient
client = MlflowClient({(tmp_path / "store").as_uri()!r})
found = client.get_run(run)
assert found.data.params["n_experts"] == "2" and found.info.status == "FINISHED"
assert found.data.metrics["test/low/ndcg_at_20"] >= 0
assert len(client.get_metric_history(run, "low/ndcg_at_20")) == 2
assert {{"model", "report.json"}} <= {{one.path for one in client.list_artifacts(run)}}
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
