"""Local models in worlds with a known answer, and golden numbers that pin them on a fixed split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import greysheep as gs
from contract import world
from greysheep.models import create

TEN: dict[str, Any] = {
    "latent": 16,
    "batch_size": 64,
    "learning_rate": 5e-3,
    "epochs": 10,
    "dropout": 0.3,
    "weight_decay": 0.05,
    "anneal_epochs": 20.0,
    "threads": 1,
    "progress": False,
}
LOCAL = {
    **TEN,
    "warm_start": True,
    "n_experts": 4,
    "local_epochs": 3,
    "local_batch_size": 64,
    "local_learning_rate": 5e-3,
}
GOLDEN: dict[str, tuple[dict[str, Any], float, float]] = {
    "loca": (LOCAL, 0.5469642, 0.5309192),
    "loca/fresh": (
        {**LOCAL, "warm_start": False, "local_epochs": 10, "bandwidth": 0.6},
        0.5453406,
        0.5339487,
    ),
    "lft": (TEN, 0.5444260, 0.5266725),
    "lft/multvae": (
        {**TEN, "global_model": "multvae", "power": 1.0, "n_neighbours": 20},
        0.5419464,
        0.5181962,
    ),
    "enlft": (LOCAL, 0.5441864, 0.5230415),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    """Mean NDCG@20 and that of `low` on one fixed split, within .004: room for rounding only."""
    keywords, mean, low = GOLDEN[name]
    log = gs.simulate(n_users=300, n_items=200, seed=7).log
    split = gs.split(log, protocol="strict", seed=7)
    report = gs.evaluate(create(name.partition("/")[0], **keywords, seed=7).fit(split), split, k=20)
    assert report.overall["ndcg@20"]["mean"] == pytest.approx(mean, abs=0.004)
    assert report.by_group["ndcg@20"][0] == pytest.approx(low, abs=0.004)


def test_anchors_of_two_tastes() -> None:
    """Two tastes without a common item: two anchors, one of each, and everybody listens to her own alone."""
    log = world()
    even = np.arange(log.n_users) % 2 == 0
    near = {"threshold": 0.0, "n_neighbours": 96}
    model = gs.EnLFT(**{**LOCAL, "n_experts": 2}, **near).fit(log)
    assert sorted(model.anchors % 2) == [0, 1]
    of_even = int(np.flatnonzero(model.anchors % 2 == 0)[0])
    assert (model.user_state[even, of_even] == 1).all() and (model.user_state[~even, 1 - of_even] == 1).all()
    weights = model._user_weights(model.split.train_rows(gated=False))
    assert (weights[of_even, ~even] == 0).all() and (weights[of_even, even] > 0).mean() > 0.9
    assert weights[0, model.anchors[0]] == weights[1, model.anchors[1]] == 1


def test_fine_tuning_moves_towards_the_neighbours() -> None:
    """A barely trained global model knows no tastes; each user's copy, tuned on those like her, does."""
    log = world()
    split = gs.split(log, protocol="strict", seed=0)
    keywords = {**TEN, "epochs": 1, "steps": 12, "shrinkage": 1e6, "threshold": 0.05, "power": 1.0}
    model = gs.LFT(**keywords).fit(split)
    assert np.argmax(model.curve) > 0 and model.curve.max() > model.curve[0] + 0.1
    assert set(model.chosen) == {int(np.argmax(model.curve))}
    assert model.history and model.best_epoch == 1


def test_a_refit_keeps_the_numbers_of_steps() -> None:
    log = world(48)
    model = gs.LFT(**{**TEN, "steps": 3}).fit(log, refit=True)
    first = gs.LFT(**{**TEN, "steps": 3}).fit(log)
    np.testing.assert_array_equal(model.chosen, first.chosen)
    assert not np.allclose(model._state()["decoder_bias"], first._state()["decoder_bias"])
    assert model.recommend(k=3).height == 48 * 3
    rows = model._known[0]
    assert rows.nnz == model.split.train_rows(gated=False).nnz > first.split.train_rows(gated=False).nnz


@pytest.mark.parametrize("name", ["loca", "enlft"])
def test_local_models_can_be_refitted(name: str) -> None:
    log = world(48)
    model: Any = create(name, **LOCAL).fit(log, refit=True)
    assert model.best_epoch <= model.epochs <= 3 and model.recommend(k=3).height == 48 * 3


def test_more_anchors_than_users() -> None:
    log = world(24)
    model = gs.LOCA(**{**LOCAL, "n_experts": 60, "epochs": 1, "local_epochs": 1}).fit(log)
    assert model.user_state.shape == (24, 25)
