"""iALS keeps known users' vectors: solved once, saved beside their rows, and equal to those solved anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from safetensors.numpy import load_file, save_file

import greysheep as gs
from contract import weighted_and_timed, world
from greysheep.errors import ModelFolderError
from greysheep.models.linear import ials
from greysheep.system.seal import write_seal


def fitted(log: Any, **more: Any) -> gs.IALS:
    return gs.IALS(**{"factors": 4, "iterations": 3, "progress": False, **more}).fit(log)


def rows_of(log: gs.Interactions, users: list[str]) -> pl.DataFrame:
    return log.frame().filter(pl.col("user_id").is_in(users))


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of users that were solved, call by call."""
    plain, numbers = ials.fold_in, list[int]()

    def counting(rows: Any, *arguments: Any) -> Any:
        numbers.append(rows.shape[0])
        return plain(rows, *arguments)

    monkeypatch.setattr(ials, "fold_in", counting)
    return numbers


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 3), st.sampled_from([0.0, 0.7]), st.sampled_from(["all", "strict"]), st.integers(0, 9))
def test_stored_rows_and_the_same_rows_as_history_get_the_same_scores(
    n_seeds: int, power: float, protocol: str, seed: int
) -> None:
    log = weighted_and_timed()
    model = fitted(gs.split(log, protocol=protocol, seed=seed), n_seeds=n_seeds, user_power=power, seed=seed)
    some = log.user_ids.sample(7, seed=seed).to_list()
    for _ in range(2):  # solved, then known
        lists = model.recommend(some, k=9)
        anew = model.recommend(some, k=9, history=rows_of(log, some))
        assert lists.drop("score").equals(anew.drop("score"))
        assert_allclose(lists["score"], anew["score"], rtol=1e-5)


def test_a_user_is_solved_once_and_a_history_every_time(solved: list[int]) -> None:
    log = world()
    model = fitted(log)
    assert solved == []  # a fit alone needs no vectors
    first = model.recommend(["003", "007"], k=5)
    assert solved == [2]
    model.recommend(["007", "003", "011"], k=5)
    assert solved == [2, 1]
    mixed = model.recommend(
        ["003", "new", "nobody", "007"],
        k=5,
        history=rows_of(log, ["007"]).with_columns(user_id=pl.lit("new")),
        on_unknown="popular",
    )
    assert solved == [2, 1, 1]  # the new one alone
    of_user = mixed.partition_by("user_id", as_dict=True)
    for who, known in (("003", "003"), ("007", "007"), ("new", "007")):
        expected = first.filter(pl.col("user_id") == known)["item_id"]
        assert of_user[(who,)]["item_id"].to_list() == expected.to_list()
    model.fit(log)
    model.recommend(["003"], k=5)
    assert solved == [2, 1, 1, 1]  # a second fit knows nobody


def test_other_stages_read_their_own_rows() -> None:
    split = gs.split(world(), protocol="strict", seed=0)
    model, plain = fitted(split), fitted(split)
    model.recommend(k=3)
    users = np.arange(split.log.n_users)
    for stage in ("validation", "test"):
        np.testing.assert_array_equal(model.rank(users, stage=stage), plain.rank(users, stage=stage))
    anew = plain._scores(plain.rows[users], None)
    assert_allclose(model._scores(model.rows[users], model._stage_state(users, "serving")), anew, rtol=1e-5)


def test_a_saved_model_solves_nobody_it_knows(tmp_path: Path, solved: list[int]) -> None:
    log = weighted_and_timed()
    model = fitted(log, n_seeds=2)
    lists = model.recommend(k=5)
    model.save(tmp_path / "model")
    del solved[:]
    loaded = gs.load(tmp_path / "model")
    assert loaded.recommend(k=5).equals(lists)
    assert solved == []
    loaded.recommend(history=rows_of(log, ["003"]), k=5)
    assert solved == [1, 1]  # one for each seed
    loaded.save(tmp_path / "again")
    assert gs.load(tmp_path / "again").recommend(k=5).equals(lists)


def test_vectors_are_left_out_with_the_rows(tmp_path: Path) -> None:
    log = world()
    model = fitted(log)
    lists = model.recommend(["003"], k=5)
    bare = gs.load(model.save(tmp_path / "bare", include_history=False))
    assert load_file(tmp_path / "bare" / "model.safetensors").keys() == {"item_factors"}
    assert bare.recommend(history=rows_of(log, ["003"]), k=5)["item_id"].equals(lists["item_id"])
    bare.save(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == {"item_factors"}
    assert "user_vectors" in load_file(model.save(tmp_path / "whole") / "model.safetensors")


def test_contributions_are_of_rows_not_of_what_is_kept() -> None:
    log = world()
    model = fitted(log)
    kept = model.contributions("003", ["0001", "0003"])
    anew = model.contributions(items=["0001", "0003"], history=rows_of(log, ["003"]))
    assert kept.rows["contribution"].abs().max() > 1e-3
    assert kept.rows.drop("contribution").equals(anew.rows.drop("contribution"))
    assert_allclose(kept.rows["contribution"], anew.rows["contribution"], atol=1e-6)


def test_an_ensemble_with_vectors_in_it_serves_known_and_new_people_alike(tmp_path: Path) -> None:
    log = world()
    ensemble = gs.Ensemble(members="ials[factors=4]+ease", weights="1+1", progress=False).fit(log)
    loaded = gs.load(ensemble.save(tmp_path / "ensemble"))
    lists = ensemble.recommend(["003", "004"], k=5)
    assert loaded.recommend(["003", "004"], k=5).equals(lists)
    assert loaded.recommend(history=rows_of(log, ["003", "004"]), k=5)["item_id"].equals(lists["item_id"])


def test_vectors_of_another_number_of_users_are_refused(tmp_path: Path) -> None:
    folder = fitted(world()).save(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "user_vectors": tensors["user_vectors"][1:].copy()}, folder / "model.safetensors")
    facts = json.loads((folder / "manifest.json").read_text())
    del facts["files"]
    write_seal(folder, facts)
    with pytest.raises(ModelFolderError, match="user_vectors"):
        gs.load(folder)
