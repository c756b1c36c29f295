"""Contributions: exact where the model is linear, what is lost without a row elsewhere; and the voices."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import greysheep as gs
from contract import text_of, weighted_and_timed, world
from greysheep.errors import DataError, UnknownUserError

SMALL: dict[str, Any] = {"latent": 6, "epochs": 2, "batch_size": 16, "progress": False}
LINEAR: dict[str, Any] = {
    "ease": gs.EASE(regularization=5.0),
    "ease over users": gs.EASE(regularization=5.0, form="users"),
    "ease-weighted": gs.WeightedEASE(regularization=5.0),
    "itemknn": gs.ItemKNN(neighbours=7),
}


@pytest.fixture(scope="module")
def log() -> gs.Interactions:
    return weighted_and_timed()


@pytest.fixture(scope="module", params=LINEAR)
def linear(request: pytest.FixtureRequest, log: gs.Interactions) -> Any:
    return LINEAR[request.param].fit(log)


def scores_of(model: Any, user: str, items: list[str]) -> dict[str, float]:
    frame = model.recommend([user], k=len(items), candidates=items, exclude_seen=False)
    return dict(frame.select("item_id", "score").iter_rows())


@settings(max_examples=25, deadline=None)
@given(user=st.integers(0, 23), items=st.sets(st.integers(0, 47), min_size=1))
def test_linear_contributions_sum_to_the_score(linear: Any, user: int, items: set[int]) -> None:
    known = [item for item in (f"0{i:03d}" for i in items) if item in linear.log.item_ids.to_list()]
    if not known:
        return
    told = linear.contributions(f"{user:03d}", known)
    assert told.exact and told.voices.is_empty()
    assert told.rows["item_id"].unique(maintain_order=True).to_list() == known
    mine = linear.log.frame().filter(pl.col("user_id") == f"{user:03d}")["item_id"]
    for _, own in told.rows.group_by("item_id"):
        assert set(own["history_item_id"]) == set(mine) and own.height == len(mine)
        assert own["contribution"].is_sorted(descending=True)
    sums = dict(told.rows.group_by("item_id").agg(pl.sum("contribution")).iter_rows())
    wanted = scores_of(linear, f"{user:03d}", known)
    np.testing.assert_allclose([sums[i] for i in known], [wanted[i] for i in known], rtol=1e-4, atol=1e-5)


def test_weights_of_a_history_count(linear: Any) -> None:
    items = linear.log.item_ids[:3].to_list()
    rows = pl.DataFrame({"user_id": ["n"] * 3, "item_id": items, "weight": [1.0, 2.0, 4.0]})
    told = linear.contributions(items=["0040"], history=rows)
    alone = linear.contributions(items=["0040"], history=rows.with_columns(weight=pl.lit(1.0)))
    both = told.rows.join(alone.rows, on="history_item_id").join(
        rows, left_on="history_item_id", right_on="item_id"
    )
    np.testing.assert_allclose(both["contribution"], both["contribution_right"] * both["weight"], rtol=1e-5)


def test_elsewhere_each_row_is_left_out_once() -> None:
    model = gs.MultVAE(**SMALL).fit(world(24))
    items = ["0000", "0002", "0004", "0006"]
    told = model.contributions(items=["0010"], history=history(items))
    assert not told.exact and told.voices.is_empty()
    whole = score_of(model, items, "0010")
    for _, item, lost in told.rows.iter_rows():
        assert lost == pytest.approx(
            whole - score_of(model, [i for i in items if i != item], "0010"), abs=1e-5
        )


def history(items: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"user_id": ["n"] * len(items), "item_id": items})


def score_of(model: Any, items: list[str], item: str) -> float:
    frame = model.recommend(history=history(items), candidates=[item], exclude_seen=False, k=1)
    return float(frame["score"][0])


def test_the_ten_recommended_items_if_none_are_named() -> None:
    model = gs.EASE().fit(world(24))
    told = model.contributions("003")
    ten = model.recommend(["003"], k=10)["item_id"].to_list()
    assert told.rows["item_id"].unique(maintain_order=True).to_list() == ten


def test_voices_are_the_gate_the_anchors_or_the_members() -> None:
    log = world(48)
    lmoe = gs.LMoE(n_experts=3, **SMALL).fit(log)
    told = lmoe.contributions("003", ["0000"]).voices
    gate = lmoe.gates[log.encode_users(["003"])[0]]
    assert dict(told.iter_rows()) == {f"expert {k + 1}": pytest.approx(gate[k]) for k in range(3)}
    assert told["weight"].is_sorted(descending=True)
    local = {"n_experts": 2, "local_epochs": 1, "latent": 6, "epochs": 2, "progress": False}
    loca = gs.LOCA(**local).fit(log)
    assert set(loca.contributions("003", ["0000"]).voices["voice"]) == {
        "global model",
        "anchor 1",
        "anchor 2",
    }
    enlft = gs.EnLFT(**local).fit(log)
    assert set(enlft.contributions("003", ["0000"]).voices["voice"]) == {"anchor 1", "anchor 2"}
    lmoe = text_of("lmoe", {"n_experts": 2, **SMALL})
    ensemble = gs.Ensemble(members=("ease", lmoe), weights=(1, 3), progress=False).fit(log)
    voices = dict(ensemble.contributions("003", ["0000"]).voices.iter_rows())
    assert set(voices) == {"ease", f"{lmoe} expert 1", f"{lmoe} expert 2"}
    assert voices["ease"] == pytest.approx(0.25) and sum(voices.values()) == pytest.approx(1)


def test_an_index_speaks_as_its_model_does() -> None:
    model = gs.LMoE(n_experts=2, **SMALL).fit(world(24))
    index = gs.compile_index(model, rank=4)
    ours, theirs = (one.contributions("003", ["0000", "0001"]) for one in (index, model))
    assert ours.rows.equals(theirs.rows) and ours.voices.equals(theirs.voices)


def test_whom_it_cannot_be_told_of() -> None:
    model = gs.EASE().fit(world(24))
    with pytest.raises(UnknownUserError, match="unknown"):
        model.contributions("x")
    with pytest.raises(DataError, match="24 are named"):
        model.contributions()
    with pytest.raises(DataError, match="unknown items"):
        model.contributions("003", ["x"])
    with pytest.raises(DataError, match="text"):
        model.contributions(3)
    with pytest.raises(UnknownUserError, match="unknown"):
        model.contributions(history=history(["x"]))
