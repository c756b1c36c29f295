"""The ensemble is held to loops: z-scores, the choice of weights, and what its members learn from."""

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
from contract import text_of
from greysheep.data.splitting import TEST, VALIDATION
from greysheep.errors import ConfigError, GreysheepWarning
from greysheep.mainstream.groups import UserGroups
from greysheep.metrics.ranking import hits, per_user, top_n
from greysheep.models import parse, selection
from greysheep.models.scale import standardised
from greysheep.models.selection import FOLDS, Pool
from greysheep.models.training.objective import Objective

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


# ---- the choice of weights


class Slow:
    """Selection with every list written out by sorting, and means taken user by user."""

    def __init__(self, models: list[Any], split: gs.Split, cut: int = 20):
        truth, given = split.rows("validation").toarray(), split.input_rows("validation")
        self.seen, self.truth, self.cut = given.toarray() > 0, truth, cut
        self.each = [z_scores(model._scores(given, model.user_state), self.seen) for model in models]
        self.users = [u for u in range(len(truth)) if truth[u].any()]

    def values(self, weights: Any) -> dict[int, float]:
        """Mean NDCG@1, 5, 10 and 20 of each user with validation rows."""
        total = sum(weight * own for weight, own in zip(weights, self.each, strict=True))
        total[self.seen] = -np.inf
        out = {}
        for u in self.users:
            ranked = sorted(range(len(total[u])), key=lambda i: -total[u, i])[: self.cut]
            found = hits(np.array([ranked]), csr_matrix(self.truth[u : u + 1]))
            metrics = per_user(found, [self.truth[u].sum()], (1, 5, 10, 20), ["ndcg"])
            out[u] = float(np.mean([metrics[f"ndcg@{n}"][0] for n in (1, 5, 10, 20)]))
        return out

    def value(self, weights: Any, users: Any) -> float:
        values = self.values(weights)
        return float(np.mean([values[u] for u in users]))

    def path(self, start: int, steps: int, users: Any) -> list[FloatArray]:
        alone = [self.value(one, users) for one in np.eye(len(self.each))]
        counts = np.zeros(len(alone))
        counts[sorted(range(len(alone)), key=lambda m: -round(alone[m], 12))[:start]] = 1
        found = [counts / counts.sum()]
        for _ in range(steps):
            added = [self.value(counts + one, users) for one in np.eye(len(alone))]
            counts[max(range(len(alone)), key=lambda m: round(added[m], 12))] += 1
            found.append(counts / counts.sum())
        return found


MEMBERS = ("popular", "itemknn", "ease[regularization=10]")


def test_the_weights_are_those_of_the_slow_selection(split: gs.Split) -> None:
    model = gs.Ensemble(members=MEMBERS, progress=False).fit(split)
    slow, found = Slow([parse(text).fit(split) for text in MEMBERS], split), model.selection
    assert found is not None
    np.testing.assert_allclose(found.alone, [slow.value(one, slow.users) for one in np.eye(3)])
    np.testing.assert_allclose(found.weights, slow.path(found.start, found.steps, slow.users)[-1])
    kept = [m for m in range(3) if found.weights[m]]
    assert model.config.members == tuple(MEMBERS[m] for m in kept)
    np.testing.assert_allclose(model.config.weights, found.weights[kept])
    np.testing.assert_allclose(model.weights, found.weights[kept])
    # cross-validated by hand: the folds are those of the seed, the first draw is the order of users
    random = np.random.default_rng(0)
    random.permutation(len(slow.users))
    fold = random.permutation(len(slow.users)) % FOLDS
    parts = [[u for u, at in zip(slow.users, fold, strict=True) if at == number] for number in range(FOLDS)]
    values = {}
    for start in (1, 2, 3):
        paths = [slow.path(start, 3, [u for u in slow.users if u not in part]) for part in parts]
        for step in range(4):
            judged = [
                slow.value(path[step], part) * len(part) for path, part in zip(paths, parts, strict=True)
            ]
            values[start, step] = sum(judged) / len(slow.users)
    assert found.value >= max(values.values()) - 1e-12
    if found.steps <= 3:
        assert found.value == pytest.approx(values[found.start, found.steps])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 4), st.integers(0, 999))
def test_the_pool_holds_whatever_gets_into_a_list(
    n_users: int, n_items: int, n_models: int, seed: int
) -> None:
    """Any mixture's lists of 20 judged from the pool are those over all items, equal scores included."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 6, (n_models, n_users, n_items)).astype(np.float32)
    given = random.random((n_users, n_items)) < 0.3
    truth = (random.random((n_users, n_items)) < 0.3) & ~given
    truth[~truth.any(axis=1), :] = ~given[~truth.any(axis=1), :]
    some = truth.any(axis=1)
    scores, given, truth = scores[:, some], given[some], truth[some]
    place = random.permutation(n_items)
    objective = Objective.parse("ndcg@20")
    whole = csr_matrix(truth, dtype=np.float32)
    pools = [
        Pool.of(
            scores[:, at].copy(),
            csr_matrix(given[at], dtype=np.float32),
            whole[at],
            UserGroups(("all",), np.zeros(1, int), "own"),
            place,
        )
        for at in ([u] for u in range(len(truth)))
    ]
    if not pools:
        return
    weights = random.integers(0, 3, n_models).astype(float)
    weights[0] += 1
    mixed = np.tensordot(weights, scores.astype(float), axes=1)
    mixed[given] = -np.inf
    expected = per_user(hits(top_n(mixed, 20, place), whole), truth.sum(1), 20, ["ndcg"])["ndcg@20"]
    pool = Pool.together(pools)
    np.testing.assert_allclose(pool.judged(pool.mixed(weights), objective), expected)
    half = np.arange(len(truth)) % 2 == 0
    part = pool.some(half)
    np.testing.assert_allclose(part.judged(part.mixed(weights), objective), expected[half])


def test_a_group_can_be_what_it_chooses_for(split: gs.Split) -> None:
    members = ("popular", "ease[regularization=10]", "itemknn")
    everybody, low = (
        gs.Ensemble(members=members, objective=f"ndcg@10{who}", progress=False).fit(split)
        for who in ("", ":low")
    )
    assert everybody.selection is not None and low.selection is not None
    truth = np.diff(split.rows("validation").indptr) > 0
    users = np.flatnonzero(truth & (split.mainstream.groups == 0))
    slow = Slow([parse(text).fit(split) for text in members], split)
    for m in range(3):
        total = np.where(slow.seen, -np.inf, slow.each[m])[users]
        lists = np.array([sorted(range(len(row)), key=lambda i, row=row: -row[i])[:10] for row in total])
        values = per_user(
            hits(lists, split.rows("validation")[users]), slow.truth[users].sum(1), 10, ["ndcg"]
        )
        assert low.selection.alone[m] == pytest.approx(values["ndcg@10"].mean())
    assert everybody.selection.alone != pytest.approx(low.selection.alone)


def test_few_rows_are_enough(split: gs.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ROWS", 40)
    sizes: list[int] = []
    path = selection.path

    def watched(pool: Pool, *arguments: Any) -> Any:
        sizes.append(int(pool.n_truth.sum()))
        return path(pool, *arguments)

    monkeypatch.setattr(selection, "path", watched)
    gs.Ensemble(members="popular+itemknn", progress=False).fit(split)
    assert 40 <= sizes[-1] < 60


# ---- members


def test_scores_are_the_weighted_sum_of_its_parts(split: gs.Split) -> None:
    """Parts with gates and without, known users and new ones: each as if it stood alone."""
    tall = {**QUICK, "n_experts": 3, "start_epoch": 1, "gate": "temperature", "temperature": 0.1}
    members = (text_of("multvae", QUICK), "ease", text_of("tall", tall))
    ensemble = gs.Ensemble(members=members, weights="1+2+1", progress=False).fit(split)
    alone = [gs.MultVAE(**QUICK), gs.EASE(), gs.TALL(**tall)]
    for model in alone:
        model.options = ensemble.options
        model.fit(split)
    np.testing.assert_allclose(ensemble.weights, [0.25, 0.5, 0.25])
    given = split.input_rows("test")
    seen = given.toarray() > 0
    expected = sum(
        weight * z_scores(model._scores(given, model.user_state), seen)
        for weight, model in zip(ensemble.weights, alone, strict=True)
    )
    np.testing.assert_allclose(
        ensemble._scores(given, ensemble.user_state)[~seen], expected[~seen], atol=1e-4
    )
    assert ensemble.user_state is not None and ensemble.user_state.shape[1] == 4
    assert ensemble.gate_entropy == alone[2].gate_entropy and np.ptp(alone[2].gates) > 0.05
    again, held_out = split.train_rows(gated=True), split.gate_rows()
    np.testing.assert_allclose(ensemble._user_state(again, held_out), ensemble.user_state, atol=1e-6)
    assert ensemble.uses_gate_rows and not gs.Ensemble(members="ease+multvae").uses_gate_rows
    assert (ensemble.trained_items == alone[1].trained_items).all()


def test_similar_items_are_the_weighted_sum_too(split: gs.Split) -> None:
    ensemble = gs.Ensemble(members="itemknn+ease", weights="1+3").fit(split)
    itself = np.eye(split.log.n_items) > 0
    every = np.arange(split.log.n_items)
    knn, ease = (z_scores(part._similarity(every), itself) for part in ensemble.parts)
    found = ensemble._similarity(np.array([4, 2]))
    expected = (0.25 * knn + 0.75 * ease)[[4, 2]]
    np.testing.assert_allclose(found[~itself[[4, 2]]], expected[~itself[[4, 2]]], atol=1e-5)


def test_under_all_no_part_has_seen_the_rows_that_choose(log: gs.Interactions) -> None:
    """Closed forms are fitted without validation rows to choose, and on every row to serve."""
    whole = gs.split(log, protocol="all", seed=0)
    members = ("popular", "itemknn")
    ensemble = gs.Ensemble(members=members, progress=False).fit(whole)
    held = replace(whole, protocol="strict")
    apart = gs.Ensemble(members=members).fit(held)
    assert ensemble.config == apart.config and ensemble.selection is not None
    slow = Slow([parse(text).fit(held) for text in members], held)
    np.testing.assert_allclose(ensemble.selection.alone, [slow.value(one, slow.users) for one in np.eye(2)])
    knn = ensemble.config.members.index("itemknn")
    assert not np.array_equal(apart.parts[knn].weights.toarray(), ensemble.parts[knn].weights.toarray())
    alone = gs.ItemKNN().fit(log)
    np.testing.assert_array_equal(ensemble.parts[knn].weights.toarray(), alone.weights.toarray())
    assert ensemble.trained_items.all()


def test_fitted_models_are_not_fitted_again(split: gs.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = [parse(text).fit(split) for text in MEMBERS]
    ensemble = gs.Ensemble.of(fitted, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(gs.EASE, "_fit", lambda *_: pytest.fail("fitted again"))
        ensemble.fit(split)
    assert ensemble.config == gs.Ensemble(members=MEMBERS, progress=False).fit(split).config
    assert all(part in fitted for part in ensemble.parts)
    assert ensemble.fit(split).parts[0] not in fitted  # a second fit is a fresh one


def test_refit_reaches_the_parts_that_need_it(log: gs.Interactions) -> None:
    tall = {**QUICK, "n_experts": 2, "start_epoch": 1, "gate": "temperature", "temperature": 0.1}
    keywords: dict[str, Any] = {
        "members": (text_of("tall", tall), "ease"),
        "weights": (1, 1),
        "progress": False,
    }
    ensemble = gs.Ensemble(**keywords).fit(log, refit=True)
    alone, before = (gs.TALL(**tall, progress=False).fit(log, refit=refit) for refit in (True, False))
    for key, value in alone._state().items():
        np.testing.assert_array_equal(ensemble.parts[0]._state()[key], value)
    np.testing.assert_array_equal(ensemble.user_state, alone.gates)
    assert not np.array_equal(alone.gates, before.gates)
    assert ensemble.config.weights == gs.Ensemble(**keywords).fit(log).config.weights


def test_without_validation_rows_parts_weigh_alike() -> None:
    log = gs.Interactions.read(pl.DataFrame({"user_id": ["a", "b", "b"], "item_id": [1, 1, 2]}))
    model = gs.Ensemble(members="popular+itemknn+ease")
    with pytest.warns(
        GreysheepWarning, match="no user has a validation row: the 3 members of ensemble weigh alike"
    ):
        model.fit(gs.Split(log, np.zeros(3, np.int8), "all", 0))
    assert model.config.weights == pytest.approx([1 / 3] * 3)
    assert model.recommend(["a"], k=1)["item_id"].to_list() == [2]


def test_weights_stay_with_the_model(split: gs.Split, tmp_path: Path) -> None:
    model = gs.Ensemble(members=MEMBERS).fit(split)
    chosen = model.config
    assert gs.evaluate(model, split).config["weights"] == list(chosen.weights)
    loaded = gs.load(model.save(tmp_path / "model"))
    assert loaded.config == chosen and loaded.fit(split).config == chosen
    given = gs.Ensemble(members="itemknn+popular", weights=(3, 1)).fit(split)
    np.testing.assert_allclose(given.weights, [0.75, 0.25])
    # a second fit chooses again, among all that were asked for
    other = gs.split(gs.simulate(n_users=60, n_items=60, seed=8).log, protocol="strict", seed=1)
    assert model.fit(other).config == gs.Ensemble(members=MEMBERS).fit(other).config


def test_binary_parts_get_ones(log: gs.Interactions) -> None:
    weighted = gs.Interactions.read(log.frame().with_columns(weight=pl.lit(3.0)))
    keywords: dict[str, Any] = {
        "members": (text_of("multvae", QUICK), "popular"),
        "weights": (1, 1),
        "progress": False,
    }
    with pytest.warns(GreysheepWarning, match="multvae is binary"):
        heavy = gs.Ensemble(**keywords).fit(weighted)
    shown = {}
    for part in heavy.parts:
        score = part._scores
        part._scores = lambda rows, gates, part=part, score=score: (
            shown.update({part.name: set(rows.data.tolist())}) or score(rows, gates)
        )
    assert heavy.recommend(k=5)["item_id"].equals(gs.Ensemble(**keywords).fit(log).recommend(k=5)["item_id"])
    assert shown == {"multvae": {1.0}, "popular": {3.0}}


def test_a_member_is_a_text_with_its_settings() -> None:
    text = "ensemble[members=itemknn+ease[regularization=7,form=items],weights=0.4+0.6]"
    model: Any = parse(text, seed=5)
    assert [part.name for part in model.parts] == ["itemknn", "ease"]
    assert (model.parts[1].config.regularization, model.parts[1].config.form) == (7, "items")
    assert model.config.weights == (0.4, 0.6) and model.parts[0].options.seed == 5
    assert gs.Ensemble(members=["itemknn", "ease[regularization=7,form=items]"]).config.members == (
        model.config.members
    )


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"members": ""}, "the name of a model is missing"),
        ({"members": "ease+"}, "the name of a model is missing: it is one of ease, "),
        ({"members": None}, r"members=None names no models: join their names by \+, as in ensemble\["),
        ({"members": ()}, "is not one or more models"),
        ({"members": "ease+ease"}, "each once"),
        ({"members": "ease+ensemble[members=ease]"}, "holds an ensemble: name its members"),
        ({"members": "ease+eaze"}, "no model 'eaze'; the nearest is 'ease'"),
        ({"members": "ials[alfa=1]"}, "ials has no setting 'alfa'; the nearest one is 'alpha'"),
        ({"members": "ials[alpha=-1]"}, "ials: alpha=-1 is not possible"),
        ({"members": "ials[alpha=1"}, "a variant is written"),
        ({"members": 3}, "members=3 names no models"),
        ({"weights": "1+2"}, "2 weights for 3 members"),
        ({"weights": "0+0+0"}, "one of them above 0"),
        ({"weights": "2+-1+1"}, "must be 0 or more"),
        ({"weights": "much+little"}, "weights='much.little' is not possible"),
        ({"objective": "mean"}, "write mean-ndcg"),
    ],
)
def test_what_cannot_be_is_said(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gs.Ensemble(**keywords)


def test_a_group_that_nobody_validates_is_refused(split: gs.Split) -> None:
    low = split.mainstream.groups[split.log.users] == 0
    part = np.where(low & (split.part == VALIDATION), TEST, split.part).astype(np.int8)
    with pytest.raises(ConfigError, match="no user of it has validation rows"):
        gs.Ensemble(members="ease+popular", objective="ndcg@10:low").fit(replace(split, part=part))
