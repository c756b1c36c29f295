"""The search for settings: what it may read, in what order it tries, what it keeps."""

from __future__ import annotations

from typing import Any


import greysheep as gs
from contract import assert_same_state, world

SMALL = {"latent": 8, "batch_size": 16, "learning_rate": 1e-2, "progress": False}


def test_a_watch_ends_training_with_the_best_weights() -> None:
    log = world(48)
    rows: list[dict[str, Any]] = []

    def after_three(row: dict[str, Any]) -> bool:
        rows.append(row)
        return len(rows) == 3

    watched = gs.MultVAE(epochs=8, **SMALL)
    watched.watch = after_three
    watched.fit(log)
    assert watched.epochs == 3 and rows == watched.history and not watched.interrupted
    assert_same_state(watched, gs.MultVAE(epochs=3, **SMALL).fit(log))


def test_a_watch_is_not_asked_after_the_last_epoch_nor_while_refitting() -> None:
    log = world(48)
    model = gs.MultVAE(epochs=4, **SMALL)
    asked: list[int] = []
    model.watch = lambda row: bool(asked.append(row["epoch"]))
    model.fit(log, refit=True)
    assert asked == [1, 2, 3]
    assert model.epochs == 4
