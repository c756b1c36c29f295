"""Odd logs with every model and protocol: finite and as documented, or our own error in one line.

The default run takes every third log with a model and a protocol in turn; `make matrix` takes them all.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from greysheep.data.protocols import PROTOCOLS, TIMED
from greysheep.errors import DataError, GreysheepError, GreysheepWarning, UnknownUserError
from greysheep.models import REGISTRY, create
from odd_logs import LOGS

MODELS = sorted(name for name, kind in REGISTRY.items() if kind.__module__.startswith("greysheep."))
SMALL: dict[str, Any] = {
    "latent": 3, "epochs": 2, "local_epochs": 1, "n_experts": 3, "start_epoch": 0, "steps": 2, "factors": 4,
    "iterations": 3, "grid": 2,
}  # fmt: skip


def small(name: str) -> Any:
    known = REGISTRY[name].Config.model_fields
    return create(name, progress=False, **{key: value for key, value in SMALL.items() if key in known})


@contextmanager
def strictly() -> Iterator[None]:
    """Every warning but our own is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", GreysheepWarning)
        yield


def ours(call: Callable[[], Any], *, only: type[GreysheepError] = GreysheepError) -> Any:
    """What a call returns; None where it refuses with an error of ours, which is one line."""
    try:
        return call()
    except only as error:
        assert str(error) and "\n" not in str(error), error
        return None


def check_lists(recs: pl.DataFrame, k: int, barred: pl.DataFrame | None = None) -> None:
    """Finite scores, best first, ranks from 1, no item twice in a list, none that is barred from it."""
    assert recs.columns == ["user_id", "item_id", "score", "rank"]
    assert sum(recs.null_count().row(0)) == 0 and recs["score"].is_finite().all()
    assert not recs.select("user_id", "item_id").is_duplicated().any()
    for own in recs.partition_by("user_id"):
        assert own["rank"].to_list() == list(range(1, own.height + 1)) and own.height <= k
        assert own["score"].is_sorted(descending=True)
    if barred is not None:
        assert recs.join(barred, on=["user_id", "item_id"], how="semi").height == 0


def check_recommending(model: Any) -> None:
    log, rows = model.log, model.log.frame()
    check_lists(model.recommend(k=3), 3, rows)
    whole = model.recommend(k=10 * log.n_items)
    check_lists(whole, log.n_items, rows)
    seen_and_trained = int(model.trained_items[log.items].sum())
    assert whole.height == int(model.trained_items.sum()) * log.n_users - seen_and_trained
    banned = log.item_ids[:2]
    some = model.recommend(k=5, exclude_seen=False, exclude_items=banned)
    check_lists(some, 5)
    assert not some["item_id"].is_in(banned.implode()).any()
    wanted = log.item_ids[-3:]
    chosen = model.recommend(log.user_ids[:2], k=9, candidates=wanted, exclude_seen=False)
    check_lists(chosen, 9)
    assert chosen.height == min(log.n_users, 2) * len(wanted)
    assert chosen["item_id"].is_in(wanted.implode()).all()
    similar = model.similar_items(log.item_ids[:3], k=4)
    assert similar["score"].is_finite().all() and (similar["item_id"] != similar["similar_item_id"]).all()


def newcomers(log: gs.Interactions) -> pl.DataFrame:
    """The rows of the first three users under ids that nobody has."""
    rows = log.frame().filter(pl.Series(log.users < 3))
    return rows.with_columns(user_id=pl.Series([f"new {code}" for code in log.users[log.users < 3]]))


def check_new_people(model: Any) -> pl.DataFrame:
    rows = newcomers(model.log)
    recs = model.recommend(history=rows, k=4)
    check_lists(recs, 4, rows)
    stranger = ["nobody"] if model.log.user_ids.dtype == pl.String else [99]
    with pytest.raises(UnknownUserError):
        model.recommend(stranger)
    assert model.recommend(stranger, on_unknown="skip").height == 0
    check_lists(model.recommend(stranger, on_unknown="popular", k=3), 3)
    return recs


def check_evaluation(model: Any) -> None:
    report = ours(lambda: gs.evaluate(model, k=5, draws=3), only=DataError)  # no test rows
    if report is None:
        assert not model.split.rows("test").nnz
        return
    for name, value in report.overall.items():
        if name != "n_users":
            assert 0 <= value["ci_low"] <= value["ci_high"] <= 1 and 0 <= value["mean"] <= 1


def check_files(model: Any, recs: pl.DataFrame, folder: Path) -> None:
    loaded = gs.load(model.save(folder / "model"))
    assert loaded.recommend(k=3).equals(model.recommend(k=3))
    assert loaded.recommend(history=newcomers(model.log), k=4).equals(recs)


def check_resuming(model: Any, name: str, parts: gs.Split, folder: Path) -> None:
    if "checkpoints" not in inspect.signature(model.fit).parameters:
        return
    small(name).fit(parts, checkpoints=folder / "points")
    again = small(name).fit(parts, checkpoints=folder / "points", resume=True)
    assert again.recommend(k=3).equals(model.recommend(k=3))


def walk(log_name: str, model_name: str, protocol: str, folder: Path) -> None:
    """Everything one does with a log and a model."""
    source = LOGS[log_name]
    with strictly():
        log = ours(lambda: gs.Interactions.read(source.make(), **source.options), only=DataError)
        assert source.refused == (log is None)
        if log is None:
            return
        parts = ours(lambda: gs.split(log, protocol, seed=0), only=DataError)
        if parts is None:
            assert protocol in TIMED and log.times is None
            return
        model = ours(lambda: small(model_name).fit(parts))
        if model is None:  # only weights from one end of the numbers to the other may be too much
            assert log.weights is not None and not REGISTRY[model_name].binary
            return
        check_recommending(model)
        recs = check_new_people(model)
        check_evaluation(model)
        check_files(model, recs, folder)
        check_resuming(model, model_name, parts, folder)


@pytest.mark.parametrize(
    ("log_name", "model_name", "protocol"),
    list(zip(list(LOGS)[::3], cycle(MODELS), cycle(PROTOCOLS))),  # all three are met once at least
)
def test_an_odd_log(log_name: str, model_name: str, protocol: str, tmp_path: Path) -> None:
    walk(log_name, model_name, protocol, tmp_path)


@pytest.mark.whole
@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("log_name", LOGS)
def test_odd_logs(log_name: str, model_name: str, tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        walk(log_name, model_name, protocol, tmp_path / protocol)


def test_the_matrix_is_whole() -> None:
    assert len(LOGS) >= 60 and len(MODELS) >= 14
    assert np.sum([odd.refused for odd in LOGS.values()]) < 10
