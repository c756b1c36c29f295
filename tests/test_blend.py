"""Blend is held to loops: one user's z-scores, the choice of weights, and what its parts learn from."""

from __future__ import annotations

from dataclasses import replace
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
from greysheep.data.splitting import TEST, VALIDATION
from greysheep.errors import ConfigError, GreysheepWarning
from greysheep.metrics.ranking import hits, per_user
from greysheep.models import parse
from greysheep.models.blend import simplex, standardised

QUICK: dict[str, Any] = {"latent": 8, "epochs": 4, "learning_rate": 1e-2}
FloatArray = NDArray[np.float64]


@pytest.fixture(scope="module")
def log() -> gs.Interactions:
    return gs.simulate(n_users=120, n_items=60, seed=3).log


@pytest.fixture(scope="module")
def split(log: gs.Interactions) -> gs.Split:
    return gs.split(log, protocol="strict", seed=3)


def z_scores(scores: Any, seen: Any) -> FloatArray:
    """One user at a time, over the items she has not seen."""
    out = np.zeros(scores.shape)
    for u in range(len(scores)):
        unseen = [float(scores[u, i]) for i in range(scores.shape[1]) if not seen[u, i]]
        if unseen and np.ptp(unseen) > 1e-5 * np.abs(unseen).max():
            out[u] = (scores[u] - np.mean(unseen)) / np.std(unseen)
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.1, 1.0, 1e4]), st.integers(0, 999))
def test_z_scores_agree(n_users: int, n_items: int, size: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = size * (random.normal(size=(n_users, n_items)).round(1) + 3 * random.random((n_users, 1)))
    seen = random.random(scores.shape) < 0.4
    scores[seen] += 50
    scores[0] = size / 3
    found = standardised(scores, csr_matrix(seen, dtype=np.float32))
    unseen = ~seen
    np.testing.assert_allclose(found[unseen], z_scores(scores, seen)[unseen], atol=1e-6)
    single = standardised(scores.astype(np.float32), csr_matrix(seen, dtype=np.float32))
    assert single.dtype == np.float32 and not single[0][unseen[0]].any()


@given(st.integers(2, 4), st.integers(1, 6))
def test_weights_tried_are_the_whole_grid(size: int, grid: int) -> None:
    points = list(simplex(size, grid))
    wanted = {
        tuple(n / grid for n in counts) for counts in np.ndindex(*[grid + 1] * size) if sum(counts) == grid
    }
    assert set(points) == wanted and len(points) == len(wanted)
    spread = [round(sum(share**2 for share in point), 9) for point in points]
    assert spread == sorted(spread)


def best_weights(
    blend: Any, split: gs.Split, objective: str, group: int | None = None
) -> tuple[float, float]:
    """The best grid point for two parts: every list written out by sorting."""
    truth, given = split.rows("validation").toarray(), split.input_rows("validation")
    seen = given.toarray() > 0
    each = [z_scores(part._scores(given, part.user_state), seen) for part in blend.parts]
    groups = split.mainstream.groups
    users = [u for u in range(len(truth)) if truth[u].any() and (group is None or groups[u] == group)]
    values = {}
    for step in range(blend.config.grid + 1):
        share = step / blend.config.grid
        total = share * each[0] + (1 - share) * each[1]
        total[seen] = -np.inf
        lists = np.array([sorted(range(len(row)), key=lambda i: -row[i])[:20] for row in total[users]])
        found = hits(lists, csr_matrix(truth[users]))
        metrics = per_user(found, truth[users].sum(1), (1, 5, 10, 20), ("ndcg", "recall"))
        cuts = [metrics[f"ndcg@{n}"].mean() for n in (1, 5, 10, 20)]
        values[share] = float(np.mean(cuts)) if objective == "mean-ndcg" else metrics[objective].mean()
    best = max(values, key=lambda share: (round(values[share], 12), -abs(share - 0.5)))
    return best, 1 - best


@pytest.mark.parametrize(
    ("models", "objective", "group"),
    [
        ("itemknn+popular", "mean-ndcg", None),
        ("popular+ease", "recall@10", 0),
        ("ease+multvae", "mean-ndcg", None),
    ],
)
def test_weights_maximise_the_objective(
    models: str, objective: str, group: int | None, split: gs.Split
) -> None:
    text = objective if group is None else f"{objective}:low"
    own = {"multvae": QUICK} if "multvae" in models else {}
    blend = gs.Blend(models=models, objective=text, settings=own, progress=False).fit(split)
    expected = best_weights(blend, split, objective, group)
    assert blend.config.weights == pytest.approx(expected)
    np.testing.assert_allclose(blend.weights, expected)
    assert expected[0] != expected[1]  # else the test would not see which part is which


def test_scores_are_the_weighted_sum_of_its_parts(split: gs.Split) -> None:
    """Parts with gates and without, known users and new ones: each as if it stood alone."""
    tall = {**QUICK, "n_experts": 3, "start_epoch": 1, "gate": "temperature", "temperature": 0.1}
    settings = {"tall": tall, "multvae": QUICK}
    blend = gs.Blend(models="multvae+ease+tall", weights="1+2+1", settings=settings, progress=False).fit(
        split
    )
    alone = [gs.MultVAE(**QUICK), gs.EASE(), gs.TALL(**tall)]
    for model in alone:
        model.options = blend.options
        model.fit(split)
    np.testing.assert_allclose(blend.weights, [0.25, 0.5, 0.25])
    given = split.input_rows("test")
    seen = given.toarray() > 0
    expected = sum(
        weight * z_scores(model._scores(given, model.user_state), seen)
        for weight, model in zip(blend.weights, alone, strict=True)
    )
    np.testing.assert_allclose(blend._scores(given, blend.user_state)[~seen], expected[~seen], atol=1e-4)
    assert blend.user_state is not None and blend.user_state.shape[1] == 4
    assert blend.gate_entropy == alone[2].gate_entropy and np.ptp(alone[2].gates) > 0.05
    again, held_out = split.train_rows(gated=True), split.gate_rows()
    np.testing.assert_allclose(blend._user_state(again, held_out), blend.user_state, atol=1e-6)
    assert blend.uses_gate_rows and not gs.Blend(models="ease+multvae").uses_gate_rows
    assert (blend.trained_items == alone[1].trained_items).all()


def test_similar_items_are_the_weighted_sum_too(split: gs.Split) -> None:
    blend = gs.Blend(models="itemknn+ease", weights="1+3").fit(split)
    itself = np.eye(split.log.n_items) > 0
    every = np.arange(split.log.n_items)
    knn, ease = (z_scores(part._similarity(every), itself) for part in blend.parts)
    found = blend._similarity(np.array([4, 2]))
    expected = (0.25 * knn + 0.75 * ease)[[4, 2]]
    np.testing.assert_allclose(found[~itself[[4, 2]]], expected[~itself[[4, 2]]], atol=1e-5)


def test_under_all_no_part_has_seen_the_rows_that_choose(log: gs.Interactions) -> None:
    """Closed forms are fitted without validation rows to choose, and on every row to serve."""
    whole = gs.split(log, protocol="all", seed=0)
    blend = gs.Blend(models="popular+itemknn", progress=False).fit(whole)
    held = replace(whole, protocol="strict")
    parts = gs.Blend(models="popular+itemknn").fit(held)
    assert blend.config.weights == parts.config.weights
    assert blend.config.weights == pytest.approx(best_weights(parts, held, "mean-ndcg"))
    assert not np.array_equal(parts.parts[1].weights.toarray(), blend.parts[1].weights.toarray())
    alone = gs.ItemKNN().fit(log)
    np.testing.assert_array_equal(blend.parts[1].weights.toarray(), alone.weights.toarray())
    assert blend.trained_items.all()


def test_refit_reaches_the_parts_that_need_it(log: gs.Interactions) -> None:
    tall = {**QUICK, "n_experts": 2, "start_epoch": 1, "gate": "temperature", "temperature": 0.1}
    keywords: dict[str, Any] = {"models": "tall+ease", "settings": {"tall": tall}, "progress": False}
    blend = gs.Blend(**keywords).fit(log, refit=True)
    alone, before = (gs.TALL(**tall, progress=False).fit(log, refit=refit) for refit in (True, False))
    for key, value in alone._state().items():
        np.testing.assert_array_equal(blend.parts[0]._state()[key], value)
    np.testing.assert_array_equal(blend.user_state, alone.gates)
    assert not np.array_equal(alone.gates, before.gates)
    assert blend.config.weights == gs.Blend(**keywords).fit(log).config.weights


def test_without_validation_rows_parts_weigh_alike() -> None:
    log = gs.Interactions.read(pl.DataFrame({"user_id": ["a", "b", "b"], "item_id": [1, 1, 2]}))
    model = gs.Blend(models="popular+itemknn+ease")
    with pytest.warns(
        GreysheepWarning, match="no user has a validation row: the 3 parts of blend weigh alike"
    ):
        model.fit(gs.Split(log, np.zeros(3, np.int8), "all", 0))
    assert model.config.weights == pytest.approx([1 / 3] * 3)
    assert model.recommend(["a"], k=1)["item_id"].to_list() == [2]


def test_weights_stay_with_the_model(split: gs.Split, tmp_path: Path) -> None:
    model = gs.Blend(models="itemknn+popular").fit(split)
    chosen = model.config.weights
    assert gs.evaluate(model, split).config["weights"] == list(chosen)
    loaded = gs.load(model.save(tmp_path / "model"))
    assert loaded.config.weights == chosen and loaded.fit(split).config.weights == chosen
    given = gs.Blend(models="itemknn+popular", weights=(3, 1)).fit(split)
    assert given.config.weights == (3, 1)
    np.testing.assert_allclose(given.weights, [0.75, 0.25])
    # a second fit chooses again
    other = gs.split(gs.simulate(n_users=60, n_items=60, seed=8).log, protocol="strict", seed=1)
    assert model.fit(other).config.weights == gs.Blend(models="itemknn+popular").fit(other).config.weights


def test_binary_parts_get_ones(log: gs.Interactions) -> None:
    weighted = gs.Interactions.read(log.frame().with_columns(weight=pl.lit(3.0)))
    keywords: dict[str, Any] = {
        "models": "multvae+popular",
        "settings": {"multvae": QUICK},
        "progress": False,
    }
    with pytest.warns(GreysheepWarning, match="multvae is binary"):
        heavy = gs.Blend(**keywords).fit(weighted)
    shown = {}
    for part in heavy.parts:
        score = part._scores
        part._scores = lambda rows, gates, part=part, score=score: (
            shown.update({part.name: set(rows.data.tolist())}) or score(rows, gates)
        )
    assert heavy.recommend(k=5)["item_id"].equals(gs.Blend(**keywords).fit(log).recommend(k=5)["item_id"])
    assert shown == {"multvae": {1.0}, "popular": {3.0}}


def test_settings_of_parts_are_written_with_their_name() -> None:
    model: Any = parse("blend[models=itemknn+ease,ease.regularization=7,weights=0.4+0.6]", seed=5)
    assert [part.name for part in model.parts] == ["itemknn", "ease"]
    assert model.parts[1].config.regularization == 7 and model.config.weights == (0.4, 0.6)
    assert model.parts[0].options.seed == 5
    mixed = gs.Blend(settings={"ials": {"alpha": 2.0, "factors": 3}}, **{"ials.alpha": 8.0})
    assert (mixed.parts[0].config.alpha, mixed.parts[0].config.factors) == (8.0, 3)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"models": "ease"}, "two or more models"),
        ({"models": "ease+ease"}, "each once"),
        ({"models": "ease+blend"}, "two or more models"),
        ({"models": "ease+eaze"}, "no model 'eaze'; the nearest is 'ease'"),
        ({"tall.alpha": 1}, "no part 'tall': its models are ials, ease-weighted"),
        ({"ials.alfa": 1}, "ials has no setting 'alfa'; the nearest one is 'alpha'"),
        ({"ials.alpha": -1}, "ials: alpha=-1 is not possible"),
        ({"ials.seed": 1}, "seed is one for the whole blend"),
        ({"weights": "1+2+3"}, "3 weights for 2 models"),
        ({"weights": "0+0"}, "one of them above 0"),
        ({"weights": "2+-1"}, "must be 0 or more"),
        ({"weights": "much+little"}, "weights='much.little' is not possible"),
        ({"objective": "mean"}, "write mean-ndcg"),
        ({"settings": 3}, "settings=3 is not possible"),
    ],
)
def test_what_cannot_be_is_said(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gs.Blend(**keywords)


def test_a_group_that_nobody_validates_is_refused(split: gs.Split) -> None:
    low = split.mainstream.groups[split.log.users] == 0
    part = np.where(low & (split.part == VALIDATION), TEST, split.part).astype(np.int8)
    with pytest.raises(ConfigError, match="no user of it has validation rows"):
        gs.Blend(models="ease+popular", objective="ndcg@10:low").fit(replace(split, part=part))
