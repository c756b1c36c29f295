"""Lists for people with a history, by hand: which rows the gate reads, which are input, how they weigh."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from contract import world

GATES: list[dict[str, Any]] = [
    {"gate": "loss"},
    {"gate": "temperature", "temperature": 0.3, "shrinkage": 2.0},
]
ROWS = [3, 40, 7, 12, 25, 0, 31, 18, 5, 22]
"""Items of a new person: ten rows, so her gate reads two."""


def net_of(model: Any) -> dict[str, np.ndarray]:
    return {key: value.double().numpy() for key, value in model._state().items()}


def logits_of(net: dict[str, np.ndarray], items: list[int]) -> np.ndarray:
    """Every expert's logits [K, I] for a person with these items."""
    x = np.zeros(net["bank.decoder_bias"].shape[1])
    x[items] = 1 / np.sqrt(len(items))
    h = np.einsum("i,kih->kh", x, net["bank.encoder_weight"]) + net["bank.encoder_bias"]
    mu = h[:, : h.shape[1] // 2]
    return np.einsum("kd,kdi->ki", mu, net["bank.decoder_weight"]) + net["bank.decoder_bias"]


def gate_by_hand(config: Any, each: np.ndarray, seen: list[int], read: list[int]) -> np.ndarray:
    """Gate [K]: each expert's loss on the rows `read`, by her logits for `seen`, among the items not seen."""
    unseen = np.setdiff1d(np.arange(each.shape[1]), seen)
    losses = np.array([len(read) * np.log(np.exp(own[unseen]).sum()) - own[read].sum() for own in each])
    if config.gate == "loss":
        sharp = np.exp(1 / losses - (1 / losses).max())
        return sharp / sharp.sum()
    sharp = np.exp(-losses / len(read) / config.temperature)
    trust = len(read) / (len(read) + config.shrinkage)
    return trust * sharp / sharp.sum() + (1 - trust) / len(each)


@pytest.fixture(scope="module", params=GATES, ids=str)
def model(request: pytest.FixtureRequest) -> Any:
    keywords = {"n_experts": 3, "latent": 6, "epochs": 12, "batch_size": 8, "learning_rate": 0.03}
    split = gs.split(world(48), protocol="strict")
    return gs.LMoE(**keywords, **request.param, precision="float64", progress=False, seed=2).fit(split)


def ids(items: list[int]) -> list[str]:
    return [f"0{item:03d}" for item in items]


def history(items: list[int], latest: list[int]) -> pl.DataFrame:
    """Rows of one person in a shuffled order; those of `latest` are younger than all others."""
    begun = datetime(2020, 1, 1)
    order = [*(item for item in items if item not in latest), *latest]
    times = [begun + timedelta(hours=n) for n in range(len(order))]
    frame = pl.DataFrame({"user_id": ["new"] * len(order), "item_id": ids(order), "timestamp": times})
    return frame.sample(fraction=1, shuffle=True, seed=4)


def check(model: Any, frame: pl.DataFrame, items: list[int], read: list[int]) -> np.ndarray:
    """The lists are those by hand; returns the gate."""
    seen = [item for item in items if item not in read]
    net = net_of(model)
    gate = gate_by_hand(model.config, logits_of(net, seen), seen, read)
    scores = gate @ logits_of(net, items)
    found = model.recommend(history=frame, k=500)
    codes = model.log.encode_items(found["item_id"])
    assert set(codes) == set(range(48)) - set(items)
    np.testing.assert_allclose(found["score"], scores[codes], rtol=1e-9)
    return gate


def test_the_gate_reads_the_latest_rows_and_all_rows_are_input(model: Any) -> None:
    assert model.log.item_ids.to_list() == ids(list(range(48)))
    gates = [check(model, history(ROWS, latest), ROWS, latest) for latest in ([0, 22], [3, 25], [22, 40])]
    assert min(np.abs(a - b).max() for a, b in pairwise(gates)) > 1e-4


def test_without_times_the_gate_reads_the_rows_of_the_smallest_hashes(model: Any) -> None:
    def digest(item: int) -> bytes:
        return hashlib.blake2b(ids([item])[0].encode(), digest_size=7).digest()

    read = sorted(ROWS, key=digest)[:2]
    check(model, history(ROWS, [3, 25]).drop("timestamp"), ROWS, read)


def test_one_row_in_eight_is_read(model: Any) -> None:
    for n, latest in ((2, [40]), (8, [18]), (9, [18, 5])):
        check(model, history(ROWS[:n], latest), ROWS[:n], latest)


def test_a_history_weighs_as_it_says() -> None:
    frame = world(24).frame()
    weights = np.random.default_rng(1).integers(1, 9, frame.height) / 2
    log = gs.Interactions.read(frame.with_columns(weight=weights))
    items, own = [3, 40, 7], [0.5, 4.0, 2.0]
    new = pl.DataFrame({"user_id": ["new"] * 3, "item_id": ids(items), "weight": own})
    for model in (gs.EASE(regularization=5.0), gs.ItemKNN(neighbours=9), gs.WeightedEASE()):
        model.fit(log)
        x = np.zeros((1, 48))
        x[0, items] = own
        weights = model.weights if isinstance(model, gs.ItemKNN) else model.solution.weights
        if isinstance(model, gs.WeightedEASE):
            scores = (x / model.item_scale @ weights * model.item_scale)[0]
        else:
            scores = np.asarray(x @ weights)[0]
        found = model.recommend(history=new, k=500)
        np.testing.assert_allclose(found["score"], scores[log.encode_items(found["item_id"])], rtol=1e-5)
        plain = model.recommend(history=new.drop("weight"), k=500)
        assert not plain["score"].equals(found["score"])
