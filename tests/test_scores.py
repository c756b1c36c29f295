"""Scores: ties go to popular items, extreme weights stay finite, settings are bounded, forks are refused."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.sparse import csr_matrix

import greysheep as gs
from greysheep.errors import ConfigError, DataError, GreysheepError
from greysheep.metrics.ranking import hits, per_user, tie_order, top_n
from greysheep.models import REGISTRY, create, parse
from greysheep.models.scale import standardised
from greysheep.models.training.objective import Objective
from greysheep.models.training.validation import Validation

MIX = "ensemble[members=ease-weighted+ials]"
LINEAR = ("popular", "itemknn", "userknn", "ease", "ease-weighted", "ials", MIX)


def frame_of(rows: list[tuple[Any, ...]], *more: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", *more], orient="row")


@pytest.fixture(scope="module")
def islands() -> gs.Interactions:
    """Three groups of items that no user connects; ids in another order than popularity."""
    rows = [("u1", "z1"), ("u1", "z2"), ("u2", "z1"), ("u2", "z3"), ("q", "a_rare"), ("q", "a_rare2")]
    rows += [(f"p{i}", item) for i in range(20) for item in ("m_popular", "m_popular2")]
    return gs.Interactions.read(frame_of([*rows, ("lone", "x_only")]))


# Equal scores


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 14), st.integers(1, 4))
def test_equal_scores_go_to_the_first_in_place(seed: int, n_items: int, n: int, kinds: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, kinds, (5, n_items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    place = rng.permutation(n_items)
    for row, found in zip(scores, top_n(scores, n, place), strict=True):
        kept = sorted((c for c in range(n_items) if row[c] > -math.inf), key=lambda c: (-row[c], place[c]))[
            :n
        ]
        assert found.tolist() == kept + [-1] * (min(n, n_items) - len(kept))


def test_places_are_popularity_then_id() -> None:
    counts = np.random.default_rng(0).integers(0, 4, 50)
    order = np.argsort(tie_order(counts))
    assert order.tolist() == sorted(range(50), key=lambda c: (-counts[c], c))


def ties_by_popularity(model: Any, recs: pl.DataFrame, item: str = "item_id") -> int:
    """How many neighbours in the lists have equal scores; each such pair is in order of popularity and id."""
    counts, ties = dict(zip(model.log.item_ids, model.item_counts, strict=True)), 0
    for _, own in recs.group_by(recs.columns[0]):
        for (a, score), (b, other) in pairwise(own.sort("rank").select(item, "score").rows()):
            assert score >= other
            if score == other:
                ties += 1
                assert (-counts[a], a) < (-counts[b], b)
    return ties


@pytest.mark.parametrize("name", ["itemknn", "ease", "ease-weighted", "popular"])
def test_no_list_is_filled_in_the_order_of_ids(name: str, islands: gs.Interactions, tmp_path: Any) -> None:
    model = create(name, progress=False).fit(islands)
    recs = model.recommend(k=9)
    assert ties_by_popularity(model, recs) > 0
    ties_by_popularity(model, model.similar_items(islands.item_ids, k=9), "similar_item_id")
    lone = model.recommend(["lone"], k=2)["item_id"].to_list()
    assert lone == ["m_popular", "m_popular2"]  # nothing speaks for any item, so the popular ones come
    by_rank = islands.decode_items(
        model.rank(islands.encode_users(["lone", "u1"]), k=2, stage="serving").ravel()
    )
    assert by_rank.to_list()[:2] == lone
    assert by_rank.to_list()[2:] == model.recommend(["u1"], k=2)["item_id"].to_list()
    assert gs.load(model.save(tmp_path / "m")).recommend(k=9).equals(recs)
    model.save(tmp_path / "bare", include_history=False)
    new = frame_of([("new", "x_only")])
    assert gs.load(tmp_path / "bare").recommend(history=new, k=2)["item_id"].to_list() == lone


def test_evaluation_breaks_ties_by_the_rows_of_its_input() -> None:
    """Test rows must not decide: the tie-break of a stage counts the rows that are input there."""
    log = gs.simulate(n_users=60, n_items=40, seed=1).log
    parts = gs.split(log, "strict", seed=0)
    model = create("itemknn", neighbours=1, progress=False).fit(parts)
    users = np.arange(log.n_users)
    ranked = model.rank(users, k=40)
    counts = np.bincount(parts.input_rows("test").indices, minlength=log.n_items)
    scores = np.asarray((parts.input_rows("test") @ model.weights).toarray())
    for user in users:
        own = [code for code in ranked[user] if code >= 0]
        assert own == sorted(own, key=lambda c: (-scores[user, c], -counts[c], c))
    filled = ranked >= 0
    lists = pl.DataFrame(
        {
            "user_id": log.decode_users(np.repeat(users, filled.sum(1))),
            "item_id": log.decode_items(ranked[filled]),
            "score": scores[np.nonzero(filled)[0], ranked[filled]],
        }
    )
    by_frame = gs.evaluate(lists.sample(fraction=1.0, shuffle=True, seed=1), parts, k=10, draws=5)
    assert gs.evaluate(model, parts, k=10, draws=5).overall == by_frame.overall


def test_validation_breaks_ties_by_the_rows_of_its_input() -> None:
    parts = gs.split(gs.simulate(n_users=60, n_items=40, seed=1).log, "strict", seed=0)
    validation = Validation(parts, Objective.parse("ndcg@20"))
    model, users = gs.Popular(), validation.users
    model.fit(parts)
    model.counts[:] = 0.0  # all alike: the list is that of the popular items among the input
    found = validation.metrics(users, model._scores(validation.given[users], None))["ndcg@20"]
    ranked = model.rank(users, k=20, stage="validation")
    truth = validation.truth[users]
    expected = per_user(hits(ranked, truth), np.diff(truth.indptr), 20, ["ndcg"])["ndcg@20"]
    assert found.any() and (found == expected).all()


def test_a_compiled_index_breaks_ties_alike(islands: gs.Interactions) -> None:
    model = gs.MultVAE(latent=4, epochs=1, progress=False).fit(islands)
    index = gs.compile_index(model, rank=2)
    index.item_vectors = np.zeros_like(index.item_vectors)  # all scores alike
    assert ties_by_popularity(index, index.recommend(k=9)) > 20


# Extreme weights


def weighted_log(scale: float, spread: float = 1.0, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [(u, int(i)) for u in range(24) for i in rng.choice(np.arange(u % 2, 16, 2), 5, replace=False)]
    weights = scale * spread ** rng.random(len(rows))
    return frame_of(rows).with_columns(weight=weights)


WEIGHTS = [(1e38, 1.0), (1e30, 1e8), (1e19, 1.0), (1e-8, 1.0), (1e-8, 1e46), (1e-30, 1.0), (1e-8, 1e8)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize(("scale", "spread"), WEIGHTS)
def test_extreme_weights_give_finite_scores_or_one_line(name: str, scale: float, spread: float) -> None:
    log = gs.Interactions.read(weighted_log(scale, spread))
    parts = gs.split(log, "strict", seed=0)
    try:
        model = parse(name, progress=False).fit(parts)
        recs = model.recommend(k=8)
        similar = model.similar_items(log.item_ids, k=4)
        gs.evaluate(model, parts, k=5, draws=5)
    except GreysheepError as error:
        assert "\n" not in str(error) and "weights" in str(error)
        return
    assert recs["score"].is_finite().all() and similar["score"].is_finite().all()
    assert recs.height == 24 * 8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", LINEAR)
def test_extreme_weights_in_a_history(name: str) -> None:
    log = gs.Interactions.read(weighted_log(1.0))
    model = parse(name, progress=False).fit(log)
    rows = [("big", 0, 3e38), ("big", 2, 3e38), ("small", 1, 1e-8), ("small", 3, 1e-8), ("plain", 0, 0.3)]
    recs = model.recommend(history=frame_of(rows, "weight"), k=8)
    assert recs["score"].is_finite().all() and recs.height == 24
    alone = model.recommend(history=frame_of(rows[-1:], "weight"), k=8)
    beside = recs.filter(pl.col("user_id") == "plain")
    if name in ("popular", "itemknn", "userknn", "ease", "ease-weighted"):
        assert beside.equals(alone)  # others' weights change nothing
    np.testing.assert_allclose(beside["score"], alone["score"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["itemknn", "ease", "ease-weighted"])
@pytest.mark.parametrize("scale", [1e-8, 1e13, 1e30])
def test_scores_of_a_history_are_in_proportion_to_its_weights(name: str, scale: float) -> None:
    model = create(name, progress=False).fit(gs.Interactions.read(weighted_log(1.0)))
    rows = [("a", 0, 1.0), ("a", 2, 2.0)]
    once = model.recommend(history=frame_of(rows, "weight"), k=6)
    more = model.recommend(history=frame_of([(u, i, w * scale) for u, i, w in rows], "weight"), k=6)
    assert once["item_id"].to_list() == more["item_id"].to_list()
    np.testing.assert_allclose(more["score"].to_numpy(), once["score"].to_numpy() * scale, rtol=1e-5)


def test_huge_weights_count_as_they_are() -> None:
    rows = [("a", "x", 1e38), ("b", "x", 2.5e38), ("a", "y", 2e38), ("b", "y", 3e38), ("c", "z", 1.0)]
    model = gs.Popular().fit(gs.Interactions.read(frame_of(rows, "weight")))
    recs = model.recommend(["c"], k=2)
    assert recs["item_id"].to_list() == ["y", "x"]
    np.testing.assert_allclose(recs["score"], [5e38, 3.5e38], rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_z_scores_do_not_depend_on_the_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    scores, seen = rng.standard_normal((4, 9)).astype(np.float32), csr_matrix(np.eye(4, 9, dtype=np.float32))
    scores[3] = 2.0
    expected = standardised(scores, seen)
    np.testing.assert_allclose(standardised((scores * scale).astype(np.float32), seen), expected, atol=1e-4)


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_scores_that_are_no_numbers_are_refused(bad: float, message: str, islands: gs.Interactions) -> None:
    model = gs.Popular().fit(islands)
    model.counts = np.full_like(model.counts, bad)
    for ask in (lambda: model.recommend(k=3), lambda: model.rank(np.arange(3), k=3, stage="serving")):
        with pytest.raises(DataError, match=message):
            ask()


# Settings


def numbers_of(name: str) -> list[tuple[str, Any, bool]]:
    """Settings that are numbers: name, annotation, whether it is whole."""
    fields = REGISTRY[name].Config.model_fields
    found = [(key, str(field.annotation)) for key, field in fields.items()]
    return [(key, fields[key], "int" in kind) for key, kind in found if kind in (
        "<class 'int'>", "<class 'float'>", "int | None", "float | None", "typing.Optional[int]",
    )]  # fmt: skip


def bounds_of(field: Any) -> dict[str, float]:
    return {
        key: getattr(mark, key)
        for mark in field.metadata
        for key in ("ge", "gt", "le", "lt")
        if hasattr(mark, key)
    }


OWN = sorted(name for name, kind in REGISTRY.items() if kind.__module__.startswith("greysheep."))


@pytest.mark.parametrize("name", OWN)
def test_every_number_has_two_bounds(name: str) -> None:
    for key, field, _ in numbers_of(name):
        bounds = bounds_of(field)
        assert {"ge", "gt"} & bounds.keys() and {"le", "lt"} & bounds.keys(), key
        for extreme in (1e300, -1e300, math.inf, math.nan, 10**400):
            with pytest.raises((ConfigError, ValidationError)):
                create(name, **{key: extreme})


SMALL: dict[str, Any] = {
    "latent": 3, "epochs": 1, "local_epochs": 1, "n_experts": 2, "steps": 2, "factors": 4, "iterations": 2,
    "batch_size": 8,
}  # fmt: skip
SIZES = {"latent", "n_experts", "epochs", "local_epochs", "steps", "factors", "iterations", "n_seeds", "grid",
         "active_experts", "window", "batch_size"}  # fmt: skip
"""Settings whose largest value is refused for want of memory or takes for ever."""
QUICK = (*LINEAR, "ensemble", "multvae", "lft")
"""Models whose settings are tried in the default run; the others by `make matrix`."""


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.whole) for name in OWN]
)
def test_settings_at_their_bounds_give_finite_scores_or_one_line(name: str) -> None:
    log = gs.Interactions.read(weighted_log(1.0).drop("weight"))
    small = {key: value for key, value in SMALL.items() if key in REGISTRY[name].Config.model_fields}
    for key, field, whole in numbers_of(name):
        bounds = bounds_of(field)
        low = bounds.get("ge", bounds.get("gt", 0) + 1e-12)
        high = bounds.get("le", bounds.get("lt", 1) - 1e-9)
        for value in (low,) if key in SIZES else (low, high):
            own = {"weighting": "mainstream"} if (name, key) == ("tall", "power") else {}
            own |= (
                {"gate": "temperature"}
                if key in ("temperature", "shrinkage") and name in ("lmoe", "tall")
                else {}
            )
            try:
                model = create(name, **{**small, **own, key: int(value) if whole else value}, progress=False)
                recs = model.fit(log).recommend(k=4)
            except GreysheepError as error:
                assert "\n" not in str(error), (key, value)
                continue
            assert recs["score"].is_finite().all() and recs.height == 96, (key, value)
