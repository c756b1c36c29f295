"""A trained model written down in MLflow: parameters, every epoch by group, the report and the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from greysheep.errors import ConfigError, MissingExtraError, first_line
from greysheep.evaluation.report import Report
from greysheep.models.base import Model
from greysheep.report.pages import write_html
from greysheep.system.checks import a_path, a_text

STORE = "mlruns"
"""Folder of the local store, in the working folder."""
AT_ONCE = 500
"""Metrics in one call; MLflow takes 1,000."""
LONGEST = 500
"""Letters of a parameter's value."""


def need_mlflow() -> None:
    """Refuse before long work what could not be written down after it.

    Raises:
        MissingExtraError: MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise MissingExtraError("track", "tracking")


def track(
    model: Model,
    report: Report | None = None,
    *,
    folder: str | Path | None = None,
    experiment: str = "greysheep",
    store: str | Path | None = None,
) -> str:
    """Write a fitted model down as a run of MLflow; needs the extra `track`. Returns the run's id.

    Parameters: settings, seed, protocol and fingerprint of the log. Metrics: every epoch's, overall and by
    group (`low/ndcg_at_20`: MLflow takes no @), then the report's (`test/low/ndcg_at_20`). Artefacts: the
    model's folder, which holds personal data, and the report as JSON and, with the extra `report`, as a page.

    Args:
        model: a fitted model.
        report: what `evaluate` said of it.
        folder: where the model was saved; None = it is saved for this.
        experiment: name of MLflow's experiment.
        store: a folder, or an address such as sqlite:///mlflow.db or http://host:5000; None = what
            MLFLOW_TRACKING_URI says, else the folder `mlruns`.

    Raises:
        ConfigError: the store cannot be reached or written.
        MissingExtraError: MLflow is not installed.
    """
    need_mlflow()
    fitted = model.fitted
    with _refused() as client_of, TemporaryDirectory() as place:
        client = client_of(_address(store))
        known = client.get_experiment_by_name(a_text("experiment", experiment))
        number = known.experiment_id if known else client.create_experiment(experiment)
        run = client.create_run(number, run_name=model.label).info.run_id
        entities = import_module("mlflow.entities")
        params = [entities.Param(key, str(value)[:LONGEST]) for key, value in _params(model).items()]
        client.log_batch(run, params=params)
        now = int(time.time() * 1000)
        lines = [(row["epoch"], row) for row in fitted.history] + [(fitted.best_epoch, _final(model, report))]
        metrics = [
            entities.Metric(name, value, now, step) for step, row in lines for name, value in _flat(row)
        ]
        for start in range(0, len(metrics), AT_ONCE):
            client.log_batch(run, metrics=metrics[start : start + AT_ONCE])
        saved = model.save(Path(place) / "model") if folder is None else a_path("folder", folder)
        client.log_artifacts(run, str(saved), "model")
        for file in _pages(report, Path(place)):
            client.log_artifact(run, str(file))
        client.set_terminated(run)
    return str(run)


def _address(store: str | Path | None) -> str:
    """The address of a store; a local folder is allowed, which MLflow asks to be told."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    given = os.environ.get("MLFLOW_TRACKING_URI") if store is None else os.fspath(store)
    if given and ("://" in given or given.startswith(("sqlite:", "databricks"))):
        return given
    return a_path("store", given or STORE).absolute().as_uri()


@contextmanager
def _refused() -> Iterator[Any]:
    """MLflow's client; its errors become one line.

    Raises:
        ConfigError: it said one.
    """
    mlflow = import_module("mlflow")
    try:
        yield mlflow.MlflowClient
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise ConfigError(f"MLflow cannot write the run: {first_line(error)}") from error


def _params(model: Model) -> dict[str, Any]:
    """What made the model."""
    about: dict[str, Any] = {"model": model.name, "label": model.label, "protocol": model.split.protocol}
    about |= {"seed": model.options.seed, "precision": model.options.precision}
    about |= {"log": model.fitted.fingerprint, "rows": len(model.log), "users": model.log.n_users}
    return {**about, "items": model.log.n_items, **model.config.model_dump(mode="json")}


def _final(model: Model, report: Report | None) -> dict[str, Any]:
    """What is known at the end."""
    names = ("train_seconds", "epochs", "best_epoch", "gate_entropy", "peak_memory_bytes")
    known = {name: getattr(model.fitted, name) for name in names}
    if report is None:
        return known
    content = report.to_dict()
    groups = {line["group"]: line for line in content["by_group"]}
    return known | {
        "test": {**content["overall"], "gap": content["gap"], "ratio": content["ratio"], **groups}
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers by names that MLflow takes; of a figure with an interval, the mean and its bounds."""
    for key, value in values.items():
        name = prefix + key.replace("@", "_at_")
        if isinstance(value, Mapping) and "mean" in value:
            bounds = {f"{name}_low": value["ci_low"], f"{name}_high": value["ci_high"]}
            yield from _flat({name: value["mean"], **bounds})
        elif isinstance(value, Mapping):
            yield from _flat(value, prefix if key == "by_group" else f"{name}/")
        elif isinstance(value, int | float) and value == value and key != "epoch":
            yield name, float(value)


def _pages(report: Report | None, place: Path) -> Iterator[Path]:
    """The report as files."""
    if report is None:
        return
    report.to_json(place / "report.json")
    yield place / "report.json"
    if find_spec("matplotlib") is not None:
        yield write_html(report, place / "report.html")
