"""What models hand to the loop: when it may stop, whose patience counts, and which weights come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import greysheep as gs
from contract import assert_same_state, world
from greysheep.models import create

STILL: dict[str, Any] = {
    "latent": 4, "batch_size": 24, "learning_rate": 1e-12, "weight_decay": 0.0, "noise": 0.0, "dropout": 0.0,
    "progress": False,
}  # fmt: skip
"""Weights that do not move: every epoch is as good as the first one, which stays the best."""


@pytest.mark.parametrize(
    ("text", "epochs"),
    [
        ("multvae[patience=2]", 3),
        ("wl[patience=3]", 4),
        ("moe[patience=2]", 3),
        ("lmoe[patience=4]", 5),
        ("tall[patience=2,start_epoch=6]", 8),
        ("tall[patience=3,start_epoch=5,weighting=loss]", 8),
        ("tall[patience=3,start_epoch=6,weighting=none]", 4),  # no weights begin there
        ("tall[patience=3,start_epoch=6,weighting=mainstream]", 4),
        ("tall[patience=2,start_epoch=0]", 3),
    ],
)
def test_patience_is_counted_from_where_the_weights_begin(text: str, epochs: int) -> None:
    model: Any = gs.models.parse(text, **STILL, epochs=40)
    model.fit(gs.split(world(24), protocol="strict"))
    assert (model.epochs, model.best_epoch) == (epochs, 1)


@pytest.mark.parametrize("name", ["loca", "enlft"])
def test_local_models_have_a_patience_of_their_own(name: str) -> None:
    still = {**STILL, "local_learning_rate": 1e-12, "warm_start": True, "n_experts": 2}
    model: Any = create(name, **still, epochs=40, local_epochs=20, patience=6, local_patience=2)
    model.fit(gs.split(world(24), protocol="strict"))
    assert (model.epochs, model.best_epoch, model.global_epochs) == (3, 1, 1)


FAST: dict[str, Any] = {
    "latent": 6, "batch_size": 8, "learning_rate": 0.05, "patience": 4, "dropout": 0.0, "weight_decay": 0.0,
    "progress": False,
}  # fmt: skip
LOCAL: dict[str, Any] = {
    "n_experts": 3, "local_learning_rate": 0.05, "local_patience": 3, "local_batch_size": 8,
}  # fmt: skip


@pytest.mark.parametrize("text", ["multvae", "moe[n_experts=2]", "tall[n_experts=2,start_epoch=2]"])
def test_the_weights_of_the_best_epoch_come_back(text: str) -> None:
    split = gs.split(gs.simulate(n_users=60, n_items=40, seed=1).log, protocol="strict")
    model: Any = gs.models.parse(text, **FAST, epochs=60).fit(split)
    assert 1 < model.best_epoch < model.epochs < 60
    assert_same_state(model, gs.models.parse(text, **FAST, epochs=model.best_epoch).fit(split))


@pytest.mark.parametrize("name", ["loca", "enlft"])
def test_the_best_local_weights_come_back(name: str) -> None:
    split = gs.split(gs.simulate(n_users=60, n_items=40, seed=1).log, protocol="strict")
    model: Any = create(name, **FAST, **LOCAL, epochs=30, local_epochs=30).fit(split)
    assert 1 <= model.best_epoch < model.epochs < 30
    best: Any = create(name, **FAST, **LOCAL, epochs=30, local_epochs=model.best_epoch).fit(split)
    assert_same_state(model, best)


def test_the_manifest_holds_the_metrics_of_the_best_epoch(tmp_path: Path) -> None:
    split = gs.split(gs.simulate(n_users=60, n_items=40, seed=1).log, protocol="strict")
    model = gs.MultVAE(**FAST, epochs=60).fit(split)
    best, last = model.history[model.best_epoch - 1], model.history[-1]
    metrics = json.loads((model.save(tmp_path / "model") / "manifest.json").read_text())["metrics"]
    assert metrics == {key: best[key] for key in ("objective", "ndcg@20")}
    assert best["objective"] > last["objective"] and best["ndcg@20"] != last["ndcg@20"]
