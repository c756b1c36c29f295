"""EASE, weighted EASE and popularity are held to plain formulas, and EASE to RecTools and LensKit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

import greysheep as gs
import oracle
from greysheep.models.base import Model
from greysheep.models.linear.ease import item_weights

GOLDEN = Path(__file__).with_name("golden") / "ease.json"


def random_rows(n_users: int, n_items: int, seed: int) -> NDArray[np.float64]:
    """0/1 rows in which every user and every item occurs."""
    x = (np.random.default_rng(seed).random((n_users, n_items)) < 0.3).astype(float)
    x[np.arange(n_users), np.arange(n_users) % n_items] = 1.0
    x[np.arange(n_items) % n_users, np.arange(n_items)] = 1.0
    return x


def fitted_scores(model: Model, x: NDArray[np.float64], fed: NDArray[np.float64]) -> NDArray[Any]:
    """Scores of a model fitted on a log whose stored values are x, for users whose rows are `fed`."""
    users, items = np.nonzero(x)
    frame = pl.DataFrame({"user_id": users, "item_id": items})
    if not np.isin(x, [0.0, 1.0]).all():
        frame = frame.with_columns(weight=pl.Series(x[users, items]))
    model.fit(gs.Interactions.read(frame))
    return model._scores(csr_matrix(fed, dtype=np.float32), None)


def test_ease_agrees_with_rectools_and_lenskit() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    x = np.zeros((golden["n_users"], golden["n_items"]))
    for user, item in golden["rows"]:
        x[user, item] = 1.0
    weights = item_weights(csr_matrix(x), golden["regularisation"])
    np.testing.assert_allclose(weights, golden["weights_rectools"], atol=1e-6)
    np.testing.assert_allclose(weights, golden["weights_lenskit"], atol=1e-6)
    scores = fitted_scores(gs.EASE(regularization=golden["regularisation"]), x, x)
    np.testing.assert_allclose(scores, golden["scores_lenskit"], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.floats(0.1, 100), st.integers(0, 2**31))
def test_item_weights_agree(n_users: int, n_items: int, regularization: float, seed: int) -> None:
    x = random_rows(n_users, n_items, seed)
    expected = oracle.ease_weights(x, regularization)
    np.testing.assert_allclose(item_weights(csr_matrix(x), regularization), expected, atol=1e-6)


def test_item_weights_agree_where_blocks_meet() -> None:
    # The inverse is mirrored in blocks of 1,024 items.
    x = random_rows(40, 1030, 1)
    np.testing.assert_allclose(item_weights(csr_matrix(x), 2.0), oracle.ease_weights(x, 2.0), atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_scores_agree(seed: int, weighted: bool) -> None:
    x, fed = random_rows(25, 9, seed), random_rows(4, 9, seed + 100)
    if weighted:
        x = x * np.random.default_rng(seed).integers(1, 6, x.shape)
    ease = fitted_scores(gs.EASE(regularization=3.0), x, fed)
    np.testing.assert_allclose(ease, fed @ oracle.ease_weights(x, 3.0), atol=1e-5)
    model = gs.WeightedEASE(regularization=0.7, user_power=0.6, item_power=0.4)
    expected = oracle.weighted_ease_scores(x, 0.7, 0.6, 0.4, rows=fed)
    np.testing.assert_allclose(fitted_scores(model, x, fed), expected, atol=1e-5)
    popular = fitted_scores(gs.Popular(), x, fed)
    np.testing.assert_allclose(popular, oracle.popularity_scores(x, n_users=len(fed)))
